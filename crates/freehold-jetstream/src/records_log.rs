//! The records log of a site, and its mirrors: publishing under a claim, and reading in order.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, push};
use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::stream::{LastRawMessageErrorKind, RawMessageErrorKind};
use futures::StreamExt;
use futures::future::{join_all, try_join_all};
use tokio::sync::Semaphore;

use freehold_core::subject::{self, ConfirmationSubject, RecordsSubject, RecordsTopic, SiteControl};
use freehold_core::{
    Claim, Confirmation, FlushMessage, GroupNumber, KindName, LogMessage, LogTime, PublishFailure, SiteName,
    StreamSequence, TakeoverMessage,
};

use crate::command_log::milliseconds;
use crate::connection::{Connection, FencedConnection};
use crate::error::ApiError;
use crate::sites_log::read_takeover;
use crate::stall::StallWatch;

/// Atomic batches that one instance has open at a time. The server takes 50 a stream and refuses more.
const MAX_OPEN_BATCHES: usize = 10;
/// Messages that a reader hands over at once.
const MAX_READ_AT_ONCE: usize = 2048;
/// A reader's consumer is gone this long after its reader.
const READER_INACTIVE_THRESHOLD: Duration = Duration::from_secs(30);
/// How long a reader may deliver nothing before it is asked whether something waits.
const READER_PATIENCE: Duration = Duration::from_secs(2);
/// The server says that it is there at least this often.
const READER_HEARTBEAT: Duration = Duration::from_secs(1);

pub(crate) const EXPECTED_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";
pub(crate) const EXPECTED_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
const BATCH_ID: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT: &str = "Nats-Batch-Commit";
const TIME_TO_LIVE: &str = "Nats-TTL";

/// The records log of one site, for its holders.
#[derive(Debug, Clone)]
pub struct RecordsLog {
    connection: Connection,
    site: SiteName,
    batches: Arc<Semaphore>,
}

/// How far a stream reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordsLogState {
    /// The oldest message that is kept.
    pub first: StreamSequence,
    /// The newest message ever.
    pub last: StreamSequence,
}

impl RecordsLog {
    /// The log of a site.
    pub fn new(connection: Connection, site: SiteName) -> Self {
        Self { connection, site, batches: Arc::new(Semaphore::new(MAX_OPEN_BATCHES)) }
    }

    /// Publishes a claim that expects another to be the newest.
    pub async fn claim(
        &self,
        fenced: &FencedConnection,
        kind: &KindName,
        group: GroupNumber,
        expected: StreamSequence,
        claim: &Claim,
    ) -> Result<StreamSequence, PublishFailure> {
        let payload = serde_json::to_vec(claim).map_err(|error| PublishFailure::Unknown(error.to_string()))?;
        let subject = self.claim_subject(kind, group);
        let publish = PublishMessage::build().payload(payload.into()).expected_last_subject_sequence(expected.0);
        let sent = fenced.jetstream.send_publish(subject, publish).await;
        Ok(StreamSequence(acknowledged(sent).await?.sequence))
    }

    /// Publishes messages under a claim and waits until the log has stored them all. As a whole, which is an atomic batch, it
    /// stores all or none.
    pub async fn publish(
        &self,
        fenced: &FencedConnection,
        claim: StreamSequence,
        messages: Vec<FlushMessage>,
        whole: bool,
    ) -> Result<Vec<StreamSequence>, PublishFailure> {
        let Some(first) = messages.first() else {
            return Ok(Vec::new());
        };
        let fence = self.claim_subject(&first.subject.kind, first.subject.group);
        if whole && messages.len() > 1 {
            self.publish_batch(fenced, claim, &fence, messages).await
        } else {
            publish_each(fenced, claim, &fence, messages).await
        }
    }

    async fn publish_batch(
        &self,
        fenced: &FencedConnection,
        claim: StreamSequence,
        fence: &str,
        messages: Vec<FlushMessage>,
    ) -> Result<Vec<StreamSequence>, PublishFailure> {
        // The semaphore is never closed; were it, the batch would only be one more than planned.
        let _permit = self.batches.acquire().await;
        let batch_id = ulid::Ulid::generate().to_string();
        let count = messages.len();
        for (index, message) in (1..).zip(messages) {
            let subject = message.subject.to_string();
            let publish = fenced_publish(claim, fence, message)
                .header(BATCH_ID, batch_id.as_str())
                .header(BATCH_SEQUENCE, index.to_string());
            if index == count {
                let sent = fenced.jetstream.send_publish(subject, publish.header(BATCH_COMMIT, "1")).await;
                let last = acknowledged(sent).await?.sequence;
                let first = last + 1 - u64::try_from(count).unwrap_or(u64::MAX);
                return Ok((first..=last).map(StreamSequence).collect());
            }
            let message = publish.outbound_message(subject);
            let headers = message.headers.unwrap_or_default();
            let sent = fenced.client.publish_with_headers(message.subject, headers, message.payload).await;
            sent.map_err(|error| PublishFailure::Unknown(error.to_string()))?;
        }
        Ok(Vec::new())
    }

    fn claim_subject(&self, kind: &KindName, group: GroupNumber) -> String {
        RecordsSubject { site: self.site.clone(), kind: kind.clone(), group, topic: RecordsTopic::Claim }.to_string()
    }

    /// How far a site's log, or this site's mirror of it, reaches.
    pub async fn state(&self, origin: &SiteName) -> Result<RecordsLogState, ApiError> {
        log_state(&self.connection, &subject::records_stream(origin)).await
    }

    /// The messages of one record's subject that the log keeps, oldest first, at most `limit`.
    pub async fn history(&self, subject: &RecordsSubject, limit: usize) -> Result<Vec<LogMessage>, ApiError> {
        let stream = subject::records_stream(&subject.site);
        let filters = vec![subject.to_string()];
        let consumer = open_consumer(&self.connection, &stream, filters, StreamSequence(0)).await?;
        let pending = usize::try_from(consumer.cached_info().num_pending).unwrap_or(usize::MAX).min(limit);
        let messages = consumer.messages().await.map_err(|error| ApiError::new("reading a record's history", error))?;
        let read: Vec<_> = messages.take(pending).collect().await;
        let message = |message: Result<async_nats::jetstream::Message, _>| {
            message.ok().and_then(|message| read_message(&message).ok()).and_then(|(_, message)| message)
        };
        Ok(read.into_iter().filter_map(message).collect())
    }
}

/// Reads a records log, or a mirror of it, in order.
pub struct RecordsReader {
    connection: Connection,
    stream: String,
    filters: Vec<String>,
    consumer: Consumer<push::Config>,
    messages: futures::stream::ReadyChunks<push::Messages>,
    last_delivery: u64,
    /// The last message that was delivered, or where reading began.
    delivered: StreamSequence,
    stall: StallWatch,
    /// The last message of the log when the reader was opened.
    last: StreamSequence,
    /// The last of its messages then, or since, that concerns the kinds.
    last_wanted: StreamSequence,
    passed: StreamSequence,
}

/// What a reader hands over at once.
#[derive(Debug, Default)]
pub struct ReadMessages {
    /// What the copy applies, in the order of the log.
    pub messages: Vec<LogMessage>,
    /// What the origin says of the logs of others, in the order of the log.
    pub confirmations: Vec<(ConfirmationSubject, Confirmation)>,
    /// Takeovers that the origin has logged, in the order of the log.
    pub takeovers: Vec<TakeoverMessage>,
    /// Sites whose logs the origin has sealed.
    pub seals: Vec<SiteName>,
    /// The last place before the last of these messages that the log has nothing at: it has dropped what was there, or it does not
    /// concern the kinds. 0 where there is none behind what was read before.
    pub dropped_until: StreamSequence,
}

/// Why a reader is of no use any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordsReaderError {
    /// The log ends before what was applied of it.
    #[error("the log ends at {last}, but {applied} was applied: it has lost its tail")]
    LostTail {
        /// The log's last message.
        last: StreamSequence,
        /// The last message that was applied.
        applied: StreamSequence,
    },
    /// The log has another message where the last applied one was.
    #[error("message {applied} of the log is not the one that was applied: the log was rewound or made anew")]
    Rewound {
        /// The last message that was applied.
        applied: StreamSequence,
    },
    /// A delivery is missing or came twice.
    #[error("delivery {got} came behind {last}")]
    Gap {
        /// The last delivery.
        last: u64,
        /// The one that came next.
        got: u64,
    },
    /// The consumer or its connection is gone.
    #[error("the reader is gone")]
    Gone(#[source] Option<ApiError>),
    /// JetStream did not open it.
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl RecordsReader {
    /// Opens a reader of an origin's log at this site, behind what was applied: `behind`. The log must still have the last
    /// applied message, whose sequence and time are `applied`, or have
    /// dropped it by its limits.
    pub async fn open(
        connection: &Connection,
        origin: &SiteName,
        kinds: &[KindName],
        behind: StreamSequence,
        applied: Option<(StreamSequence, LogTime)>,
    ) -> Result<Self, RecordsReaderError> {
        let stream = subject::records_stream(origin);
        let state = log_state(connection, &stream).await?;
        if state.last < behind {
            return Err(RecordsReaderError::LostTail { last: state.last, applied: behind });
        }
        if let Some((sequence, time)) = applied
            && time_of(connection, &stream, sequence).await?.is_some_and(|found| found != time)
        {
            return Err(RecordsReaderError::Rewound { applied: sequence });
        }
        let of_kinds = kinds.iter().flat_map(|kind| subject::records_filters(origin, kind));
        let filters: Vec<_> =
            of_kinds.chain([subject::takeovers_filter(origin), subject::seals_filter(origin)]).collect();
        let last_wanted = last_of(connection, &stream, &filters).await?;
        let consumer = open_consumer(connection, &stream, filters.clone(), behind).await?;
        let messages = consumer.clone().messages().await.map_err(|error| gone(error.into()))?;
        let passed = if last_wanted <= behind { state.last } else { behind };
        Ok(Self {
            connection: connection.clone(),
            stream,
            filters,
            consumer,
            messages: messages.ready_chunks(MAX_READ_AT_ONCE),
            last_delivery: 0,
            delivered: behind,
            stall: StallWatch::new(READER_PATIENCE),
            last: state.last,
            last_wanted,
            passed,
        })
    }

    /// The log's last message when the reader was opened.
    pub fn last_at_open(&self) -> StreamSequence {
        self.last
    }

    /// Everything up to here was delivered, or does not concern the kinds.
    pub fn passed(&self) -> StreamSequence {
        self.passed
    }

    /// Passes what the log holds up to a sequence that it is known to have, if none of that concerns the kinds: looks whether the last
    /// message that does was delivered. What the server says to be pending is no proof: it counts what limits drop meanwhile. Tells
    /// whether it moved.
    pub async fn pass(&mut self, known: StreamSequence) -> Result<bool, RecordsReaderError> {
        if known <= self.passed {
            return Ok(false);
        }
        self.last_wanted = last_of(&self.connection, &self.stream, &self.filters).await?;
        let all_read = self.last_wanted <= self.delivered;
        if all_read {
            self.passed = known;
        }
        Ok(all_read)
    }

    /// Waits for messages; returns all that are there, a bounded number, or none where it has only passed something. Messages with a
    /// subject that is none of a records log are left out.
    pub async fn next(&mut self) -> Result<ReadMessages, RecordsReaderError> {
        let chunk = tokio::select! {
            chunk = self.messages.next() => chunk.ok_or(RecordsReaderError::Gone(None))?,
            error = self.stall.stalled(&self.consumer, self.last_delivery) => {
                return Err(RecordsReaderError::Gone(Some(error)));
            }
            // The last that was to come may have expired meanwhile.
            () = tokio::time::sleep(READER_PATIENCE), if self.passed < self.last => {
                self.pass(self.last).await?;
                return Ok(ReadMessages::default());
            }
        };
        self.stall.delivered();
        let mut read = ReadMessages { messages: Vec::with_capacity(chunk.len()), ..ReadMessages::default() };
        for message in chunk {
            let message = message.map_err(|error| gone(error.into()))?;
            let (delivery, log_message) = read_message(&message).map_err(gone)?;
            if delivery.consumer != self.last_delivery + 1 {
                return Err(RecordsReaderError::Gap { last: self.last_delivery, got: delivery.consumer });
            }
            self.last_delivery = delivery.consumer;
            if delivery.stream.0 > self.delivered.0 + 1 {
                read.dropped_until = StreamSequence(delivery.stream.0 - 1);
            }
            self.delivered = delivery.stream;
            self.passed = delivery.stream;
            if delivery.stream >= self.last_wanted {
                self.passed = self.passed.max(self.last);
            }
            match log_message {
                Some(log_message) => read.messages.push(log_message),
                None => match subject::site_control(&message.subject) {
                    Some((SiteControl::Takeover, _)) => read.takeovers.extend(read_takeover(&message)),
                    Some((SiteControl::Seal, lost)) => read.seals.push(lost),
                    None => read.confirmations.extend(read_confirmation(&message)),
                },
            }
        }
        Ok(read)
    }
}

pub(crate) struct Delivery {
    consumer: u64,
    stream: StreamSequence,
}

pub(crate) fn read_message(
    message: &async_nats::jetstream::Message,
) -> Result<(Delivery, Option<LogMessage>), Box<dyn std::error::Error + Send + Sync>> {
    let info = message.info()?;
    let sequence = StreamSequence(info.stream_sequence);
    let delivery = Delivery { consumer: info.consumer_sequence, stream: sequence };
    let read = RecordsSubject::parse(&message.subject).map(|subject| LogMessage {
        sequence,
        time: LogTime(milliseconds(info.published)),
        subject,
        payload: message.payload.clone(),
    });
    Ok((delivery, read))
}

fn read_confirmation(message: &async_nats::jetstream::Message) -> Option<(ConfirmationSubject, Confirmation)> {
    Some((ConfirmationSubject::parse(&message.subject)?, serde_json::from_slice(&message.payload).ok()?))
}

pub(crate) async fn open_consumer(
    connection: &Connection,
    stream: &str,
    filter_subjects: Vec<String>,
    after: StreamSequence,
) -> Result<Consumer<push::Config>, ApiError> {
    let config = push::Config {
        name: Some(ulid::Ulid::generate().to_string()),
        deliver_subject: connection.client.new_inbox(),
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: after.0 + 1 },
        ack_policy: AckPolicy::None,
        filter_subjects,
        flow_control: true,
        idle_heartbeat: READER_HEARTBEAT,
        inactive_threshold: READER_INACTIVE_THRESHOLD,
        num_replicas: 1,
        memory_storage: true,
        ..push::Config::default()
    };
    let created = connection.jetstream.create_consumer_strict_on_stream(config, stream).await;
    created.map_err(|error| ApiError::new(format!("opening a reader of {stream}"), error))
}

pub(crate) async fn log_state(connection: &Connection, stream: &str) -> Result<RecordsLogState, ApiError> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| ApiError::new(format!("asking for {stream}"), error);
    let mut stream = connection.jetstream.get_stream(stream).await.map_err(|error| failed(error.into()))?;
    let state = stream.info().await.map_err(|error| failed(error.into()))?.state.clone();
    Ok(RecordsLogState { first: StreamSequence(state.first_sequence), last: StreamSequence(state.last_sequence) })
}

/// The place of the last message of a stream on any of some subjects; 0 where there is none.
async fn last_of(connection: &Connection, stream: &str, subjects: &[String]) -> Result<StreamSequence, ApiError> {
    let asked = subjects.iter().map(|subject| newest_message(connection, stream, subject));
    let newest = try_join_all(asked).await?.into_iter().flatten().map(|message| StreamSequence(message.sequence));
    Ok(newest.max().unwrap_or_default())
}

/// The newest message of a stream on a subject, which may have wildcards.
pub(crate) async fn newest_message(
    connection: &Connection,
    stream: &str,
    subject: &str,
) -> Result<Option<StreamMessage>, ApiError> {
    let what = || format!("reading the newest message on {subject}");
    let stream = connection.jetstream.get_stream_no_info(stream).await.map_err(|error| ApiError::new(what(), error))?;
    match stream.get_last_raw_message_by_subject(subject).await {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(ApiError::new(what(), error)),
    }
}

/// When the log took a message; nothing where it has dropped it.
async fn time_of(connection: &Connection, stream: &str, sequence: StreamSequence) -> Result<Option<LogTime>, ApiError> {
    let what = || format!("reading message {sequence} of {stream}");
    let stream = connection.jetstream.get_stream_no_info(stream).await.map_err(|error| ApiError::new(what(), error))?;
    match stream.get_raw_message(sequence.0).await {
        Ok(message) => Ok(Some(LogTime(milliseconds(message.time)))),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(ApiError::new(what(), error)),
    }
}

async fn publish_each(
    fenced: &FencedConnection,
    claim: StreamSequence,
    fence: &str,
    messages: Vec<FlushMessage>,
) -> Result<Vec<StreamSequence>, PublishFailure> {
    let mut acks = Vec::with_capacity(messages.len());
    for message in messages {
        let subject = message.subject.to_string();
        let sent = fenced.jetstream.send_publish(subject, fenced_publish(claim, fence, message)).await;
        acks.push(acknowledged(sent));
    }
    // All answers are waited for: a refusal among them says more than the silence behind it.
    let mut stored = Vec::with_capacity(acks.len());
    let mut failure = None;
    for answer in join_all(acks).await {
        match answer {
            Ok(ack) => stored.push(StreamSequence(ack.sequence)),
            Err(PublishFailure::Refused) => failure = Some(PublishFailure::Refused),
            Err(other) => failure = failure.or(Some(other)),
        }
    }
    failure.map_or(Ok(stored), Err)
}

fn fenced_publish(claim: StreamSequence, fence: &str, message: FlushMessage) -> PublishMessage {
    let publish = PublishMessage::build()
        .payload(message.payload.into())
        .header(EXPECTED_SEQUENCE, claim.to_string())
        .header(EXPECTED_SUBJECT, fence);
    match message.ttl_ms {
        Some(ttl_ms) => publish.header(TIME_TO_LIVE, format!("{}s", ttl_ms.div_ceil(1000).max(1))),
        None => publish,
    }
}

/// What the log answered to a publish that expected something to be the newest.
pub(crate) async fn acknowledged(
    sent: Result<PublishAckFuture, PublishError>,
) -> Result<async_nats::jetstream::publish::PublishAck, PublishFailure> {
    let answer = match sent {
        Ok(ack) => ack.await,
        Err(error) => Err(error),
    };
    answer.map_err(|error| match error.kind() {
        PublishErrorKind::WrongLastSequence => PublishFailure::Refused,
        _ => {
            let cause = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            PublishFailure::Unknown(format!("{error}{cause}"))
        }
    })
}

fn gone(error: Box<dyn std::error::Error + Send + Sync>) -> RecordsReaderError {
    RecordsReaderError::Gone(Some(ApiError::new("reading a records log", error)))
}
