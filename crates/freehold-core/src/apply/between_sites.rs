//! Commands on their way between sites, as the logs of both ends tell of them. The two may be read in any order.

use crate::copy::{CopyWrite, ForwardState, GroupState, Lane, OutcomeOf};
use crate::envelope::{Forward, Position};
use crate::name::KindName;
use crate::number::ForwardNumber;
use crate::outcome::{Change, ForwardPlace};
use crate::routes::MAX_TAKEN_IN;
use crate::subject::RecordsSubject;

use super::{LogMessage, change_group, is_decided, move_highest};

/// A command is on its way from this log's site to another. Tells whether it still is, by all that the copy has read.
pub(super) fn apply_forward<T: CopyWrite>(
    tables: &mut T,
    message: &LogMessage,
    forward: Forward,
) -> Result<bool, T::Error> {
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
        let state = ForwardState { forward: Some(forward), returned, decided: false, outcome_of: None };
        tables.put_forward(&lane, place.number, Some(&state))?;
        // What was decided of the command, here or for a caller at another site, stays.
        return Ok(!is_decided(tables, kind, Some(&id), &command_id)?);
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
pub(super) fn apply_return<T: CopyWrite>(
    tables: &mut T,
    message: &LogMessage,
    place: &ForwardPlace,
) -> Result<(), T::Error> {
    let RecordsSubject { site: origin, kind, group, .. } = &message.subject;
    let lane = Lane { kind, group: *group, from: &place.from, to: origin };
    let mut state = tables.group(origin, kind, *group)?;
    receive(tables, &lane, &mut state, place.number)?;
    tables.put_group(origin, kind, *group, &state)?;
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
    tables.put_forward(
        &lane,
        place.number,
        Some(&ForwardState { forward, returned: true, decided: false, outcome_of: None }),
    )
}

/// This log's site has dealt with a command that was forwarded to it. A flush does not tell of such commands in the order of their
/// numbers, and other logs are read between its messages: what it passes over is not answered before the message that tells of it.
/// Were it taken for answered by its number, what its taker's log says of it meanwhile would be passed over, and its return, too.
fn receive<T: CopyWrite>(
    tables: &mut T,
    lane: &Lane<'_>,
    state: &mut GroupState,
    number: ForwardNumber,
) -> Result<(), T::Error> {
    let received = state.received.entry(lane.from.clone()).or_default();
    // All of a flush lies so near together; a copy that is made anew may find what lies before dropped.
    let passed = received.0.max(number.0.saturating_sub(MAX_TAKEN_IN as u64)) + 1..number.0;
    *received = number.max(*received);
    for passed in passed.map(ForwardNumber) {
        if tables.forward(lane, passed)?.is_none() {
            let state = ForwardState { forward: None, returned: false, decided: false, outcome_of: None };
            tables.put_forward(lane, passed, Some(&state))?;
        }
    }
    Ok(())
}

/// A forwarded command is on its way no more. Tells whether the change is about one.
pub(super) fn end_of_way<T: CopyWrite>(
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
            let state = ForwardState { returned: true, decided: true, outcome_of: outcome_of(change), ..known };
            tables.put_forward(&lane, place.number, Some(&state))?;
        }
        return Ok(true);
    }
    let lane = Lane { kind, group: *group, from: &place.from, to: &place.to };
    receive(tables, &lane, state, place.number)?;
    // Its taker's log does not deliver it again: what it asks for is found by this until a position tells that it was sent.
    let asks = change.asks_for_something() && place.number > state.emitted_from(&place.from);
    let known = if asks { tables.forward(&lane, place.number)? } else { None };
    // The taker's log may be read later than this one.
    let forward = known.and_then(|known| known.forward);
    let decided = ForwardState { forward, returned: false, decided: true, outcome_of: outcome_of(change) };
    tables.put_forward(&lane, place.number, asks.then_some(&decided))?;
    Ok(true)
}

/// Whether the outcome of a command that was forwarded is there: the message that answered it may have been dropped by the log before
/// it was read, and then another one repeats only the outcome.
fn is_answered<T: CopyWrite>(tables: &T, kind: &KindName, state: &ForwardState) -> Result<bool, T::Error> {
    let Some(Forward { command, .. }) = &state.forward else { return Ok(false) };
    is_decided(tables, kind, Some(&command.id), &command.command_id)
}

fn outcome_of(change: &Change) -> Option<OutcomeOf> {
    let command_id = change.command_id.clone();
    change.id.clone().map(|id| OutcomeOf { id, command_id })
}

/// What forwarded commands have asked for was sent up to a position.
pub(super) fn forget_sent<T: CopyWrite>(
    tables: &mut T,
    message: &LogMessage,
    position: &Position,
) -> Result<(), T::Error> {
    let RecordsSubject { site: origin, kind, group, .. } = &message.subject;
    for (from, received) in &position.received {
        let lane = Lane { kind, group: *group, from, to: origin };
        let kept = tables.forwards(&lane, ForwardNumber(0), usize::MAX)?;
        for (number, state) in kept.into_iter().take_while(|(number, _)| number <= received) {
            // What came back was decided by the site that had sent it. What was passed over was told of in a message that was dropped.
            if !state.returned && (state.decided || state.forward.is_none() || is_answered(tables, kind, &state)?) {
                tables.put_forward(&lane, number, None)?;
            }
        }
    }
    for place in &position.settled {
        let lane = Lane { kind, group: *group, from: &place.from, to: &place.to };
        tables.put_forward(&lane, place.number, None)?;
    }
    Ok(())
}
