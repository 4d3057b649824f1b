//! The records log of a site, and its mirrors: publishing under a claim, and looking at it.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, push};
use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use futures::future::join_all;
use tokio::sync::Semaphore;

use freehold_core::subject::{self, RecordsSubject, RecordsTopic};
use freehold_core::{Claim, FlushMessage, GroupNumber, KindName, LogMessage, PublishFailure, SiteName, StreamSequence};

use crate::connection::{Connection, FencedConnection};
use crate::direct_read::{StoredMessage, read_range};
use crate::error::ApiError;

/// Atomic batches that one instance has open at a time. The server takes 50 a stream and refuses more.
const MAX_OPEN_BATCHES: usize = 10;
/// A reader's consumer is gone this long after its reader.
const READER_INACTIVE_THRESHOLD: Duration = Duration::from_secs(30);
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
