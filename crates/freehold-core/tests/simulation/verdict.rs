//! What must hold when everything has come to rest.

use std::collections::BTreeSet;

use freehold_core::{CommandId, ErrorCode, GroupDigest, MAX_ATTEMPTS, Status, StreamSequence};

use crate::client::Call;
use crate::oracle::Decided;
use crate::world::World;

/// Whether every command is decided and every position logged and applied everywhere.
pub(crate) fn is_at_rest(world: &World) -> bool {
    unrest(world).is_empty()
}

/// What keeps the world from rest; empty where nothing does.
pub(crate) fn unrest(world: &World) -> String {
    let mut found = Vec::new();
    for (sequence, entry) in &world.commands.entries {
        if !world.is_decided(*sequence, entry) {
            found.push(format!("command {sequence} of group {} is not decided", entry.group));
        }
    }
    for group in 0..world.setup.groups {
        let newest = world.commands.behind(group, 0).last().map(|command| command.sequence).unwrap_or_default();
        for (index, instance) in world.instances.iter().enumerate() {
            let position = instance.copy.group(group).position_sequence();
            if position != newest {
                found.push(format!("i{index} has position {position} of group {group}, its last command is {newest}"));
            }
        }
    }
    found.join("; ")
}

/// The final check.
pub(crate) fn of(world: &World, calls: &[Call]) -> Result<(), String> {
    copies_are_equal(world)?;
    outcomes_are_kept(world)?;
    calls.iter().try_for_each(|call| call_is_answered(world, call))?;
    world.oracle.decided.values().try_for_each(|decided| decided_for_a_reason(world, decided))?;
    emissions_are_sent(world)
}

fn copies_are_equal(world: &World) -> Result<(), String> {
    let first = &world.instances[0].copy;
    for (index, instance) in world.instances.iter().enumerate() {
        let copy = &instance.copy;
        if copy.applied != world.records.last() {
            return Err(format!("i{index} has applied {} of {}", copy.applied, world.records.last()));
        }
        for (id, track) in &world.oracle.records {
            let held = copy.records.get(id).map(|state| (state.version, Some(state.hash)));
            if held.unwrap_or_default() != (track.version, track.hash) {
                return Err(format!("i{index} has {id} as {held:?}, the log as {track:?}"));
            }
        }
        let mut digests = std::collections::BTreeMap::<u16, GroupDigest>::new();
        for (id, state) in &copy.records {
            digests.entry(world.group_of(id)).or_default().replace(None, state.hash);
        }
        if digests != copy.digests || copy.digests != first.digests {
            return Err(format!("i{index} has digests {:?}, not {digests:?} or {:?}", copy.digests, first.digests));
        }
        for group in 0..world.setup.groups {
            let (mine, other) = (copy.group(group), first.group(group));
            if (&mine.claim, mine.log, &mine.position, &mine.highest)
                != (&other.claim, other.log, &other.position, &other.highest)
            {
                return Err(format!("i{index} has group {group} as {mine:?}, i0 as {other:?}"));
            }
        }
    }
    Ok(())
}

/// P2: every outcome younger than W is in every copy, whatever a limit, a TTL or an expiry has dropped.
fn outcomes_are_kept(world: &World) -> Result<(), String> {
    for (key, decided) in &world.oracle.decided {
        if world.now - decided.time >= world.setup.outcomes_ms {
            continue;
        }
        for (index, instance) in world.instances.iter().enumerate() {
            let held = instance.copy.outcomes.get(key).map(|outcome| &outcome.change);
            if held != Some(decided.newest()) {
                return Err(format!("i{index} has {held:?} for {key:?}, the log {:?}", decided.newest()));
            }
        }
    }
    Ok(())
}

fn call_is_answered(world: &World, call: &Call) -> Result<(), String> {
    let known = world.oracle.decided(&call.message.id, &call.message.command_id);
    if call.times_sent > 0 && call.answer.is_none() && world.may_retry(call) {
        return Err(format!("{} {} has no answer; {known:?}", call.message.id, call.message.command_id));
    }
    Ok(())
}

/// `dead` and `outcome_unknown` are last resorts, never a way out.
fn decided_for_a_reason(world: &World, decided: &Decided) -> Result<(), String> {
    let (change, outcome) = (&decided.change, &decided.change.outcome);
    let code = outcome.error.as_ref().map(|error| error.code);
    let poison = change.name.as_ref().is_some_and(|name| name.as_str() == "panic");
    let justified = match (outcome.status, code) {
        (Status::Dead, _) if change.id.is_none() || poison => true,
        (Status::Dead, _) => world.oracle.attempts(&change.command_id) >= MAX_ATTEMPTS,
        (_, Some(ErrorCode::OutcomeUnknown)) => world.forgetful,
        (_, Some(ErrorCode::Internal)) => false,
        _ => true,
    };
    if !justified {
        return Err(format!("no reason for {change:?}"));
    }
    let lettered = world.dead_letters.iter().any(|letter| letter.change == *change);
    if outcome.status == Status::Dead && !lettered && world.rewinds == 0 {
        return Err(format!("no dead letter for {change:?}"));
    }
    Ok(())
}

/// What an update asks for is sent and decided. A command log that lost its tail may have lost what was sent, and the
/// commands that asked for it.
fn emissions_are_sent(world: &World) -> Result<(), String> {
    if world.rewinds > 0 {
        return Ok(());
    }
    let decided: BTreeSet<&CommandId> =
        world.oracle.decided.values().map(|decided| &decided.change.command_id).collect();
    for Decided { change, .. } in world.oracle.decided.values() {
        for index in 0..change.emits.len() {
            let child = change.command_id.emitted(index);
            if !decided.contains(&child) {
                return Err(format!("{child} of command {} was never decided", StreamSequence(change.sequence.0)));
            }
        }
    }
    Ok(())
}
