//! A copy in memory. Cloning it is cheap enough to keep the last fsynced state beside the visible one.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;

use freehold_core::{
    Applied, CommandId, CopyRead, CopyWrite, ForwardNumber, ForwardState, GroupDigest, GroupNumber, GroupState,
    KindName, Lane, LogMessage, LogTime, RecordId, RecordPlace, RecordState, Retention, SiteName, StoredOutcome,
    StreamSequence, Takeovers, apply, may_expire,
};

pub(crate) type CommandKey = (Option<RecordId>, CommandId);

#[derive(Clone, Default)]
pub(crate) struct MemoryCopy {
    pub(crate) applied: u64,
    pub(crate) time: u64,
    pub(crate) records: BTreeMap<RecordId, Rc<RecordState>>,
    pub(crate) outcomes: BTreeMap<CommandKey, Rc<StoredOutcome>>,
    messages: BTreeMap<u64, (u64, GroupNumber, Rc<[CommandKey]>)>,
    pub(crate) groups: BTreeMap<u16, Rc<GroupState>>,
    pub(crate) digests: BTreeMap<u16, GroupDigest>,
    pub(crate) outcomes_complete_from: u64,
    /// When the applier last found nothing more to read.
    pub(crate) caught_up: u64,
}

impl MemoryCopy {
    /// A copy that has read nothing of a log that began then.
    pub(crate) fn empty(log_began: u64) -> Self {
        Self { caught_up: log_began, ..Self::default() }
    }

    pub(crate) fn apply(&mut self, retention: Retention, message: &LogMessage) -> Applied {
        let Ok(applied) = apply(self, retention, message);
        let group = message.subject.group;
        if let Some((_, of_group, _)) = self.messages.get_mut(&message.sequence.0) {
            *of_group = group;
        }
        applied
    }

    /// Drops the outcomes that need not be kept any longer.
    pub(crate) fn expire(&mut self, retention: Retention) {
        let newest = LogTime(self.time);
        let old: Vec<u64> = self.messages.keys().copied().collect();
        for sequence in old {
            let (_, group, keys) = self.messages[&sequence].clone();
            let state = self.groups.get(&group.0).cloned().unwrap_or_default();
            let mut kept = 0;
            for key in keys.iter() {
                match self.outcomes.get(key).filter(|outcome| outcome.sequence.0 == sequence) {
                    Some(outcome) if may_expire(outcome, &state, newest, retention) => {
                        self.outcomes.remove(key);
                    }
                    Some(_) => kept += 1,
                    None => {}
                }
            }
            if kept == 0 {
                self.messages.remove(&sequence);
            }
        }
    }

    pub(crate) fn group(&self, group: u16) -> GroupState {
        self.groups.get(&group).map(|state| GroupState::clone(state)).unwrap_or_default()
    }

    pub(crate) fn outcome_of(&self, id: &RecordId, command_id: &CommandId) -> Option<Rc<StoredOutcome>> {
        self.outcomes.get(&(Some(id.clone()), command_id.clone())).cloned()
    }
}

impl CopyRead for MemoryCopy {
    type Error = Infallible;

    fn applied(&self, _: &SiteName) -> Result<StreamSequence, Infallible> {
        Ok(StreamSequence(self.applied))
    }

    /// The one log counts as whole: no record moves.
    fn dropped_until(&self, _: &SiteName) -> Result<StreamSequence, Infallible> {
        Ok(StreamSequence(0))
    }

    fn record(&self, _: &KindName, id: &RecordId) -> Result<Option<RecordState>, Infallible> {
        Ok(self.records.get(id).map(|state| RecordState::clone(state)))
    }

    fn outcome(
        &self,
        _: &KindName,
        id: Option<&RecordId>,
        command_id: &CommandId,
    ) -> Result<Option<StoredOutcome>, Infallible> {
        let key = (id.cloned(), command_id.clone());
        Ok(self.outcomes.get(&key).map(|outcome| StoredOutcome::clone(outcome)))
    }

    fn group(&self, _: &SiteName, _: &KindName, group: GroupNumber) -> Result<GroupState, Infallible> {
        Ok(self.group(group.0))
    }

    fn outcomes_of_message(&self, _: &SiteName, sequence: StreamSequence) -> Result<Vec<StoredOutcome>, Infallible> {
        let keys = self.messages.get(&sequence.0).map(|(_, _, keys)| Rc::clone(keys));
        let outcomes = keys.iter().flat_map(|keys| keys.iter()).filter_map(|key| self.outcomes.get(key));
        Ok(outcomes.filter(|it| it.sequence == sequence).map(|outcome| StoredOutcome::clone(outcome)).collect())
    }

    fn outcomes_complete_from(&self, _: &SiteName) -> Result<LogTime, Infallible> {
        Ok(LogTime(self.outcomes_complete_from))
    }

    fn digest(&self, _: &SiteName, _: &KindName, group: GroupNumber) -> Result<GroupDigest, Infallible> {
        Ok(self.digests.get(&group.0).copied().unwrap_or_default())
    }

    fn ids_with_prefix(&self, _: &KindName, prefix: &str) -> Result<Vec<RecordId>, Infallible> {
        Ok(self.records.keys().filter(|id| id.as_str().starts_with(prefix)).cloned().collect())
    }

    /// There is one site.
    fn takeovers(&self) -> Result<Takeovers, Infallible> {
        Ok(Takeovers::default())
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

impl CopyWrite for MemoryCopy {
    fn put_applied(&mut self, _: &SiteName, sequence: StreamSequence, time: LogTime) -> Result<(), Infallible> {
        self.applied = sequence.0;
        self.time = time.0;
        Ok(())
    }

    fn put_dropped(&mut self, _: &SiteName, _: StreamSequence) -> Result<(), Infallible> {
        Ok(())
    }

    fn put_record(
        &mut self,
        at: &RecordPlace<'_>,
        before: Option<&RecordState>,
        state: &RecordState,
    ) -> Result<(), Infallible> {
        self.digests.entry(at.group.0).or_default().replace(before.map(|before| before.hash), state.hash);
        self.records.insert(at.id.clone(), Rc::new(state.clone()));
        Ok(())
    }

    fn forward(&self, _: &Lane<'_>, _: ForwardNumber) -> Result<Option<ForwardState>, Infallible> {
        Ok(None)
    }

    fn put_forward(&mut self, _: &Lane<'_>, _: ForwardNumber, _: Option<&ForwardState>) -> Result<(), Infallible> {
        Ok(())
    }

    fn put_outcome(&mut self, _: &KindName, outcome: &StoredOutcome) -> Result<(), Infallible> {
        let key = (outcome.change.id.clone(), outcome.change.command_id.clone());
        self.outcomes.insert(key, Rc::new(outcome.clone()));
        Ok(())
    }

    fn put_message(
        &mut self,
        _: &SiteName,
        sequence: StreamSequence,
        time: LogTime,
        _: &KindName,
        commands: &[CommandKey],
    ) -> Result<(), Infallible> {
        self.messages.insert(sequence.0, (time.0, GroupNumber(0), commands.into()));
        Ok(())
    }

    fn put_takeovers(&mut self, _: &Takeovers) -> Result<(), Infallible> {
        Ok(())
    }

    fn put_group(
        &mut self,
        _: &SiteName,
        _: &KindName,
        group: GroupNumber,
        state: &GroupState,
    ) -> Result<(), Infallible> {
        self.groups.insert(group.0, Rc::new(state.clone()));
        Ok(())
    }
}
