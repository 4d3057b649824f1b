//! What sites say of each other's loss in their records logs: seals, takeovers, new lives. And the mirrors that a seal freezes.

use std::time::Duration;

use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, External, Source, StreamConsumerSource};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use freehold_core::subject;
use freehold_core::{
    Incarnation, Life, LogMessage, PublishFailure, Seal, SiteName, StreamSequence, Takeover, TakeoverMessage,
};

use crate::connection::{Connection, api_prefix};
use crate::direct_read::{EVERYTHING, StoredMessage, read_range};
use crate::error::ApiError;
use crate::provision::INCARNATION_KEY;
use crate::records_log::{EXPECTED_SEQUENCE, EXPECTED_SUBJECT, newest_message, stored_at};

/// Where a sealed mirror keeps what it was a mirror of: a [`Source`].
pub(crate) const SEALED_KEY: &str = "freehold-sealed";
/// Where a mirror that was made anew says which life of the origin's log it is of.
const LIFE_KEY: &str = "freehold-life";
/// Where a log that is being made anew keeps what it is to be: a [`Restoring`].
pub(crate) const RESTORING_KEY: &str = "freehold-restoring";
/// How often a log that is being made anew is looked at.
const RESTORE_PAUSE: Duration = Duration::from_millis(100);
/// Messages at the end of a log that are looked at.
const TAIL_MESSAGES: usize = 100;

/// The records logs that a site has: its own, and the mirrors of others. Whose site that is, the connection says.
#[derive(Debug, Clone)]
pub struct SitesLog {
    connection: Connection,
    site: SiteName,
}

/// The settings that a log gets back when it is made anew; meanwhile it is a mirror, which cannot have them.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Restoring {
    /// The site whose mirror it is made of.
    from: SiteName,
    subjects: Vec<String>,
    allow_atomic_publish: bool,
}

/// How this site has another one's log, or its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorState {
    /// It was frozen by a seal.
    pub is_sealed: bool,
    /// It is the site's own log, and a restore of it was begun and not ended.
    pub is_restoring: bool,
    /// How many lives the log has had, as far as was known when the mirror was made.
    pub lives: u64,
    /// The last message that it has.
    pub last: StreamSequence,
}

impl SitesLog {
    /// The logs at a site, which the connection leads to.
    pub fn new(connection: Connection, site: SiteName) -> Self {
        Self { connection, site }
    }

    /// For whom this site has sealed a log, and where it says so.
    pub async fn newest_seal(&self, lost: &SiteName) -> Result<Option<(StreamSequence, Seal)>, ApiError> {
        self.newest(&self.site, &subject::seal(&self.site, lost)).await
    }

    /// Seals a log, unless somebody has done so since that was looked at.
    pub async fn seal(
        &self,
        lost: &SiteName,
        expected: StreamSequence,
        seal: &Seal,
    ) -> Result<StreamSequence, PublishFailure> {
        let subject = subject::seal(&self.site, lost);
        self.publish(subject.clone(), &subject, expected, seal).await
    }

    /// Logs a takeover by this site, unless it has sealed the log for somebody else since.
    pub async fn take_over(&self, sealed_at: StreamSequence, takeover: &Takeover) -> Result<(), PublishFailure> {
        let fence = subject::seal(&self.site, &takeover.lost);
        self.publish(subject::takeover(&self.site, &takeover.lost), &fence, sealed_at, takeover).await.map(|_| ())
    }

    /// All takeovers that a site has logged, as far as the log of it that is here has them.
    pub async fn takeovers(&self, taker: &SiteName) -> Result<Vec<TakeoverMessage>, ApiError> {
        let stream = subject::records_stream(taker);
        let filter = subject::takeovers_filter(taker);
        let read = read_range(&self.connection, &stream, &filter, StreamSequence(0), usize::MAX).await?;
        Ok(read.iter().filter_map(read_takeover).collect())
    }

    /// The takeovers by which a site has begun new lives of its log, as far as the log of it that is here tells of them.
    pub async fn accepted(&self, site: &SiteName) -> Result<Vec<TakeoverMessage>, ApiError> {
        let stream = subject::records_stream(site);
        let read = read_range(&self.connection, &stream, &subject::life(site), StreamSequence(0), usize::MAX).await?;
        let accepted = |message: &StoredMessage| {
            let life: Life = serde_json::from_slice(&message.payload).ok()?;
            Some(TakeoverMessage { sequence: life.logged_at, time: message.time, takeover: life.accepted() })
        };
        Ok(read.iter().filter_map(accepted).collect())
    }

    /// The newest life of a site's log that its stream here tells of; nothing where it is the first.
    pub async fn life(&self, site: &SiteName) -> Result<Option<(StreamSequence, Life)>, ApiError> {
        self.newest(site, &subject::life(site)).await
    }

    /// Begins a new life of this site's log, unless somebody has done so since that was looked at.
    pub async fn begin_life(&self, expected: StreamSequence, life: &Life) -> Result<StreamSequence, PublishFailure> {
        let subject = subject::life(&self.site);
        self.publish(subject.clone(), &subject, expected, life).await
    }

    /// How this site has another one's log.
    pub async fn mirror(&self, origin: &SiteName) -> Result<MirrorState, ApiError> {
        let (config, last) = self.stream(origin).await?;
        let life = config.metadata.get(LIFE_KEY).and_then(|text| Incarnation::parse(text));
        let is_sealed = config.metadata.contains_key(SEALED_KEY);
        let is_restoring = config.metadata.contains_key(RESTORING_KEY);
        Ok(MirrorState { is_sealed, is_restoring, lives: life.map_or(1, |life| life.counter()), last })
    }

    /// Freezes this site's mirror of a log: it takes no more. Doing it twice is doing it once.
    pub async fn freeze(&self, origin: &SiteName) -> Result<StreamSequence, ApiError> {
        let (mut config, _) = self.stream(origin).await?;
        if let Some(mirrored) = config.mirror.take() {
            let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
                ApiError::new(format!("sealing the mirror of {origin}"), error)
            };
            let mirrored = serde_json::to_string(&mirrored).map_err(|error| failed(error.into()))?;
            config.subjects = vec![subject::sealed_mirror(&self.site, origin)];
            config.metadata.insert(SEALED_KEY.to_owned(), mirrored);
            self.connection.jetstream.update_stream(config).await.map_err(|error| failed(error.into()))?;
        }
        Ok(self.stream(origin).await?.1)
    }

    /// Mirrors an origin again, in the life that its log is in now.
    pub async fn mirror_again(&self, origin: &SiteName, life: &Incarnation) -> Result<(), ApiError> {
        let (mut config, _) = self.stream(origin).await?;
        let Some(mirrored) = config.metadata.remove(SEALED_KEY) else { return Ok(()) };
        let failed =
            |error: Box<dyn std::error::Error + Send + Sync>| ApiError::new(format!("mirroring {origin} again"), error);
        let mirrored: Source = serde_json::from_str(&mirrored).map_err(|error| failed(error.into()))?;
        config.subjects = Vec::new();
        config.metadata.insert(LIFE_KEY.to_owned(), life.to_string());
        if let Some(consumer) = &mirrored.consumer {
            reset(&self.connection.in_domain(origin), &mirrored.name, &consumer.name).await?;
        }
        config.mirror = Some(mirrored);
        let name = config.name.clone();
        let jetstream = &self.connection.jetstream;
        jetstream.delete_stream(&name).await.map_err(|error| failed(error.into()))?;
        jetstream.create_stream(config).await.map_err(|error| failed(error.into()))?;
        Ok(())
    }

    /// Makes this site's own log anew from another site's mirror of it: the same messages at the same places, with their times. The
    /// settings are those that the log has now, or had before a restore that was interrupted and that this one goes on with. Nobody may
    /// be working on the log. `progress` is told how far it is.
    pub async fn restore(
        &self,
        from: &SiteName,
        last: StreamSequence,
        life: &Incarnation,
        mut progress: impl FnMut(StreamSequence),
    ) -> Result<(), ApiError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| ApiError::new("restoring the log", error);
        let (mut own, _) = self.stream(&self.site).await?;
        let jetstream = &self.connection.jetstream;
        let begun = own.metadata.get(RESTORING_KEY).map(|text| serde_json::from_str::<Restoring>(text)).transpose();
        let begun = begun.map_err(|error| failed(error.into()))?;
        let goes_on = begun.as_ref().is_some_and(|begun| begun.from == *from);
        let settings = begun.unwrap_or_else(|| Restoring {
            from: from.clone(),
            subjects: std::mem::take(&mut own.subjects),
            allow_atomic_publish: own.allow_atomic_publish,
        });
        if !goes_on {
            let settings = Restoring { from: from.clone(), ..settings.clone() };
            let text = serde_json::to_string(&settings).map_err(|error| failed(error.into()))?;
            own.subjects = Vec::new();
            own.allow_atomic_publish = false;
            own.metadata.insert(RESTORING_KEY.to_owned(), text);
            own.mirror = Some(log_at(from, &self.site));
            jetstream.delete_stream(&own.name).await.map_err(|error| failed(error.into()))?;
            jetstream.create_stream(own.clone()).await.map_err(|error| failed(error.into()))?;
        }
        loop {
            let have = self.stream(&self.site).await?.1;
            progress(have);
            if have >= last {
                break;
            }
            tokio::time::sleep(RESTORE_PAUSE).await;
        }
        // A mirror becomes a log of its own where its `mirror` is taken away.
        own.mirror = None;
        own.subjects = settings.subjects;
        own.allow_atomic_publish = settings.allow_atomic_publish;
        own.metadata.remove(RESTORING_KEY);
        own.metadata.insert(INCARNATION_KEY.to_owned(), life.to_string());
        jetstream.update_stream(own).await.map(|_| ()).map_err(|error| failed(error.into()))
    }

    /// Which life of a lost site's log this site has heard of last.
    pub async fn newest_life_of(&self, lost: &SiteName) -> Result<Incarnation, ApiError> {
        let (config, last) = self.stream(lost).await?;
        let mirrored = config.metadata.get(LIFE_KEY).and_then(|text| Incarnation::parse(text));
        let logged = self.life(lost).await?.map(|(_, life)| life.log);
        if let Some(newest) = mirrored.into_iter().chain(logged).max_by_key(Incarnation::counter) {
            return Ok(newest);
        }
        #[derive(serde::Deserialize)]
        struct Head {
            log: Incarnation,
        }
        let tail = self.tail(lost, last).await?;
        let heads = tail.iter().rev().filter_map(|message| serde_json::from_slice::<Head>(&message.payload).ok());
        Ok(heads.map(|head| head.log).next().unwrap_or_else(|| Incarnation::new(1, "unknown")))
    }

    /// The last messages of an origin's log here up to a sequence, a few of them.
    pub async fn tail(&self, origin: &SiteName, last: StreamSequence) -> Result<Vec<LogMessage>, ApiError> {
        let stream = subject::records_stream(origin);
        let behind = StreamSequence(last.0.saturating_sub(TAIL_MESSAGES as u64));
        let read = read_range(&self.connection, &stream, EVERYTHING, behind, TAIL_MESSAGES).await?;
        let messages = read.iter().filter_map(StoredMessage::to_log_message);
        Ok(messages.filter(|message| message.sequence <= last).collect())
    }

    async fn stream(&self, origin: &SiteName) -> Result<(Config, StreamSequence), ApiError> {
        let name = subject::records_stream(origin);
        let stream = self.connection.jetstream.get_stream(&name).await;
        let stream = stream.map_err(|error| ApiError::new(format!("asking for {name}"), error))?;
        let info = stream.cached_info();
        Ok((info.config.clone(), StreamSequence(info.state.last_sequence)))
    }

    async fn newest<T: DeserializeOwned>(
        &self,
        site: &SiteName,
        subject: &str,
    ) -> Result<Option<(StreamSequence, T)>, ApiError> {
        let newest = newest_message(&self.connection, &subject::records_stream(site), subject).await?;
        let body = newest.map(|message| {
            let body = serde_json::from_slice(&message.payload);
            let body =
                body.map_err(|error| ApiError::new(format!("reading the newest message on {subject}"), error))?;
            Ok((StreamSequence(message.sequence), body))
        });
        body.transpose()
    }

    async fn publish(
        &self,
        subject: String,
        fence: &str,
        expected: StreamSequence,
        body: &impl Serialize,
    ) -> Result<StreamSequence, PublishFailure> {
        let payload = serde_json::to_vec(body).map_err(|error| PublishFailure::Unknown(error.to_string()))?;
        let publish = PublishMessage::build()
            .payload(payload.into())
            .header(EXPECTED_SEQUENCE, expected.to_string())
            .header(EXPECTED_SUBJECT, fence);
        let sent = self.connection.jetstream.send_publish(subject, publish).await;
        stored_at(sent).await
    }
}

/// Lets a consumer that was made for a mirror deliver everything again: the mirror that reads it is made anew.
async fn reset(connection: &Connection, stream: &str, consumer: &str) -> Result<(), ApiError> {
    #[derive(Deserialize)]
    struct Answer {
        error: Option<serde_json::Value>,
    }
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        ApiError::new(format!("resetting consumer {consumer} of {stream}"), error)
    };
    let ask = format!("CONSUMER.RESET.{stream}.{consumer}");
    let answer: Answer = connection
        .jetstream
        .request(ask, &serde_json::json!({ "seq": 1 }))
        .await
        .map_err(|error| failed(error.into()))?;
    answer.error.map_or(Ok(()), |error| Err(failed(error.to_string().into())))
}

/// Where a site mirrors an origin's log from.
pub(crate) fn mirror_of(origin: &SiteName, consumer: Option<StreamConsumerSource>) -> Source {
    Source { consumer, ..log_at(origin, origin) }
}

/// An origin's log as a site has it.
fn log_at(site: &SiteName, origin: &SiteName) -> Source {
    Source {
        name: subject::records_stream(origin),
        external: Some(External { api_prefix: api_prefix(site), delivery_prefix: None }),
        ..Source::default()
    }
}

/// The takeover that a message tells of, where it is one.
pub(crate) fn read_takeover(message: &StoredMessage) -> Option<TakeoverMessage> {
    let takeover = serde_json::from_slice(&message.payload).ok()?;
    Some(TakeoverMessage { sequence: message.sequence, time: message.time, takeover })
}
