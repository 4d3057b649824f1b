//! The instance's copy as its tasks share it: how far it is, and who waits for what.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};

use freehold_core::{
    Applied, CommandId, GroupCount, GroupNumber, KindName, RecordId, RecordVersion, SiteName, StoredOutcome,
    StreamSequence,
};
use freehold_store::Reader;

use crate::applier::OriginHealth;
use crate::confirmations::Confirmations;
use crate::losses::{Loss, Losses};
use crate::origin_watch::OriginWatch;

/// How far each origin's log is applied and committed.
pub(crate) type Progress = HashMap<SiteName, watch::Receiver<StreamSequence>>;

/// Where each origin's log stands.
pub(crate) type Health = HashMap<SiteName, watch::Receiver<OriginHealth>>;

/// The words of [`Copy::health_of`].
pub(crate) const HEALTHS: [&str; 5] = ["reading", "opening", "lost_tail", "sealed", "taken_over"];

/// The copy, for its readers.
#[derive(Clone)]
pub(crate) struct Copy {
    pub(crate) reader: Reader,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) progress: Arc<Progress>,
    /// The other sites.
    pub(crate) origins: Arc<HashMap<SiteName, Arc<OriginWatch>>>,
    /// What sites have of each other's logs.
    pub(crate) confirmations: Arc<Confirmations>,
    /// Tells holders what has changed between sites.
    pub(crate) routes: Arc<RouteSignals>,
    /// Which of the other sites are lost.
    pub(crate) losses: Arc<Losses>,
    /// Where each origin's log stands.
    pub(crate) health: Arc<Health>,
}

/// A signal for each group: what waits for another site may go on.
pub(crate) struct RouteSignals(HashMap<KindName, Vec<Notify>>);

impl RouteSignals {
    pub(crate) fn new(counts: &HashMap<KindName, GroupCount>) -> Self {
        let signals = |count: &GroupCount| count.groups().map(|_| Notify::new()).collect();
        Self(counts.iter().map(|(kind, count)| (kind.clone(), signals(count))).collect())
    }

    /// Something has changed. It is kept until the group's worker has heard it.
    pub(crate) fn tell(&self, kind: &KindName, group: GroupNumber) {
        if let Some(signal) = self.0.get(kind).and_then(|signals| signals.get(usize::from(group.0))) {
            signal.notify_one();
        }
    }

    /// Something has changed for all groups.
    pub(crate) fn tell_all(&self) {
        self.0.values().flatten().for_each(Notify::notify_one);
    }

    /// Returns when something has changed. Each group has one worker.
    pub(crate) async fn changed(&self, kind: &KindName, group: GroupNumber) {
        match self.0.get(kind).and_then(|signals| signals.get(usize::from(group.0))) {
            Some(signal) => signal.notified().await,
            None => std::future::pending().await,
        }
    }
}

impl Copy {
    /// Waits until an origin's log is applied up to a message. Pending for ever where the origin is not copied.
    pub(crate) async fn applied(&self, origin: &SiteName, sequence: StreamSequence) {
        match self.progress.get(origin).cloned() {
            // The sender lives as long as the store thread; without it nothing more is ever applied.
            Some(mut progress) => {
                if progress.wait_for(|applied| *applied >= sequence).await.is_err() {
                    std::future::pending().await
                }
            }
            None => std::future::pending().await,
        }
    }

    /// How old the copy of another site's records is; nothing for the own site, and where it is not known.
    pub(crate) fn age_of(&self, origin: &SiteName) -> Option<Duration> {
        self.origins.get(origin)?.age(self.progress_of(origin))
    }

    /// The other sites that do not answer.
    pub(crate) fn unreachable(&self) -> BTreeSet<SiteName> {
        let silent = self.origins.iter().filter(|(_, watch)| watch.is_silent());
        silent.map(|(origin, _)| origin.clone()).collect()
    }

    /// How far this site has the logs of others in streams of its own. Of a log that was cut nothing is read behind the cut.
    pub(crate) fn mirrored(&self) -> BTreeMap<SiteName, StreamSequence> {
        let there = self.origins.iter().filter(|(origin, _)| !self.losses.is_cut(origin));
        there.map(|(origin, watch)| (origin.clone(), watch.mirrored())).collect()
    }

    /// Whether this site's mirror of another site's log is known to have a message.
    pub(crate) fn is_mirrored(&self, origin: &SiteName, sequence: StreamSequence) -> bool {
        self.origins.get(origin).is_some_and(|watch| watch.mirrored() >= sequence)
    }

    /// In a word how it is with the log of an origin.
    pub(crate) fn health_of(&self, origin: &SiteName) -> &'static str {
        let health = self.health.get(origin).map(|health| *health.borrow());
        match (self.losses.of(origin), health) {
            (Some(Loss::Sealed), _) => "sealed",
            (Some(Loss::TakenOver(_)), _) => "taken_over",
            (None, Some(OriginHealth::Reading(_))) => "reading",
            (None, Some(OriginHealth::LostTail)) => "lost_tail",
            (None, Some(OriginHealth::Opening) | None) => "opening",
        }
    }

    /// How far an origin's log is applied.
    pub(crate) fn progress_of(&self, origin: &SiteName) -> StreamSequence {
        self.progress.get(origin).map(|progress| *progress.borrow()).unwrap_or_default()
    }
}

type OutcomeKey = (KindName, Option<RecordId>, CommandId);
type VersionWaiter = (RecordVersion, oneshot::Sender<()>);

/// Requests that wait for the copy.
#[derive(Default)]
pub(crate) struct Waiters {
    outcomes: Mutex<HashMap<OutcomeKey, Vec<oneshot::Sender<StoredOutcome>>>>,
    versions: Mutex<HashMap<(KindName, RecordId), Vec<VersionWaiter>>>,
}

impl Waiters {
    /// Waits for the outcome of a command. Look into the copy after this call and before waiting, so that nothing that was
    /// committed in between is missed.
    pub(crate) fn outcome(self: &Arc<Self>, kind: &KindName, id: &RecordId, command_id: &CommandId) -> OutcomeWaiter {
        let key = (kind.clone(), Some(id.clone()), command_id.clone());
        let (sender, receiver) = oneshot::channel();
        lock(&self.outcomes).entry(key.clone()).or_default().push(sender);
        OutcomeWaiter { waiters: Arc::clone(self), key, receiver }
    }

    /// Waits until a record has at least a version; the same care as with [`Waiters::outcome`].
    pub(crate) fn version(&self, kind: &KindName, id: &RecordId, version: RecordVersion) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut versions = lock(&self.versions);
        let waiting = versions.entry((kind.clone(), id.clone())).or_default();
        waiting.retain(|(_, sender)| !sender.is_closed());
        waiting.push((version, sender));
        receiver
    }

    /// Tells what a committed message did.
    pub(crate) fn tell(&self, kind: &KindName, applied: Applied) {
        if !applied.outcomes.is_empty() {
            let mut outcomes = lock(&self.outcomes);
            for outcome in applied.outcomes.into_iter().filter(|outcome| outcome.change.is_final()) {
                if outcomes.is_empty() {
                    break;
                }
                let key = (kind.clone(), outcome.change.id.clone(), outcome.change.command_id.clone());
                for sender in outcomes.remove(&key).into_iter().flatten() {
                    // Who has stopped waiting will ask the copy.
                    let _ = sender.send(outcome.clone());
                }
            }
        }
        if let Some((id, version)) = applied.record {
            let mut versions = lock(&self.versions);
            if versions.is_empty() {
                return;
            }
            let key = (kind.clone(), id);
            if let Some(waiting) = versions.remove(&key) {
                let (ready, rest): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(wanted, _)| *wanted <= version);
                ready.into_iter().for_each(|(_, sender)| {
                    let _ = sender.send(());
                });
                if !rest.is_empty() {
                    versions.insert(key, rest);
                }
            }
        }
    }
}

/// One request's wait for an outcome. Dropping it ends the wait.
pub(crate) struct OutcomeWaiter {
    waiters: Arc<Waiters>,
    key: OutcomeKey,
    receiver: oneshot::Receiver<StoredOutcome>,
}

impl OutcomeWaiter {
    /// The outcome; pending for ever where the store has stopped.
    pub(crate) async fn wait(&mut self) -> StoredOutcome {
        match (&mut self.receiver).await {
            Ok(outcome) => outcome,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for OutcomeWaiter {
    fn drop(&mut self) {
        self.receiver.close();
        let mut outcomes = lock(&self.waiters.outcomes);
        if let Some(senders) = outcomes.get_mut(&self.key) {
            senders.retain(|sender| !sender.is_closed());
            if senders.is_empty() {
                outcomes.remove(&self.key);
            }
        }
    }
}

/// Maps are changed whole entry by whole entry, so that a panic elsewhere leaves nothing half-done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
