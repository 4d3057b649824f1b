//! The log keeps the last N updates of a record. No outcome may go with those that it drops.

use std::collections::BTreeSet;

use freehold_core::Status;

use crate::instance::CopyLeft;
use crate::scenarios::stage::{A, ALL_LEFT, Caller, Stage, both_ways};

/// One update for each command.
fn add_one_by_one(stage: &mut Stage, count: usize) -> Vec<Caller> {
    let add = |n| {
        let call = stage.call(A, if n == 0 { "create" } else { "add" }, 1);
        stage.alone(0);
        call
    };
    (0..count).map(add).collect()
}

/// The second instance becomes the holder and answers every caller again as the first has decided.
fn second_answers_again(stage: &mut Stage, left: CopyLeft, calls: &[Caller]) {
    stage.world.instances[1].applier_stopped = false;
    stage.world.crash(0, left);
    stage.take_over(1);
    stage.all_again(calls);
    stage.rest();
    let count = calls.len();
    assert_eq!((stage.counter(A), stage.version(A)), (Some(count as i64), count as u64));
    for (version, call) in (1..).zip(calls) {
        let outcome = stage.outcome(*call);
        assert_eq!((outcome.status, outcome.version.0), (Status::Applied, version));
    }
}

/// The copy has skipped versions, its instance becomes the holder, and every caller of old asks again.
#[test]
fn s21_a_copy_that_skips_versions_knows_every_outcome() {
    for left in ALL_LEFT {
        both_ways(|setup| {
            let history = usize::try_from(setup.history).unwrap();
            let mut stage = Stage::held(setup);
            stage.world.instances[1].applier_stopped = true;
            // The last flush carries, too: what it repeats is older than what it decides.
            let count = 5 * history + 1;
            let calls = add_one_by_one(&mut stage, count);
            assert_eq!(stage.updates(A), count);
            let highest = stage.world.instances[0].copy.group(0).highest;
            assert_eq!(highest.map(|decided| decided.sequence.0), Some(count as u64));
            assert!(stage.world.records.kept() < count, "most updates are gone before the second has read any");
            second_answers_again(&mut stage, left, &calls);
            let carried = stage.carried();
            let each: BTreeSet<_> = carried.iter().collect();
            assert_eq!(each.len(), carried.len(), "no update is carried twice");
        });
    }
}

/// The holder's own copy lags: it cannot repeat outcomes that it has not read, and so publishes no more of the record.
#[test]
fn s21_a_holder_waits_for_its_copy_before_the_history_limit_takes_an_outcome() {
    both_ways(|setup| {
        let history = usize::try_from(setup.history).unwrap();
        let mut stage = Stage::held(setup);
        stage.world.instances[0].applier_stopped = true;
        stage.world.instances[1].applier_stopped = true;
        let calls = add_one_by_one(&mut stage, 3 * history);
        assert_eq!(stage.updates(A), history - 2);
        let holder = &stage.world.instances[0].seats[0].holder;
        assert!(holder.awaits().is_some(), "it asks for its copy");
        assert_eq!(holder.waiting(), 3 * history - (history - 2));
        // Another record goes on meanwhile.
        let other = stage.call("ewr-b", "create", 1);
        stage.alone(0);
        assert_eq!(stage.updates("ewr-b"), 0, "nothing overtakes while the holder waits for its copy");
        stage.world.instances[0].applier_stopped = false;
        stage.alone(0);
        assert_eq!((stage.updates("ewr-b"), stage.counter(A)), (1, Some(3 * history as i64)));
        stage.rest();
        assert_eq!(stage.status(other), Status::Applied);
        for (version, call) in (1..).zip(calls) {
            assert_eq!(stage.outcome(call).version.0, version);
        }
    });
}

/// The holder dies again and again before it has carried what the one before it published.
#[test]
fn s21_no_outcome_is_lost_over_many_holders_of_a_hot_record() {
    both_ways(|setup| {
        let mut stage = Stage::held(setup);
        stage.world.instances[1].applier_stopped = true;
        let mut calls = Vec::new();
        for turn in 0..24 {
            calls.push(stage.call(A, if turn == 0 { "create" } else { "add" }, 1));
            stage.alone(0);
            if turn % 3 == 2 {
                stage.restart(0, [CopyLeft::Committed, CopyLeft::Nothing][turn % 2]);
                stage.alone(0);
            }
        }
        stage.rest();
        for (version, call) in (1..).zip(calls) {
            assert_eq!(stage.outcome(call).version.0, version);
        }
    });
}

/// Another record's command is decided ahead of one that waits for the copy. The group is handed over, and the position must not
/// pass the one that waits.
#[test]
fn s21_a_position_does_not_pass_a_command_that_waits() {
    both_ways(|setup| {
        let history = usize::try_from(setup.history).unwrap();
        let mut stage = Stage::held(setup);
        stage.world.instances[0].applier_stopped = true;
        stage.world.instances[1].applier_stopped = true;
        add_one_by_one(&mut stage, history - 2);
        let waits = stage.call(A, "add", 1);
        let ahead = stage.call("ewr-b", "create", 1);
        stage.alone(0);
        assert_eq!((stage.updates(A), stage.updates("ewr-b")), (history - 2, 1));
        stage.world.assign(0, Some(1));
        stage.alone(0);
        assert!(!stage.holds(0, 0), "handed over, with its position");
        stage.rest();
        assert_eq!((stage.status(waits), stage.status(ahead)), (Status::Applied, Status::Applied));
        assert_eq!(stage.version(A), history as u64 - 1);
    });
}

/// Seed 5328: an id came again later than W, as a new command. The flush that decided it, or the next, carried the outcome of
/// the old one behind the new one, and took its place in every copy.
#[test]
fn s21_a_carried_outcome_does_not_take_the_place_of_a_newer_one() {
    for lagging in [false, true] {
        both_ways(|setup| {
            let (history, outcomes_ms) = (usize::try_from(setup.history).unwrap(), setup.outcomes_ms);
            let mut stage = Stage::held(setup);
            let uncarried = if lagging { history / 2 - 1 } else { history / 2 };
            let calls = add_one_by_one(&mut stage, uncarried);
            stage.world.now += outcomes_ms;
            stage.world.instances[0].applier_stopped = lagging;
            stage.again(calls[1]);
            stage.alone(0);
            if lagging {
                assert!(stage.carried().is_empty());
                stage.call(A, "add", 1);
                stage.alone(0);
            }
            assert!(!stage.carried().is_empty());
            stage.rest();
            let version = uncarried as u64 + 1;
            assert_eq!(stage.outcome(calls[1]).version.0, version, "the newer one's");
            assert_eq!(stage.version(A), version + u64::from(lagging));
        });
    }
}

/// A flush of an update and a result was applied by half when the next one carried: the update's outcome was still in the overlay,
/// was taken for a newer one, and was left out. Once the history limit dropped the update, nobody knew the outcome.
#[test]
fn s21_an_outcome_is_carried_while_its_flush_is_applied_by_half() {
    both_ways(|setup| {
        let history = usize::try_from(setup.history).unwrap();
        let mut stage = Stage::held(setup);
        stage.world.instances[1].applier_stopped = true;
        let mut calls = add_one_by_one(&mut stage, history / 2 - 1);
        stage.world.instances[0].applier_stopped = true;
        let mut add = |stage: &mut Stage| {
            calls.push(stage.call(A, "add", 1));
            stage.alone(0);
        };
        while stage.carried().is_empty() {
            add(&mut stage);
        }
        let first_carried = stage.carried().len();
        // All updates, that of the flush that carries among them, but not its result.
        let unread = stage.updates(A) - (history / 2 - 1);
        stage.world.instances[0].applier_stopped = false;
        assert!(stage.world.apply(0, unread));
        stage.world.instances[0].applier_stopped = true;
        while stage.carried().len() == first_carried {
            add(&mut stage);
        }
        stage.world.instances[0].applier_stopped = false;
        stage.alone(0);
        for _ in 0..2 * history {
            add(&mut stage);
        }
        second_answers_again(&mut stage, CopyLeft::Nothing, &calls);
    });
}
