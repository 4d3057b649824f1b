//! One origin's applier: reads its log, or this site's mirror of it, in order, and hands it to the store thread. Where the
//! mirror is late it reads the origin itself.
//!
//! A gap or a lost consumer means: open again behind what is applied. A log that ends before that, or has another message
//! there, has lost its tail: the applier says so and waits, and nothing is decided at this site meanwhile.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

use freehold_core::{KindName, SiteName, StreamSequence};
use freehold_jetstream::{Connection, ReadFrom, ReadMessages, RecordsReader, RecordsReaderError, SitesLog};

use crate::copy::Copy;
use crate::group_worker::describe;
use crate::losses::Loss;
use crate::origin_watch::{Sighting, Source, SourceChoice};
use crate::store_thread::StoreJob;

/// The pause before a log is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);
/// The pause before a log that has lost its tail is looked at again.
const LOST_TAIL_PAUSE: Duration = Duration::from_secs(1);

/// How often the mirror is looked at while the origin is read instead.
const MIRROR_LOOK: Duration = Duration::from_millis(50);
/// How long what was handed over may take to be committed before it is looked at again.
const COMMIT_PAUSE: Duration = Duration::from_millis(20);
/// How often the log of a lost site is looked at.
const LOST_SITE_PAUSE: Duration = Duration::from_secs(1);

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
    pub(crate) site: SiteName,
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
    /// The origin was lost, or has come back.
    Loss,
    /// The log of a lost site was read to its end here.
    Complete,
    Failed(RecordsReaderError),
}

impl Applier {
    /// Runs until the store thread is gone.
    pub(crate) async fn run(self) {
        let mut source = self.first.clone();
        let mut losses = self.copy.losses.watch(&self.origin);
        loop {
            // Behind what is committed: what was read and not committed is read twice, and applied once.
            let applied = self.committed();
            let loss = losses.as_mut().and_then(|loss| loss.borrow_and_update().clone());
            if let Some(loss) = &loss {
                match self.source_of_lost(loss, applied).await {
                    Some(found) => source = found,
                    None => {
                        // Everything that counts is applied: what comes is told by the origin's return.
                        self.health.send_replace(OriginHealth::Reading(applied));
                        tokio::select! {
                            () = changed(losses.as_mut()) => {}
                            () = tokio::time::sleep(LOST_SITE_PAUSE) => {}
                        }
                        continue;
                    }
                }
            } else if matches!(source, Source::Member(_)) {
                source = Source::Site;
            }
            let reading = async {
                match self.open(&source, applied).await {
                    Ok(reader) => self.read(reader, &source, loss.as_ref()).await,
                    Err(error) => Ended::Failed(error),
                }
            };
            // Wherever it is: what asks a site that is lost waits long for an answer, and a taker must not wait for that.
            let ended = tokio::select! {
                ended = reading => ended,
                () = changed(losses.as_mut()) => Ended::Loss,
            };
            let error = match ended {
                Ended::NoStore => return,
                Ended::Loss => continue,
                Ended::Complete => {
                    // What was read last may be on its way into the copy, or another member may have more.
                    let has_more = loss.as_ref().and_then(Loss::cut).is_some_and(|cut| self.committed() < cut);
                    let pause = if has_more { COMMIT_PAUSE } else { LOST_SITE_PAUSE };
                    tokio::select! {
                        () = changed(losses.as_mut()) => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                    continue;
                }
                Ended::Switch(next) => {
                    tracing::info!(origin = %self.origin, from = ?source, to = ?next, "reading a records log elsewhere");
                    source = next;
                    continue;
                }
                Ended::Failed(error) => error,
            };
            if source == Source::Site
                && loss.is_none()
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

    /// Where the log of a lost site can be read further: in this site's mirror, then at the members that have more of it. Nothing
    /// where there is no more that counts, or nobody has it.
    async fn source_of_lost(&self, loss: &Loss, applied: StreamSequence) -> Option<Source> {
        let here = SitesLog::new(self.connection.clone(), self.site.clone());
        let mirrored = here.mirror(&self.origin).await.map(|mirror| mirror.last).unwrap_or_default();
        let end = loss.cut().map_or(mirrored, |cut| cut.min(mirrored));
        // The mirror may end with messages that do not concern the copy. They are passed, and only the cut counts as applied then.
        let passed = applied.max(self.copy.progress_of(&self.origin));
        let ends_before_cut = loss.cut().is_some_and(|cut| end < cut);
        if applied < end && !(ends_before_cut && passed >= end) {
            return Some(Source::Site);
        }
        let Loss::TakenOver(takeover) = loss else { return None };
        let has_more = |(member, last): &(&SiteName, &StreamSequence)| **member != self.site && **last > end;
        let further = takeover.sealed.iter().filter(has_more).max_by_key(|(_, last)| **last);
        further.filter(|_| applied < takeover.cut).map(|(member, _)| Source::Member(member.clone()))
    }

    /// What is read at the origin is not acted on before the mirror has it, too: how far that is.
    async fn look_at_mirror(&self) {
        let here = SitesLog::new(self.connection.clone(), self.site.clone());
        if let (Ok(mirror), Some(watch)) = (here.mirror(&self.origin).await, self.copy.origins.get(&self.origin)) {
            watch.note_mirrored(mirror.last);
        }
    }

    /// How far the copy says that the log is applied.
    fn committed(&self) -> StreamSequence {
        let committed = self.copy.reader.snapshot().and_then(|snapshot| snapshot.origin(&self.origin));
        committed.map(|state| state.applied).unwrap_or_default()
    }

    /// Opens the log behind `behind`. What the copy has last committed tells whether it is still the same log.
    async fn open(&self, source: &Source, behind: StreamSequence) -> Result<RecordsReader, RecordsReaderError> {
        // A copy that cannot be read is reported by the store thread, which reads the same row with each commit.
        let committed = self.copy.reader.snapshot().and_then(|snapshot| snapshot.origin(&self.origin)).ok();
        let applied =
            committed.map(|state| (state.applied, state.time)).filter(|(applied, time)| applied.0 > 0 && time.0 > 0);
        let (connection, from) = match source {
            Source::Site => (self.connection.clone(), ReadFrom::Here),
            Source::Origin => (self.connection.in_domain(&self.origin), ReadFrom::Elsewhere),
            Source::Member(member) => (self.connection.in_domain(member), ReadFrom::Elsewhere),
        };
        RecordsReader::open(&connection, from, &self.origin, &self.kinds, behind, applied).await
    }

    /// Reads until there is a reason to read elsewhere, or to end. May be dropped at any time: it goes on behind what is committed.
    async fn read(&self, mut reader: RecordsReader, source: &Source, loss: Option<&Loss>) -> Ended {
        let cut = loss.and_then(Loss::cut);
        let counts = |sequence: StreamSequence| cut.map_or(sequence, |cut| cut.min(sequence));
        self.health.send_replace(OriginHealth::Reading(counts(reader.last_at_open())));
        let mut sightings = self.copy.origins.get(&self.origin).map(|watch| watch.sightings());
        let live_from = reader.last_at_open();
        let mut choice = SourceChoice::default();
        let mut mirror_look = tokio::time::interval(MIRROR_LOOK);
        mirror_look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut read = ReadMessages::default();
        loop {
            let passed = counts(reader.passed());
            let ReadMessages { mut messages, mut takeovers, dropped_until, .. } = std::mem::take(&mut read);
            messages.retain(|message| cut.is_none_or(|cut| message.sequence <= cut));
            takeovers.retain(|message| cut.is_none_or(|cut| message.sequence <= cut));
            let origin = self.origin.clone();
            let complete_at = cut.filter(|cut| passed >= *cut);
            let job = StoreJob::Apply { origin, messages, takeovers, dropped_until, passed, live_from, complete_at };
            if self.jobs.send(job).await.is_err() {
                return Ended::NoStore;
            }
            if let (Source::Site, Some(watch)) = (source, self.copy.origins.get(&self.origin)) {
                watch.note_mirrored(passed);
            }
            if loss.is_some() && passed >= counts(reader.last_at_open()) {
                return Ended::Complete;
            }
            read = loop {
                tokio::select! {
                    next = reader.next() => match next {
                        Ok(next) => {
                            for (subject, confirmation) in &next.confirmations {
                                self.copy.confirmations.note(subject, confirmation);
                            }
                            if self.origin == self.site {
                                next.seals.iter().for_each(|lost| self.copy.losses.look_again(lost));
                            }
                            break next;
                        }
                        Err(error) => return Ended::Failed(error),
                    },
                    _ = mirror_look.tick(), if *source == Source::Origin => self.look_at_mirror().await,
                    sighting = next_sighting(sightings.as_mut()), if loss.is_none() => {
                        let next = choice.next(source, passed, sighting);
                        if next != *source {
                            return Ended::Switch(next);
                        }
                        // Messages of kinds that this service does not have are passed without being delivered.
                        let known = if *source == Source::Site { sighting.mirror } else { sighting.origin };
                        match reader.pass(known).await {
                            Ok(true) => break ReadMessages::default(),
                            Ok(false) => {}
                            Err(error) => return Ended::Failed(error),
                        }
                    }
                }
            };
        }
    }
}

/// Returns when what is known of the origin's loss has changed; pending for ever for the own site.
async fn changed(losses: Option<&mut watch::Receiver<Option<Loss>>>) {
    let gone = match losses {
        Some(losses) => losses.changed().await.is_err(),
        None => true,
    };
    if gone {
        std::future::pending().await
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
