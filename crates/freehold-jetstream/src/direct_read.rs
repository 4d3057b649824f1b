//! Reading a stream without a consumer: batched direct reads (NATS architecture decision record 31).
//!
//! Nothing is made where the stream is, and what is read comes to who asks and nowhere else. So a site can let others read its logs
//! this way without letting them choose where its server sends anything.

use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use bytes::Bytes;
use futures::StreamExt as _;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::timeout;

use freehold_core::subject::RecordsSubject;
use freehold_core::{LogMessage, LogTime, StreamSequence};

use crate::command_log::milliseconds;
use crate::connection::Connection;
use crate::error::ApiError;

/// Messages that are asked for at once.
const BATCH_MESSAGES: usize = 4_096;
/// Bytes that are asked for at once; one message more than that may come.
const BATCH_BYTES: usize = 8 << 20;
/// How long the next message of a batch may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// The pause before a stream that had no more is asked again.
const POLL_PAUSE: Duration = Duration::from_millis(50);

/// All subjects of a stream. With any narrower filter the server counts all of the stream's subjects, once for each batch: with a million
/// of them that takes longer than reading the batch.
pub(crate) const EVERYTHING: &str = ">";
const LAST_SEQUENCE: &str = "Nats-Last-Sequence";
const PENDING: &str = "Nats-Num-Pending";
/// The status at the end of a batch.
const END: u16 = 204;
/// The status where there is no message at all.
const NOTHING: u16 = 404;

/// A message of a stream, in whichever way it was read.
#[derive(Debug, Clone)]
pub(crate) struct StoredMessage {
    pub(crate) sequence: StreamSequence,
    pub(crate) time: LogTime,
    pub(crate) subject: String,
    pub(crate) payload: Bytes,
}

impl StoredMessage {
    /// As the copy applies it; nothing where it is none of a records log's.
    pub(crate) fn to_log_message(&self) -> Option<LogMessage> {
        let subject = RecordsSubject::parse(&self.subject)?;
        Some(LogMessage { sequence: self.sequence, time: self.time, subject, payload: self.payload.clone() })
    }
}

impl From<StreamMessage> for StoredMessage {
    fn from(message: StreamMessage) -> Self {
        Self {
            sequence: StreamSequence(message.sequence),
            time: LogTime(milliseconds(message.time)),
            subject: message.subject.to_string(),
            payload: message.payload,
        }
    }
}

#[derive(Debug, Serialize)]
struct DirectRequest<'a> {
    seq: u64,
    batch: usize,
    max_bytes: usize,
    next_by_subj: &'a str,
}

/// The messages of a stream on a subject, which may have wildcards, behind a place: the first of them, at most `limit`.
pub(crate) async fn read_range(
    connection: &Connection,
    stream: &str,
    subject: &str,
    behind: StreamSequence,
    limit: usize,
) -> Result<Vec<StoredMessage>, ApiError> {
    let mut read: Vec<StoredMessage> = Vec::new();
    while read.len() < limit {
        let from = read.last().map_or(behind, |last| last.sequence);
        let (batch, left) = read_batch(connection, stream, subject, from, limit - read.len()).await?;
        read.extend(batch);
        if left == 0 {
            break;
        }
    }
    Ok(read)
}

/// One batch, and how many messages there are behind it.
async fn read_batch(
    connection: &Connection,
    stream: &str,
    subject: &str,
    behind: StreamSequence,
    limit: usize,
) -> Result<(Vec<StoredMessage>, u64), ApiError> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| ApiError::new(format!("reading {stream}"), error);
    let broken = |text: String| failed(std::io::Error::new(std::io::ErrorKind::InvalidData, text).into());
    let request = DirectRequest {
        seq: behind.0 + 1,
        batch: limit.min(BATCH_MESSAGES),
        max_bytes: BATCH_BYTES,
        next_by_subj: subject,
    };
    let request = serde_json::to_vec(&request).map_err(|error| failed(error.into()))?;
    let client = &connection.client;
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| failed(error.into()))?;
    let ask = format!("{}.DIRECT.GET.{stream}", connection.api_prefix);
    client.publish_with_reply(ask, inbox, request.into()).await.map_err(|error| failed(error.into()))?;
    let mut read: Vec<StoredMessage> = Vec::new();
    loop {
        let answer = timeout(ANSWER_PATIENCE, answers.next()).await.map_err(|error| failed(error.into()))?;
        let answer = answer.ok_or_else(|| broken("the connection is closed".to_owned()))?;
        let number = |name: &str| {
            let value = answer.headers.as_ref().and_then(|headers| headers.get_last(name));
            value.and_then(|value| value.as_str().parse::<u64>().ok())
        };
        // Each message, and the end, names the one before it: an answer that was dropped on its way is missed.
        let before = read.last().map_or(0, |last| last.sequence.0);
        let follows = number(LAST_SEQUENCE).is_none_or(|last| last == before);
        match answer.status.map(|status| status.as_u16()) {
            Some(NOTHING) => return Ok((read, 0)),
            Some(END) if follows => return Ok((read, number(PENDING).unwrap_or_default())),
            None if follows => {
                let message = StreamMessage::try_from(answer).map_err(|error| failed(error.into()))?;
                read.push(message.into());
            }
            None | Some(END) => return Err(broken(format!("an answer behind message {before} is missing"))),
            Some(status) => {
                let description = answer.description.as_deref().unwrap_or("no description");
                return Err(broken(format!("the server answers {status}: {description}")));
            }
        }
    }
}

/// Reads a stream from a place on, and what comes to it, until it is dropped.
#[derive(Debug)]
pub(crate) struct DirectReader(mpsc::Receiver<Result<Vec<StoredMessage>, ApiError>>);

impl DirectReader {
    pub(crate) fn open(connection: Connection, stream: String, behind: StreamSequence) -> Self {
        // While one batch is worked on, the next one is fetched.
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let gone = sender.clone();
            tokio::select! {
                () = fetch(&connection, &stream, behind, sender) => {}
                () = gone.closed() => {}
            }
        });
        Self(receiver)
    }

    /// The next messages, at least one; nothing where an error was told before. May be dropped at any time.
    pub(crate) async fn next(&mut self) -> Option<Result<Vec<StoredMessage>, ApiError>> {
        self.0.recv().await
    }
}

async fn fetch(
    connection: &Connection,
    stream: &str,
    mut behind: StreamSequence,
    sender: mpsc::Sender<Result<Vec<StoredMessage>, ApiError>>,
) {
    loop {
        let read = read_batch(connection, stream, EVERYTHING, behind, BATCH_MESSAGES).await.map(|(read, _)| read);
        match &read {
            Ok(read) => match read.last() {
                Some(last) => behind = last.sequence,
                None => {
                    tokio::time::sleep(POLL_PAUSE).await;
                    continue;
                }
            },
            Err(_) => {
                // Whoever reads hears of it, or is gone.
                let _ = sender.send(read).await;
                return;
            }
        }
        if sender.send(read).await.is_err() {
            return;
        }
    }
}
