//! One command id, several commands in the log: one effect, and the first answer for all who ask.

use freehold_core::{CommandMessage, RecordId, Status};

use crate::client::Answer;
use crate::rules::{Fields, command};
use crate::scenarios::stage::{A, B, Stage, both_ways};
use crate::world::Setup;

#[test]
fn s05_a_retry_beyond_the_duplicate_window_has_no_second_effect() {
    both_ways(|setup| {
        let mut stage = Stage::held(setup);
        stage.call(A, "create", 1);
        let add = stage.call(A, "add", 2);
        stage.settle();
        let told = stage.answer(0, add);
        for turn in 0..4 {
            stage.again(add);
            // Alone in its flush, or among others of its record.
            if turn % 2 == 0 {
                stage.call(A, "add", 10);
            }
            stage.settle();
            assert_eq!(stage.answer(1, add), told);
        }
        stage.rest();
        assert_eq!((stage.counter(A), stage.version(A)), (Some(23), 4));
        assert_eq!(stage.updates(A), 3, "a repeat is not logged again");
    });
}

/// Same id, other content: the second caller gets a conflict, and the first keeps its answer.
#[test]
fn s06_a_retry_with_other_content_is_refused() {
    for in_one_flush in [true, false] {
        both_ways(|setup| {
            let mut stage = Stage::held(setup);
            stage.call(A, "create", 1);
            stage.settle();
            let first = stage.send(command(A, "add", "same", &Fields { n: 2, ..Fields::default() }));
            if !in_one_flush {
                stage.settle();
            }
            let number = stage.send(command(A, "add", "same", &Fields { n: 3, ..Fields::default() }));
            let name = stage.send(command(A, "replace", "same", &Fields { n: 2, ..Fields::default() }));
            let mut message = stage.message(first);
            message.if_version = Some(freehold_core::RecordVersion(1));
            let version = stage.send(message);
            assert_eq!(stage.world.commands.last(), 5, "the server takes none of them for a duplicate");
            stage.rest();
            for caller in [number, name, version] {
                assert_eq!(stage.answer(0, caller), Some(Answer::Conflict));
                assert_eq!(stage.answer(1, caller), Some(Answer::Conflict));
            }
            assert_eq!(stage.outcome(first).version.0, 2);
            assert_eq!((stage.counter(A), stage.version(A)), (Some(3), 2));
        });
    }
}

/// A command id belongs to its record: neither the server's window nor an outcome of another record swallows it.
#[test]
fn s07_one_command_id_on_two_records_of_two_groups_means_two_commands() {
    let setup = Setup { groups: 2, ..Setup::default() };
    both_ways(|it| {
        let mut stage = Stage::held(Setup { batched: it.batched, ..setup.clone() });
        let ids = ["ewr-a", "ewr-b", "ewr-c", "ewr-d"];
        let groups = ids.map(|id| stage.world.group_of(&id.parse::<RecordId>().unwrap()));
        assert!(groups.contains(&0) && groups.contains(&1), "{groups:?}: two groups, and two records in one of them");
        let send =
            |stage: &mut Stage, id| stage.send(command(id, "create", "same", &Fields { n: 4, ..Fields::default() }));
        let calls = ids.map(|id| send(&mut stage, id));
        stage.rest();
        assert_eq!(ids.map(|id| stage.version(id)), [1; 4]);
        assert_eq!(calls.map(|call| stage.status(call)), [Status::Applied; 4]);
        stage.all_again(&calls);
        stage.rest();
        assert_eq!(ids.map(|id| stage.updates(id)), [1; 4]);
    });
}

#[test]
fn s22_one_command_id_twice_in_one_flush_counts_once() {
    both_ways(|setup| {
        let mut stage = Stage::held(setup);
        let create = stage.call(A, "create", 1);
        let add = stage.call(A, "add", 2);
        let rejected = stage.call(B, "add", 1);
        stage.all_again(&[add, rejected, create]);
        let last = stage.call(A, "add", 4);
        stage.decide(0);
        stage.serve_all(0);
        assert_eq!(stage.world.commands.last(), 7);
        assert_eq!(stage.updates(A), 1, "all of it in one update");
        stage.rest();
        assert_eq!((stage.counter(A), stage.version(A)), (Some(7), 3));
        assert_eq!((stage.outcome(add).version.0, stage.outcome(last).version.0), (2, 3));
        assert_eq!(stage.status(rejected), Status::Rejected);
    });
}

/// The first is published and not yet applied when the second is decided.
#[test]
fn s22_one_command_id_in_two_flushes_that_follow_each_other_counts_once() {
    both_ways(|setup| {
        let mut stage = Stage::held(setup);
        stage.call(A, "create", 1);
        let add = stage.call(A, "add", 2);
        let rejected = stage.call(B, "add", 1);
        stage.world.instances[0].applier_stopped = true;
        stage.alone(0);
        stage.again(add);
        stage.again(rejected);
        stage.call(A, "add", 4);
        stage.alone(0);
        assert_eq!(stage.updates(A), 2);
        stage.rest();
        assert_eq!((stage.counter(A), stage.version(A)), (Some(7), 3));
    });
}

/// What no request handler logs, and a log may hold all the same.
#[test]
fn s06_content_that_no_handler_reads_is_answered_too() {
    let mut stage = Stage::held(Setup::default());
    let create: CommandMessage = command(A, "create", "c", &Fields::default());
    let mut elsewhere = create.clone();
    elsewhere.kind = "other".parse().unwrap();
    stage.world.log_command(0, b"not json".to_vec()).unwrap();
    stage.world.log_command(0, serde_json::to_vec(&elsewhere).unwrap()).unwrap();
    let create = stage.send(create);
    stage.rest();
    assert_eq!(stage.status(create), Status::Applied);
    assert_eq!(stage.world.dead_letters.len(), 2, "each in its place, and the group goes on");
}

/// P2 holds for W. Later, the same id is a new command: for the holder that decided the first, and for any other.
#[test]
fn s05_a_retry_later_than_w_is_a_new_command_for_every_holder() {
    for takeover in [false, true] {
        both_ways(|setup| {
            let outcomes_ms = setup.outcomes_ms;
            let mut stage = Stage::held(setup);
            stage.call(A, "create", 1);
            let add = stage.call(A, "add", 2);
            stage.rest();
            stage.world.now += outcomes_ms;
            if takeover {
                stage.take_over(1);
            }
            stage.again(add);
            stage.rest();
            assert_eq!((stage.counter(A), stage.version(A)), (Some(5), 3));
        });
    }
}

/// Only a command that is delivered once more may have missed its emissions.
#[test]
fn s05_a_retry_emits_nothing() {
    both_ways(|setup| {
        let mut stage = Stage::held(setup);
        let fields = Fields { n: 2, to: B.parse().ok(), ..Fields::default() };
        let emit = stage.send(command(A, "emit", "e", &fields));
        stage.rest();
        stage.again(emit);
        stage.rest();
        assert_eq!((stage.world.emitted.len(), stage.version(A)), (2, 1));
    });
}

/// A record has one group, and only that one decides about it.
#[test]
fn s07_a_command_in_the_log_of_another_group_is_dead() {
    let mut stage = Stage::held(Setup { groups: 2, ..Setup::default() });
    let message = command(A, "create", "c", &Fields::default());
    let wrong = 1 - stage.world.group_of(&message.id);
    stage.world.log_command(wrong, serde_json::to_vec(&message).unwrap()).unwrap();
    stage.rest();
    assert_eq!((stage.updates(A), stage.world.dead_letters.len()), (0, 1));
    let create = stage.send(message);
    stage.rest();
    assert_eq!((stage.status(create), stage.updates(A)), (Status::Applied, 1));
}
