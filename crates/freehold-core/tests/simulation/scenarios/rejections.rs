//! A rejection changes nothing and is final all the same: it must be in the log like any change.

use freehold_core::{ErrorCode, Event, Status};

use crate::rules::Rules;
use crate::scenarios::stage::{A, ALL_LEFT, Caller, Stage, both_ways};
use crate::world::Setup;

/// The steps of a holder from the delivery of a command to its position in the copy.
const STEPS: [fn(&mut Stage); 9] = [
    |stage| stage.decide(0),
    Stage::serve_all_of_holder,
    Stage::hear_of_holder,
    |stage| {
        stage.world.apply(0, usize::MAX);
    },
    |stage| {
        stage.world.notify(0);
    },
    |stage| stage.tell(0, Event::PositionDue),
    Stage::serve_all_of_holder,
    Stage::hear_of_holder,
    |stage| {
        stage.world.apply(0, usize::MAX);
    },
];

/// Whatever step the crash falls on, the record is created behind the rejected command and the caller asks again.
#[test]
fn s15_a_rejection_is_final_whatever_step_the_crash_falls_on() {
    for steps in 0..=STEPS.len() {
        for left in ALL_LEFT {
            both_ways(|setup| {
                let mut stage = Stage::held(setup);
                let rejected = stage.call(A, "add", 1);
                STEPS[..steps].iter().for_each(|step| step(&mut stage));
                let create = stage.call(A, "create", 10);
                stage.restart(0, left);
                stage.again(rejected);
                stage.rest();
                assert_eq!(
                    (stage.status(rejected), stage.status(create)),
                    (Status::Rejected, Status::Applied),
                    "{steps} {left:?}"
                );
                stage.again(rejected);
                stage.rest();
                assert_eq!(stage.status(rejected), Status::Rejected);
                assert_eq!((stage.counter(A), stage.version(A), stage.updates(A)), (Some(10), 1, 1));
            });
        }
    }
}

#[test]
fn s16_a_rejection_on_a_record_that_never_existed_outlives_a_takeover_and_the_creation() {
    both_ways(|setup| {
        let mut stage = Stage::held(setup);
        let rejected = stage.call(A, "add", 1);
        stage.decide(0);
        stage.serve_all(0);
        stage.take_over(1);
        let told = stage.answer(1, rejected);
        assert!(told.is_some());
        stage.call(A, "create", 10);
        stage.alone(1);
        stage.again(rejected);
        stage.rest();
        assert_eq!((stage.answer(0, rejected), stage.status(rejected)), (told, Status::Rejected));
        assert_eq!((stage.counter(A), stage.version(A)), (Some(10), 1));
    });
}

/// 80 is what the old rules add and the new ones do not.
fn decided_by(first: Rules, second: Rules, batched: bool) -> (Stage, Caller) {
    let mut stage = Stage::held(Setup { batched, rules: vec![first, second], ..Setup::default() });
    stage.call(A, "create", 1);
    stage.settle();
    let add = stage.call(A, "add", 80);
    stage.decide(0);
    (stage, add)
}

/// What the first release has logged stands, whatever the second thinks of it.
#[test]
fn s17_what_is_logged_stands_when_other_rules_come() {
    for (first, second, status) in
        [(Rules::Old, Rules::New, Status::Applied), (Rules::New, Rules::Old, Status::Rejected)]
    {
        both_ways(|setup| {
            let (mut stage, add) = decided_by(first, second, setup.batched);
            stage.serve_all(0);
            stage.world.crash(0, crate::instance::CopyLeft::Fsynced);
            stage.take_over(1);
            stage.again(add);
            stage.rest();
            let counter = if status == Status::Applied { 81 } else { 1 };
            assert_eq!((stage.status(add), stage.counter(A)), (status, Some(counter)));
        });
    }
}

/// What the first release has decided and not logged is the second's to decide, and the first is refused when it comes late.
#[test]
fn s17_what_is_not_logged_is_decided_by_the_rules_that_come() {
    for (first, second, status) in
        [(Rules::Old, Rules::New, Status::Rejected), (Rules::New, Rules::Old, Status::Applied)]
    {
        both_ways(|setup| {
            let (mut stage, add) = decided_by(first, second, setup.batched);
            stage.take_over(1);
            stage.serve_all(0);
            stage.hear(0);
            stage.again(add);
            stage.rest();
            let counter = if status == Status::Applied { 81 } else { 1 };
            assert_eq!((stage.status(add), stage.counter(A)), (status, Some(counter)));
        });
    }
}

impl Stage {
    fn serve_all_of_holder(&mut self) {
        self.serve_all(0);
    }

    fn hear_of_holder(&mut self) {
        self.hear(0);
    }
}

/// Who may decide is no business of the rule.
#[test]
fn s16_a_record_of_another_site_is_refused_and_never_created_here() {
    both_ways(|setup| {
        let mut stage = Stage::held(setup);
        let elsewhere = stage.call("lga-x", "create", 1);
        let nowhere = stage.call("NOWHERE-1", "create", 1);
        stage.rest();
        let error = stage.outcome(elsewhere).error.unwrap();
        assert_eq!((error.code, error.details.unwrap().as_str()), (ErrorCode::NotOwner, r#"{"owner":"lga"}"#));
        assert_eq!(stage.outcome(nowhere).error.map(|error| error.code), Some(ErrorCode::Invalid));
        assert_eq!(stage.updates("lga-x") + stage.updates("NOWHERE-1"), 0);
    });
}
