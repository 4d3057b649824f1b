//! Confirmations between sites: how much of another site's log a site has for good.
//!
//! A site confirms a position when its mirror has it and one of its instances has committed it to its copy. One instance
//! at a time does so for all, the first on the member list; which one that is matters for liveness only. Positions only grow, and
//! each confirmation is published by compare-and-set on its own subject.
//!
//! Only updates and results count as positions: were a confirmation to confirm confirmations, two sites would never
//! come to rest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use freehold_core::subject::{ConfirmationSubject, RecordsTopic};
use freehold_core::{Confirmation, Incarnation, KindName, LogMessage, Member, SiteName, StreamSequence};
use freehold_jetstream::{ConfirmationsLog, Connection};

use crate::copy::Copy;
use crate::group_worker::describe;
use crate::membership::{Identity, MemberLists};

/// The least time between two confirmations on one subject.
const CONFIRM_INTERVAL: Duration = Duration::from_millis(5);
/// The pause after a confirmation that did not certainly succeed, and before the mirror is looked at again.
const CONFIRM_PAUSE: Duration = Duration::from_millis(100);

/// What sites have confirmed of each other's logs.
pub(crate) struct Confirmations {
    site: SiteName,
    log: Incarnation,
    committed: Arc<Committed>,
    newest: Mutex<HashMap<ConfirmationSubject, Confirmation>>,
    changes: watch::Sender<()>,
}

impl Confirmations {
    /// Nothing is confirmed yet. `log` is the life of the own site's log.
    pub(crate) fn new(site: SiteName, log: Incarnation, committed: Arc<Committed>) -> Self {
        Self { site, log, committed, newest: Mutex::default(), changes: watch::channel(()).0 }
    }

    /// Takes in what a site's log says, in the order of that log.
    pub(crate) fn note(&self, subject: &ConfirmationSubject, confirmation: &Confirmation) {
        lock(&self.newest).insert(subject.clone(), confirmation.clone());
        self.changes.send_replace(());
    }

    /// How many sites have confirmed a message of a kind in an origin's log, by what they say of the life of it that is known here.
    pub(crate) fn count(&self, origin: &SiteName, kind: &KindName, sequence: StreamSequence) -> usize {
        let log = if *origin == self.site { Some(self.log.clone()) } else { self.committed.life_of(origin, kind) };
        let confirms = |(subject, confirmation): &(&ConfirmationSubject, &Confirmation)| {
            let of_message = subject.origin == *origin && subject.kind == *kind && confirmation.position >= sequence;
            of_message && Some(&confirmation.log) == log.as_ref()
        };
        lock(&self.newest).iter().filter(confirms).count()
    }

    /// Waits until so many sites have confirmed a message.
    pub(crate) async fn wait(&self, origin: &SiteName, kind: &KindName, sequence: StreamSequence, wanted: usize) {
        let mut changes = self.changes.subscribe();
        while self.count(origin, kind, sequence) < wanted {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Reads what this site's log and its mirrors say already. What cannot be read now comes with the next confirmation.
    pub(crate) async fn load(&self, connection: &Connection, sites: &[SiteName], kinds: &[KindName]) {
        let log = ConfirmationsLog::new(connection.clone());
        let mut subjects = Vec::new();
        for (site, origin) in sites.iter().flat_map(|site| sites.iter().map(move |origin| (site, origin))) {
            let (site, origin) = (site.clone(), origin.clone());
            let subject = |kind: &KindName| ConfirmationSubject {
                site: site.clone(),
                kind: kind.clone(),
                origin: origin.clone(),
            };
            subjects.extend(kinds.iter().filter(|_| site != origin).map(subject));
        }
        for subject in subjects {
            match log.newest(&subject).await {
                Ok(Some((_, Some(confirmation)))) => self.note(&subject, &confirmation),
                Ok(_) => {}
                Err(error) => tracing::debug!(%subject, error = describe(&error), "no confirmation is known"),
            }
        }
    }
}

/// What this instance's copy has committed of the logs of other sites, by origin and kind.
pub(crate) struct Committed(HashMap<(SiteName, KindName), watch::Sender<Option<Confirmation>>>);

impl Committed {
    pub(crate) fn new<'a>(others: impl Iterator<Item = &'a SiteName> + Clone, kinds: &[KindName]) -> Self {
        let pairs = kinds.iter().flat_map(|kind| others.clone().map(|origin| (origin.clone(), kind.clone())));
        Self(pairs.map(|pair| (pair, watch::channel(None).0)).collect())
    }

    /// The life of an origin's log that the copy has read last.
    fn life_of(&self, origin: &SiteName, kind: &KindName) -> Option<Incarnation> {
        let committed = self.0.get(&(origin.clone(), kind.clone()))?.borrow().clone();
        committed.map(|confirmation| confirmation.log)
    }

    /// Takes in messages that were committed, in the order of the log.
    pub(crate) fn note(&self, origin: &SiteName, messages: &[LogMessage]) {
        for ((of, kind), committed) in &self.0 {
            if of != origin {
                continue;
            }
            let last = messages.iter().rev().find(|message| message.subject.kind == *kind && carries_outcomes(message));
            if let Some(confirmation) = last.and_then(position_of) {
                committed.send_replace(Some(confirmation));
            }
        }
    }
}

fn carries_outcomes(message: &LogMessage) -> bool {
    matches!(message.subject.topic, RecordsTopic::Update(_) | RecordsTopic::Result { .. })
}

fn position_of(message: &LogMessage) -> Option<Confirmation> {
    #[derive(serde::Deserialize)]
    struct Head {
        log: Incarnation,
    }
    let head: Head = serde_json::from_slice(&message.payload).ok()?;
    Some(Confirmation { log: head.log, position: message.sequence })
}

/// Confirms one kind of one origin's log for the site.
pub(crate) struct Confirmer {
    pub(crate) log: ConfirmationsLog,
    pub(crate) subject: ConfirmationSubject,
    pub(crate) copy: Copy,
    pub(crate) committed: Arc<Committed>,
    pub(crate) lists: MemberLists,
    pub(crate) member: Member,
}

impl Confirmer {
    /// One for each kind of each other site.
    pub(crate) fn all(
        connection: &Connection,
        identity: &Identity,
        copy: &Copy,
        committed: &Arc<Committed>,
        lists: &MemberLists,
    ) -> Vec<Self> {
        let confirmer = |(origin, kind): &(SiteName, KindName)| Self {
            log: ConfirmationsLog::new(connection.clone()),
            subject: ConfirmationSubject { site: identity.site.clone(), kind: kind.clone(), origin: origin.clone() },
            copy: copy.clone(),
            committed: Arc::clone(committed),
            lists: lists.clone(),
            member: identity.member.clone(),
        };
        committed.0.keys().map(confirmer).collect()
    }

    /// Runs until the copy is gone.
    pub(crate) async fn run(self) {
        let place = (self.subject.origin.clone(), self.subject.kind.clone());
        let Some(mut committed) = self.committed.0.get(&place).map(watch::Sender::subscribe) else { return };
        let mut list = self.lists.watch(&self.subject.kind);
        // The newest message on the subject and what it says, once it is known.
        let mut newest = None;
        loop {
            let have = committed.borrow_and_update().clone();
            let first = list.borrow_and_update().members.first() == Some(&self.member);
            if let Some(have) = have.filter(|_| first) {
                if !self.copy.is_mirrored(&self.subject.origin, have.position) {
                    tokio::time::sleep(CONFIRM_PAUSE).await;
                    continue;
                }
                newest = self.confirm(newest, &have).await;
                if newest.is_none() {
                    tokio::time::sleep(CONFIRM_PAUSE).await;
                    continue;
                }
                tokio::time::sleep(CONFIRM_INTERVAL).await;
            } else {
                newest = None;
            }
            tokio::select! {
                changed = committed.changed() => if changed.is_err() { return },
                changed = list.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Publishes what is not confirmed yet; returns what the subject says then, or nothing where that is not certain.
    async fn confirm(
        &self,
        newest: Option<(StreamSequence, Option<Confirmation>)>,
        have: &Confirmation,
    ) -> Option<(StreamSequence, Option<Confirmation>)> {
        let (expected, said) = match newest {
            Some(newest) => newest,
            None => match self.log.newest(&self.subject).await {
                Ok(found) => found.unwrap_or_default(),
                Err(error) => {
                    tracing::debug!(subject = %self.subject, error = describe(&error), "the confirmations cannot be read");
                    return None;
                }
            },
        };
        if said.as_ref().is_some_and(|said| said.log == have.log && said.position >= have.position) {
            return Some((expected, said));
        }
        match self.log.confirm(&self.subject, expected, have).await {
            Ok(sequence) => Some((sequence, Some(have.clone()))),
            Err(error) => {
                tracing::debug!(subject = %self.subject, error = describe(&error), "not confirmed yet");
                None
            }
        }
    }
}

/// Maps are changed whole entry by whole entry, so that a panic elsewhere leaves nothing half-done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(site: &str, origin: &str) -> ConfirmationSubject {
        ConfirmationSubject {
            site: site.parse().unwrap(),
            kind: "counter".parse().unwrap(),
            origin: origin.parse().unwrap(),
        }
    }

    #[test]
    fn only_what_is_said_of_the_known_life_of_a_log_counts() {
        let site = |name: &str| name.parse::<SiteName>().unwrap();
        let (kind, other): (KindName, KindName) = ("counter".parse().unwrap(), "other".parse().unwrap());
        let log = Incarnation::new(2, "now");
        let committed = Arc::new(Committed::new([site("jfk"), site("lga")].iter(), std::slice::from_ref(&kind)));
        let confirmations = Confirmations::new(site("ewr"), log.clone(), Arc::clone(&committed));
        let at = |log: &Incarnation, position| Confirmation { log: log.clone(), position: StreamSequence(position) };
        confirmations.note(&subject("jfk", "ewr"), &at(&Incarnation::new(1, "before"), 9));
        let count = |origin: &str, sequence| confirmations.count(&site(origin), &kind, StreamSequence(sequence));
        assert_eq!(count("ewr", 1), 0);
        confirmations.note(&subject("jfk", "ewr"), &at(&log, 5));
        confirmations.note(&subject("lga", "ewr"), &at(&log, 7));
        assert_eq!((count("ewr", 5), count("ewr", 6), count("ewr", 7), count("ewr", 8)), (2, 1, 1, 0));
        assert_eq!(confirmations.count(&site("ewr"), &other, StreamSequence(1)), 0);

        // Of a third site's log the life counts that this copy has read.
        confirmations.note(&subject("jfk", "lga"), &at(&log, 3));
        assert_eq!(count("lga", 3), 0);
        committed.0[&(site("lga"), kind.clone())].send_replace(Some(at(&log, 1)));
        assert_eq!((count("lga", 3), count("lga", 4)), (1, 0));
    }
}
