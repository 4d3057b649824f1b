//! What a site had when it was taken over and that does not count: kept in a stream of its own until an operator has judged it.

use async_nats::jetstream::message::PublishMessage;
use futures::StreamExt as _;

use freehold_core::subject;
use freehold_core::{KindName, SiteName, Stranded, StreamSequence};

use crate::connection::Connection;
use crate::error::ApiError;
use crate::records_log::{log_state, open_consumer};

/// The stream of one site.
#[derive(Debug, Clone)]
pub struct StrandedLog {
    connection: Connection,
    site: SiteName,
}

impl StrandedLog {
    /// The stream of a site, which the connection leads to.
    pub fn new(connection: Connection, site: SiteName) -> Self {
        Self { connection, site }
    }

    /// Keeps an entry. The same `message_id` within the server's window counts as kept.
    pub async fn append(&self, kind: &KindName, message_id: String, entry: &Stranded) -> Result<(), ApiError> {
        let failed =
            |error: Box<dyn std::error::Error + Send + Sync>| ApiError::new("keeping what was stranded", error);
        let payload = serde_json::to_vec(entry).map_err(|error| failed(error.into()))?;
        let publish = PublishMessage::build().payload(payload.into()).message_id(message_id);
        let sent = self.connection.jetstream.send_publish(subject::stranded(&self.site, kind), publish).await;
        sent.map_err(|error| failed(error.into()))?.await.map(|_| ()).map_err(|error| failed(error.into()))
    }

    /// All entries, with their places and kinds, in the order in which they were kept.
    pub async fn entries(&self) -> Result<Vec<(StreamSequence, KindName, Stranded)>, ApiError> {
        let what = || format!("reading what was stranded at {}", self.site);
        let stream = subject::stranded_stream(&self.site);
        let filter = vec![format!("fh.{}.stranded.>", self.site)];
        let consumer = open_consumer(&self.connection, &stream, filter, StreamSequence(0)).await?;
        let pending = usize::try_from(consumer.cached_info().num_pending).unwrap_or(usize::MAX);
        let mut messages = consumer.messages().await.map_err(|error| ApiError::new(what(), error))?.take(pending);
        let mut entries = Vec::new();
        while let Some(message) = messages.next().await {
            let message = message.map_err(|error| ApiError::new(what(), error))?;
            let sequence =
                StreamSequence(message.info().map_err(|error| ApiError::new(what(), error))?.stream_sequence);
            let Some(kind) = message.subject.rsplit('.').next().and_then(|kind| kind.parse().ok()) else { continue };
            let entry = serde_json::from_slice(&message.payload).map_err(|error| ApiError::new(what(), error))?;
            entries.push((sequence, kind, entry));
        }
        Ok(entries)
    }

    /// Forgets everything that is kept up to a place: an operator has judged it.
    pub async fn forget(&self, last: StreamSequence) -> Result<(), ApiError> {
        let failed =
            |error: Box<dyn std::error::Error + Send + Sync>| ApiError::new("forgetting what was stranded", error);
        let stream = self.connection.jetstream.get_stream_no_info(subject::stranded_stream(&self.site)).await;
        let stream = stream.map_err(|error| failed(error.into()))?;
        stream.purge().sequence(last.0 + 1).await.map(|_| ()).map_err(|error| failed(error.into()))
    }

    /// How many entries there are.
    pub async fn last(&self) -> Result<StreamSequence, ApiError> {
        Ok(log_state(&self.connection, &subject::stranded_stream(&self.site)).await?.last)
    }
}
