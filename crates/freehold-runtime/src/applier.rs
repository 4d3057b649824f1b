//! One origin's applier: reads its log, or this site's mirror of it, in order, and hands it to the store thread.
//!
//! A gap or a lost consumer means: open again behind what is applied. A log that ends before that has lost its tail: the
//! applier says so and waits, and nothing is decided at this site meanwhile.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

use freehold_core::{KindName, SiteName, StreamSequence};
use freehold_jetstream::{Connection, RecordsReader, RecordsReaderError};

use crate::copy::Copy;
use crate::group_worker::describe;
use crate::store_thread::StoreJob;

/// The pause before a log is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);
/// The pause before a log that has lost its tail is looked at again.
const LOST_TAIL_PAUSE: Duration = Duration::from_secs(1);

/// Where an origin's log stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OriginHealth {
    /// Not opened yet, or being opened again.
    Opening,
    /// Being read; this was its last message when it was opened.
    Reading(StreamSequence),
    /// It ends before what was applied of it.
    LostTail,
}

/// Reads one origin.
pub(crate) struct Applier {
    pub(crate) connection: Connection,
    pub(crate) origin: SiteName,
    pub(crate) kinds: Vec<KindName>,
    pub(crate) copy: Copy,
    pub(crate) jobs: mpsc::Sender<StoreJob>,
    pub(crate) health: watch::Sender<OriginHealth>,
}

impl Applier {
    /// Runs until the store thread is gone.
    pub(crate) async fn run(self) {
        let mut handed_over = self.copy.progress_of(&self.origin);
        loop {
            // What was handed over is applied or the store has failed: read on behind it, never twice.
            let applied = handed_over.max(self.copy.progress_of(&self.origin));
            let error = match RecordsReader::open(&self.connection, &self.origin, &self.kinds, applied).await {
                Ok(reader) => match self.read(reader, &mut handed_over).await {
                    Some(error) => error,
                    None => return,
                },
                Err(error) => error,
            };
            let lost_tail = matches!(error, RecordsReaderError::LostTail { .. });
            let health = if lost_tail { OriginHealth::LostTail } else { OriginHealth::Opening };
            self.health.send_replace(health);
            if lost_tail {
                tracing::error!(origin = %self.origin, error = describe(&error), "a records log cannot be trusted");
                tokio::time::sleep(LOST_TAIL_PAUSE).await;
            } else {
                tracing::info!(origin = %self.origin, error = describe(&error), "reading a records log again");
                tokio::time::sleep(REOPEN_PAUSE).await;
            }
        }
    }

    /// Reads until the reader ends; nothing where the store thread is gone.
    async fn read(&self, mut reader: RecordsReader, handed_over: &mut StreamSequence) -> Option<RecordsReaderError> {
        self.health.send_replace(OriginHealth::Reading(reader.last_at_open()));
        let mut messages = Vec::new();
        loop {
            let passed = reader.passed();
            let origin = self.origin.clone();
            self.jobs.send(StoreJob::Apply { origin, messages, passed }).await.ok()?;
            *handed_over = (*handed_over).max(passed);
            messages = match reader.next().await {
                Ok(messages) => messages,
                Err(error) => return Some(error),
            };
        }
    }
}
