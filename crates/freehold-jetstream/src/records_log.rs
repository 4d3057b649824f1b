//! The records log of a site, and its mirrors: publishing under a claim, and looking at it.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, push};
use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::stream::LastRawMessageErrorKind;

use freehold_core::subject::{self, RecordsSubject, RecordsTopic};
use freehold_core::{Claim, FlushMessage, GroupNumber, KindName, LogMessage, PublishFailure, SiteName, StreamSequence};

use crate::connection::{Connection, FencedConnection};
use crate::direct_read::{StoredMessage, read_range};
use crate::error::ApiError;
use crate::publisher::{Outbound, acknowledged};

/// A reader's consumer is gone this long after its reader.
const READER_INACTIVE_THRESHOLD: Duration = Duration::from_secs(30);
/// The server says that it is there at least this often.
const READER_HEARTBEAT: Duration = Duration::from_secs(1);

pub(crate) const EXPECTED_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";
pub(crate) const EXPECTED_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
const TIME_TO_LIVE: &str = "Nats-TTL";

/// The records log of one site, for its holders.
#[derive(Debug, Clone)]
pub struct RecordsLog {
    connection: Connection,
    site: SiteName,
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
        Self { connection, site }
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
        stored_at(sent).await
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
        let count = messages.len();
        let messages = messages.into_iter().map(|message| fenced_message(claim, &fence, message)).collect();
        let answers = if whole && count > 1 {
            let stored = fenced.publisher.publish_whole(messages).await;
            stored.map(|stored| stored.into_iter().map(Ok).collect()).unwrap_or_else(|error| vec![Err(error)])
        } else {
            fenced.publisher.publish(messages).await
        };
        let mut sequences = Vec::with_capacity(count);
        let mut failure = None;
        for answer in answers {
            match answer.map_err(|error| publish_failure(&error)) {
                Ok(stored) => sequences.push(stored.sequence),
                Err(PublishFailure::Refused) => failure = Some(PublishFailure::Refused),
                Err(other) => failure = failure.or(Some(other)),
            }
        }
        failure.map_or(Ok(sequences), Err)
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
        let read = read_range(&self.connection, &stream, &subject.to_string(), StreamSequence(0), limit).await?;
        Ok(read.iter().filter_map(StoredMessage::to_log_message).collect())
    }
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

fn fenced_message(claim: StreamSequence, fence: &str, message: FlushMessage) -> Outbound {
    let FlushMessage { subject, payload, ttl_ms } = message;
    let bytes = payload.len();
    let mut publish = PublishMessage::build()
        .payload(payload.into())
        .header(EXPECTED_SEQUENCE, claim.to_string())
        .header(EXPECTED_SUBJECT, fence);
    if let Some(ttl_ms) = ttl_ms {
        publish = publish.header(TIME_TO_LIVE, format!("{}s", ttl_ms.div_ceil(1000).max(1)));
    }
    Outbound { subject: subject.to_string(), message: publish, bytes }
}

/// What the log answered to a publish that expected something to be the newest.
pub(crate) async fn stored_at(sent: Result<PublishAckFuture, PublishError>) -> Result<StreamSequence, PublishFailure> {
    acknowledged(sent).await.map(|stored| stored.sequence).map_err(|error| publish_failure(&error))
}

fn publish_failure(error: &PublishError) -> PublishFailure {
    match error.kind() {
        PublishErrorKind::WrongLastSequence => PublishFailure::Refused,
        _ => {
            let cause = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
            PublishFailure::Unknown(format!("{error}{cause}"))
        }
    }
}
