//! Confirmations: what a site says of how much of another site's log it has.
//!
//! They are messages of the confirming site's own records log, published by compare-and-set on their own subject, so that
//! none follows another that it does not know.

use async_nats::jetstream::message::PublishMessage;

use freehold_core::subject::{self, ConfirmationSubject};
use freehold_core::{Confirmation, PublishFailure, StreamSequence};

use crate::connection::Connection;
use crate::error::ApiError;
use crate::records_log::{newest_message, stored_at};

/// The confirmations in the records logs that a site has: its own, and the mirrors of others.
#[derive(Debug, Clone)]
pub struct ConfirmationsLog {
    connection: Connection,
}

impl ConfirmationsLog {
    /// The logs at the connection's site.
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// The newest confirmation on a subject and its place; nothing where there is none, or none that can be read.
    pub async fn newest(
        &self,
        subject: &ConfirmationSubject,
    ) -> Result<Option<(StreamSequence, Option<Confirmation>)>, ApiError> {
        let stream = subject::records_stream(&subject.site);
        let newest = newest_message(&self.connection, &stream, &subject.to_string()).await?;
        Ok(newest.map(|message| (StreamSequence(message.sequence), serde_json::from_slice(&message.payload).ok())))
    }

    /// Publishes a confirmation that expects another to be the newest.
    pub async fn confirm(
        &self,
        subject: &ConfirmationSubject,
        expected: StreamSequence,
        confirmation: &Confirmation,
    ) -> Result<StreamSequence, PublishFailure> {
        let payload = serde_json::to_vec(confirmation).map_err(|error| PublishFailure::Unknown(error.to_string()))?;
        let publish = PublishMessage::build().payload(payload.into()).expected_last_subject_sequence(expected.0);
        let sent = self.connection.jetstream.send_publish(subject.to_string(), publish).await;
        stored_at(sent).await
    }
}
