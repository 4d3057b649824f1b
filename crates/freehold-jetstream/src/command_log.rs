//! The command log of a site: taking commands in, and the one consumer that each claim has.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, push};
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::RawMessageErrorKind;
use futures::StreamExt;

use freehold_core::subject;
use freehold_core::{
    CommandLogCheck, CommandLogIncarnation, CommandMessage, DeadLetter, DecidedCommand, GroupNumber, Incarnation,
    KindName, LogTime, LoggedCommand, SiteName, StreamSequence,
};

use crate::command_consumer::CommandConsumer;
use crate::command_feed::{CommandFeed, CommandGroup};
use crate::connection::Connection;
use crate::deliveries::Deliveries;
use crate::error::ApiError;
use crate::publisher::{Outbound, Publisher, Stored};
use crate::records_log::{log_state, open_consumer};

/// A consumer without its holder is gone after this long.
const CONSUMER_INACTIVE_THRESHOLD: Duration = Duration::from_secs(30);
/// The server says that it is there at least this often.
const CONSUMER_HEARTBEAT: Duration = Duration::from_secs(2);
/// How long a consumer may deliver nothing before it is asked whether something waits. There is one for each group: at rest each asks
/// so often.
const CONSUMER_PATIENCE: Duration = Duration::from_secs(5);

/// The command log of one site.
#[derive(Debug, Clone)]
pub struct CommandLog {
    connection: Connection,
    site: SiteName,
    stream: String,
    /// Which life of the site's records log this is for.
    life: u64,
    publisher: Publisher,
    feed: CommandFeed,
}

/// The first life of a site's records log.
const FIRST_LIFE: u64 = 1;

/// A command that the log has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its place.
    pub sequence: StreamSequence,
    /// The log had it already.
    pub duplicate: bool,
}

/// How full the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandLogRoom {
    /// Bytes that it holds, as the server counts them.
    pub used: i64,
    /// The most bytes that it may hold; nothing where it has no limit.
    pub limit: Option<i64>,
}

/// Why the log did not certainly take a command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The log is full: the command was not taken.
    #[error("the command log is full")]
    Full,
    /// The command exceeds what the server takes as one message: it was not taken.
    #[error("the command exceeds what one message can hold")]
    TooLarge,
    /// No stream takes the command: it was not taken.
    #[error("no command log takes the command")]
    NoLog,
    /// No answer: the log may have the command.
    #[error("the command log did not answer")]
    Unknown(#[source] ApiError),
}

impl CommandLog {
    /// The log of a site.
    pub fn new(connection: Connection, site: SiteName) -> Self {
        let stream = subject::commands_stream(&site);
        let publisher = Publisher::new(connection.client.clone(), connection.jetstream.clone());
        let feed = CommandFeed::new(connection.clone(), site.clone());
        Self { connection, site, stream, life: FIRST_LIFE, publisher, feed }
    }

    /// The log in a life of the site's records log. What was set aside when the last one ended may be sent again under the same id:
    /// the server must not take it for a repeat.
    #[must_use]
    pub fn in_life(self, life: &Incarnation) -> Self {
        Self { life: life.counter(), ..self }
    }

    /// Appends a command; the same command within the server's duplicate window counts as taken. `trace_parent` is
    /// carried through unchanged.
    pub async fn append(
        &self,
        group: GroupNumber,
        command: &CommandMessage,
        trace_parent: Option<&str>,
    ) -> Result<Appended, AppendError> {
        let payload = serde_json::to_vec(command).map_err(|error| unknown("printing the command", error))?;
        let mut message_id = command.message_id().to_string();
        if self.life > FIRST_LIFE {
            message_id = format!("{message_id}-{}", self.life);
        }
        let bytes = payload.len();
        let mut publish = PublishMessage::build().payload(payload.into()).message_id(message_id);
        if let Some(trace_parent) = trace_parent {
            publish = publish.header("traceparent", trace_parent);
        }
        let subject = subject::command(&self.site, &command.kind, group);
        let answers = self.publisher.publish(vec![Outbound { subject, message: publish, bytes }]).await;
        let answer = answers.into_iter().next().unwrap_or_else(|| Err(PublishErrorKind::Other.into()));
        match answer {
            Ok(Stored { sequence, duplicate }) => Ok(Appended { sequence, duplicate }),
            Err(error) => Err(match error.kind() {
                PublishErrorKind::MaxPayloadExceeded => AppendError::TooLarge,
                PublishErrorKind::StreamNotFound => AppendError::NoLog,
                _ if is_full(&error) => AppendError::Full,
                _ => unknown("publishing the command", error),
            }),
        }
    }

    /// Appends a dead letter; the same one within the server's duplicate window counts as taken.
    pub async fn append_dead_letter(&self, group: GroupNumber, letter: &DeadLetter) -> Result<(), ApiError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| ApiError::new("publishing a dead letter", error);
        let payload = serde_json::to_vec(letter).map_err(|error| failed(error.into()))?;
        let subject = subject::dead_letter(&self.site, &letter.kind, group);
        let change = &letter.change;
        let taker = change.forwarded.as_ref().map(|place| format!("-{}", place.from)).unwrap_or_default();
        let message_id = format!("{}-{group}-{}-{}{taker}", letter.kind, change.log, change.sequence);
        let publish = PublishMessage::build().payload(payload.into()).message_id(message_id);
        let sent =
            self.connection.jetstream.send_publish(subject, publish).await.map_err(|error| failed(error.into()))?;
        sent.await.map(|_| ()).map_err(|error| failed(error.into()))
    }

    /// How full the log is.
    pub async fn room(&self) -> Result<CommandLogRoom, ApiError> {
        let stream = self.connection.jetstream.get_stream(&self.stream).await;
        let stream = stream.map_err(|error| ApiError::new("asking how full the command log is", error))?;
        let info = stream.cached_info();
        let limit = Some(info.config.max_bytes).filter(|limit| *limit > 0);
        Ok(CommandLogRoom { used: i64::try_from(info.state.bytes).unwrap_or(i64::MAX), limit })
    }

    /// Compares the log with a command that is decided. Read by sequence at the stream's leader.
    pub async fn check(&self, decided: &DecidedCommand, log: CommandLogIncarnation) -> CommandLogCheck {
        let jetstream = &self.connection.jetstream;
        let Ok(stream) = jetstream.get_stream_no_info(&self.stream).await else {
            return CommandLogCheck::Unknown;
        };
        let message = match stream.get_raw_message(decided.sequence.0).await {
            Ok(message) => message,
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => return CommandLogCheck::Rewound,
            Err(error) => {
                tracing::warn!(%error, stream = self.stream, "the rewind check got no answer");
                return CommandLogCheck::Unknown;
            }
        };
        let time = LogTime(milliseconds(message.time));
        let command = LoggedCommand::read(decided.sequence, time, &message.payload);
        if command.is(decided, log) { CommandLogCheck::Matches } else { CommandLogCheck::Rewound }
    }

    /// Purges a group's commands below a sequence; the command there stays.
    pub async fn purge(&self, kind: &KindName, group: GroupNumber, below: StreamSequence) -> Result<u64, ApiError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| ApiError::new("purging the command log", error);
        let stream = self.connection.jetstream.get_stream_no_info(&self.stream).await.map_err(|e| failed(e.into()))?;
        let filter = subject::command(&self.site, kind, group);
        let purged = stream.purge().filter(filter).sequence(below.0).await.map_err(|e| failed(e.into()))?;
        Ok(purged.purged)
    }

    /// The last message that the log has taken.
    pub async fn last(&self) -> Result<StreamSequence, ApiError> {
        Ok(log_state(&self.connection, &self.stream).await?.last)
    }

    /// Opens a reader of all commands that the log has.
    pub async fn read_all(&self) -> Result<CommandReader, ApiError> {
        let filter = vec![format!("fh.{}.cmd.>", self.site)];
        let consumer = open_consumer(&self.connection, &self.stream, filter, StreamSequence(0)).await?;
        let left = consumer.cached_info().num_pending;
        let messages = consumer.messages().await.map_err(|error| ApiError::new(READING, error))?;
        Ok(CommandReader { messages: Box::pin(messages), left })
    }

    /// Purges everything up to a sequence.
    pub async fn purge_all(&self, last: StreamSequence) -> Result<(), ApiError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| ApiError::new("purging the command log", error);
        let stream = self.connection.jetstream.get_stream_no_info(&self.stream).await.map_err(|e| failed(e.into()))?;
        stream.purge().sequence(last.0 + 1).await.map(|_| ()).map_err(|e| failed(e.into()))
    }

    /// Opens the consumer of a claim. Its name carries the claim, and creating it twice fails: it has one member in its
    /// whole life.
    pub async fn consume(
        &self,
        group: CommandGroup,
        claim: StreamSequence,
        after: StreamSequence,
    ) -> Result<CommandConsumer, ApiError> {
        let name = format!("{}-{}-{claim}-{}", group.kind, group.group, ulid::Ulid::generate());
        let config = push::Config {
            durable_name: Some(name),
            deliver_subject: self.connection.client.new_inbox(),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: after.0 + 1 },
            ack_policy: AckPolicy::None,
            filter_subject: group.subject(&self.site),
            flow_control: true,
            idle_heartbeat: CONSUMER_HEARTBEAT,
            inactive_threshold: CONSUMER_INACTIVE_THRESHOLD,
            num_replicas: 1,
            memory_storage: true,
            ..push::Config::default()
        };
        let jetstream = &self.connection.jetstream;
        let consumer = jetstream.create_consumer_strict_on_stream(config, &self.stream).await;
        let consumer = consumer.map_err(|error| ApiError::new("opening a command consumer", error))?;
        let deliveries = Deliveries::of(consumer, CONSUMER_PATIENCE).await?;
        Ok(CommandConsumer::new(group, after, self.feed.clone(), deliveries))
    }
}

/// Reads the command log from its beginning to where it ended when the reader was opened.
pub struct CommandReader {
    messages: std::pin::Pin<Box<push::Messages>>,
    left: u64,
}

const READING: &str = "reading the command log";

impl CommandReader {
    /// The next command and its kind; nothing at the end.
    pub async fn next(&mut self) -> Result<Option<(KindName, LoggedCommand)>, ApiError> {
        while self.left > 0 {
            let Some(message) = self.messages.next().await else { break };
            let message = message.map_err(|error| ApiError::new(READING, error))?;
            let info = message.info().map_err(|error| ApiError::new(READING, error))?;
            self.left = info.pending;
            let (sequence, time) = (StreamSequence(info.stream_sequence), LogTime(milliseconds(info.published)));
            if let Some(kind) = message.subject.split('.').nth(3).and_then(|kind| kind.parse().ok()) {
                return Ok(Some((kind, LoggedCommand::read(sequence, time, &message.payload))));
            }
        }
        Ok(None)
    }
}

fn unknown(what: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> AppendError {
    AppendError::Unknown(ApiError::new(what, error))
}

/// Whether the server refused because a limit of the stream is reached: it stores nothing then.
pub(crate) fn is_full(error: &async_nats::jetstream::context::PublishError) -> bool {
    let text = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    ["maximum bytes exceeded", "maximum messages exceeded", "insufficient storage resources"]
        .iter()
        .any(|refusal| text.contains(refusal))
}

/// A stream's timestamp in milliseconds since 1970; 0 for times before.
pub(crate) fn milliseconds(time: async_nats::datetime::DateTime) -> u64 {
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
}
