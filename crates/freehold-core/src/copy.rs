//! What a copy holds, and the tables that it is kept in.
//!
//! A copy is a pure function of the log prefixes that it has applied: [`apply`](crate::apply()) is that function, over the tables
//! that [`CopyWrite`] names. The store implements them in redb, the simulation in memory.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::assignment::Member;
use crate::envelope::{Attempt, Claim, DecidedCommand, Forward};
use crate::group::GroupNumber;
use crate::hash::{GroupDigest, Hash};
use crate::id::{CommandId, RecordId, closest_right, home_rights_start};
use crate::json::Json;
use crate::name::{KindName, SiteName};
use crate::number::{CommandLogIncarnation, Epoch, ForwardNumber, LogTime, RecordVersion, StreamSequence};
use crate::outcome::Change;
use crate::takeover::Takeovers;

/// A record as a copy holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordState {
    /// State-changing commands so far.
    pub version: RecordVersion,
    /// The record's system of record.
    pub owner: SiteName,
    /// Moves of the ownership so far.
    pub epoch: Epoch,
    /// Log time of the newest command in the newest update.
    pub time: LogTime,
    /// The state; nothing when deleted.
    pub record: Option<Json>,
    /// Version of the record's schema.
    pub schema: u32,
    /// Hash of the newest update.
    pub hash: Hash,
    /// The site whose records log brought the newest update. Where that update gives the record away it is not the owner.
    pub origin: SiteName,
    /// Place of the newest update in that log.
    pub sequence: StreamSequence,
    /// Updates whose outcomes nothing but the update itself carries, and what was published behind the oldest of them; oldest
    /// first, no older than the log keeps outcomes.
    pub uncarried: Vec<Uncarried>,
    /// How far the logs of the sites that owned it before must be applied for anything to be decided about it.
    pub moved: BTreeMap<SiteName, StreamSequence>,
    /// The last update of it in the log of each other site that has owned it.
    pub elsewhere: BTreeMap<SiteName, LastUpdate>,
}

impl RecordState {
    /// The last update of the record in a site's log: its place there, its version, and its hash.
    pub fn last_at(&self, origin: &SiteName) -> Option<(StreamSequence, RecordVersion, Hash)> {
        if self.origin == *origin {
            Some((self.sequence, self.version, self.hash))
        } else {
            self.elsewhere.get(origin).map(|last| (last.sequence, last.version, last.hash))
        }
    }

    /// The hash of the last update of the record in a site's log, where that update lies behind `behind`.
    pub fn hash_at(&self, origin: &SiteName, behind: StreamSequence) -> Option<Hash> {
        self.last_at(origin).filter(|(sequence, ..)| *sequence > behind).map(|(_, _, hash)| hash)
    }

    /// The place of the last update of the record in a site's log; 0 where there is none.
    pub fn sequence_at(&self, origin: &SiteName) -> StreamSequence {
        self.last_at(origin).map(|(sequence, ..)| sequence).unwrap_or_default()
    }

    /// The updates of the record in a site's log whose outcomes nothing carries.
    pub fn uncarried_at(&self, origin: &SiteName) -> &[Uncarried] {
        if self.origin == *origin {
            &self.uncarried
        } else {
            self.elsewhere.get(origin).map(|last| last.uncarried.as_slice()).unwrap_or_default()
        }
    }
}

/// The last update of a record in one site's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastUpdate {
    /// Its place there.
    pub sequence: StreamSequence,
    /// The version that it brought.
    pub version: RecordVersion,
    /// Its hash.
    pub hash: Hash,
    /// As with [`RecordState::uncarried`].
    pub uncarried: Vec<Uncarried>,
}

/// A forwarded command that is not answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardState {
    /// The command; nothing where the copy has heard of its return only, or that a later one was dealt with.
    pub forward: Option<Forward>,
    /// Whether the site that it was sent to has returned it.
    pub returned: bool,
    /// Whether it is answered, by the site that it was sent to or, where it came back, by the one that had sent it, and what its
    /// outcome asks for may not have been sent yet.
    #[serde(default)]
    pub decided: bool,
    /// Whose outcome the answer is; nothing where it is not answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome_of: Option<OutcomeOf>,
}

/// Where the outcome of a command is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeOf {
    /// The record.
    pub id: RecordId,
    /// The command.
    pub command_id: CommandId,
}

/// An update whose outcomes no result message repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uncarried {
    /// The update's place in the log.
    pub sequence: StreamSequence,
    /// When the log took it.
    pub time: LogTime,
}

/// An outcome as a copy holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredOutcome {
    /// The command and what became of it; `id` is set wherever the command could be read.
    pub change: Change,
    /// The site whose log brought it.
    pub origin: SiteName,
    /// The message that brought it last.
    pub sequence: StreamSequence,
    /// When the log took that message.
    pub time: LogTime,
}

/// What a copy knows of one group at its origin.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GroupState {
    /// The newest claim and its place in the records log.
    pub claim: Option<(StreamSequence, Claim)>,
    /// Claims since the group's last outcome, the newest included.
    pub claims_since_outcome: u32,
    /// The life of the command log that the following fields are about.
    pub log: CommandLogIncarnation,
    /// Everything up to here is decided, stored and emitted.
    pub position: Option<DecidedCommand>,
    /// The furthest command that has an outcome.
    pub highest: Option<DecidedCommand>,
    /// The newest attempt, where no outcome followed it.
    pub attempt: Option<Attempt>,
    /// The lives of instances that logged an attempt at that command and have not claimed since: those that it may have
    /// killed.
    #[serde(default)]
    pub tried_by: Vec<Member>,
    /// When the records log took the newest claim: no earlier claim has seen a command that is younger.
    #[serde(default)]
    pub claim_time: LogTime,
    /// What earlier lives of the command log had logged up to this time was decided in them.
    #[serde(default)]
    pub decided_until: LogTime,
    /// The last number of a command that the origin has forwarded, by where to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sent: BTreeMap<SiteName, ForwardNumber>,
    /// The last number of a forwarded command that the origin has decided or returned, by where from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub received: BTreeMap<SiteName, ForwardNumber>,
    /// The last number of those of which all that their outcomes ask for was sent, by where from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub emitted: BTreeMap<SiteName, ForwardNumber>,
}

impl GroupState {
    /// The sequence behind which commands may be undecided.
    pub fn position_sequence(&self) -> StreamSequence {
        self.position.as_ref().map(|decided| decided.sequence).unwrap_or_default()
    }

    /// The last number that the origin has forwarded to a site.
    pub fn sent_to(&self, site: &SiteName) -> ForwardNumber {
        self.sent.get(site).copied().unwrap_or_default()
    }

    /// Whether what an outcome of the origin's log asks for may not have been sent, by the position.
    pub fn may_have_unsent(&self, origin: &SiteName, outcome: &StoredOutcome) -> bool {
        let change = &outcome.change;
        let behind = match &change.forwarded {
            Some(place) if place.from != *origin => place.number <= self.emitted_from(&place.from),
            // The position passed it when it was sent away.
            Some(_) => false,
            None => change.log < self.log || change.log == self.log && change.sequence <= self.position_sequence(),
        };
        change.asks_for_something() && !behind
    }

    pub(crate) fn emitted_from(&self, site: &SiteName) -> ForwardNumber {
        self.emitted.get(site).copied().unwrap_or_default()
    }

    /// The last number that the origin has decided or returned of those that a site has forwarded to it.
    pub fn received_from(&self, site: &SiteName) -> ForwardNumber {
        self.received.get(site).copied().unwrap_or_default()
    }
}

/// A copy as its readers see it: one committed state.
pub trait CopyRead {
    /// Why a read fails.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The last message of the origin's records log that the copy has applied.
    fn applied(&self, origin: &SiteName) -> Result<StreamSequence, Self::Error>;
    /// The last place of that log whose message the log may have dropped before the copy came to it; 0 where there is none.
    fn dropped_until(&self, origin: &SiteName) -> Result<StreamSequence, Self::Error>;
    /// A record; nothing where it never existed.
    fn record(&self, kind: &KindName, id: &RecordId) -> Result<Option<RecordState>, Self::Error>;
    /// The outcome of a command; `id` is nothing for commands that could not be read.
    fn outcome(
        &self,
        kind: &KindName,
        id: Option<&RecordId>,
        command_id: &CommandId,
    ) -> Result<Option<StoredOutcome>, Self::Error>;
    /// A group's state; the default where nothing was heard of it.
    fn group(&self, origin: &SiteName, kind: &KindName, group: GroupNumber) -> Result<GroupState, Self::Error>;
    /// The outcomes that one message brought and that are still kept.
    fn outcomes_of_message(
        &self,
        origin: &SiteName,
        sequence: StreamSequence,
    ) -> Result<Vec<StoredOutcome>, Self::Error>;
    /// Outcomes that ended before this time may be missing: the copy was rebuilt from streams that had already dropped
    /// them. 0 where nothing can be missing.
    fn outcomes_complete_from(&self, origin: &SiteName) -> Result<LogTime, Self::Error>;
    /// The digest of a group's records in an origin's log, over what lies behind the cut where the log was cut.
    fn digest(&self, origin: &SiteName, kind: &KindName, group: GroupNumber) -> Result<GroupDigest, Self::Error>;
    /// The ids of a kind that start with a text, deleted ones included. Only asked for the few that stand for home rights.
    fn ids_with_prefix(&self, kind: &KindName, prefix: &str) -> Result<Vec<RecordId>, Self::Error>;
    /// The takeovers that the copy knows of.
    fn takeovers(&self) -> Result<Takeovers, Self::Error>;
    /// Commands of a group that one site has forwarded to another and that are not answered, in the order of their numbers,
    /// behind `after`, at most `limit`.
    fn forwards(
        &self,
        lane: &Lane<'_>,
        after: ForwardNumber,
        limit: usize,
    ) -> Result<Vec<(ForwardNumber, ForwardState)>, Self::Error>;
}

/// The site that may create the ids of a home site that start with a prefix, in one group, by what a copy has read.
pub fn home_right_owner<C: CopyRead>(
    copy: &C,
    kind: &KindName,
    group: GroupNumber,
    home: &SiteName,
    prefix: &str,
) -> Result<SiteName, C::Error> {
    let start = home_rights_start(group, home);
    let rights = copy.ids_with_prefix(kind, &start)?;
    let moved = closest_right(&rights, &start, prefix).map(|right| copy.record(kind, right)).transpose()?;
    let (owner, epoch) =
        moved.flatten().map_or_else(|| (home.clone(), Epoch::default()), |state| (state.owner, state.epoch));
    let taken = copy.takeovers()?.see(&owner, epoch);
    Ok(taken.map_or(owner, |taken| taken.owner))
}

/// The way of a group's commands from one site to another.
#[derive(Debug, Clone, Copy)]
pub struct Lane<'a> {
    /// The kind.
    pub kind: &'a KindName,
    /// The group.
    pub group: GroupNumber,
    /// The site that takes the commands.
    pub from: &'a SiteName,
    /// The site that they are sent to.
    pub to: &'a SiteName,
}

/// A copy as an applier changes it: one transaction. Reads see what the transaction has written.
pub trait CopyWrite: CopyRead {
    /// Notes how far an origin's log is applied.
    fn put_applied(&mut self, origin: &SiteName, sequence: StreamSequence, time: LogTime) -> Result<(), Self::Error>;
    /// Notes that the origin's log may have dropped messages up to a place before the copy came to them. Never moves back.
    fn put_dropped(&mut self, origin: &SiteName, until: StreamSequence) -> Result<(), Self::Error>;
    /// Replaces a record's state and keeps the digest of its group at this origin, which is over the last updates in the
    /// origin's log, each by [`RecordState::hash_at`].
    fn put_record(
        &mut self,
        place: &RecordPlace<'_>,
        before: Option<&RecordState>,
        state: &RecordState,
    ) -> Result<(), Self::Error>;
    /// One forwarded command.
    fn forward(&self, lane: &Lane<'_>, number: ForwardNumber) -> Result<Option<ForwardState>, Self::Error>;
    /// Keeps a forwarded command, or drops it.
    fn put_forward(
        &mut self,
        lane: &Lane<'_>,
        number: ForwardNumber,
        state: Option<&ForwardState>,
    ) -> Result<(), Self::Error>;
    /// Keeps an outcome, in the place of an older one of the same command.
    fn put_outcome(&mut self, kind: &KindName, outcome: &StoredOutcome) -> Result<(), Self::Error>;
    /// Notes which outcomes a message brought, for expiry in the order of the log and for carrying.
    fn put_message(
        &mut self,
        origin: &SiteName,
        sequence: StreamSequence,
        time: LogTime,
        kind: &KindName,
        commands: &[(Option<RecordId>, CommandId)],
    ) -> Result<(), Self::Error>;
    /// Replaces what the copy knows of takeovers. The digests of logs that are cut by that, [`Takeovers::cut_since`], are empty from now on.
    fn put_takeovers(&mut self, takeovers: &Takeovers) -> Result<(), Self::Error>;
    /// Replaces a group's state.
    fn put_group(
        &mut self,
        origin: &SiteName,
        kind: &KindName,
        group: GroupNumber,
        state: &GroupState,
    ) -> Result<(), Self::Error>;
}

/// Which record, and in which group of which origin its digest counts.
#[derive(Debug, Clone, Copy)]
pub struct RecordPlace<'a> {
    /// The site whose log brought the update.
    pub origin: &'a SiteName,
    /// The kind.
    pub kind: &'a KindName,
    /// The group.
    pub group: GroupNumber,
    /// The record.
    pub id: &'a RecordId,
    /// The origin's log was cut here: the digest is over what lies behind.
    pub cut: StreamSequence,
}

/// How long things are kept; the same at every instance of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Outcomes are kept this long in log time: W.
    pub outcomes_ms: u64,
    /// Updates of a record that the log keeps: N, never less than 8.
    pub history: u64,
}

impl Retention {
    /// How long the log itself keeps what brings outcomes: twice W. A command that may be a repeat can have waited for up to W
    /// before a copy that was rebuilt from the log decides it; the outcome it repeats was younger than W when it came.
    pub fn kept_in_log_ms(&self) -> u64 {
        self.outcomes_ms.saturating_mul(2)
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self { outcomes_ms: 3_600_000, history: 64 }
    }
}

/// Whether an outcome may be dropped: it is older than outcomes are kept, by the newest message of its log and by the
/// group's position. A command behind the position may be a repeat that came in time and has waited since, for days where
/// all instances were down; the commands above the position themselves may be delivered again.
pub fn may_expire(outcome: &StoredOutcome, state: &GroupState, newest: LogTime, retention: Retention) -> bool {
    let waited_since = state.position.as_ref().map(|decided| decided.time_ms).unwrap_or_default();
    let old = newest.min(waited_since).ms_since(outcome.time) >= retention.outcomes_ms;
    let own = outcome.change.was_taken_at(&outcome.origin);
    let above_position = own && outcome.change.log == state.log && outcome.change.sequence > state.position_sequence();
    old && !above_position && outcome.change.is_final()
}
