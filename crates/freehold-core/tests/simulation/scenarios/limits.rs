//! Nothing that a flush publishes is more than the server takes.

use freehold_core::Status;

use crate::rules::{Fields, command};
use crate::scenarios::stage::{A, Caller, Stage, both_ways};
use crate::world::Setup;

/// A thousand messages are the most that an atomic batch may have: the world breaks off at more.
#[test]
fn s60_more_waits_than_one_batch_may_hold() {
    let mut stage = Stage::held(Setup { batched: true, ..Setup::default() });
    stage.world.trace = None;
    let calls: Vec<Caller> = (0..1_200).map(|n| stage.call(&format!("ewr-{n}"), "create", 1)).collect();
    stage.rest();
    assert!(calls.into_iter().all(|call| stage.status(call) == Status::Applied));
}

/// Forty hot records whose updates are all to be carried at once, none of which shares a message with another.
#[test]
fn s60_a_flush_that_carries_much_is_no_more_than_one_batch() {
    const RECORDS: usize = 40;
    let setup =
        Setup { batched: true, history: 64, max_payload_bytes: 10_000, outcomes_ms: 600_000, ..Setup::default() };
    let mut stage = Stage::held(setup);
    stage.world.trace = None;
    let panic = Fields { pad: "z".repeat(600), ..Fields::default() };
    for round in 0..33 {
        for record in 0..RECORDS {
            let id = format!("ewr-{record}");
            stage.call(&id, if round == 0 { "create" } else { "add" }, 1);
            stage.send(command(&id, "panic", &format!("p{round}-{record}"), &panic));
        }
        stage.settle();
    }
    assert!(stage.carried().len() > 1_000 / 3, "{} updates are carried", stage.carried().len());
    stage.rest();
}

/// A record that stays as it is is not published: its size does not count.
#[test]
fn s60_a_command_that_changes_nothing_fits_beside_any_record() {
    both_ways(|setup| {
        let mut stage = Stage::held(Setup { max_payload_bytes: 7_000, ..setup });
        stage.call(A, "create", 1);
        let grow = stage.send(command(A, "grow", "g", &Fields { pad: "x".repeat(1_200), ..Fields::default() }));
        stage.settle();
        let touch = stage.send(command(A, "touch", &"t".repeat(128), &Fields::default()));
        let rejected = stage.send(command(A, "create", &"r".repeat(128), &Fields::default()));
        stage.rest();
        let calls = [grow, touch, rejected].map(|call| stage.status(call));
        assert_eq!(calls, [Status::Applied, Status::Applied, Status::Rejected]);
    });
}

/// What fits no message alone is refused, and what follows is decided.
#[test]
fn s60_a_record_over_the_limit_is_refused_and_the_next_command_is_not() {
    both_ways(|setup| {
        let mut stage = Stage::held(Setup { max_payload_bytes: 7_000, ..setup });
        let grow = |stage: &mut Stage, number: usize, bytes: usize| {
            stage.send(command(
                A,
                "grow",
                &format!("g{number}"),
                &Fields { pad: "x".repeat(bytes), ..Fields::default() },
            ))
        };
        stage.call(A, "create", 1);
        let sizes = [1_000, 2_000, 5_000, 1_200];
        let calls: Vec<Caller> = sizes.iter().enumerate().map(|(at, bytes)| grow(&mut stage, at, *bytes)).collect();
        let add = stage.call(A, "add", 1);
        stage.rest();
        let statuses: Vec<Status> = calls.iter().map(|call| stage.status(*call)).collect();
        assert_eq!(statuses, [Status::Applied, Status::Refused, Status::Refused, Status::Applied]);
        let code = stage.outcome(calls[1]).error.map(|error| error.code);
        assert_eq!((code, stage.status(add)), (Some(freehold_core::ErrorCode::TooLarge), Status::Applied));
    });
}

/// Two hundred rejections of two hundred records, and a page of results holds but a few.
#[test]
fn s60_results_go_into_as_many_messages_as_they_need() {
    both_ways(|setup| {
        let mut stage = Stage::held(Setup { max_payload_bytes: 7_000, ..setup });
        stage.world.trace = None;
        let calls: Vec<Caller> = (0..200).map(|n| stage.call(&format!("ewr-{n}"), "add", 1)).collect();
        let logged = stage.logged();
        stage.settle();
        assert!((20..200).contains(&(stage.logged() - logged)), "{} pages", stage.logged() - logged);
        stage.rest();
        assert!(calls.into_iter().all(|call| stage.status(call) == Status::Rejected));
    });
}
