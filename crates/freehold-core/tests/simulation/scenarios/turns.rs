//! The group changes hands all the time.

use freehold_core::{Event, MAX_ATTEMPTS, Status, StreamSequence};

use crate::instance::CopyLeft;
use crate::scenarios::stage::{A, B, Stage, both_ways};
use crate::world::Setup;

const TURNS: usize = 2_000;

/// Every other turn the former holder hears nothing of it and sends what it has decided.
#[test]
fn s25_two_instances_that_claim_in_turn_lose_and_double_nothing() {
    for batched in [false, true] {
        let mut stage = Stage::held(Setup { batched, outcomes_ms: 5_000, audit_window_ms: 500, ..Setup::default() });
        // The trace of thousands of turns would be longer than its use.
        stage.world.trace = None;
        let mut calls = vec![stage.call(A, "create", 0), stage.call(B, "create", 0)];
        let mut newest = stage.world.records.newest_claim(0);
        for turn in 0..TURNS {
            let (former, next) = (turn % 2, 1 - turn % 2);
            let id = [A, B][turn / 2 % 2];
            calls.push(stage.call(id, "add", 1));
            if turn % 4 < 2 {
                stage.decide(former);
            }
            stage.take_over(next);
            let claim = stage.world.records.newest_claim(0);
            assert!(claim > newest, "turn {turn}");
            newest = claim;
            // Late, and in vain.
            stage.serve_all(former);
            stage.hear(former);
            assert!(!stage.holds(former, 0) || turn % 4 >= 2);
            if turn % 5 == 0 {
                stage.tell(next, Event::PositionDue);
                stage.alone(next);
            }
            if turn % 97 == 0 {
                stage.world.crash(former, CopyLeft::Committed);
                stage.world.start(former);
            }
            stage.sound();
        }
        stage.rest();
        let total = stage.counter(A).unwrap() + stage.counter(B).unwrap();
        assert_eq!((stage.counter(A), total), (Some(TURNS as i64 / 2), TURNS as i64));
        assert_eq!(stage.version(A) + stage.version(B), TURNS as u64 + 2);
        let last = calls.split_off(calls.len() - 20);
        assert!(last.into_iter().all(|call| stage.status(call) == Status::Applied));
    }
}

/// Each time an attempt is logged, the group goes to the other instance before the decision is. Nobody has died of the
/// command: it is not to blame, however often that happens.
#[test]
fn s25_a_command_is_not_to_blame_for_turns_that_come_too_soon() {
    both_ways(|setup| {
        let mut stage = Stage::held(setup);
        let create = stage.call(A, "create", 1);
        stage.settle();
        // Two claims without an outcome between them: from now on every command is suspected.
        for next in [1, 0] {
            stage.take_over(next);
            let former = 1 - next;
            stage.tell(former, Event::Unassigned);
            stage.serve_all(former);
            stage.hear(former);
        }
        let add = stage.call(A, "add", 1);
        for turn in 0..6 * MAX_ATTEMPTS as usize {
            let (former, next) = (turn % 2, 1 - turn % 2);
            let attempts = stage.attempts();
            stage.world.now += 1;
            stage.world.assign(0, Some(next));
            for _ in 0..60 {
                if stage.attempts() == attempts {
                    stage.world.go_on(next);
                }
            }
            if stage.attempts() != attempts + 1 {
                stage.fail(&format!("turn {turn}: no attempt was logged"));
            }
            // Late, and in vain.
            stage.serve_all(former);
            stage.hear(former);
            stage.sound();
        }
        stage.rest();
        assert_eq!([create, add].map(|call| stage.status(call)), [Status::Applied, Status::Applied]);
        assert_eq!((stage.counter(A), stage.updates(A)), (Some(2), 2));
    });
}

/// A planned stop finishes what is under way and logs the position, so that the next holder has nothing to do again.
#[test]
fn s25_a_holder_that_stops_leaves_nothing_to_do_again() {
    both_ways(|setup| {
        let mut stage = Stage::held(setup);
        let create = stage.call(A, "create", 1);
        stage.decide(0);
        stage.tell(0, Event::Stop);
        assert!(!stage.world.instances[0].seats[0].stopped && stage.holds(0, 0), "a flush is under way");
        stage.alone(0);
        assert!(stage.world.instances[0].seats[0].stopped);
        stage.take_over(1);
        assert_eq!(stage.world.instances[1].copy.group(0).position_sequence(), StreamSequence(1));
        assert_eq!(stage.world.instances[1].seats[0].consumer, Some(1), "it reads on behind the position");
        stage.rest();
        assert_eq!((stage.status(create), stage.updates(A)), (Status::Applied, 1));
    });
}
