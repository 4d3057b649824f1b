//! The one thread that writes the copy.
//!
//! It takes what all appliers have read, applies it in one transaction and commits with one fsync; then it tells who waits.
//! The longer a commit takes, the more the next one carries.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use freehold_core::subject::RecordsSubject;
use freehold_core::{
    Applied, CopyRead, CopyWrite as _, GroupCount, GroupNumber, GroupState, KindName, LogMessage, LogTime, Retention,
    SiteName, StreamSequence, TakeoverEffect, TakeoverMessage, apply, apply_takeover, learn_takeover, may_expire,
};
use freehold_store::{Error, MAX_EXPIRED_OUTCOMES, OriginState, Transaction, Writer};

use crate::confirmations::Committed;
use crate::copy::{RouteSignals, Waiters};
use crate::failure::Failure;
use crate::losses::Losses;

/// Messages that one transaction applies.
const MAX_TRANSACTION_MESSAGES: usize = 4_096;
/// What appliers may hand over before it is applied.
pub(crate) const STORE_QUEUE_LENGTH: usize = 64;

/// What an applier hands over.
pub(crate) enum StoreJob {
    /// Messages of one origin, in order, and how far its log is passed with them.
    Apply {
        /// The origin.
        origin: SiteName,
        /// The messages.
        messages: Vec<LogMessage>,
        /// Takeovers that the origin has logged among them.
        takeovers: Vec<TakeoverMessage>,
        /// The log may have dropped messages up to here before they were read.
        dropped_until: StreamSequence,
        /// Everything up to here was read or does not concern this copy.
        passed: StreamSequence,
        /// What lies behind this was read as it came.
        live_from: StreamSequence,
        /// The log counts up to here, and was read so far: it is applied, whatever is there.
        complete_at: Option<StreamSequence>,
    },
    /// A takeover that was heard of elsewhere.
    Learn(TakeoverMessage),
    /// Outcomes of an origin that ended before this time may be missing.
    OutcomesCompleteFrom {
        /// The origin.
        origin: SiteName,
        /// The time.
        time: LogTime,
    },
}

/// The thread's side of the copy.
pub(crate) struct StoreThread {
    pub(crate) writer: Writer,
    pub(crate) retention: Retention,
    pub(crate) group_counts: Arc<HashMap<KindName, GroupCount>>,
    pub(crate) jobs: mpsc::Receiver<StoreJob>,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) routes: Arc<RouteSignals>,
    pub(crate) progress: HashMap<SiteName, watch::Sender<StreamSequence>>,
    pub(crate) site: SiteName,
    /// Which life of the own site's log this is.
    pub(crate) life: u64,
    pub(crate) losses: Arc<Losses>,
    pub(crate) committed: Arc<Committed>,
    pub(crate) failures: mpsc::Sender<Failure>,
    /// Groups whose last digest was not the copy's.
    pub(crate) suspects: HashSet<(SiteName, KindName, GroupNumber)>,
}

impl StoreThread {
    /// Runs until the appliers are gone or the store fails.
    pub(crate) fn run(mut self) {
        while let Some(first) = self.jobs.blocking_recv() {
            let mut jobs = vec![first];
            let mut messages = count(&jobs[0]);
            while messages < MAX_TRANSACTION_MESSAGES {
                let Ok(job) = self.jobs.try_recv() else { break };
                messages += count(&job);
                jobs.push(job);
            }
            match self.commit(&jobs) {
                Ok(told) => {
                    self.tell(jobs, told.messages);
                    told.takeovers.into_iter().for_each(|(taker, effect)| self.tell_takeover(taker, effect));
                    if told.is_complete {
                        self.routes.tell_all();
                    }
                }
                Err(error) => {
                    tracing::error!(error = crate::group_worker::describe(&error), "the copy cannot be written");
                    // Whoever is told first stops the instance; a full channel means that it was told.
                    let _ = self.failures.try_send(error.into());
                    return;
                }
            }
        }
    }

    fn commit(&mut self, jobs: &[StoreJob]) -> Result<Told, Error> {
        let retention = self.retention;
        let groups = Arc::clone(&self.group_counts);
        let (mut told, mut digests) = (Told::default(), Vec::new());
        if jobs.iter().all(is_empty) {
            return Ok(told);
        }
        self.writer.transact(|tables| {
            // The newest message of each origin, and how many outcomes came: as many may go, and some more.
            let mut arrived: HashMap<&SiteName, (LogTime, usize)> = HashMap::new();
            for job in jobs {
                match job {
                    StoreJob::Apply { origin, messages, takeovers, dropped_until, live_from, complete_at, .. } => {
                        if *dropped_until > StreamSequence(0) {
                            tables.put_dropped(origin, *dropped_until)?;
                        }
                        let mut takeovers = takeovers.iter().peekable();
                        for message in messages {
                            while let Some(earlier) = takeovers.next_if(|it| it.sequence < message.sequence) {
                                let applied = apply_takeover(tables, origin, earlier)?;
                                told.take(tables, earlier, applied)?;
                            }
                            let applied = apply(tables, retention, message)?;
                            let (newest, outcomes) = arrived.entry(origin).or_default();
                            *newest = message.time;
                            *outcomes += applied.outcomes.len();
                            if let Some(fits) = applied.digest_fits.filter(|_| message.sequence > *live_from) {
                                digests.push((message.subject.clone(), fits));
                            }
                            told.messages.push((message.subject.kind.clone(), message.subject.group, applied));
                        }
                        for later in takeovers {
                            let applied = apply_takeover(tables, origin, later)?;
                            told.take(tables, later, applied)?;
                        }
                        if let Some(cut) = complete_at.filter(|cut| *cut > StreamSequence(0)) {
                            if tables.applied(origin)? < cut {
                                // The message there may concern no kind that is served here: its time is not known.
                                tables.put_applied(origin, cut, LogTime::default())?;
                            }
                            told.is_complete = true;
                        }
                    }
                    StoreJob::Learn(message) => {
                        let applied = learn_takeover(tables, message)?;
                        told.take(tables, message, applied)?;
                    }
                    StoreJob::OutcomesCompleteFrom { origin, time } => {
                        let mut state = tables.origin(origin)?;
                        state.outcomes_complete_from = *time;
                        tables.put_origin(origin, state);
                    }
                }
            }
            for (origin, (newest, outcomes)) in arrived {
                let before = LogTime(newest.0.saturating_sub(retention.outcomes_ms));
                for _ in 0..=outcomes.div_ceil(MAX_EXPIRED_OUTCOMES) {
                    let expired = tables.expire(origin, before, |tables, kind, outcome| {
                        // A command that could not be read names no record: only its age counts.
                        let group = match (groups.get(kind), &outcome.change.id) {
                            (Some(count), Some(id)) => tables.group(origin, kind, count.group_of(id))?,
                            _ => GroupState::default(),
                        };
                        Ok::<_, Error>(may_expire(outcome, &group, newest, retention))
                    })?;
                    if !expired.more {
                        break;
                    }
                }
            }
            Ok::<_, Error>(())
        })?;
        for (subject, fits) in digests {
            self.judge(subject, fits);
        }
        Ok(told)
    }

    /// What a takeover means for this instance.
    fn tell_takeover(&mut self, taker: SiteName, effect: TakeoverEffect) {
        let TakeoverEffect { lost, lost_log, is_ahead } = effect;
        tracing::warn!(%lost, %taker, "a site was taken over");
        if lost == self.site {
            if lost_log.counter() >= self.life {
                // Told once is enough.
                let _ = self.failures.try_send(Failure::TakenOver { taker });
            }
        } else if is_ahead {
            let _ = self.failures.try_send(Failure::Ahead(lost));
        } else {
            self.losses.look_again(&lost);
            self.routes.tell_all();
        }
    }

    /// A copy that differs from a group's digest twice in a row has missed something for good.
    fn judge(&mut self, subject: RecordsSubject, fits: bool) {
        let RecordsSubject { site: origin, kind, group, .. } = subject;
        let place = (origin, kind, group);
        if fits {
            self.suspects.remove(&place);
        } else if !self.suspects.insert(place.clone()) {
            let (origin, kind, group) = place;
            tracing::error!(%origin, %kind, %group, "the copy of a group is not what its owner has logged");
            // Told once is enough.
            let _ = self.failures.try_send(Failure::Diverged(origin));
        } else {
            tracing::debug!(origin = %place.0, kind = %place.1, group = %place.2, "a digest differs");
        }
    }

    fn tell(&mut self, jobs: Vec<StoreJob>, told: Vec<(KindName, GroupNumber, Applied)>) {
        for job in jobs {
            if let StoreJob::Apply { origin, passed, messages, .. } = job
                && let Some(progress) = self.progress.get(&origin)
            {
                self.committed.note(&origin, &messages);
                progress.send_if_modified(|applied| {
                    let moved = *applied < passed;
                    *applied = (*applied).max(passed);
                    moved
                });
            }
        }
        for (kind, group, applied) in told {
            if applied.routes_changed {
                self.routes.tell(&kind, group);
            }
            if let Some(anomaly) = &applied.anomaly {
                tracing::error!(%kind, %anomaly, "a log holds what a sound log does not");
            }
            self.waiters.tell(&kind, applied);
        }
    }
}

fn count(job: &StoreJob) -> usize {
    match job {
        StoreJob::Apply { messages, .. } => messages.len(),
        StoreJob::OutcomesCompleteFrom { .. } | StoreJob::Learn(_) => 1,
    }
}

fn is_empty(job: &StoreJob) -> bool {
    let StoreJob::Apply { messages, takeovers, complete_at, .. } = job else { return false };
    messages.is_empty() && takeovers.is_empty() && complete_at.is_none()
}

/// What a transaction has done.
#[derive(Default)]
struct Told {
    messages: Vec<(KindName, GroupNumber, Applied)>,
    /// By the taker.
    takeovers: Vec<(SiteName, TakeoverEffect)>,
    /// A log that was cut is applied up to its cut.
    is_complete: bool,
}

impl Told {
    /// What a takeover did. That the copy is ahead of it is noted with it: the instance may be killed before it makes it anew.
    fn take(&mut self, tables: &mut Transaction<'_>, message: &TakeoverMessage, applied: Applied) -> Result<(), Error> {
        let Some(effect) = applied.takeover else { return Ok(()) };
        if effect.is_ahead {
            let state = tables.origin(&effect.lost)?;
            tables.put_origin(&effect.lost, OriginState { is_ahead: true, ..state });
        }
        self.takeovers.push((message.takeover.ballot.taker.clone(), effect));
        Ok(())
    }
}
