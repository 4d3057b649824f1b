//! A copy of all sites' logs in memory.

use std::collections::BTreeMap;
use std::convert::Infallible;

use freehold_core::{
    CommandId, CopyRead, CopyWrite, ForwardNumber, ForwardState, GroupDigest, GroupNumber, GroupState, KindName, Lane,
    LogTime, RecordId, RecordPlace, RecordState, SiteName, StoredOutcome, StreamSequence, Takeovers,
};

type CommandKey = (Option<RecordId>, CommandId);

#[derive(Clone, Default)]
pub(crate) struct SitesCopy {
    applied: BTreeMap<SiteName, StreamSequence>,
    dropped: BTreeMap<SiteName, StreamSequence>,
    pub(crate) records: BTreeMap<RecordId, RecordState>,
    pub(crate) outcomes: BTreeMap<CommandKey, StoredOutcome>,
    messages: BTreeMap<(SiteName, StreamSequence), Vec<CommandKey>>,
    groups: BTreeMap<SiteName, GroupState>,
    pub(crate) forwards: BTreeMap<(SiteName, SiteName, ForwardNumber), ForwardState>,
    pub(crate) digests: BTreeMap<SiteName, GroupDigest>,
    pub(crate) takeovers: Takeovers,
}

impl SitesCopy {
    /// A copy that has read nothing, and knows of takeovers.
    pub(crate) fn knowing(takeovers: Takeovers) -> Self {
        Self { takeovers, ..Self::default() }
    }
}

impl CopyRead for SitesCopy {
    type Error = Infallible;

    fn applied(&self, origin: &SiteName) -> Result<StreamSequence, Infallible> {
        Ok(self.applied.get(origin).copied().unwrap_or_default())
    }

    fn dropped_until(&self, origin: &SiteName) -> Result<StreamSequence, Infallible> {
        Ok(self.dropped.get(origin).copied().unwrap_or_default())
    }

    fn record(&self, _: &KindName, id: &RecordId) -> Result<Option<RecordState>, Infallible> {
        Ok(self.records.get(id).cloned())
    }

    fn outcome(
        &self,
        _: &KindName,
        id: Option<&RecordId>,
        command_id: &CommandId,
    ) -> Result<Option<StoredOutcome>, Infallible> {
        Ok(self.outcomes.get(&(id.cloned(), command_id.clone())).cloned())
    }

    fn group(&self, origin: &SiteName, _: &KindName, _: GroupNumber) -> Result<GroupState, Infallible> {
        Ok(self.groups.get(origin).cloned().unwrap_or_default())
    }

    fn outcomes_of_message(
        &self,
        origin: &SiteName,
        sequence: StreamSequence,
    ) -> Result<Vec<StoredOutcome>, Infallible> {
        let keys = self.messages.get(&(origin.clone(), sequence)).into_iter().flatten();
        let outcomes = keys.filter_map(|key| self.outcomes.get(key));
        Ok(outcomes.filter(|it| it.origin == *origin && it.sequence == sequence).cloned().collect())
    }

    fn outcomes_complete_from(&self, _: &SiteName) -> Result<LogTime, Infallible> {
        Ok(LogTime(0))
    }

    fn digest(&self, origin: &SiteName, _: &KindName, _: GroupNumber) -> Result<GroupDigest, Infallible> {
        Ok(self.digests.get(origin).copied().unwrap_or_default())
    }

    fn ids_with_prefix(&self, _: &KindName, prefix: &str) -> Result<Vec<RecordId>, Infallible> {
        Ok(self.records.keys().filter(|id| id.as_str().starts_with(prefix)).cloned().collect())
    }

    fn takeovers(&self) -> Result<Takeovers, Infallible> {
        Ok(self.takeovers.clone())
    }

    fn forwards(
        &self,
        lane: &Lane<'_>,
        after: ForwardNumber,
        limit: usize,
    ) -> Result<Vec<(ForwardNumber, ForwardState)>, Infallible> {
        let from = (lane.from.clone(), lane.to.clone(), after.next());
        let of_lane = self.forwards.range(from..).take_while(|((from, to, _), _)| (from, to) == (lane.from, lane.to));
        Ok(of_lane.take(limit).map(|((_, _, number), state)| (*number, state.clone())).collect())
    }
}

impl CopyWrite for SitesCopy {
    fn put_applied(&mut self, origin: &SiteName, sequence: StreamSequence, _: LogTime) -> Result<(), Infallible> {
        self.applied.insert(origin.clone(), sequence);
        Ok(())
    }

    fn put_dropped(&mut self, origin: &SiteName, until: StreamSequence) -> Result<(), Infallible> {
        let known = self.dropped.entry(origin.clone()).or_default();
        *known = until.max(*known);
        Ok(())
    }

    fn put_record(
        &mut self,
        at: &RecordPlace<'_>,
        before: Option<&RecordState>,
        state: &RecordState,
    ) -> Result<(), Infallible> {
        let at_origin = |state: &RecordState| state.hash_at(at.origin, at.cut);
        if let Some(after) = at_origin(state) {
            let digest = self.digests.entry(at.origin.clone()).or_default();
            digest.replace(before.and_then(at_origin), after);
        }
        self.records.insert(at.id.clone(), state.clone());
        Ok(())
    }

    fn forward(&self, lane: &Lane<'_>, number: ForwardNumber) -> Result<Option<ForwardState>, Infallible> {
        Ok(self.forwards.get(&(lane.from.clone(), lane.to.clone(), number)).cloned())
    }

    fn put_forward(
        &mut self,
        lane: &Lane<'_>,
        number: ForwardNumber,
        state: Option<&ForwardState>,
    ) -> Result<(), Infallible> {
        let key = (lane.from.clone(), lane.to.clone(), number);
        match state {
            Some(state) => self.forwards.insert(key, state.clone()),
            None => self.forwards.remove(&key),
        };
        Ok(())
    }

    fn put_outcome(&mut self, _: &KindName, outcome: &StoredOutcome) -> Result<(), Infallible> {
        let key = (outcome.change.id.clone(), outcome.change.command_id.clone());
        self.outcomes.insert(key, outcome.clone());
        Ok(())
    }

    fn put_message(
        &mut self,
        origin: &SiteName,
        sequence: StreamSequence,
        _: LogTime,
        _: &KindName,
        commands: &[CommandKey],
    ) -> Result<(), Infallible> {
        self.messages.insert((origin.clone(), sequence), commands.to_vec());
        Ok(())
    }

    fn put_takeovers(&mut self, takeovers: &Takeovers) -> Result<(), Infallible> {
        for lost in takeovers.cut_since(&self.takeovers) {
            self.digests.remove(lost);
        }
        self.takeovers = takeovers.clone();
        Ok(())
    }

    fn put_group(
        &mut self,
        origin: &SiteName,
        _: &KindName,
        _: GroupNumber,
        state: &GroupState,
    ) -> Result<(), Infallible> {
        self.groups.insert(origin.clone(), state.clone());
        Ok(())
    }
}
