//! Commands that no rule survives. The group goes on, and nothing is dropped silently.

use freehold_core::{ErrorCode, Json, MAX_ATTEMPTS, MAX_FLUSH_COMMANDS, Status};

use crate::instance::CopyLeft;
use crate::rules::{Fields, command};
use crate::scenarios::stage::{A, B, Stage, both_ways};
use crate::world::{Fate, Setup};

#[test]
fn s12_a_command_that_the_rule_cannot_read_is_refused() {
    both_ways(|setup| {
        let mut stage = Stage::held(setup);
        let create = stage.call(A, "create", 1);
        let mut message = command(A, "add", "odd", &Fields::default());
        message.body = Json::from_text(r#"{"n":"many"}"#.to_owned()).unwrap();
        let odd = stage.send(message);
        let unheard = stage.call(A, "unheard-of", 1);
        let add = stage.call(A, "add", 1);
        stage.rest();
        assert_eq!(
            [create, odd, unheard, add].map(|call| stage.status(call)),
            [Status::Applied, Status::Refused, Status::Refused, Status::Applied]
        );
        assert_eq!(stage.outcome(odd).error.map(|error| error.code), Some(ErrorCode::Invalid));
    });
}

#[test]
fn s12_a_rule_that_panics_makes_its_command_dead_and_no_other() {
    both_ways(|setup| {
        let mut stage = Stage::held(setup);
        let calls = ["create", "panic", "add"].map(|name| stage.call(A, name, 1));
        let other = stage.call(B, "create", 1);
        stage.decide(0);
        stage.serve_all(0);
        stage.hear(0);
        assert!(stage.holds(0, 0), "nobody is taken down with it");
        stage.rest();
        assert_eq!(calls.map(|call| stage.status(call)), [Status::Applied, Status::Dead, Status::Applied]);
        assert_eq!((stage.status(other), stage.counter(A), stage.version(A)), (Status::Applied, Some(2), 2));
        let letters = &stage.world.dead_letters;
        assert!(letters.iter().any(|letter| letter.change.name.as_ref().is_some_and(|name| name.as_str() == "panic")));
    });
}

/// Each try takes the process down before it can log anything. The tries are counted in the log, one command at a time, and
/// the innocent commands beside it are decided by the rule.
#[test]
fn s12_a_rule_that_aborts_the_process_is_tried_five_times() {
    for left in [CopyLeft::Committed, CopyLeft::Nothing] {
        both_ways(|setup| {
            let mut stage = Stage::held(setup);
            let before = stage.call(A, "create", 1);
            let poison = stage.call(A, "abort", 1);
            let behind = stage.call(A, "add", 1);
            let beside = stage.call(B, "create", 1);
            // Once with all that were in its hands, then once for each attempt.
            for death in 0..=MAX_ATTEMPTS {
                for _ in 0..60 {
                    stage.world.go_on(0);
                    if !stage.world.instances[0].up {
                        break;
                    }
                }
                assert!(!stage.world.instances[0].up, "death {death}");
                stage.restart(0, left);
                stage.sound();
            }
            stage.rest();
            let id = stage.message(poison).command_id;
            assert_eq!(stage.world.oracle.attempts(&id), MAX_ATTEMPTS);
            let calls = [before, poison, behind, beside];
            assert_eq!(
                calls.map(|call| stage.status(call)),
                [Status::Applied, Status::Dead, Status::Applied, Status::Applied]
            );
            for innocent in [behind, beside] {
                let id = stage.message(innocent).command_id;
                assert_eq!(stage.world.oracle.attempts(&id), 1, "suspected, and cleared by the first try");
            }
            assert_eq!(stage.world.dead_letters.len(), 1);
            assert!(stage.world.dead_letters[0].command.is_some(), "an operator can see what it was");
        });
    }
}

/// The holder dies between the outcome and the letter.
#[test]
fn s12_a_dead_letter_is_sent_again_until_it_is_stored() {
    both_ways(|setup| {
        let mut stage = Stage::held(setup);
        let poison = stage.call(A, "panic", 1);
        stage.decide(0);
        stage.serve(0, &[Fate::Arrives]);
        stage.hear(0);
        stage.serve(0, &[Fate::Lost]);
        stage.hear(0);
        assert!(stage.world.dead_letters.is_empty() && !stage.holds(0, 0));
        stage.rest();
        assert_eq!(stage.status(poison), Status::Dead);
        assert_eq!(stage.world.dead_letters.len(), 1);
    });
}

/// What came behind the claim was in nobody's hands.
#[test]
fn s12_a_command_younger_than_the_claim_is_not_suspected() {
    both_ways(|setup| {
        let mut stage = Stage::held(setup);
        let create = stage.call(A, "create", 1);
        stage.decide(0);
        stage.world.disconnect(0);
        stage.alone(0);
        stage.world.now += 10;
        let add = stage.call(A, "add", 1);
        stage.rest();
        assert_eq!(stage.status(add), Status::Applied);
        let attempts = [create, add].map(|call| stage.world.oracle.attempts(&stage.message(call).command_id));
        assert_eq!(attempts, [1, 0]);
    });
}

/// A holder never decides more together than one flush: what lies behind so many commands cannot have killed it.
#[test]
fn s12_only_as_many_commands_are_suspected_as_a_flush_decides() {
    let mut stage = Stage::held(Setup::default());
    stage.world.trace = None;
    stage.world.disconnect(0);
    for n in 0..MAX_FLUSH_COMMANDS + 30 {
        stage.call([A, B][n % 2], if n < 2 { "create" } else { "add" }, 1);
    }
    for _ in 0..100 {
        stage.world.settle(60);
    }
    stage.rest();
    assert_eq!(stage.attempts(), MAX_FLUSH_COMMANDS);
}

/// A letter that no message can hold would be tried for ever, and the group stand still behind it.
#[test]
fn s12_a_dead_letter_leaves_out_a_command_that_does_not_fit() {
    both_ways(|setup| {
        let mut stage = Stage::held(Setup { max_payload_bytes: 12_000, ..setup });
        let poison = stage.send(command(A, "panic", "big", &Fields { pad: "y".repeat(11_500), ..Fields::default() }));
        let create = stage.call(A, "create", 1);
        stage.rest();
        assert_eq!((stage.status(poison), stage.status(create)), (Status::Dead, Status::Applied));
        assert_eq!(stage.world.dead_letters.len(), 1);
        assert!(stage.world.dead_letters[0].command.is_none(), "its place in the command log is told");
    });
}
