//! Reading a records log, or a mirror of it, in order.

use std::time::Duration;

use async_nats::jetstream::stream::RawMessageErrorKind;
use futures::future::try_join_all;

use freehold_core::subject::{self, ConfirmationSubject, SiteControl};
use freehold_core::{Confirmation, KindName, LogMessage, LogTime, SiteName, StreamSequence, TakeoverMessage};

use crate::command_log::milliseconds;
use crate::connection::Connection;
use crate::deliveries::{Deliveries, DeliveryError};
use crate::direct_read::{CHUNK_MESSAGES, DirectReader, StoredMessage};
use crate::error::ApiError;
use crate::records_log::{log_state, newest_message, open_consumer};
use crate::sites_log::read_takeover;

/// How long a reader may deliver nothing before it is asked whether something waits.
const READER_PATIENCE: Duration = Duration::from_secs(2);

/// Where the log is that a reader reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// At this site.
    Here,
    /// At another site, where nothing may be made.
    Elsewhere,
}

/// Reads a records log, or a mirror of it, in order.
pub struct RecordsReader {
    connection: Connection,
    stream: String,
    kinds: Vec<KindName>,
    filters: Vec<String>,
    feed: Feed,
    /// The last message that was delivered, or where reading began.
    delivered: StreamSequence,
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

impl From<DeliveryError> for RecordsReaderError {
    fn from(error: DeliveryError) -> Self {
        match error {
            DeliveryError::Gap { last, got } => Self::Gap { last, got },
            DeliveryError::Gone(cause) => Self::Gone(cause),
        }
    }
}

impl RecordsReader {
    /// Opens a reader of an origin's log at this site, behind what was applied: `behind`. The log must still have the last
    /// applied message, whose sequence and time are `applied`, or have
    /// dropped it by its limits.
    pub async fn open(
        connection: &Connection,
        from: ReadFrom,
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
        let feed = match from {
            ReadFrom::Here => {
                let consumer = open_consumer(connection, &stream, filters.clone(), behind).await?;
                Feed::Consumer(Box::new(Deliveries::of(consumer, READER_PATIENCE).await?))
            }
            ReadFrom::Elsewhere => Feed::Direct(DirectReader::open(connection.clone(), stream.clone(), behind)),
        };
        let passed = if last_wanted <= behind { state.last } else { behind };
        Ok(Self {
            connection: connection.clone(),
            stream,
            kinds: kinds.to_vec(),
            filters,
            feed,
            delivered: behind,
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
        let messages = tokio::select! {
            messages = self.feed.next() => messages?,
            // The last that was to come may have expired meanwhile.
            () = tokio::time::sleep(READER_PATIENCE), if self.passed < self.last => {
                self.pass(self.last).await?;
                return Ok(ReadMessages::default());
            }
        };
        let mut read = ReadMessages { messages: Vec::with_capacity(messages.len()), ..ReadMessages::default() };
        for message in messages {
            if message.sequence.0 > self.delivered.0 + 1 {
                read.dropped_until = StreamSequence(message.sequence.0 - 1);
            }
            self.delivered = message.sequence;
            self.passed = message.sequence;
            if message.sequence >= self.last_wanted {
                self.passed = self.passed.max(self.last);
            }
            if let Some(log_message) = message.to_log_message() {
                if self.kinds.contains(&log_message.subject.kind) {
                    read.messages.push(log_message);
                }
                continue;
            }
            match subject::site_control(&message.subject) {
                Some((SiteControl::Takeover, _)) => read.takeovers.extend(read_takeover(&message)),
                Some((SiteControl::Seal, lost)) => read.seals.push(lost),
                None => {
                    let confirmation = read_confirmation(&message);
                    read.confirmations.extend(confirmation.filter(|(subject, _)| self.kinds.contains(&subject.kind)));
                }
            }
        }
        Ok(read)
    }
}

/// How messages come to a reader.
enum Feed {
    /// What comes to the log is delivered at once.
    Consumer(Box<Deliveries>),
    /// The log is asked again and again.
    Direct(DirectReader),
}

impl Feed {
    /// The next messages. May be dropped at any time.
    async fn next(&mut self) -> Result<Vec<StoredMessage>, RecordsReaderError> {
        match self {
            Self::Consumer(deliveries) => Ok(deliveries.next(CHUNK_MESSAGES).await?),
            Self::Direct(reader) => {
                let read = reader.next().await.ok_or(RecordsReaderError::Gone(None))?;
                read.map_err(|error| RecordsReaderError::Gone(Some(error)))
            }
        }
    }
}

fn read_confirmation(message: &StoredMessage) -> Option<(ConfirmationSubject, Confirmation)> {
    Some((ConfirmationSubject::parse(&message.subject)?, serde_json::from_slice(&message.payload).ok()?))
}

/// The place of the last message of a stream on any of some subjects; 0 where there is none.
async fn last_of(connection: &Connection, stream: &str, subjects: &[String]) -> Result<StreamSequence, ApiError> {
    let asked = subjects.iter().map(|subject| newest_message(connection, stream, subject));
    let newest = try_join_all(asked).await?.into_iter().flatten().map(|message| StreamSequence(message.sequence));
    Ok(newest.max().unwrap_or_default())
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
