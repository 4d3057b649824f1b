//! The commands of one claim, as the log has them: by a consumer of its own at first, by the one for all groups when it has caught up.

#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Sleep;

use freehold_core::{LoggedCommand, StreamSequence};

use crate::command_feed::{CommandFeed, CommandGroup, Fed};
use crate::deliveries::{Deliveries, DeliveryError};
use crate::direct_read::StoredMessage;

/// Commands that are handed over at once.
const MAX_DELIVERED_AT_ONCE: usize = 512;
/// How long a claim has its own consumer before it asks to join the others, and asks again.
const JOIN_AFTER: Duration = Duration::from_secs(2);

/// The consumer of one claim.
pub struct CommandConsumer {
    group: CommandGroup,
    /// The last command that was handed over, or where it began.
    last: StreamSequence,
    feed: CommandFeed,
    source: Source,
}

enum Source {
    Own { deliveries: Box<Deliveries>, joining: Joining },
    Shared(Fed),
}

/// How far a claim is on its way to the others. Kept from one call to the next.
enum Joining {
    At(Pin<Box<Sleep>>),
    Asked(oneshot::Receiver<Fed>),
}

impl Joining {
    fn later() -> Self {
        Self::At(Box::pin(tokio::time::sleep(JOIN_AFTER)))
    }

    /// Returns when the group is fed behind what it has.
    async fn joined(&mut self, feed: &CommandFeed, group: &CommandGroup, last: StreamSequence) -> Fed {
        loop {
            *self = match self {
                Self::At(alarm) => {
                    alarm.as_mut().await;
                    Self::Asked(feed.join(group.clone(), last))
                }
                Self::Asked(answer) => match answer.await {
                    Ok(fed) => return fed,
                    Err(_) => Self::later(),
                },
            };
        }
    }
}

impl CommandConsumer {
    /// What a claim's own consumer delivers, behind `after`.
    pub(crate) fn new(group: CommandGroup, after: StreamSequence, feed: CommandFeed, deliveries: Deliveries) -> Self {
        let source = Source::Own { deliveries: Box::new(deliveries), joining: Joining::later() };
        Self { group, last: after, feed, source }
    }

    /// Waits for commands; returns all that are there, at least one and a bounded number. May be dropped at any time.
    pub async fn next(&mut self) -> Result<Vec<LoggedCommand>, DeliveryError> {
        loop {
            let mut messages = Vec::new();
            match &mut self.source {
                Source::Own { deliveries, joining } => tokio::select! {
                    delivered = deliveries.next(MAX_DELIVERED_AT_ONCE) => messages = delivered?,
                    fed = joining.joined(&self.feed, &self.group, self.last) => self.source = Source::Shared(fed),
                },
                Source::Shared(fed) => {
                    if fed.recv_many(&mut messages, MAX_DELIVERED_AT_ONCE).await == 0 {
                        return Err(DeliveryError::Gone(None));
                    }
                }
            }
            // Whoever joins is fed from a place before what it has.
            messages.retain(|message| message.sequence > self.last);
            if let Some(last) = messages.last() {
                self.last = last.sequence;
                let command =
                    |message: &StoredMessage| LoggedCommand::read(message.sequence, message.time, &message.payload);
                return Ok(messages.iter().map(command).collect());
            }
        }
    }
}
