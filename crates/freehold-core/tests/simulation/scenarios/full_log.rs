//! A command log that is full: requests are refused above a mark, what decisions ask for finds room above it, and the log
//! takes requests again by itself.

use freehold_core::{Event, ReleaseReason, Status};

use crate::rules::{Fields, command};
use crate::scenarios::stage::{A, B, Caller, Stage};
use crate::world::{FULL, Fate, Setup};

const MARK: usize = 20;

fn setup(batched: bool, headroom: usize) -> Setup {
    Setup { batched, command_mark: MARK, command_headroom: headroom, ..Setup::default() }
}

/// A command that asks for `n` more on another record.
fn emit(stage: &mut Stage, number: usize, n: i64) -> Caller {
    let fields = Fields { n, to: B.parse().ok(), ..Fields::default() };
    stage.send(command(A, "emit", &format!("e{number}"), &fields))
}

/// All that comes within the audit window fits the log no more, and nothing younger can come.
#[test]
fn a_burst_that_fills_the_log_is_decided_and_makes_room_by_itself() {
    for batched in [false, true] {
        let mut stage = Stage::held(setup(batched, 0));
        let calls: Vec<Caller> = (0..MARK).map(|n| stage.call(A, if n == 0 { "create" } else { "add" }, 1)).collect();
        assert_eq!(stage.world.send(&command(A, "add", "late", &Fields::default())), Err(FULL));
        stage.rest();
        assert_eq!(stage.counter(A), Some(MARK as i64));
        assert!(calls.into_iter().all(|call| stage.status(call) == Status::Applied));
        assert_eq!(stage.world.send(&command(A, "add", "late", &Fields::default())), Err(FULL), "the audit window");
        stage.world.now += stage.world.setup.audit_window_ms;
        stage.world.positions_due();
        stage.settle();
        let late = stage.send(command(A, "add", "late", &Fields { n: 5, ..Fields::default() }));
        stage.rest();
        assert_eq!((stage.status(late), stage.counter(A)), (Status::Applied, Some(MARK as i64 + 5)));
        assert_eq!(stage.world.commands.entries.len(), 2, "the command at the position stays, and the new one");
    }
}

/// Every command in a log that is full to the mark asks for two more.
#[test]
fn what_decisions_ask_for_finds_room_above_the_mark() {
    for batched in [false, true] {
        let mut stage = Stage::held(setup(batched, 2 * MARK));
        let calls: Vec<Caller> = (0..MARK).map(|number| emit(&mut stage, number, 2)).collect();
        assert_eq!(stage.world.send(&command(A, "add", "late", &Fields::default())), Err(FULL));
        stage.rest();
        assert_eq!(stage.world.commands.refused.1, 0);
        assert_eq!(stage.world.commands.most, 3 * MARK);
        assert_eq!((stage.counter(A), stage.version(A)), (Some(MARK as i64), MARK as u64));
        assert!(calls.into_iter().all(|call| stage.status(call) == Status::Applied));
        stage.world.now += stage.world.setup.audit_window_ms;
        stage.world.positions_due();
        stage.settle();
        let late = emit(&mut stage, MARK, 2);
        stage.rest();
        assert_eq!(stage.status(late), Status::Applied);
    }
}

/// There is no headroom. Nothing is lost, nothing is answered that is not so, and when there is room all goes on.
#[test]
fn emissions_without_room_wait_and_are_not_lost() {
    for batched in [false, true] {
        let mut stage = Stage::held(setup(batched, 1));
        let calls: Vec<Caller> = (0..MARK).map(|number| emit(&mut stage, number, 2)).collect();
        for _ in 0..20 {
            stage.world.settle(5);
            stage.world.now += 100;
            stage.world.positions_due();
            stage.sound();
        }
        assert!(matches!(stage.last_release(), Some(ReleaseReason::Emit(_))));
        let position = stage.world.instances[0].copy.group(0).position_sequence();
        assert_eq!(position.0, 0, "the position does not pass what is not emitted");
        // The outcomes are in the log, and the callers are answered.
        assert!(calls.iter().all(|call| stage.status(*call) == Status::Applied));
        stage.world.commands.raise_limit(3 * MARK);
        stage.rest();
        assert_eq!(stage.world.commands.most, 3 * MARK);
    }
}

/// Seed 43 of the bounded runs: the holder let go without logging how far it had come, so that its successors decided the
/// same again and again, and nothing was ever purged behind a position that never moved.
#[test]
fn a_holder_that_finds_no_room_logs_how_far_it_has_come() {
    for batched in [false, true] {
        let mut stage = Stage::held(setup(batched, 1));
        for n in 0..MARK - 1 {
            stage.call(A, if n == 0 { "create" } else { "add" }, 1);
        }
        stage.settle();
        emit(&mut stage, 0, 2);
        stage.world.settle(10);
        stage.sound();
        assert!(matches!(stage.last_release(), Some(ReleaseReason::Emit(_))));
        let position = stage.world.instances[0].copy.group(0).position_sequence();
        assert_eq!(position.0, MARK as u64 - 1);
        stage.rest();
    }
}

/// There is too little headroom for all that waits, but enough once what is decided has gone.
#[test]
fn emissions_find_the_room_that_a_purge_makes() {
    for logged in [true, false] {
        for batched in [false, true] {
            let mut stage = Stage::held(setup(batched, 2));
            for n in 0..MARK - 5 {
                stage.call(A, if n == 0 { "create" } else { "add" }, 1);
            }
            stage.settle();
            if logged {
                stage.world.positions_due();
                stage.settle();
            }
            let calls: Vec<Caller> = (0..5).map(|number| emit(&mut stage, number, 2)).collect();
            stage.rest();
            assert!(stage.world.commands.refused.1 > 0, "there was no room at first");
            assert!(calls.into_iter().all(|call| stage.status(call) == Status::Applied));
        }
    }
}

/// Seed 158 of the bounded runs: the purge was lost, and what was to go with it was forgotten. A log that is full takes no
/// command that would make a new position, so that it stayed full for good.
#[test]
fn a_purge_of_which_nobody_hears_is_tried_again() {
    let mut stage = Stage::held(setup(false, 0));
    for n in 0..MARK {
        stage.call(A, if n == 0 { "create" } else { "add" }, 1);
    }
    stage.rest();
    stage.world.now += stage.world.setup.audit_window_ms;
    stage.tell(0, Event::AuditDue);
    stage.serve(0, &[Fate::Lost]);
    stage.hear(0);
    assert!(stage.holds(0, 0));
    stage.tell(0, Event::AuditDue);
    assert_eq!(stage.on_the_wire(0), 1, "once more");
    stage.tell(0, Event::AuditDue);
    assert_eq!(stage.on_the_wire(0), 1, "and one at a time");
    stage.settle();
    assert_eq!(stage.world.commands.entries.len(), 1);
    stage.call(A, "add", 1);
    stage.rest();
    assert_eq!(stage.counter(A), Some(MARK as i64 + 1));
}

/// A position that the own copy has not applied may be lost with the log's tail: nothing goes behind it.
#[test]
fn nothing_is_purged_behind_a_position_that_the_copy_does_not_have() {
    let mut stage = Stage::held(Setup { audit_window_ms: 0, ..Setup::default() });
    stage.world.audits = false;
    stage.call(A, "create", 1);
    stage.rest();
    let purged = stage.world.purged;
    stage.call(A, "add", 1);
    stage.settle();
    stage.world.instances[0].applier_stopped = true;
    stage.tell(0, Event::PositionDue);
    stage.serve_all(0);
    stage.hear(0);
    for event in [Event::PositionDue, Event::AuditDue, Event::AuditDue] {
        stage.tell(0, event);
        stage.serve_all(0);
        stage.hear(0);
    }
    assert_eq!(stage.world.purged, purged, "only below the first command, if at all");
    stage.world.instances[0].applier_stopped = false;
    stage.read(0);
    stage.tell(0, Event::AuditDue);
    stage.settle();
    assert_eq!(stage.world.purged, purged + 1);
    stage.rest();
}
