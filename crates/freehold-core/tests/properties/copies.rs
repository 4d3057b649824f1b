//! A copy is a pure function of the log that it has applied, and takes nothing that a sound log does not have.

use freehold_core::subject::{RecordsSubject, RecordsTopic};
use freehold_core::{
    Anomaly, Attempt, Carried, CommandLogIncarnation, DecidedCommand, Epoch, Hash, Incarnation, Json, LogMessage,
    LogTime, RecordVersion, ResultMessage, StreamSequence, Update,
};
use proptest::prelude::*;

use crate::bench::{Bench, Setup, told};
use crate::commands::{command_logs, payload, setups, splits, with_id};
use crate::folding::{in_deliveries, one_by_one};
use crate::memory_copy::MemoryCopy;
use crate::rules::{Fields, command};

fn same(one: &MemoryCopy, other: &MemoryCopy) -> Result<(), TestCaseError> {
    prop_assert_eq!(&one.records, &other.records);
    prop_assert_eq!(&one.outcomes, &other.outcomes);
    prop_assert_eq!(&one.groups, &other.groups);
    prop_assert_eq!(&one.digests, &other.digests);
    Ok(())
}

fn logs() -> impl Strategy<Value = Bench> {
    (setups(), command_logs(), splits()).prop_map(|(setup, commands, split)| in_deliveries(setup, &commands, &split))
}

fn logs_with_updates() -> impl Strategy<Value = Bench> {
    logs().prop_filter("no update", |bench| !updates(bench).is_empty())
}

/// The updates that another one of their record follows.
fn followed(bench: &Bench) -> Vec<(usize, Update)> {
    let updates = updates(bench);
    let followed =
        |(place, update): &&(usize, Update)| updates.iter().any(|(later, it)| later > place && it.id == update.id);
    updates.iter().filter(followed).cloned().collect()
}

fn read(setup: Setup, log: &[LogMessage]) -> MemoryCopy {
    let mut copy = MemoryCopy::default();
    log.iter().for_each(|message| assert_eq!(copy.apply(setup.retention(), message).anomaly, None));
    copy
}

/// The updates of a log and their places.
fn updates(bench: &Bench) -> Vec<(usize, Update)> {
    bench.log.iter().enumerate().filter_map(|(place, message)| Some((place, told(message).update?))).collect()
}

/// The message of another update, at the end of a log.
fn published(bench: &Bench, like: &LogMessage, update: &Update) -> LogMessage {
    let payload = serde_json::to_vec(update).unwrap().into();
    LogMessage { sequence: StreamSequence(bench.log.len() as u64 + 1), payload, ..like.clone() }
}

fn rehashed(mut update: Update) -> Update {
    update.hash = update.content_hash();
    update
}

/// An update as somebody might have bent it, the hash left as it was.
fn bent(update: &Update, how: usize) -> Update {
    let it = update.clone();
    match how {
        0 => Update { version: RecordVersion(it.version.0 + 1), ..it },
        1 => Update { epoch: Epoch(it.epoch.0 + 1), ..it },
        2 => Update { time_ms: LogTime(it.time_ms.0 + 1), ..it },
        3 => Update { schema: it.schema + 1, ..it },
        4 => Update { previous: Some(Hash(it.previous.unwrap_or_default().0 ^ 1)), ..it },
        5 => Update { record: Some(Json::from_text(r#"{"n":-1}"#.to_owned()).unwrap()), ..it },
        6 => Update { hash: Hash(it.hash.0 ^ 1), ..it },
        7 => Update { id: "ewr-z".parse().unwrap(), ..it },
        8 => Update { kind: "other".parse().unwrap(), ..it },
        _ => Update { owner: "lga".parse().unwrap(), ..it },
    }
}

proptest! {
    /// A copy that reads on from any earlier place, as after a crash, is the same copy.
    #[test]
    fn a_message_counts_once(bench in logs(), back in any::<prop::sample::Index>(), reached in any::<prop::sample::Index>()) {
        let setup = bench.setup;
        let expected = read(setup, &bench.log);
        let reached = reached.index(bench.log.len()) + 1;
        let mut copy = read(setup, &bench.log[..reached]);
        for message in &bench.log[back.index(reached)..] {
            prop_assert_eq!(copy.apply(setup.retention(), message).anomaly, None);
        }
        same(&copy, &expected)?;
        for message in &bench.log {
            let applied = copy.apply(setup.retention(), message);
            prop_assert!(applied.outcomes.is_empty() && applied.record.is_none());
        }
        same(&copy, &expected)?;
        same(&bench.copy, &expected)?;
    }

    #[test]
    fn an_update_that_was_bent_changes_nothing(bench in logs_with_updates(), which in any::<prop::sample::Index>(), how in 0usize..10) {
        let updates = updates(&bench);
        let (place, update) = &updates[which.index(updates.len())];
        let message = published(&bench, &bench.log[*place], &bent(update, how));
        let expected = read(bench.setup, &bench.log);
        let mut copy = expected.clone();
        let applied = copy.apply(bench.setup.retention(), &message);
        let told = match applied.anomaly {
            Some(Anomaly::HashMismatch { .. }) => !matches!(how, 7 | 8),
            Some(Anomaly::Misplaced { .. }) => matches!(how, 7 | 8),
            _ => false,
        };
        prop_assert!(told, "{:?}", applied.anomaly);
        prop_assert!(applied.outcomes.is_empty() && applied.record.is_none());
        same(&copy, &expected)?;
        prop_assert_eq!(copy.applied, message.sequence.0, "it is passed over, and reported");
    }

    /// Sound in itself, and not what the owner's log may say.
    #[test]
    fn an_update_that_contradicts_the_copy_changes_nothing(bench in logs_with_updates(), other_site in any::<bool>()) {
        let updates = updates(&bench);
        let (place, newest) = &updates[updates.len() - 1];
        let like = bench.log[*place].clone();
        let message = match other_site {
            false => {
                let record = Some(Json::from_text(r#"{"n":-1}"#.to_owned()).unwrap());
                published(&bench, &like, &rehashed(Update { record, ..newest.clone() }))
            }
            true => {
                let version = newest.version.next();
                let owner = "lga".parse().unwrap();
                let update = Update { version, owner, previous: Some(newest.hash), ..newest.clone() };
                let subject = RecordsSubject { site: "lga".parse().unwrap(), ..like.subject.clone() };
                LogMessage { subject, ..published(&bench, &like, &rehashed(update)) }
            }
        };
        let expected = read(bench.setup, &bench.log);
        let mut copy = expected.clone();
        let applied = copy.apply(bench.setup.retention(), &message);
        let told = match applied.anomaly {
            Some(Anomaly::Diverged { .. }) => !other_site,
            Some(Anomaly::Unlawful { .. }) => other_site,
            _ => false,
        };
        prop_assert!(told, "{:?}", applied.anomaly);
        prop_assert!(applied.outcomes.is_empty() && applied.record.is_none());
        same(&copy, &expected)?;
    }

    /// A copy that missed an update says so at the next one, has the same records in the end, and an update that comes
    /// once more behind a newer one does not win.
    #[test]
    fn a_gap_is_told_and_an_older_update_does_not_win(
        bench in logs().prop_filter("no update is followed", |bench| !followed(bench).is_empty()),
        which in any::<prop::sample::Index>(),
    ) {
        let updates = updates(&bench);
        let followed = followed(&bench);
        let (missed, update) = &followed[which.index(followed.len())];
        let expected = read(bench.setup, &bench.log);
        let mut copy = MemoryCopy::default();
        let mut gaps = Vec::new();
        for (place, message) in bench.log.iter().enumerate().filter(|(place, _)| place != missed) {
            gaps.extend(copy.apply(bench.setup.retention(), message).anomaly.map(|gap| (place, gap)));
        }
        let first = updates.iter().find(|(place, it)| place > missed && it.id == update.id).unwrap();
        // Without a record there is nothing that the next update could not follow.
        let expected_gaps = usize::from(update.previous.is_some());
        prop_assert_eq!(gaps.len(), expected_gaps, "{:?}", gaps);
        for (place, gap) in gaps {
            prop_assert_eq!(place, first.0);
            let told = matches!(&gap, Anomaly::Gap { id, got, .. } if *id == update.id && *got == first.1.version);
            prop_assert!(told, "{:?}", gap);
        }
        let known = |copy: &MemoryCopy| {
            copy.records.iter().map(|(id, it)| (id.clone(), it.version, it.hash)).collect::<Vec<_>>()
        };
        prop_assert_eq!(known(&copy), known(&expected));
        prop_assert_eq!(&copy.digests, &expected.digests);
        let again = published(&bench, &bench.log[*missed], update);
        prop_assert!(matches!(again.subject.topic, RecordsTopic::Update(_)));
        let applied = copy.apply(bench.setup.retention(), &again);
        prop_assert!(applied.anomaly.is_none() && applied.record.is_none());
        prop_assert_eq!(applied.outcomes.len(), update.changes.len(), "what it decided is known from now on");
        prop_assert_eq!(known(&copy), known(&expected));
    }
}

/// A bench whose record has as many uncarried updates.
fn with_uncarried(count: usize) -> Bench {
    let setup = Setup { max_payload_bytes: 1 << 20, history: 64, batched: false };
    let add = |n: usize| {
        payload(&with_id(command("ewr-a", if n == 0 { "create" } else { "add" }, "?", &Fields::default()), n))
    };
    let commands: Vec<String> = (0..count).map(add).collect();
    let bench = one_by_one(setup, &commands);
    assert_eq!(bench.copy.records[&"ewr-a".parse().unwrap()].uncarried.len(), count);
    bench
}

/// The length of the list must stay the distance of its oldest update to the history limit, also where the message that
/// carried the older ones was lost on its way.
#[test]
fn updates_are_carried_in_order_only() {
    let bench = with_uncarried(3);
    let places: Vec<StreamSequence> = updates(&bench).iter().map(|(place, _)| bench.log[*place].sequence).collect();
    let mut copy = bench.copy.clone();
    let mut last = bench.log.len() as u64;
    let mut left_after = |carried: &[StreamSequence]| {
        last += 1;
        let topic = RecordsTopic::Result { claim: StreamSequence(1), page: 0 };
        let subject = RecordsSubject { topic, ..bench.log[0].subject.clone() };
        let carries = carried.iter().map(|at| Carried { id: "ewr-a".parse().unwrap(), sequence: *at }).collect();
        let result = ResultMessage {
            log: Incarnation::new(1, "bench"),
            kind: subject.kind.clone(),
            changes: Vec::new(),
            carries,
            inherits: Vec::new(),
            forwards: Vec::new(),
            returns: Vec::new(),
        };
        let (sequence, time) = (StreamSequence(last), LogTime(copy.time + 1));
        let payload = serde_json::to_vec(&result).unwrap().into();
        copy.apply(bench.setup.retention(), &LogMessage { sequence, time, subject, payload });
        let state = &copy.records[&"ewr-a".parse().unwrap()];
        state.uncarried.iter().map(|update| update.sequence).collect::<Vec<_>>()
    };
    assert_eq!(left_after(&places[1..]), places);
    assert_eq!(left_after(&places[..1]), places[1..]);
    assert_eq!(left_after(&places), [], "what was carried before is passed over");
}

/// Whatever a log holds, the list of uncarried updates has a bound: the log keeps no more of them.
#[test]
fn the_uncarried_updates_have_a_bound() {
    let bench = with_uncarried(20);
    let setup = Setup { history: 8, ..bench.setup };
    let copy = read(setup, &bench.log);
    assert_eq!(copy.records[&"ewr-a".parse().unwrap()].uncarried.len(), 8);
}

/// An outcome ends what was suspected: no attempt and no claim of before counts against later commands.
#[test]
fn an_outcome_ends_the_attempts() {
    let bench = with_uncarried(2);
    let like = bench.log[0].clone();
    let decided = DecidedCommand {
        sequence: StreamSequence(9),
        command_id: bench.outcomes().into_keys().next().unwrap().1,
        time_ms: LogTime(9),
    };
    let attempt = Attempt { log: CommandLogIncarnation(0), command: decided, number: 1 };
    let subject = RecordsSubject { topic: RecordsTopic::Attempt, ..like.subject.clone() };
    // Behind the claim, and before the two updates.
    let mut log = vec![like.clone()];
    log.push(LogMessage { subject, payload: serde_json::to_vec(&attempt).unwrap().into(), ..like });
    log.extend(bench.log[1..].iter().cloned());
    (1..).zip(&mut log).for_each(|(sequence, message)| message.sequence = StreamSequence(sequence));
    let copy = read(bench.setup, &log[..2]);
    assert_eq!((copy.group(0).attempt, copy.group(0).claims_since_outcome), (Some(attempt), 1));
    let copy = read(bench.setup, &log[..3]);
    assert_eq!((copy.group(0).attempt, copy.group(0).claims_since_outcome), (None, 0));
}
