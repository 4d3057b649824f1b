//! A records log with the semantics that the design leans on: sequences, a limit for each subject, fences, results with a
//! TTL. What a limit or a TTL drops stays in `shadow`, from where the oracle judges.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use freehold_core::subject::{RecordsSubject, RecordsTopic};
use freehold_core::{Claim, FlushMessage, LogMessage, LogTime, StreamSequence};

use crate::rules::{kind, site};

/// The log has a newer claim than the publish expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused;

#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) message: LogMessage,
    expires: Option<u64>,
}

pub(crate) struct RecordsLog {
    history: usize,
    kept: BTreeMap<u64, Rc<Stored>>,
    by_subject: HashMap<RecordsSubject, VecDeque<u64>>,
    expiring: VecDeque<(u64, u64)>,
    newest_claims: HashMap<u16, u64>,
    /// Every message ever stored, in order.
    pub(crate) shadow: Vec<Rc<Stored>>,
    /// Off only to prove that the simulation can fail.
    pub(crate) fences: bool,
}

pub(crate) fn claim_subject(group: u16) -> RecordsSubject {
    let group = freehold_core::GroupNumber(group);
    RecordsSubject { site: site(), kind: kind(), group, topic: RecordsTopic::Claim }
}

impl RecordsLog {
    pub(crate) fn new(history: u64) -> Self {
        Self {
            history: usize::try_from(history).unwrap(),
            kept: BTreeMap::new(),
            by_subject: HashMap::new(),
            expiring: VecDeque::new(),
            newest_claims: HashMap::new(),
            shadow: Vec::new(),
            fences: true,
        }
    }

    pub(crate) fn last(&self) -> u64 {
        self.shadow.len() as u64
    }

    /// Messages that a reader can still get.
    pub(crate) fn kept(&self) -> usize {
        self.kept.len()
    }

    pub(crate) fn newest_claim(&self, group: u16) -> u64 {
        self.newest_claims.get(&group).copied().unwrap_or_default()
    }

    /// A claim expects to be the successor of one certain claim.
    pub(crate) fn publish_claim(&mut self, group: u16, expected: u64, claim: &Claim, now: u64) -> Result<u64, Refused> {
        self.check_fence(group, expected)?;
        let payload = Bytes::from(serde_json::to_vec(claim).unwrap());
        let sequence = self.store(claim_subject(group), payload, None, now);
        self.newest_claims.insert(group, sequence);
        Ok(sequence)
    }

    /// R1: a message of its own.
    pub(crate) fn publish(&mut self, claim: u64, message: &FlushMessage, now: u64) -> Result<u64, Refused> {
        self.check_fence(message.subject.group.0, claim)?;
        let expires = message.ttl_ms.map(|ttl| now + ttl);
        Ok(self.store(message.subject.clone(), Bytes::from(message.payload.clone()), expires, now))
    }

    /// R3: all or nothing.
    pub(crate) fn publish_batch(&mut self, claim: u64, batch: &[FlushMessage], now: u64) -> Result<Vec<u64>, Refused> {
        batch.iter().try_for_each(|message| self.check_fence(message.subject.group.0, claim))?;
        batch.iter().map(|message| self.publish(claim, message, now)).collect()
    }

    fn check_fence(&self, group: u16, expected: u64) -> Result<(), Refused> {
        if self.fences && self.newest_claim(group) != expected { Err(Refused) } else { Ok(()) }
    }

    fn store(&mut self, subject: RecordsSubject, payload: Bytes, expires: Option<u64>, now: u64) -> u64 {
        let sequence = self.last() + 1;
        let places = self.by_subject.entry(subject.clone()).or_default();
        places.push_back(sequence);
        if places.len() > self.history {
            let oldest = places.pop_front().unwrap();
            self.kept.remove(&oldest);
        }
        if let Some(expires) = expires {
            self.expiring.push_back((expires, sequence));
        }
        let message = LogMessage { sequence: StreamSequence(sequence), time: LogTime(now), subject, payload };
        let stored = Rc::new(Stored { message, expires });
        self.kept.insert(sequence, Rc::clone(&stored));
        self.shadow.push(stored);
        sequence
    }

    /// Drops what its TTL has ended.
    pub(crate) fn expire(&mut self, now: u64) {
        while let Some((_, sequence)) = self.expiring.front().copied().filter(|(expires, _)| *expires <= now) {
            self.expiring.pop_front();
            if let Some(gone) = self.kept.remove(&sequence) {
                assert!(gone.expires.is_some());
                if let Some(places) = self.by_subject.get_mut(&gone.message.subject) {
                    places.retain(|place| *place != sequence);
                }
            }
        }
    }

    /// What a reader behind this sequence gets next.
    pub(crate) fn next_after(&self, sequence: u64) -> Option<Rc<Stored>> {
        self.kept.range(sequence + 1..).next().map(|(_, stored)| Rc::clone(stored))
    }
}
