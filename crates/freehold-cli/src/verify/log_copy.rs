//! What a copy must be by one origin's stream: built by the same function that builds every copy, kept in memory as versions
//! and hashes only.
//!
//! A copy under traffic is somewhere in the stream, and answers with the position that it is at. So the digests are kept as
//! they were when the stream was first read to its end, with a journal of what came behind: they can be told for every
//! position from there on.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;

use freehold_core::{
    Anomaly, CommandId, CopyRead, CopyWrite, Epoch, ForwardNumber, ForwardState, GroupDigest, GroupNumber, GroupState,
    Hash, KindName, Lane, LogMessage, LogTime, RecordId, RecordPlace, RecordState, RecordVersion, Retention, SiteName,
    StoredOutcome, StreamSequence, Takeovers, apply,
};

use super::compare::{RecordMap, Summary};

/// Anomalies that are kept; all are counted.
const MAX_KEPT_ANOMALIES: usize = 100;

/// A copy of one kind by one origin's stream.
#[derive(Debug)]
pub(super) struct LogCopy {
    origin: SiteName,
    records: HashMap<RecordId, (GroupNumber, Held)>,
    /// As they were when the journal began.
    baseline: Vec<GroupDigest>,
    journal: Option<Vec<JournalEntry>>,
    /// As they are now.
    newest: Vec<GroupDigest>,
    /// The last message of the kind before the journal began.
    start: StreamSequence,
    applied: StreamSequence,
    takeovers: Takeovers,
    groups: HashMap<u16, GroupState>,
    anomalies: Vec<(StreamSequence, Anomaly)>,
    anomaly_count: usize,
}

/// The newest update of a record in the stream.
#[derive(Debug)]
struct Held {
    version: RecordVersion,
    hash: Hash,
    owner: SiteName,
    epoch: Epoch,
    sequence: StreamSequence,
}

impl Held {
    fn summary(&self) -> Summary {
        Summary { version: self.version, hash: self.hash }
    }
}

#[derive(Debug, Clone, Copy)]
struct JournalEntry {
    sequence: StreamSequence,
    group: GroupNumber,
    before: Option<Hash>,
    after: Hash,
}

impl LogCopy {
    /// An empty one, that knows which sites were taken over.
    pub(super) fn new(origin: SiteName, takeovers: Takeovers) -> Self {
        Self {
            origin,
            records: HashMap::new(),
            baseline: Vec::new(),
            journal: None,
            newest: Vec::new(),
            start: StreamSequence(0),
            applied: StreamSequence(0),
            takeovers,
            groups: HashMap::new(),
            anomalies: Vec::new(),
            anomaly_count: 0,
        }
    }

    /// Applies the next message of the stream.
    pub(super) fn apply(&mut self, message: &LogMessage) {
        // Outcomes are not kept here, so how long they are kept does not matter.
        let applied = match apply(self, Retention::default(), message) {
            Ok(applied) => applied,
            Err(never) => match never {},
        };
        if let Some(anomaly) = applied.anomaly {
            self.anomaly_count += 1;
            if self.anomalies.len() < MAX_KEPT_ANOMALIES {
                self.anomalies.push((message.sequence, anomaly));
            }
        }
    }

    /// From now on digests can be told for every position.
    pub(super) fn begin_journal(&mut self) {
        if self.journal.is_none() {
            self.start = self.applied;
            self.journal = Some(Vec::new());
        }
    }

    /// The earliest position that digests can be told for. Messages of other kinds do not move it: a copy that has no other
    /// kinds never comes past them.
    pub(super) fn start(&self) -> StreamSequence {
        self.start
    }

    /// The digests of a copy that has applied the stream up to a position, which is not before [`LogCopy::start`].
    pub(super) fn digests_at(&self, position: StreamSequence) -> Vec<GroupDigest> {
        let mut digests = self.baseline.clone();
        for entry in self.journal.iter().flatten().take_while(|entry| entry.sequence <= position) {
            replace(&mut digests, entry.group, entry.before, entry.after);
        }
        digests
    }

    /// The records of some groups, by group.
    pub(super) fn records_of(&self, groups: &[GroupNumber]) -> BTreeMap<GroupNumber, RecordMap> {
        // What lies before a cut is in the logs of those who have taken it over.
        let cut = self.takeovers.cut_of(&self.origin);
        let mut found: BTreeMap<_, RecordMap> = groups.iter().map(|group| (*group, RecordMap::new())).collect();
        for (id, (group, held)) in &self.records {
            if let Some(records) = found.get_mut(group).filter(|_| held.sequence > cut) {
                records.insert(id.clone(), held.summary());
            }
        }
        found
    }

    /// What a sound stream does not have: the first of them, and how many there are.
    pub(super) fn anomalies(&self) -> (&[(StreamSequence, Anomaly)], usize) {
        (&self.anomalies, self.anomaly_count)
    }
}

fn replace(digests: &mut Vec<GroupDigest>, group: GroupNumber, before: Option<Hash>, after: Hash) {
    let index = usize::from(group.0);
    if digests.len() <= index {
        digests.resize(index + 1, GroupDigest::default());
    }
    digests[index].replace(before, after);
}

impl CopyRead for LogCopy {
    type Error = Infallible;

    /// Of other streams nothing is read: what an update rests on there is not judged here.
    fn applied(&self, origin: &SiteName) -> Result<StreamSequence, Infallible> {
        Ok(if *origin == self.origin { self.applied } else { StreamSequence(0) })
    }

    /// Of one stream alone nothing can be said of what another would have told.
    fn dropped_until(&self, _: &SiteName) -> Result<StreamSequence, Infallible> {
        Ok(StreamSequence(0))
    }

    /// Only what `apply` compares is kept.
    fn record(&self, _: &KindName, id: &RecordId) -> Result<Option<RecordState>, Infallible> {
        Ok(self.records.get(id).map(|(_, held)| RecordState {
            version: held.version,
            owner: held.owner.clone(),
            epoch: held.epoch,
            time: LogTime(0),
            record: None,
            schema: 0,
            hash: held.hash,
            origin: self.origin.clone(),
            sequence: held.sequence,
            uncarried: Vec::new(),
            moved: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
        }))
    }

    fn outcome(&self, _: &KindName, _: Option<&RecordId>, _: &CommandId) -> Result<Option<StoredOutcome>, Infallible> {
        Ok(None)
    }

    fn group(&self, _: &SiteName, _: &KindName, group: GroupNumber) -> Result<GroupState, Infallible> {
        Ok(self.groups.get(&group.0).cloned().unwrap_or_default())
    }

    fn outcomes_of_message(&self, _: &SiteName, _: StreamSequence) -> Result<Vec<StoredOutcome>, Infallible> {
        Ok(Vec::new())
    }

    fn outcomes_complete_from(&self, _: &SiteName) -> Result<LogTime, Infallible> {
        Ok(LogTime(0))
    }

    fn digest(&self, _: &SiteName, _: &KindName, group: GroupNumber) -> Result<GroupDigest, Infallible> {
        Ok(self.newest.get(usize::from(group.0)).copied().unwrap_or_default())
    }

    fn ids_with_prefix(&self, _: &KindName, _: &str) -> Result<Vec<RecordId>, Infallible> {
        Ok(Vec::new())
    }

    fn takeovers(&self) -> Result<Takeovers, Infallible> {
        Ok(self.takeovers.clone())
    }

    fn forwards(
        &self,
        _: &Lane<'_>,
        _: ForwardNumber,
        _: usize,
    ) -> Result<Vec<(ForwardNumber, ForwardState)>, Infallible> {
        Ok(Vec::new())
    }
}

impl CopyWrite for LogCopy {
    fn put_applied(&mut self, _: &SiteName, sequence: StreamSequence, _: LogTime) -> Result<(), Infallible> {
        // The message's records were put before its position.
        for entry in self.journal.iter_mut().flatten().rev().take_while(|entry| entry.sequence == StreamSequence(0)) {
            entry.sequence = sequence;
        }
        self.applied = sequence;
        Ok(())
    }

    fn put_dropped(&mut self, _: &SiteName, _: StreamSequence) -> Result<(), Infallible> {
        Ok(())
    }

    fn put_record(
        &mut self,
        place: &RecordPlace<'_>,
        before: Option<&RecordState>,
        state: &RecordState,
    ) -> Result<(), Infallible> {
        let RecordState { version, owner, epoch, hash, sequence, .. } = state;
        let held = Held { version: *version, hash: *hash, owner: owner.clone(), epoch: *epoch, sequence: *sequence };
        self.records.insert(place.id.clone(), (place.group, held));
        let hash_of = |state: &RecordState| state.hash_at(&self.origin, place.cut);
        let before = before.and_then(hash_of);
        let Some(after) = hash_of(state).filter(|after| before != Some(*after)) else { return Ok(()) };
        replace(&mut self.newest, place.group, before, after);
        match &mut self.journal {
            None => replace(&mut self.baseline, place.group, before, after),
            Some(journal) => {
                let sequence = StreamSequence(0);
                journal.push(JournalEntry { sequence, group: place.group, before, after });
            }
        }
        Ok(())
    }

    fn forward(&self, _: &Lane<'_>, _: ForwardNumber) -> Result<Option<ForwardState>, Infallible> {
        Ok(None)
    }

    fn put_forward(&mut self, _: &Lane<'_>, _: ForwardNumber, _: Option<&ForwardState>) -> Result<(), Infallible> {
        Ok(())
    }

    fn put_outcome(&mut self, _: &KindName, _: &StoredOutcome) -> Result<(), Infallible> {
        Ok(())
    }

    fn put_message(
        &mut self,
        _: &SiteName,
        _: StreamSequence,
        _: LogTime,
        _: &KindName,
        _: &[(Option<RecordId>, CommandId)],
    ) -> Result<(), Infallible> {
        Ok(())
    }

    fn put_takeovers(&mut self, takeovers: &Takeovers) -> Result<(), Infallible> {
        self.takeovers = takeovers.clone();
        Ok(())
    }

    /// The newest claim tells which life of the log a message is of.
    fn put_group(
        &mut self,
        _: &SiteName,
        _: &KindName,
        group: GroupNumber,
        state: &GroupState,
    ) -> Result<(), Infallible> {
        self.groups.insert(group.0, GroupState { claim: state.claim.clone(), ..GroupState::default() });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use freehold_core::subject::RecordsSubject;
    use freehold_core::{BatchPlace, Incarnation, Json, RecordVersion, Update};

    use super::*;

    fn update(sequence: u64, id: &str, version: u64, previous: Option<Hash>) -> (LogMessage, Hash) {
        let (site, kind): (SiteName, KindName) = ("ewr".parse().unwrap(), "customer".parse().unwrap());
        let id: RecordId = id.parse().unwrap();
        let mut update = Update {
            log: Incarnation::new(1, "x"),
            id: id.clone(),
            kind: kind.clone(),
            version: RecordVersion(version),
            owner: site.clone(),
            epoch: Epoch(0),
            time_ms: LogTime(sequence),
            record: Some(Json::from_value(&version).unwrap()),
            schema: 1,
            hash: Hash::default(),
            previous,
            batch: BatchPlace::ALONE,
            changes: Vec::new(),
            moved: BTreeMap::new(),
        };
        update.hash = update.content_hash();
        let message = LogMessage {
            sequence: StreamSequence(sequence),
            time: LogTime(sequence),
            subject: RecordsSubject::update(&site, &kind, GroupNumber(3), &id),
            payload: serde_json::to_vec(&update).unwrap().into(),
        };
        (message, update.hash)
    }

    #[test]
    fn digests_are_told_for_every_position_since_the_start() {
        let mut copy = LogCopy::new("ewr".parse().unwrap(), Takeovers::default());
        let (first, hash_1) = update(5, "a", 1, None);
        copy.apply(&first);
        copy.begin_journal();
        assert_eq!(copy.start(), StreamSequence(5));
        let (second, hash_2) = update(8, "a", 2, Some(hash_1));
        let (third, hash_3) = update(9, "b", 1, None);
        copy.apply(&second);
        copy.apply(&third);
        let check = |position, records, hashes: &[Hash]| {
            let sum = hashes.iter().fold(0_u128, |sum, hash| sum.wrapping_add(hash.0));
            let digests = copy.digests_at(StreamSequence(position));
            assert_eq!(digests[3], GroupDigest { records, sum: Hash(sum) }, "at {position}");
        };
        check(5, 1, &[hash_1]);
        check(7, 1, &[hash_1]);
        check(8, 1, &[hash_2]);
        check(9, 2, &[hash_2, hash_3]);
        check(100, 2, &[hash_2, hash_3]);
        assert_eq!(copy.records_of(&[GroupNumber(3)])[&GroupNumber(3)].len(), 2);
        assert_eq!(copy.anomalies().1, 0);
    }

    #[test]
    fn a_message_that_does_not_fit_its_hash_is_an_anomaly_and_changes_nothing() {
        let mut copy = LogCopy::new("ewr".parse().unwrap(), Takeovers::default());
        let (mut message, _) = update(1, "a", 1, None);
        let text = String::from_utf8(message.payload.to_vec()).unwrap();
        message.payload = text.replace("\"record\":1", "\"record\":2").into();
        copy.apply(&message);
        assert_eq!((copy.records.len(), copy.anomalies().1), (0, 1));
    }
}
