//! How a message of a records log changes a copy. Only appliers call this, on the holder too.

mod between_sites;
mod takeovers;

use std::cmp::Ordering;

use bytes::Bytes;
use serde::Deserialize;

use crate::copy::{CopyWrite, GroupState, LastUpdate, RecordPlace, RecordState, Retention, StoredOutcome, Uncarried};
use crate::envelope::{DecidedCommand, Inherited, Position, RecordsBody, ResultMessage, Update};
use crate::hash::GroupDigest;
use crate::id::{CommandId, RecordId};
use crate::name::{KindName, SiteName};
use crate::number::{LogTime, RecordVersion, StreamSequence};
use crate::outcome::Change;
use crate::subject::{RecordsSubject, RecordsTopic};

use self::between_sites::{apply_forward, apply_return, end_of_way, forget_sent};
use self::takeovers::is_void;
pub use self::takeovers::{TakeoverEffect, TakeoverMessage, apply_takeover, learn_takeover};

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
    let place = RecordPlace { origin, kind, group: *group, id: &id, cut: tables.takeovers()?.cut_of(origin) };
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
    let takeovers = tables.takeovers()?;
    let seen = takeovers.see(&before.owner, before.epoch).map(|_| {
        let mut seen = before.clone();
        takeovers.see_record(&mut seen);
        seen
    });
    let taken = seen.is_some();
    let before = seen.as_ref().unwrap_or(before);
    let unlawful = || Anomaly::Unlawful { id: id(), owner: before.owner.clone(), origin: origin.clone() };
    // What tells how the record has moved may be unread, or was dropped before it was read: a log keeps a number of updates of a record.
    let mut has_read_all = true;
    for (site, sequence) in &update.moved {
        let is_whole = tables.dropped_until(site)? <= before.sequence_at(site);
        has_read_all &= is_whole && tables.applied(site)? >= *sequence;
    }
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
                let cut = tables.takeovers()?.cut_of(origin);
                let place = RecordPlace { origin, kind, group: *group, id: &carried.id, cut };
                tables.put_record(&place, Some(&before), &state)?;
            }
        }
    }
    for inherited in result.inherits {
        keep_inherited(tables, kind, inherited)?;
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
        if !is_known(tables, kind, &outcome.change)? {
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

/// Keeps outcomes of a lost site's log as that log would have brought them, where it has not.
fn keep_inherited<T: CopyWrite>(tables: &mut T, kind: &KindName, inherited: Inherited) -> Result<(), T::Error> {
    let Inherited { origin, sequence, time_ms: time, changes } = inherited;
    let mut kept = Vec::new();
    for change in changes {
        if !is_decided(tables, kind, change.id.as_ref(), &change.command_id)? {
            kept.push((change.id.clone(), change.command_id.clone()));
            tables.put_outcome(kind, &StoredOutcome { change, origin: origin.clone(), sequence, time })?;
        }
    }
    if kept.is_empty() { Ok(()) } else { tables.put_message(&origin, sequence, time, kind, &kept) }
}

/// Whether the final outcome of a command is there, whoever decided it.
fn is_decided<T: CopyWrite>(
    tables: &T,
    kind: &KindName,
    id: Option<&RecordId>,
    command_id: &CommandId,
) -> Result<bool, T::Error> {
    Ok(tables.outcome(kind, id, command_id)?.is_some_and(|known| known.change.is_final()))
}

/// Whether the outcome that this one repeats is there.
fn is_known<T: CopyWrite>(tables: &T, kind: &KindName, change: &Change) -> Result<bool, T::Error> {
    if !change.repeats {
        return Ok(false);
    }
    let known = tables.outcome(kind, change.id.as_ref(), &change.command_id)?;
    Ok(known.is_some_and(|known| change.repeats_that(&known.change)))
}

/// A command of this site's own log moves the group's furthest decided one.
fn move_highest(state: &mut GroupState, origin: &SiteName, change: &Change) {
    let further = state.highest.as_ref().is_none_or(|highest| highest.sequence < change.sequence);
    if change.was_taken_at(origin) && change.log == state.log && further {
        let Change { sequence, command_id, time_ms, .. } = change.clone();
        state.highest = Some(DecidedCommand { sequence, command_id, time_ms });
    }
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
    if message.sequence <= tables.takeovers()?.cut_of(origin) {
        // What the digest is over has ended.
        return Ok(None);
    }
    Ok(Some(tables.digest(origin, kind, *group)? == expected))
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
