//! Publishing to one stream over one connection: each message by itself, or what many tasks have at the same time in atomic batches.
//!
//! By itself is better where the server acknowledges before it fsyncs: messages are pipelined, and a batch costs it some milliseconds,
//! however many messages it has. Where it fsyncs each message first (`sync_interval: always`), a batch costs one fsync for all. Which is so
//! cannot be asked, so both are tried while there is a backlog, and the faster one is kept (docs/adr/0015-publishing-in-batches.md).

mod choice;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, ErrorCode};
use futures::future::join_all;
use futures::{StreamExt as _, stream};
use tokio::sync::{mpsc, oneshot};

use freehold_core::StreamSequence;

use self::choice::{Choice, Way};
use crate::command_log::is_full;

/// Parts of a refused batch that are sent at the same time: each may be a batch, and the server has 50 open at a time in a stream.
const MAX_SENT_APART: usize = 10;
/// Messages in a batch. The server takes 1,000.
const MAX_BATCH_MESSAGES: usize = 500;
/// Bytes of payload in a batch.
const MAX_BATCH_BYTES: usize = 4 << 20;
/// Fewer are not worth a batch.
const MIN_BATCH_MESSAGES: usize = 4;
/// What has more bytes goes by itself: it gains nothing, and must be refused alone where it is too large.
const MAX_GATHERED_BYTES: usize = 64 << 10;
/// Publishes that may wait for a batch; whoever has more waits.
const MAX_GATHERED: usize = 4_096;

const BATCH_ID: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT: &str = "Nats-Batch-Commit";

/// A message and where it goes.
#[derive(Debug, Clone)]
pub(crate) struct Outbound {
    pub(crate) subject: String,
    pub(crate) message: PublishMessage,
    /// Bytes of its payload.
    pub(crate) bytes: usize,
}

/// Where the log has stored a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) sequence: StreamSequence,
    /// It was there already.
    pub(crate) duplicate: bool,
}

/// Publishes to one stream. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Publisher {
    shared: Arc<Shared>,
}

struct Shared {
    client: async_nats::Client,
    jetstream: jetstream::Context,
    /// Publishes that are not acknowledged.
    under_way: AtomicUsize,
    choice: Mutex<Choice>,
    gathered: OnceLock<mpsc::Sender<Job>>,
}

/// Messages that are under way until this is dropped: their publisher may stop waiting for them.
struct UnderWay<'a> {
    all: &'a AtomicUsize,
    count: usize,
    /// How many were, with these.
    backlog: usize,
}

impl<'a> UnderWay<'a> {
    fn begin(all: &'a AtomicUsize, count: usize) -> Self {
        Self { all, count, backlog: all.fetch_add(count, Ordering::Relaxed) + count }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.count, Ordering::Relaxed);
    }
}

struct Job {
    messages: Vec<Outbound>,
    /// All of it must be stored or nothing.
    whole: bool,
    answer: oneshot::Sender<Vec<Result<Stored, PublishError>>>,
}

impl Job {
    /// Its messages, and their bytes.
    fn size(&self) -> (usize, usize) {
        (self.messages.len(), self.messages.iter().map(|message| message.bytes).sum())
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Publisher").finish_non_exhaustive()
    }
}

impl Publisher {
    pub(crate) fn new(client: async_nats::Client, jetstream: jetstream::Context) -> Self {
        let (under_way, choice) = (AtomicUsize::new(0), Mutex::new(Choice::new()));
        Self { shared: Arc::new(Shared { client, jetstream, under_way, choice, gathered: OnceLock::new() }) }
    }

    /// Publishes messages that have nothing to do with each other; each has its own answer, in their order.
    pub(crate) async fn publish(&self, messages: Vec<Outbound>) -> Vec<Result<Stored, PublishError>> {
        let count = messages.len();
        let under_way = UnderWay::begin(&self.shared.under_way, count);
        let backlog = under_way.backlog;
        let bytes: usize = messages.iter().map(|message| message.bytes).sum();
        let way = if bytes > MAX_GATHERED_BYTES { Way::Alone } else { lock(&self.shared.choice).way() };
        let answers = match way {
            Way::Gathered => self.gather(messages, false).await,
            Way::Alone => self.shared.publish_each(messages).await,
        };
        drop(under_way);
        lock(&self.shared.choice).acknowledged(way, count, backlog, Instant::now());
        answers
    }

    async fn gather(&self, messages: Vec<Outbound>, whole: bool) -> Vec<Result<Stored, PublishError>> {
        let count = messages.len();
        let gathered = self.shared.gathered.get_or_init(|| {
            let (sender, receiver) = mpsc::channel(MAX_GATHERED);
            tokio::spawn(send_gathered(Arc::downgrade(&self.shared), receiver));
            sender
        });
        let (answer, answered) = oneshot::channel();
        if gathered.send(Job { messages, whole, answer }).await.is_ok()
            && let Ok(answers) = answered.await
        {
            return answers;
        }
        // The task ends only with the publisher, or with the runtime.
        (0..count).map(|_| Err(PublishError::new(PublishErrorKind::BrokenPipe))).collect()
    }

    /// Publishes messages of which all must be stored or none. A batch costs the server the same whatever its size, so that this is always
    /// done together with what others have to publish.
    pub(crate) async fn publish_whole(&self, messages: Vec<Outbound>) -> Result<Vec<Stored>, PublishError> {
        self.gather(messages, true).await.into_iter().collect()
    }
}

/// Sends what was gathered, as much as there is at a time.
async fn send_gathered(shared: std::sync::Weak<Shared>, mut jobs: mpsc::Receiver<Job>) {
    let mut next = jobs.recv().await;
    while let Some(first) = next.take() {
        let Some(shared) = shared.upgrade() else { return };
        let mut batch = Vec::new();
        let (mut messages, mut bytes) = first.size();
        batch.push(first);
        while let Ok(job) = jobs.try_recv() {
            let (more_messages, more_bytes) = job.size();
            if messages + more_messages > MAX_BATCH_MESSAGES || bytes + more_bytes > MAX_BATCH_BYTES {
                next = Some(job);
                break;
            }
            messages += more_messages;
            bytes += more_bytes;
            batch.push(job);
        }
        shared.send(batch).await;
        drop(shared);
        if next.is_none() {
            next = jobs.recv().await;
        }
    }
}

/// Why a batch was not stored, or may not have been.
struct BatchFailure {
    error: PublishError,
    /// Nothing of it was stored.
    is_certain: bool,
}

impl Shared {
    /// Sends jobs as one batch, and each by itself where that is refused: then the batch has stored nothing, and one of them may be to
    /// blame.
    async fn send(&self, jobs: Vec<Job>) {
        let messages: Vec<&Outbound> = jobs.iter().flat_map(|job| &job.messages).collect();
        let count = messages.len();
        if jobs.len() > 1 && (count >= MIN_BATCH_MESSAGES || jobs.iter().any(|job| job.whole)) {
            match self.publish_batch(&messages).await {
                Err(BatchFailure { is_certain: true, error }) => {
                    tracing::debug!(%error, count, "a batch was refused: each part of it is sent by itself");
                }
                stored => {
                    let mut answers = answers_of(count, stored).into_iter();
                    for Job { messages, answer, .. } in jobs {
                        // Who has stopped waiting does not want to know.
                        let _ = answer.send(answers.by_ref().take(messages.len()).collect());
                    }
                    return;
                }
            }
        }
        let sent = jobs.into_iter().map(|Job { messages, whole, answer }| async move {
            let answers = if whole {
                answers_of(messages.len(), self.publish_batch(&messages.iter().collect::<Vec<_>>()).await)
            } else {
                self.publish_each(messages).await
            };
            let _ = answer.send(answers);
        });
        stream::iter(sent).buffer_unordered(MAX_SENT_APART).collect::<()>().await;
    }

    async fn publish_each(&self, messages: Vec<Outbound>) -> Vec<Result<Stored, PublishError>> {
        let mut sent = Vec::with_capacity(messages.len());
        for Outbound { subject, message, .. } in messages {
            sent.push(acknowledged(self.jetstream.send_publish(subject, message).await));
        }
        // All answers are waited for: a refusal among them says more than the silence behind it.
        join_all(sent).await
    }

    async fn publish_batch(&self, messages: &[&Outbound]) -> Result<Vec<Stored>, BatchFailure> {
        let batch_id = ulid::Ulid::generate().to_string();
        let count = messages.len();
        for (index, Outbound { subject, message, .. }) in (1..).zip(messages) {
            let publish = message.clone().header(BATCH_ID, batch_id.as_str()).header(BATCH_SEQUENCE, index.to_string());
            if index == count {
                let sent = self.jetstream.send_publish(subject.clone(), publish.header(BATCH_COMMIT, "1")).await;
                let last = acknowledged(sent).await.map_err(|error| {
                    let is_certain = is_refusal(&error);
                    BatchFailure { error, is_certain }
                })?;
                let first = last.sequence.0 + 1 - u64::try_from(count).unwrap_or(u64::MAX);
                let stored = |sequence| Stored { sequence: StreamSequence(sequence), duplicate: false };
                return Ok((first..=last.sequence.0).map(stored).collect());
            }
            let message = publish.outbound_message(subject.clone());
            let headers = message.headers.unwrap_or_default();
            let sent = self.client.publish_with_headers(message.subject, headers, message.payload).await;
            // A batch that was not sent to its end stores nothing.
            sent.map_err(|error| BatchFailure {
                error: PublishError::with_source(PublishErrorKind::Other, error),
                is_certain: true,
            })?;
        }
        Ok(Vec::new())
    }
}

/// What became of a batch, for each of its messages.
fn answers_of(count: usize, stored: Result<Vec<Stored>, BatchFailure>) -> Vec<Result<Stored, PublishError>> {
    match stored {
        Ok(stored) => stored.into_iter().map(Ok).collect(),
        Err(BatchFailure { error, .. }) => {
            let kind = error.kind();
            let others = (1..count).map(|_| Err(PublishError::new(kind)));
            std::iter::once(Err(error)).chain(others).collect()
        }
    }
}

/// What a server answers to the last message of a batch of which it stores nothing. Another answer may come behind the storing.
const REFUSALS: [ErrorCode; 8] = [
    ErrorCode::STREAM_WRONG_LAST_SEQUENCE,
    ErrorCode::ATOMIC_PUBLISH_DISABLED,
    ErrorCode::ATOMIC_PUBLISH_INCOMPLETE_BATCH,
    ErrorCode::ATOMIC_PUBLISH_UNSUPPORTED_HEADER,
    ErrorCode::ATOMIC_PUBLISH_TOO_LARGE_BATCH,
    ErrorCode::ATOMIC_PUBLISH_CONTAINS_DUPLICATE_MESSAGE,
    ErrorCode::ATOMIC_PUBLISH_TOO_MANY_INFLIGHT,
    ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT,
];

/// Whether a batch certainly was not stored.
fn is_refusal(error: &PublishError) -> bool {
    let by_server = std::error::Error::source(error).and_then(|source| source.downcast_ref::<jetstream::Error>());
    by_server.is_some_and(|error| REFUSALS.contains(&error.error_code())) || is_full(error)
}

/// Waits for what the log says of a message.
pub(crate) async fn acknowledged(sent: Result<PublishAckFuture, PublishError>) -> Result<Stored, PublishError> {
    let ack = sent?.await?;
    Ok(Stored { sequence: StreamSequence(ack.sequence), duplicate: ack.duplicate })
}

/// Each change is whole, so that a panic elsewhere leaves nothing half-done.
fn lock(choice: &Mutex<Choice>) -> std::sync::MutexGuard<'_, Choice> {
    choice.lock().unwrap_or_else(PoisonError::into_inner)
}
