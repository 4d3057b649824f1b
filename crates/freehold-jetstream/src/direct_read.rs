//! Reading a stream without a consumer: batched direct reads (NATS architecture decision record 31).
//!
//! Nothing is made where the stream is, and what is read comes to who asks and nowhere else. So a site can let others read its logs
//! this way without letting them choose where its server sends anything.

use std::time::Duration;

use async_nats::Subscriber;
use async_nats::jetstream::message::StreamMessage;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::timeout;

use freehold_core::subject::RecordsSubject;
use freehold_core::{LogMessage, LogTime, StreamSequence};

use crate::arrivals::arrived;
use crate::command_log::milliseconds;
use crate::connection::Connection;
use crate::error::ApiError;

/// Messages that are asked for at once. The server counts what is left of the stream once for each batch, which takes it a second or more
/// where there are a million subjects: so many; and no more than a subscription holds while they wait to be taken.
const BATCH_MESSAGES: usize = 32_768;
/// Bytes that are asked for at once; one message more than that may come.
const BATCH_BYTES: usize = 16 << 20;
/// Messages that are handed over at once, in whichever way they are read.
pub(crate) const CHUNK_MESSAGES: usize = 2_048;
/// How long the next message of a batch may take: the first comes when the server has counted.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);
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
        let mut batch = Batch::ask(connection, stream, subject, from, limit - read.len()).await?;
        let left = loop {
            let (messages, left) = batch.next().await?;
            read.extend(messages);
            if let Some(left) = left {
                break left;
            }
        };
        if left == 0 {
            break;
        }
    }
    Ok(read)
}

/// The answers to one request.
struct Batch {
    stream: String,
    answers: Subscriber,
    /// The last message that came.
    last: u64,
}

impl Batch {
    async fn ask(
        connection: &Connection,
        stream: &str,
        subject: &str,
        behind: StreamSequence,
        limit: usize,
    ) -> Result<Self, ApiError> {
        let request = DirectRequest {
            seq: behind.0 + 1,
            batch: limit.min(BATCH_MESSAGES),
            max_bytes: BATCH_BYTES,
            next_by_subj: subject,
        };
        let request = serde_json::to_vec(&request).map_err(|error| failed(stream, error.into()))?;
        let client = &connection.client;
        let inbox = client.new_inbox();
        let answers = client.subscribe(inbox.clone()).await.map_err(|error| failed(stream, error.into()))?;
        let ask = format!("{}.DIRECT.GET.{stream}", connection.api_prefix);
        let asked = client.publish_with_reply(ask, inbox, request.into()).await;
        asked.map_err(|error| failed(stream, error.into()))?;
        Ok(Self { stream: stream.to_owned(), answers, last: 0 })
    }

    /// The messages that are there next; at the end of the batch also how many there are behind it.
    async fn next(&mut self) -> Result<(Vec<StoredMessage>, Option<u64>), ApiError> {
        let Self { stream, answers, last } = self;
        let broken = |text: String| failed(stream, std::io::Error::new(std::io::ErrorKind::InvalidData, text).into());
        let chunk = timeout(ANSWER_PATIENCE, arrived(answers, CHUNK_MESSAGES))
            .await
            .map_err(|error| failed(stream, error.into()))?;
        let chunk = chunk.ok_or_else(|| broken("the connection is closed".to_owned()))?;
        let mut read: Vec<StoredMessage> = Vec::with_capacity(chunk.len());
        for answer in chunk {
            let number = |name: &str| {
                let value = answer.headers.as_ref().and_then(|headers| headers.get_last(name));
                value.and_then(|value| value.as_str().parse::<u64>().ok())
            };
            // Each message, and the end, names the one before it: an answer that was dropped on its way is missed.
            let follows = number(LAST_SEQUENCE).is_none_or(|named| named == *last);
            match answer.status.map(|status| status.as_u16()) {
                Some(NOTHING) => return Ok((read, Some(0))),
                Some(END) if follows => return Ok((read, Some(number(PENDING).unwrap_or_default()))),
                None if follows => {
                    let message = StreamMessage::try_from(answer).map_err(|error| failed(stream, error.into()))?;
                    *last = message.sequence;
                    read.push(message.into());
                }
                None | Some(END) => return Err(broken(format!("an answer behind message {last} is missing"))),
                Some(status) => {
                    let description = answer.description.as_deref().unwrap_or("no description");
                    return Err(broken(format!("the server answers {status}: {description}")));
                }
            }
        }
        Ok((read, None))
    }
}

fn failed(stream: &str, error: Box<dyn std::error::Error + Send + Sync>) -> ApiError {
    ApiError::new(format!("reading {stream}"), error)
}

/// Reads a stream from a place on, and what comes to it, until it is dropped.
#[derive(Debug)]
pub(crate) struct DirectReader(mpsc::Receiver<Result<Vec<StoredMessage>, ApiError>>);

impl DirectReader {
    pub(crate) fn open(connection: Connection, stream: String, behind: StreamSequence) -> Self {
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

/// Hands over what it reads, and at last the error that ends it; whoever reads hears of that, or is gone.
async fn fetch(
    connection: &Connection,
    stream: &str,
    behind: StreamSequence,
    sender: mpsc::Sender<Result<Vec<StoredMessage>, ApiError>>,
) {
    if let Err(error) = fetch_all(connection, stream, behind, &sender).await {
        let _ = sender.send(Err(error)).await;
    }
}

async fn fetch_all(
    connection: &Connection,
    stream: &str,
    mut behind: StreamSequence,
    sender: &mpsc::Sender<Result<Vec<StoredMessage>, ApiError>>,
) -> Result<(), ApiError> {
    loop {
        let from = behind;
        let mut batch = Batch::ask(connection, stream, EVERYTHING, behind, BATCH_MESSAGES).await?;
        loop {
            let (messages, left) = batch.next().await?;
            behind = messages.last().map_or(behind, |last| last.sequence);
            if !messages.is_empty() && sender.send(Ok(messages)).await.is_err() {
                return Ok(());
            }
            if left.is_some() {
                break;
            }
        }
        if behind == from {
            tokio::time::sleep(POLL_PAUSE).await;
        }
    }
}
