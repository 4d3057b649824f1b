//! Noticing a push consumer that stands still.
//!
//! A consumer with flow control waits for the client's word from time to time. Where that word is lost, as at a reconnect, the
//! server says so in its heartbeats; async-nats 0.51 takes them for signs of life. So whoever has heard nothing for a while asks
//! whether there is anything to hear.

use std::pin::Pin;
use std::time::Duration;

use async_nats::jetstream::consumer::{Consumer, push};
use tokio::time::{Instant, Sleep};

use crate::error::ApiError;

/// Watches over one consumer.
#[derive(Debug)]
pub(crate) struct StallWatch {
    /// How long the consumer may deliver nothing before it is asked.
    patience: Duration,
    next_look: Instant,
    /// Goes off no later than the next look is due: deliveries do not move it.
    alarm: Pin<Box<Sleep>>,
    /// The last look found something undelivered behind this delivery.
    waits_behind: Option<u64>,
}

impl StallWatch {
    pub(crate) fn new(patience: Duration) -> Self {
        let next_look = Instant::now() + patience;
        Self { patience, next_look, alarm: Box::pin(tokio::time::sleep_until(next_look)), waits_behind: None }
    }

    /// Something was delivered.
    pub(crate) fn delivered(&mut self) {
        self.next_look = Instant::now() + self.patience;
        self.waits_behind = None;
    }

    /// Returns when two answers in a row say that something waits, and nothing came between them; pending for ever where all is
    /// well. May be dropped at any time.
    pub(crate) async fn stalled(&mut self, consumer: &Consumer<push::Config>, last_delivery: u64) -> ApiError {
        loop {
            self.alarm.as_mut().await;
            if Instant::now() < self.next_look {
                self.alarm.as_mut().reset(self.next_look);
                continue;
            }
            let info = consumer.get_info().await;
            self.next_look = Instant::now() + self.patience;
            self.alarm.as_mut().reset(self.next_look);
            // A consumer that is gone gives no heartbeat, which is noticed elsewhere; one that does not answer now may be well.
            let Ok(info) = info else { continue };
            let waits = info.num_pending > 0 || info.delivered.consumer_sequence > last_delivery;
            if waits && self.waits_behind == Some(last_delivery) {
                let text = format!("{} messages wait and none is delivered", info.num_pending);
                return ApiError::new("reading a consumer", std::io::Error::new(std::io::ErrorKind::TimedOut, text));
            }
            self.waits_behind = waits.then_some(last_delivery);
        }
    }
}
