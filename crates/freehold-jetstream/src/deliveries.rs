//! What a push consumer delivers: in order, without gaps, and noticed where it stands still.

use std::time::Duration;

use async_nats::jetstream::consumer::{Consumer, push};

use freehold_core::{LogTime, StreamSequence};

use crate::arrivals::arrived;
use crate::command_log::milliseconds;
use crate::direct_read::StoredMessage;
use crate::error::ApiError;
use crate::stall::StallWatch;

/// What one consumer delivers.
pub(crate) struct Deliveries {
    consumer: Consumer<push::Config>,
    messages: push::Messages,
    last: u64,
    stall: StallWatch,
}

/// Why a consumer is of no use any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeliveryError {
    /// A delivery is missing or came twice.
    #[error("delivery {got} came behind {last}")]
    Gap {
        /// The last delivery.
        last: u64,
        /// The one that came next.
        got: u64,
    },
    /// The consumer or its connection is gone.
    #[error("the consumer is gone")]
    Gone(#[source] Option<ApiError>),
}

impl Deliveries {
    /// Those of a consumer that was just made. After `patience` without any, the server is asked whether something waits.
    pub(crate) async fn of(consumer: Consumer<push::Config>, patience: Duration) -> Result<Self, ApiError> {
        let messages = consumer.clone().messages().await;
        let messages = messages.map_err(|error| ApiError::new("subscribing to a consumer's deliveries", error))?;
        Ok(Self { consumer, messages, last: 0, stall: StallWatch::new(patience) })
    }

    /// Waits for messages; returns those that are there, at least one and at most `most`. May be dropped at any time.
    pub(crate) async fn next(&mut self, most: usize) -> Result<Vec<StoredMessage>, DeliveryError> {
        let chunk = tokio::select! {
            chunk = arrived(&mut self.messages, most) => chunk.ok_or(DeliveryError::Gone(None))?,
            error = self.stall.stalled(&self.consumer, self.last) => return Err(DeliveryError::Gone(Some(error))),
        };
        self.stall.delivered();
        let next = |message: Result<_, push::MessagesError>| {
            let message = message.map_err(|error| gone(error.into()))?;
            let (delivery, message) = delivered(message).map_err(gone)?;
            if delivery != self.last + 1 {
                return Err(DeliveryError::Gap { last: self.last, got: delivery });
            }
            self.last = delivery;
            Ok(message)
        };
        chunk.into_iter().map(next).collect()
    }
}

/// A delivery's number within its consumer, and what was delivered.
fn delivered(
    message: async_nats::jetstream::Message,
) -> Result<(u64, StoredMessage), Box<dyn std::error::Error + Send + Sync>> {
    let info = message.info()?;
    let (delivery, sequence) = (info.consumer_sequence, StreamSequence(info.stream_sequence));
    let time = LogTime(milliseconds(info.published));
    let async_nats::Message { subject, payload, .. } = message.message;
    Ok((delivery, StoredMessage { sequence, time, subject: subject.to_string(), payload }))
}

fn gone(error: Box<dyn std::error::Error + Send + Sync>) -> DeliveryError {
    DeliveryError::Gone(Some(ApiError::new("reading a consumer", error)))
}
