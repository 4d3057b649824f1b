//! One origin's applier: reads its log, or this site's mirror of it, in order, and hands it to the store thread. Where the
//! mirror is late it reads the origin itself.
//!
//! A gap or a lost consumer means: open again behind what is applied. A log that ends before that, or has another message
//! there, has lost its tail: the applier says so and waits, and nothing is decided at this site meanwhile.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

use freehold_core::{KindName, SiteName, StreamSequence};
use freehold_jetstream::{Connection, RecordsReader, RecordsReaderError};

use crate::copy::Copy;
use crate::group_worker::describe;
use crate::origin_watch::{Sighting, Source, SourceChoice};
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
    /// It ends before what was applied of it, or goes on differently.
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
    /// Where it is read first.
    pub(crate) first: Source,
}

/// Why reading ended.
enum Ended {
    /// The store thread is gone.
    NoStore,
    /// It is better to read elsewhere.
    Switch(Source),
    Failed(RecordsReaderError),
}

impl Applier {
    /// Runs until the store thread is gone.
    pub(crate) async fn run(self) {
        let mut handed_over = self.copy.progress_of(&self.origin);
        let mut source = self.first;
        loop {
            // What was handed over is applied or the store has failed: read on behind it, never twice.
            let applied = handed_over.max(self.copy.progress_of(&self.origin));
            let ended = match self.open(source, applied).await {
                Ok(reader) => self.read(reader, source, &mut handed_over).await,
                Err(error) => Ended::Failed(error),
            };
            let error = match ended {
                Ended::NoStore => return,
                Ended::Switch(next) => {
                    tracing::info!(origin = %self.origin, from = ?source, to = ?next, "reading a records log elsewhere");
                    source = next;
                    continue;
                }
                Ended::Failed(error) => error,
            };
            if source == Source::Site
                && self.copy.origins.contains_key(&self.origin)
                && matches!(error, RecordsReaderError::LostTail { .. })
            {
                // The copy was filled from the origin beyond the mirror: whether the log has lost anything, the origin knows.
                source = Source::Origin;
                tokio::time::sleep(REOPEN_PAUSE).await;
                continue;
            }
            source = Source::Site;
            let lost_tail = matches!(error, RecordsReaderError::LostTail { .. } | RecordsReaderError::Rewound { .. });
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

    /// Opens the log behind `behind`. What the copy has last committed tells whether it is still the same log.
    async fn open(&self, source: Source, behind: StreamSequence) -> Result<RecordsReader, RecordsReaderError> {
        // A copy that cannot be read is reported by the store thread, which reads the same row with each commit.
        let committed = self.copy.reader.snapshot().and_then(|snapshot| snapshot.origin(&self.origin)).ok();
        let applied = committed.map(|state| (state.applied, state.time)).filter(|(applied, _)| applied.0 > 0);
        let connection = match source {
            Source::Site => self.connection.clone(),
            Source::Origin => self.connection.in_domain(&self.origin),
        };
        RecordsReader::open(&connection, &self.origin, &self.kinds, behind, applied).await
    }

    async fn read(&self, mut reader: RecordsReader, source: Source, handed_over: &mut StreamSequence) -> Ended {
        self.health.send_replace(OriginHealth::Reading(reader.last_at_open()));
        let mut sightings = self.copy.origins.get(&self.origin).map(|watch| watch.sightings());
        let live_from = reader.last_at_open();
        let mut choice = SourceChoice::default();
        let mut messages = Vec::new();
        loop {
            let passed = reader.passed();
            let origin = self.origin.clone();
            if self.jobs.send(StoreJob::Apply { origin, messages, passed, live_from }).await.is_err() {
                return Ended::NoStore;
            }
            *handed_over = (*handed_over).max(passed);
            if let (Source::Site, Some(watch)) = (source, self.copy.origins.get(&self.origin)) {
                watch.note_mirrored(passed);
            }
            messages = loop {
                tokio::select! {
                    read = reader.next() => match read {
                        Ok(read) => {
                            for (subject, confirmation) in &read.confirmations {
                                self.copy.confirmations.note(subject, confirmation);
                            }
                            break read.messages;
                        }
                        Err(error) => return Ended::Failed(error),
                    },
                    sighting = next_sighting(sightings.as_mut()) => {
                        let next = choice.next(source, passed, sighting);
                        if next != source {
                            return Ended::Switch(next);
                        }
                        // Messages of kinds that this service does not have are passed without being delivered.
                        let known = if source == Source::Site { sighting.mirror } else { sighting.origin };
                        match reader.pass(known).await {
                            Ok(true) => break Vec::new(),
                            Ok(false) => {}
                            Err(error) => return Ended::Failed(error),
                        }
                    }
                }
            };
        }
    }
}

/// The next sighting of the origin; pending for ever for the own site.
async fn next_sighting(sightings: Option<&mut watch::Receiver<Option<Sighting>>>) -> Sighting {
    if let Some(sightings) = sightings {
        while sightings.changed().await.is_ok() {
            if let Some(sighting) = *sightings.borrow_and_update() {
                return sighting;
            }
        }
    }
    std::future::pending().await
}
