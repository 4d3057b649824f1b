//! How a message of a records log changes a copy.
//!
//! A copy is a pure function of the log prefixes that it has applied: [`apply`] is that function, over the tables that
//! [`CopyWrite`] names. The store implements them in redb, the simulation in memory. Only appliers call it, on the holder
//! too.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::assignment::Member;
use crate::envelope::{Attempt, Claim, DecidedCommand, Position, RecordsBody, ResultMessage, Update};
use crate::group::GroupNumber;
use crate::hash::Hash;
use crate::id::{CommandId, RecordId};
use crate::json::Json;
use crate::name::{KindName, SiteName};
use crate::number::{CommandLogIncarnation, Epoch, LogTime, RecordVersion, StreamSequence};
use crate::outcome::Change;
use crate::subject::{RecordsSubject, RecordsTopic};

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
    /// Place of the newest update in its owner's records log.
    pub sequence: StreamSequence,
    /// Updates whose outcomes nothing but the update itself carries, and what was published behind the oldest of them; oldest
    /// first, no older than the log keeps outcomes.
    pub uncarried: Vec<Uncarried>,
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
}

impl GroupState {
    /// The sequence behind which commands may be undecided.
    pub fn position_sequence(&self) -> StreamSequence {
        self.position.as_ref().map(|decided| decided.sequence).unwrap_or_default()
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
}

/// A copy as an applier changes it: one transaction. Reads see what the transaction has written.
pub trait CopyWrite: CopyRead {
    /// Notes how far an origin's log is applied.
    fn put_applied(&mut self, origin: &SiteName, sequence: StreamSequence, time: LogTime) -> Result<(), Self::Error>;
    /// Replaces a record's state and keeps the digest of its group at this origin. `before` is the hash that it had there.
    fn put_record(
        &mut self,
        place: &RecordPlace<'_>,
        before: Option<Hash>,
        state: &RecordState,
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

/// What a message did to the copy: for waiting requests and for reports.
#[derive(Debug, Default)]
pub struct Applied {
    /// Outcomes that it brought.
    pub outcomes: Vec<StoredOutcome>,
    /// The record that it brought a newer version of.
    pub record: Option<(RecordId, RecordVersion)>,
    /// What was wrong with it.
    pub anomaly: Option<Anomaly>,
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
    /// The record is owned by another site than the one that published.
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
    let applied = match read_body(message) {
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
        Ok(RecordsBody::Position(position)) => change_group(tables, message, |state| move_position(state, position))?,
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

fn apply_update<T: CopyWrite>(
    tables: &mut T,
    retention: Retention,
    message: &LogMessage,
    update: Update,
) -> Result<Applied, T::Error> {
    let RecordsSubject { site: origin, kind, group, topic } = &message.subject;
    let refused = |anomaly| Ok(Applied { anomaly: Some(anomaly), ..Applied::default() });
    let id = update.id.clone();
    if *topic != RecordsTopic::Update(id.token()) || update.kind != *kind || update.owner != *origin {
        return refused(Anomaly::Misplaced { id });
    }
    if update.content_hash() != update.hash {
        return refused(Anomaly::HashMismatch { id });
    }
    let before = tables.record(kind, &id)?;
    let mut anomaly = None;
    if let Some(before) = &before {
        if before.owner != *origin {
            return refused(Anomaly::Unlawful { id, owner: before.owner.clone(), origin: origin.clone() });
        }
        if before.version == update.version && before.hash != update.hash {
            return refused(Anomaly::Diverged { id, version: update.version });
        }
        if update.version > before.version && update.previous != Some(before.hash) {
            anomaly = Some(Anomaly::Gap { id: id.clone(), have: before.version, got: update.version });
        }
    }
    let newer = before.as_ref().is_none_or(|before| before.version < update.version);
    if newer {
        let mut uncarried = before.as_ref().map(|before| before.uncarried.clone()).unwrap_or_default();
        uncarried.retain(|old| message.time.ms_since(old.time) < retention.kept_in_log_ms());
        let surplus = (uncarried.len() + 1).saturating_sub(usize::try_from(retention.history).unwrap_or(usize::MAX));
        uncarried.drain(..surplus);
        uncarried.push(Uncarried { sequence: message.sequence, time: message.time });
        let state = RecordState {
            version: update.version,
            owner: update.owner,
            epoch: update.epoch,
            time: update.time_ms,
            record: update.record,
            schema: update.schema,
            hash: update.hash,
            sequence: message.sequence,
            uncarried,
        };
        let place = RecordPlace { origin, kind, group: *group, id: &id };
        tables.put_record(&place, before.map(|before| before.hash), &state)?;
    }
    let changes = update.changes.into_iter().map(|change| Change { id: Some(id.clone()), ..change }).collect();
    let outcomes = keep_outcomes(tables, message, changes)?;
    Ok(Applied { outcomes, record: newer.then_some((id, update.version)), anomaly })
}

fn apply_result<T: CopyWrite>(
    tables: &mut T,
    message: &LogMessage,
    result: ResultMessage,
) -> Result<Applied, T::Error> {
    let RecordsSubject { site: origin, kind, group, .. } = &message.subject;
    for carried in &result.carries {
        if let Some(mut state) = tables.record(kind, &carried.id)? {
            // Carried in order only: the length of this list then is the distance of the oldest to the history limit, even
            // where the message that carried the older ones was lost.
            if state.uncarried.first().is_some_and(|update| update.sequence == carried.sequence) {
                state.uncarried.remove(0);
                let place = RecordPlace { origin, kind, group: *group, id: &carried.id };
                tables.put_record(&place, Some(state.hash), &state)?;
            }
        }
    }
    let outcomes = keep_outcomes(tables, message, result.changes)?;
    Ok(Applied { outcomes, ..Applied::default() })
}

/// Keeps the outcomes of a message and moves the group's furthest decided command.
fn keep_outcomes<T: CopyWrite>(
    tables: &mut T,
    message: &LogMessage,
    changes: Vec<Change>,
) -> Result<Vec<StoredOutcome>, T::Error> {
    let RecordsSubject { site: origin, kind, group, .. } = &message.subject;
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let mut state = tables.group(origin, kind, *group)?;
    let unchanged = state.clone();
    state.claims_since_outcome = 0;
    state.attempt = None;
    state.tried_by.clear();
    let mut outcomes = Vec::with_capacity(changes.len());
    let mut commands = Vec::with_capacity(changes.len());
    for change in changes {
        let further = state.highest.as_ref().is_none_or(|highest| highest.sequence < change.sequence);
        if change.log == state.log && further {
            state.highest = Some(DecidedCommand {
                sequence: change.sequence,
                command_id: change.command_id.clone(),
                time_ms: change.time_ms,
            });
        }
        commands.push((change.id.clone(), change.command_id.clone()));
        let outcome = StoredOutcome { change, origin: origin.clone(), sequence: message.sequence, time: message.time };
        tables.put_outcome(kind, &outcome)?;
        outcomes.push(outcome);
    }
    tables.put_message(origin, message.sequence, message.time, kind, &commands)?;
    if state != unchanged {
        tables.put_group(origin, kind, *group, &state)?;
    }
    Ok(outcomes)
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

fn move_position(state: &mut GroupState, position: Position) {
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
    let above_position = outcome.change.log == state.log && outcome.change.sequence > state.position_sequence();
    old && !above_position
}
