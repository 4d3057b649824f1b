//! How a message of a records log changes a copy.
//!
//! A copy is a pure function of the log prefixes that it has applied: [`apply`] is that function, over the tables that
//! [`CopyWrite`] names. The store implements them in redb, the simulation in memory. Only appliers call it, on the holder
//! too.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::assignment::Member;
use crate::envelope::{Attempt, Claim, DecidedCommand, Forward, Position, RecordsBody, ResultMessage, Update};
use crate::group::GroupNumber;
use crate::hash::{GroupDigest, Hash};
use crate::id::{CommandId, RecordId, closest_right, home_rights_start};
use crate::json::Json;
use crate::name::{KindName, SiteName};
use crate::number::{CommandLogIncarnation, Epoch, ForwardNumber, Incarnation, LogTime, RecordVersion, StreamSequence};
use crate::outcome::{Change, ForwardPlace};
use crate::subject::{RecordsSubject, RecordsTopic};
use crate::takeover::{Takeover, Takeovers};

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
    /// The hash of the last update of the record in a site's log.
    pub fn hash_at(&self, origin: &SiteName) -> Option<Hash> {
        if self.origin == *origin { Some(self.hash) } else { self.elsewhere.get(origin).map(|last| last.hash) }
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
    /// The command; nothing where the copy has heard of its return only.
    pub forward: Option<Forward>,
    /// Whether the site that it was sent to has returned it.
    pub returned: bool,
    /// Whether it is answered, by the site that it was sent to or, where it came back, by the one that had sent it, and what its
    /// outcome asks for may not have been sent yet.
    #[serde(default)]
    pub decided: bool,
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

    fn emitted_from(&self, site: &SiteName) -> ForwardNumber {
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
    /// The digest of a group's records in an origin's log.
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
    /// Replaces what the copy knows of takeovers.
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

/// A message as an origin's records log, or a mirror of it, delivers it.
#[derive(Debug, Clone)]
pub struct LogMessage {
    /// Its place in the log.
    pub sequence: StreamSequence,
    /// When the log took it.
    pub time: LogTime,
    /// Where it was published.
    pub subject: RecordsSubject,
    /// What it says.
    pub payload: Bytes,
}

/// A takeover as its taker's log delivers it.
#[derive(Debug, Clone)]
pub struct TakeoverMessage {
    /// Its place in the log.
    pub sequence: StreamSequence,
    /// When the log took it.
    pub time: LogTime,
    /// What it says.
    pub takeover: Takeover,
}

/// What a message did to the copy: for waiting requests and for reports.
#[derive(Debug, Default)]
pub struct Applied {
    /// Outcomes that it brought.
    pub outcomes: Vec<StoredOutcome>,
    /// The record that it brought a newer version of.
    pub record: Option<(RecordId, RecordVersion)>,
    /// It has a digest, and the copy has the same or not. Where updates were dropped by the history limit before they were
    /// read, a copy differs until it has read the updates behind them.
    pub digest_fits: Option<bool>,
    /// It changed which commands wait for which site, or who owns a record.
    pub routes_changed: bool,
    /// It lies beyond the cut of a takeover, and was passed over.
    pub is_void: bool,
    /// It is a takeover that the copy had not heard of, or has heard more of now.
    pub takeover: Option<TakeoverEffect>,
    /// What was wrong with it.
    pub anomaly: Option<Anomaly>,
}

/// What a takeover means for a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeoverEffect {
    /// The lost site.
    pub lost: SiteName,
    /// The life of its log that has ended.
    pub lost_log: Incarnation,
    /// The copy has applied what lies beyond the cut: it must be made anew.
    pub is_ahead: bool,
}

/// Something in a log that a sound log does not have. Reported, never applied silently.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Anomaly {
    /// The payload is not what its subject promises.
    #[error("the message cannot be read: {0}")]
    Unreadable(String),
    /// The content hash does not fit the content.
    #[error("the content of {id} does not fit its hash")]
    HashMismatch {
        /// The record.
        id: RecordId,
    },
    /// The subject names another record, kind or site than the payload.
    #[error("the subject does not belong to {id}")]
    Misplaced {
        /// The record.
        id: RecordId,
    },
    /// The record is owned by another site than the one that published, by all that both have logged.
    #[error("{origin} published an update of {id}, which {owner} owns")]
    Unlawful {
        /// The record.
        id: RecordId,
        /// Its owner by the copy.
        owner: SiteName,
        /// Who published.
        origin: SiteName,
    },
    /// Two updates of one version differ.
    #[error("version {version} of {id} differs from the one in this copy")]
    Diverged {
        /// The record.
        id: RecordId,
        /// The version.
        version: RecordVersion,
    },
    /// The update does not follow the one in the copy: updates between them were not seen.
    #[error("updates of {id} between versions {have} and {got} were not seen")]
    Gap {
        /// The record.
        id: RecordId,
        /// The copy's version.
        have: RecordVersion,
        /// The update's version.
        got: RecordVersion,
    },
}

/// Reads the payload of a message by its subject.
pub fn read_body(message: &LogMessage) -> Result<RecordsBody, Anomaly> {
    fn body<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, Anomaly> {
        serde_json::from_slice(payload).map_err(|error| Anomaly::Unreadable(error.to_string()))
    }
    let payload = &message.payload;
    Ok(match message.subject.topic {
        RecordsTopic::Update(_) => RecordsBody::Update(body(payload)?),
        RecordsTopic::Result { .. } => RecordsBody::Result(body(payload)?),
        RecordsTopic::Claim => RecordsBody::Claim(body(payload)?),
        RecordsTopic::Position => RecordsBody::Position(body(payload)?),
        RecordsTopic::Attempt => RecordsBody::Attempt(body(payload)?),
    })
}

/// Applies one message of an origin's log. Messages of one origin must come in the order of the log; a message at or below
/// the applied position is passed over.
pub fn apply<T: CopyWrite>(tables: &mut T, retention: Retention, message: &LogMessage) -> Result<Applied, T::Error> {
    let origin = &message.subject.site;
    if message.sequence <= tables.applied(origin)? {
        return Ok(Applied::default());
    }
    let body = read_body(message);
    if is_void(tables, message, body.as_ref().ok())? {
        if let Ok(RecordsBody::Claim(claim)) = body {
            // Nothing was decided under it that counts, but who claims next must claim over it.
            change_group(tables, message, |state| state.claim = Some((message.sequence, claim)))?;
        }
        tables.put_applied(origin, message.sequence, message.time)?;
        return Ok(Applied { is_void: true, ..Applied::default() });
    }
    let applied = match body {
        Ok(RecordsBody::Update(update)) => apply_update(tables, retention, message, *update)?,
        Ok(RecordsBody::Result(result)) => apply_result(tables, message, result)?,
        Ok(RecordsBody::Claim(claim)) => change_group(tables, message, |state| {
            // Who claims is alive: what it has tried has not killed it.
            let life = claim.life();
            state.tried_by.retain(|tried| *tried != life);
            state.claim = Some((message.sequence, claim));
            state.claim_time = message.time;
            state.claims_since_outcome += 1;
        })?,
        Ok(RecordsBody::Position(position)) => {
            forget_sent(tables, message, &position)?;
            let digest_fits = check_digest(tables, message, position.digest)?;
            let applied = change_group(tables, message, |state| move_position(state, position))?;
            Applied { digest_fits, ..applied }
        }
        Ok(RecordsBody::Attempt(attempt)) => change_group(tables, message, |state| {
            if state.attempt.as_ref().is_none_or(|earlier| earlier.command != attempt.command) {
                state.tried_by.clear();
            }
            state.tried_by.extend(state.claim.as_ref().map(|(_, claim)| claim.life()));
            state.attempt = Some(attempt);
        })?,
        Err(anomaly) => Applied { anomaly: Some(anomaly), ..Applied::default() },
    };
    tables.put_applied(origin, message.sequence, message.time)?;
    Ok(applied)
}

/// Whether a message lies beyond the cut of a takeover. Where it does not say itself which life of the log it is of, the group's
/// newest claim does: whatever follows a claim was published under it or a later one.
fn is_void<T: CopyWrite>(tables: &T, message: &LogMessage, body: Option<&RecordsBody>) -> Result<bool, T::Error> {
    let RecordsSubject { site: origin, kind, group, .. } = &message.subject;
    let takeovers = tables.takeovers()?;
    if !takeovers.may_be_void(origin, message.sequence) {
        return Ok(false);
    }
    let claim = tables.group(origin, kind, *group)?.claim;
    let life = match body {
        Some(RecordsBody::Update(update)) => Some(&update.log),
        Some(RecordsBody::Result(result)) => Some(&result.log),
        Some(RecordsBody::Claim(claim)) => Some(&claim.log),
        Some(RecordsBody::Position(_) | RecordsBody::Attempt(_)) | None => claim.as_ref().map(|(_, claim)| &claim.log),
    };
    Ok(takeovers.is_void(origin, message.sequence, life))
}

/// Applies a takeover that an origin has logged.
pub fn apply_takeover<T: CopyWrite>(
    tables: &mut T,
    origin: &SiteName,
    message: &TakeoverMessage,
) -> Result<Applied, T::Error> {
    if message.sequence <= tables.applied(origin)? {
        return Ok(Applied::default());
    }
    let applied = learn_takeover(tables, message)?;
    tables.put_applied(origin, message.sequence, message.time)?;
    Ok(applied)
}

/// Takes in a takeover, wherever it was heard of: a member that has sealed a log may not be able to read that of the taker.
pub fn learn_takeover<T: CopyWrite>(tables: &mut T, message: &TakeoverMessage) -> Result<Applied, T::Error> {
    let mut takeovers = tables.takeovers()?;
    let Takeover { lost, cut, ballot, .. } = &message.takeover;
    let is_new = takeovers.iter().all(|known| known.lost != *lost || known.ballot != *ballot);
    if !takeovers.note(message.takeover.clone(), message.sequence) {
        return Ok(Applied::default());
    }
    tables.put_takeovers(&takeovers)?;
    let is_ahead = is_new && tables.applied(lost)? > *cut;
    let lost_log = message.takeover.lost_log.clone();
    let takeover = Some(TakeoverEffect { lost: lost.clone(), lost_log, is_ahead });
    Ok(Applied { routes_changed: true, takeover, ..Applied::default() })
}

fn apply_update<T: CopyWrite>(
    tables: &mut T,
    retention: Retention,
    message: &LogMessage,
    update: Update,
) -> Result<Applied, T::Error> {
    let RecordsSubject { site: origin, kind, group, topic } = &message.subject;
    let refused = |anomaly| Ok(Applied { anomaly: Some(anomaly), ..Applied::default() });
    let id = update.id.clone();
    if *topic != RecordsTopic::Update(id.token()) || update.kind != *kind {
        return refused(Anomaly::Misplaced { id });
    }
    if update.content_hash() != update.hash {
        return refused(Anomaly::HashMismatch { id });
    }
    let before = tables.record(kind, &id)?;
    let gap = match &before {
        None => None,
        Some(before) => match check_lawful(tables, origin, before, &update)? {
            Ok(gap) => gap,
            Err(anomaly) => return refused(anomaly),
        },
    };
    let changes_owner = update.owner != *origin || before.as_ref().is_some_and(|before| before.owner != update.owner);
    let newer = before.as_ref().is_none_or(|before| (before.epoch, before.version) < (update.epoch, update.version));
    let version = update.version;
    let changes = update.changes.iter().cloned().map(|change| Change { id: Some(id.clone()), ..change }).collect();
    let place = RecordPlace { origin, kind, group: *group, id: &id };
    if newer {
        let state = next_state(retention, message, before.as_ref(), update);
        tables.put_record(&place, before.as_ref(), &state)?;
    } else if let Some(before) = before.filter(|before| before.origin != *origin) {
        // The log of a site that owned the record before is read later than that of its successor.
        let mut state = before.clone();
        let uncarried = state.elsewhere.remove(origin).map(|last| last.uncarried).unwrap_or_default();
        let uncarried = with_uncarried(retention, message, uncarried);
        let last = LastUpdate { sequence: message.sequence, version, hash: update.hash, uncarried };
        state.elsewhere.insert(origin.clone(), last);
        tables.put_record(&place, Some(&before), &state)?;
    }
    let kept = keep_outcomes(tables, message, changes)?;
    let routes_changed = changes_owner || kept.routes_changed;
    let record = newer.then_some((id, version));
    Ok(Applied { outcomes: kept.outcomes, record, anomaly: gap, routes_changed, ..Applied::default() })
}

/// Whether an update may follow what the copy has; where it may, what is wrong with it all the same.
fn check_lawful<T: CopyWrite>(
    tables: &T,
    origin: &SiteName,
    before: &RecordState,
    update: &Update,
) -> Result<Result<Option<Anomaly>, Anomaly>, T::Error> {
    let id = || update.id.clone();
    let mut before = before.clone();
    let taken = tables.takeovers()?.see_record(&mut before);
    let unlawful = || Anomaly::Unlawful { id: id(), owner: before.owner.clone(), origin: origin.clone() };
    let mut has_read_all = true;
    for (site, sequence) in &update.moved {
        has_read_all &= tables.applied(site)? >= *sequence;
    }
    // What a lost site had decided up to the cut may still be unread.
    let follows = update.previous == Some(before.hash) || taken && !has_read_all;
    let gap = || (!follows).then(|| Anomaly::Gap { id: id(), have: before.version, got: update.version });
    if update.epoch < before.epoch || update.hash == before.hash {
        // Of a time before the record moved, or said again.
        return Ok(Ok(None));
    }
    if update.epoch == before.epoch {
        let same_log = before.origin == *origin;
        return Ok(match update.version.cmp(&before.version) {
            Ordering::Greater if before.owner == *origin && update.owner == *origin => Ok(gap()),
            Ordering::Equal if same_log => Err(Anomaly::Diverged { id: id(), version: update.version }),
            // Read again, or the update that gave the record to its owner, whose log was read ahead of this one.
            Ordering::Less if same_log || update.owner == before.owner => Ok(None),
            _ => Err(unlawful()),
        });
    }
    // Who has taken a record over makes it its own by an update of its own.
    let adopts = taken && update.owner == *origin;
    let gives_away = before.owner == *origin && update.epoch == before.epoch.next();
    let gives_away = gives_away && (update.owner != *origin || adopts);
    if gives_away {
        return Ok(Ok(gap()));
    }
    // It has moved, and the copy has not seen how. That is so where it has not read all that the update rests on.
    Ok(if has_read_all { Err(unlawful()) } else { Ok(None) })
}

/// The record behind its newest update.
fn next_state(retention: Retention, message: &LogMessage, before: Option<&RecordState>, update: Update) -> RecordState {
    let origin = &message.subject.site;
    let mut elsewhere = before.map(|before| before.elsewhere.clone()).unwrap_or_default();
    let uncarried = match before {
        Some(before) if before.origin == *origin => before.uncarried.clone(),
        Some(RecordState { sequence, version, hash, uncarried, origin: other, .. }) => {
            let (sequence, version, hash, uncarried) = (*sequence, *version, *hash, uncarried.clone());
            elsewhere.insert(other.clone(), LastUpdate { sequence, version, hash, uncarried });
            elsewhere.remove(origin).map(|last| last.uncarried).unwrap_or_default()
        }
        None => Vec::new(),
    };
    let uncarried = with_uncarried(retention, message, uncarried);
    let mut moved = update.moved;
    if update.owner != *origin {
        moved.insert(origin.clone(), message.sequence);
    }
    RecordState {
        version: update.version,
        owner: update.owner,
        epoch: update.epoch,
        time: update.time_ms,
        record: update.record,
        schema: update.schema,
        hash: update.hash,
        origin: origin.clone(),
        sequence: message.sequence,
        uncarried,
        moved,
        elsewhere,
    }
}

/// The updates of a record in one log whose outcomes nothing carries, with a new one.
fn with_uncarried(retention: Retention, message: &LogMessage, mut uncarried: Vec<Uncarried>) -> Vec<Uncarried> {
    uncarried.retain(|old| message.time.ms_since(old.time) < retention.kept_in_log_ms());
    let surplus = (uncarried.len() + 1).saturating_sub(usize::try_from(retention.history).unwrap_or(usize::MAX));
    uncarried.drain(..surplus);
    uncarried.push(Uncarried { sequence: message.sequence, time: message.time });
    uncarried
}

fn apply_result<T: CopyWrite>(
    tables: &mut T,
    message: &LogMessage,
    result: ResultMessage,
) -> Result<Applied, T::Error> {
    let RecordsSubject { site: origin, kind, group, .. } = &message.subject;
    for carried in &result.carries {
        if let Some(before) = tables.record(kind, &carried.id)? {
            // Carried in order only: the length of this list then is the distance of the oldest to the history limit, even
            // where the message that carried the older ones was lost.
            let oldest = before.uncarried_at(origin).first();
            if oldest.is_some_and(|update| update.sequence == carried.sequence) {
                let mut state = before.clone();
                match state.elsewhere.get_mut(origin) {
                    Some(last) => last.uncarried.remove(0),
                    None => state.uncarried.remove(0),
                };
                let place = RecordPlace { origin, kind, group: *group, id: &carried.id };
                tables.put_record(&place, Some(&before), &state)?;
            }
        }
    }
    let mut changes = result.changes;
    for place in &result.returns {
        apply_return(tables, message, place)?;
    }
    let routed = !result.returns.is_empty() || !result.forwards.is_empty();
    for forward in result.forwards {
        let change = forward.change();
        if apply_forward(tables, message, forward)? {
            changes.push(change);
        }
    }
    let kept = keep_outcomes(tables, message, changes)?;
    let routes_changed = routed || kept.routes_changed;
    Ok(Applied { outcomes: kept.outcomes, routes_changed, ..Applied::default() })
}

/// A command is on its way from this log's site to another. Tells whether it still is, by all that the copy has read.
fn apply_forward<T: CopyWrite>(tables: &mut T, message: &LogMessage, forward: Forward) -> Result<bool, T::Error> {
    let RecordsSubject { site: origin, kind, group, .. } = &message.subject;
    let place = forward.place.clone();
    change_group(tables, message, |state| {
        let sent = state.sent.entry(place.to.clone()).or_default();
        *sent = place.number.max(*sent);
        move_highest(state, origin, &forward.change());
    })?;
    if let Some(before) = &forward.instead_of {
        take_back(tables, message, before)?;
    }
    let lane = Lane { kind, group: *group, from: origin, to: &place.to };
    let known = tables.forward(&lane, place.number)?;
    // The owner's log may have been read ahead of this one.
    let answered = match &known {
        Some(known) => known.decided,
        None => tables.group(&place.to, kind, *group)?.received_from(origin) >= place.number,
    };
    if !answered {
        let returned = known.as_ref().is_some_and(|known| known.returned);
        let (command_id, id) = (forward.command.command_id.clone(), forward.command.id.clone());
        let state = ForwardState { forward: Some(forward), returned, decided: false };
        tables.put_forward(&lane, place.number, Some(&state))?;
        let known = tables.outcome(kind, Some(&id), &command_id)?;
        // What was decided of the command, here or for a caller at another site, stays.
        return Ok(!known.is_some_and(|known| known.change.is_final()));
    }
    if let Some(known) = known.filter(|known| known.decided && known.forward.is_none()) {
        tables.put_forward(&lane, place.number, Some(&ForwardState { forward: Some(forward), ..known }))?;
    }
    Ok(false)
}

/// A command that came back is dealt with by this log's site, which had sent it. It may have come back without a word, from a site
/// that was lost: that one will not find it when it returns, and must not wait for it.
fn take_back<T: CopyWrite>(tables: &mut T, message: &LogMessage, place: &ForwardPlace) -> Result<(), T::Error> {
    let RecordsSubject { site: origin, kind, group, .. } = &message.subject;
    let lane = Lane { kind, group: *group, from: origin, to: &place.to };
    tables.put_forward(&lane, place.number, None)?;
    let mut there = tables.group(&place.to, kind, *group)?;
    if there.received_from(origin) < place.number {
        there.received.insert(origin.clone(), place.number);
        tables.put_group(&place.to, kind, *group, &there)?;
    }
    Ok(())
}

/// This log's site does not decide a command that was forwarded to it.
fn apply_return<T: CopyWrite>(tables: &mut T, message: &LogMessage, place: &ForwardPlace) -> Result<(), T::Error> {
    let RecordsSubject { site: origin, kind, group, .. } = &message.subject;
    receive(tables, message, place)?;
    let lane = Lane { kind, group: *group, from: &place.from, to: origin };
    let known = tables.forward(&lane, place.number)?;
    // Who took it may have sent it on already, in a log that was read ahead of this one.
    if known.is_none() && tables.group(&place.from, kind, *group)?.sent_to(origin) >= place.number {
        return Ok(());
    }
    // It may have come back before, from a site that was lost, and be decided by now.
    if known.as_ref().is_some_and(|known| known.decided) {
        return Ok(());
    }
    let forward = known.and_then(|known| known.forward);
    tables.put_forward(&lane, place.number, Some(&ForwardState { forward, returned: true, decided: false }))
}

/// This log's site has dealt with a command that was forwarded to it.
fn receive<T: CopyWrite>(tables: &mut T, message: &LogMessage, place: &ForwardPlace) -> Result<(), T::Error> {
    change_group(tables, message, |state| {
        let received = state.received.entry(place.from.clone()).or_default();
        *received = place.number.max(*received);
    })?;
    Ok(())
}

struct KeptOutcomes {
    outcomes: Vec<StoredOutcome>,
    routes_changed: bool,
}

/// Keeps the outcomes of a message and moves the group's furthest decided command.
fn keep_outcomes<T: CopyWrite>(
    tables: &mut T,
    message: &LogMessage,
    changes: Vec<Change>,
) -> Result<KeptOutcomes, T::Error> {
    let RecordsSubject { site: origin, kind, group, .. } = &message.subject;
    let mut kept = KeptOutcomes { outcomes: Vec::with_capacity(changes.len()), routes_changed: false };
    if changes.is_empty() {
        return Ok(kept);
    }
    let mut state = tables.group(origin, kind, *group)?;
    let unchanged = state.clone();
    state.claims_since_outcome = 0;
    state.attempt = None;
    state.tried_by.clear();
    let mut commands = Vec::with_capacity(changes.len());
    for change in changes {
        if change.is_final() {
            kept.routes_changed |= end_of_way(tables, message, &change, &mut state)?;
        }
        move_highest(&mut state, origin, &change);
        commands.push((change.id.clone(), change.command_id.clone()));
        let outcome = StoredOutcome { change, origin: origin.clone(), sequence: message.sequence, time: message.time };
        if !(outcome.change.repeats && is_known(tables, kind, &outcome)?) {
            tables.put_outcome(kind, &outcome)?;
        }
        kept.outcomes.push(outcome);
    }
    tables.put_message(origin, message.sequence, message.time, kind, &commands)?;
    if state != unchanged {
        tables.put_group(origin, kind, *group, &state)?;
    }
    Ok(kept)
}

/// Whether the outcome that another one repeats is there.
fn is_known<T: CopyWrite>(tables: &T, kind: &KindName, repeat: &StoredOutcome) -> Result<bool, T::Error> {
    let Change { id, command_id, fingerprint, .. } = &repeat.change;
    let known = tables.outcome(kind, id.as_ref(), command_id)?;
    Ok(known.is_some_and(|it| it.change.is_final() && !it.change.repeats && it.change.fingerprint == *fingerprint))
}

/// A command of this site's own log moves the group's furthest decided one.
fn move_highest(state: &mut GroupState, origin: &SiteName, change: &Change) {
    let further = state.highest.as_ref().is_none_or(|highest| highest.sequence < change.sequence);
    if change.was_taken_at(origin) && change.log == state.log && further {
        let Change { sequence, command_id, time_ms, .. } = change.clone();
        state.highest = Some(DecidedCommand { sequence, command_id, time_ms });
    }
}

/// A forwarded command is on its way no more. Tells whether the change is about one.
fn end_of_way<T: CopyWrite>(
    tables: &mut T,
    message: &LogMessage,
    change: &Change,
    state: &mut GroupState,
) -> Result<bool, T::Error> {
    let RecordsSubject { site: origin, kind, group, .. } = &message.subject;
    let Some(place) = &change.forwarded else { return Ok(false) };
    if place.from == *origin {
        // It came back, and its taker has become the owner. What it asks for is found by this, the position being past it.
        let lane = Lane { kind, group: *group, from: &place.from, to: &place.to };
        let known = if change.asks_for_something() { tables.forward(&lane, place.number)? } else { None };
        take_back(tables, message, place)?;
        if let Some(known) = known {
            let state = ForwardState { returned: true, decided: true, ..known };
            tables.put_forward(&lane, place.number, Some(&state))?;
        }
        return Ok(true);
    }
    let lane = Lane { kind, group: *group, from: &place.from, to: &place.to };
    let received = state.received.entry(place.from.clone()).or_default();
    *received = place.number.max(*received);
    // Its taker's log does not deliver it again: what it asks for is found by this until a position tells that it was sent.
    let asks = change.asks_for_something();
    let known = if asks { tables.forward(&lane, place.number)? } else { None };
    // The taker's log may be read later than this one.
    let forward = known.and_then(|known| known.forward);
    let decided = ForwardState { forward, returned: false, decided: true };
    tables.put_forward(&lane, place.number, asks.then_some(&decided))?;
    Ok(true)
}

fn change_group<T: CopyWrite>(
    tables: &mut T,
    message: &LogMessage,
    change: impl FnOnce(&mut GroupState),
) -> Result<Applied, T::Error> {
    let RecordsSubject { site: origin, kind, group, .. } = &message.subject;
    let mut state = tables.group(origin, kind, *group)?;
    change(&mut state);
    tables.put_group(origin, kind, *group, &state)?;
    Ok(Applied::default())
}

/// Whether the copy has the records that the owner of the group says it must have here.
fn check_digest<T: CopyWrite>(
    tables: &T,
    message: &LogMessage,
    expected: Option<GroupDigest>,
) -> Result<Option<bool>, T::Error> {
    let RecordsSubject { site: origin, kind, group, .. } = &message.subject;
    let Some(expected) = expected else { return Ok(None) };
    Ok(Some(tables.digest(origin, kind, *group)? == expected))
}

/// What forwarded commands have asked for was sent up to a position.
fn forget_sent<T: CopyWrite>(tables: &mut T, message: &LogMessage, position: &Position) -> Result<(), T::Error> {
    let RecordsSubject { site: origin, kind, group, .. } = &message.subject;
    for (from, received) in &position.received {
        let lane = Lane { kind, group: *group, from, to: origin };
        let kept = tables.forwards(&lane, ForwardNumber(0), usize::MAX)?;
        // What came back was decided by the site that had sent it.
        let here = |state: &ForwardState| state.decided && !state.returned;
        let sent = kept.into_iter().filter(|(number, state)| here(state) && number <= received);
        for (number, _) in sent {
            tables.put_forward(&lane, number, None)?;
        }
    }
    for place in &position.settled {
        let lane = Lane { kind, group: *group, from: &place.from, to: &place.to };
        tables.put_forward(&lane, place.number, None)?;
    }
    Ok(())
}

fn move_position(state: &mut GroupState, position: Position) {
    // A copy that was rebuilt may lack the results that said so.
    let received = position.received.clone();
    let numbers =
        [(&mut state.sent, position.sent), (&mut state.received, position.received), (&mut state.emitted, received)];
    for (numbers, logged) in numbers {
        for (site, number) in logged {
            let known = numbers.entry(site).or_default();
            *known = number.max(*known);
        }
    }
    if position.log > state.log {
        state.log = position.log;
        state.highest = None;
        state.attempt = None;
        state.tried_by.clear();
    }
    if position.log == state.log {
        let furthest = state.highest.as_ref().map(|highest| highest.sequence);
        if position.decided.as_ref().map(|decided| decided.sequence) > furthest {
            state.highest.clone_from(&position.decided);
        }
        state.position = position.decided;
        state.decided_until = state.decided_until.max(position.decided_until_ms);
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
