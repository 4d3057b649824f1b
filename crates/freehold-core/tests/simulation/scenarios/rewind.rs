//! The command log comes back without its tail and fills up again.

use freehold_core::{ErrorCode, Event, ReleaseReason, Status};

use crate::instance::CopyLeft;
use crate::scenarios::stage::{A, Stage, both_ways};
use crate::world::Setup;

/// The command at the position has no outcome of its own, since it was a repeat. It is lost, and the next command takes its
/// place: nobody would ever deliver that one behind the position.
#[test]
fn s53_a_lost_command_at_the_position_is_noticed() {
    both_ways(|setup| {
        let mut stage = Stage::held(setup);
        let create = stage.call(A, "create", 1);
        stage.settle();
        stage.again(create);
        stage.rest();
        assert_eq!(stage.world.instances[0].copy.group(0).position_sequence().0, 2);
        stage.world.rewind_commands(1);
        stage.world.now += 10;
        let add = stage.call(A, "add", 2);
        assert_eq!(stage.world.commands.last(), 2);
        stage.rest();
        assert_eq!((stage.status(add), stage.counter(A), stage.lives()), (Status::Applied, Some(3), 1));
    });
}

/// Old commands are still in the log, their outcomes are long forgotten, and the position that told that they are decided is
/// void. They must not be decided again, also where the log is rewound once more.
#[test]
fn s53_what_earlier_lives_decided_is_not_decided_again() {
    for rewinds in [1, 2] {
        both_ways(|setup| {
            let (outcomes_ms, retention) = (setup.outcomes_ms, setup.retention());
            let mut stage = Stage::held(Setup { audit_window_ms: u64::MAX / 2, ..setup });
            stage.call(A, "create", 1);
            stage.call(A, "add", 2);
            stage.call(A, "add", 4);
            stage.rest();
            stage.world.now += outcomes_ms;
            stage.call(A, "add", 8);
            stage.rest();
            for instance in &mut stage.world.instances {
                instance.copy.expire(retention);
                assert_eq!(instance.copy.outcomes.len(), 1, "only the newest is kept");
            }
            stage.world.rewind_commands(1);
            if rewinds == 2 {
                // The new life is logged, and nothing else, when the log is rewound again.
                stage.world.learn(0, 0);
                for _ in 0..3 {
                    stage.serve_all(0);
                    stage.hear(0);
                    stage.read(0);
                }
                assert_eq!(stage.lives(), 1);
                stage.world.rewind_commands(1);
            }
            stage.rest();
            assert_eq!((stage.counter(A), stage.version(A)), (Some(15), 4));
            let unknown = |change: &freehold_core::Change| {
                change.outcome.error.as_ref().is_some_and(|error| error.code == ErrorCode::OutcomeUnknown)
            };
            let told = stage.world.dead_letters.iter().filter(|letter| unknown(&letter.change)).count();
            assert!(told >= 3 - rewinds, "an operator is told of those that are still there");
        });
    }
}

/// Outcomes of the earlier life are carried in the new one. They say nothing of the new one's places.
#[test]
fn s53_outcomes_carried_from_an_earlier_life_do_not_count_as_commands_of_this_one() {
    both_ways(|setup| {
        let mut stage = Stage::held(setup);
        for n in 0..4 {
            stage.call(A, if n == 0 { "create" } else { "add" }, 1);
            stage.alone(0);
        }
        stage.rest();
        stage.world.rewind_commands(2);
        stage.world.now += 10;
        stage.call(A, "add", 1);
        stage.rest();
        assert!(!stage.carried().is_empty());
        for left in [CopyLeft::Committed, CopyLeft::Nothing] {
            stage.restart(0, left);
            stage.rest();
        }
        assert_eq!(stage.lives(), 1, "it was rewound once");
        assert_eq!(stage.counter(A), Some(5));
    });
}

/// The same caller's command takes the same place in the new life, but W has passed: it is a new command.
#[test]
fn s53_a_command_is_its_own_repeat_only_at_the_same_time() {
    both_ways(|setup| {
        let outcomes_ms = setup.outcomes_ms;
        let mut stage = Stage::held(setup);
        stage.call(A, "create", 1);
        let add = stage.call(A, "add", 2);
        stage.rest();
        stage.world.rewind_commands(1);
        stage.world.now += outcomes_ms;
        stage.world.settle(60);
        let before = stage.version(A);
        let message = stage.message(add);
        let again = stage.send(message);
        assert_eq!(stage.world.commands.last(), 2);
        stage.rest();
        assert_eq!((before, stage.version(A), stage.status(again)), (2, 3, Status::Applied));
    });
}

/// A log that was rewound without anybody being disconnected is noticed before anything is purged from it.
#[test]
fn s53_a_purge_that_finds_the_log_rewound_ends_the_claim() {
    let mut stage = Stage::held(Setup::default());
    for n in 0..4 {
        stage.call(A, if n == 0 { "create" } else { "add" }, 1);
    }
    stage.rest();
    stage.world.now += 10;
    stage.world.commands.lose_tail(2);
    (stage.world.rewinds, stage.world.forgetful) = (1, true);
    let purged = stage.world.purged;
    stage.tell(0, Event::AuditDue);
    stage.serve_all(0);
    stage.hear(0);
    assert_eq!((stage.last_release(), stage.world.purged), (Some(&ReleaseReason::Rewound), purged));
    let add = stage.call(A, "add", 1);
    stage.rest();
    assert_eq!((stage.status(add), stage.lives(), stage.counter(A)), (Status::Applied, 1, Some(5)));
}
