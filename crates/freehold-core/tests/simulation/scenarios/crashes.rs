//! A process dies between two steps: what the log has counts, and what it has not is decided by who comes next.

use std::fmt;

use freehold_core::{
    CommandId, CopyRead, Event, ForwardNumber, ForwardState, GroupDigest, GroupNumber, GroupState, KindName, Lane,
    LogTime, RecordId, RecordState, SiteName, Status, StoredOutcome, StreamSequence,
};

use crate::instance::CopyLeft;
use crate::scenarios::stage::{A, ALL_LEFT, B, Stage, both_ways};
use crate::world::{Fate, Setup};

/// The position that goes out with a flush must stand behind the flush before it: here the position is stored and the
/// flush is not.
#[test]
fn s01_a_crash_before_the_store_commit_decides_once() {
    for left in ALL_LEFT {
        let mut stage = Stage::held(Setup::default());
        stage.call(A, "create", 0);
        stage.settle();
        let first = stage.call(A, "add", 1);
        stage.decide(0);
        stage.tell(0, Event::PositionDue);
        let second = stage.call(A, "add", 2);
        stage.decide(0);
        assert_eq!(stage.on_the_wire(0), 1, "one publish at a time");
        stage.serve(0, &[Fate::Arrives]);
        stage.hear(0);
        assert_eq!(stage.on_the_wire(0), 2, "the second update, and the position behind the first");
        stage.serve(0, &[Fate::Lost, Fate::Arrives]);
        stage.restart(0, left);
        stage.rest();
        assert_eq!((stage.counter(A), stage.version(A), stage.updates(A)), (Some(3), 3, 3));
        assert_eq!((stage.status(first), stage.status(second)), (Status::Applied, Status::Applied));
    }
}

/// Nothing is decided before the copy has applied the log up to the claim.
#[test]
fn s02_a_crash_after_the_log_ack_and_before_the_store_commit_has_no_second_effect() {
    for left in ALL_LEFT {
        both_ways(|setup| {
            let mut stage = Stage::held(setup);
            let create = stage.call(A, "create", 1);
            let add = stage.call(A, "add", 2);
            stage.decide(0);
            stage.serve_all(0);
            stage.hear(0);
            let stored = stage.logged();
            stage.restart(0, left);
            // It claims and would go on at once, but its applier has read nothing yet.
            stage.world.learn(0, 0);
            for _ in 0..3 {
                stage.serve_all(0);
                stage.hear(0);
                stage.world.notify(0);
                stage.decide(0);
            }
            let claims = u64::from(left != CopyLeft::Nothing);
            assert_eq!(stage.logged(), stored + claims, "a copy that knows no claim cannot even claim");
            stage.sound();
            stage.rest();
            assert_eq!((stage.counter(A), stage.version(A), stage.updates(A)), (Some(3), 2, 1));
            assert_eq!((stage.outcome(create).version.0, stage.outcome(add).version.0), (1, 2));
        });
    }
}

#[test]
fn s03_a_crash_before_the_reply_leaves_the_stored_answer_to_the_retry() {
    both_ways(|setup| {
        let mut stage = Stage::held(setup);
        let create = stage.call(A, "create", 1);
        let add = stage.call(A, "add", 2);
        stage.settle();
        stage.world.crash(0, CopyLeft::Committed);
        let told = stage.answer(1, add);
        assert!(told.is_some(), "any other instance answers from its copy");
        stage.take_over(1);
        stage.call(A, "add", 10);
        stage.alone(1);
        stage.again(add);
        stage.again(create);
        stage.rest();
        assert_eq!(stage.answer(0, add), told, "the first answer, not the record as it is now");
        assert_eq!((stage.counter(A), stage.version(A), stage.updates(A)), (Some(13), 3, 2));
    });
}

/// The instance that took the request, and held the group, is gone with the caller's connection.
#[test]
fn s13_the_caller_is_gone_and_the_command_is_applied() {
    both_ways(|setup| {
        let mut stage = Stage::held(setup);
        let create = stage.call(A, "create", 7);
        stage.world.crash(0, CopyLeft::Nothing);
        stage.take_over(1);
        stage.rest();
        assert_eq!((stage.counter(A), stage.updates(A)), (Some(7), 1));
        assert_eq!(stage.status(create), Status::Applied);
    });
}

/// The copy is set aside with everything that rests on it, and rebuilt from the log.
#[test]
fn s24_a_store_commit_that_fails_after_the_log_acks_loses_nothing() {
    both_ways(|setup| {
        let mut stage = Stage::held(setup);
        let create = stage.call(A, "create", 1);
        let other = stage.call(B, "add", 1);
        stage.decide(0);
        stage.serve_all(0);
        stage.hear(0);
        let seat = &mut stage.world.instances[0].seats[0];
        let late = seat.holder.handle(Event::CopyAdvanced, &BrokenCopy);
        assert!(late.is_err(), "a holder that cannot read its copy does nothing");
        assert!(seat.holder.handle(Event::Delivered(Vec::new()), &BrokenCopy).is_err());
        stage.restart(0, CopyLeft::Nothing);
        stage.again(create);
        stage.again(other);
        stage.rest();
        assert_eq!((stage.counter(A), stage.updates(A)), (Some(1), 1));
        assert_eq!((stage.status(create), stage.status(other)), (Status::Applied, Status::Rejected));
    });
}

/// The results of this log have expired before the copy was rebuilt: what cannot be known is said, and kept for an
/// operator.
#[test]
fn s24_a_rebuilt_copy_does_not_guess_what_it_cannot_know() {
    let mut stage = Stage::held(Setup { instances: 1, ..Setup::default() });
    let create = stage.call(A, "create", 1);
    stage.decide(0);
    // The holder's connection ends before it has published; for long nobody is there.
    stage.world.crash(0, CopyLeft::Committed);
    stage.world.now += 3 * stage.world.setup.outcomes_ms;
    stage.world.instances[0].copy = crate::memory_copy::MemoryCopy::empty(crate::world::START);
    stage.world.start(0);
    stage.rest();
    let outcome = stage.outcome(create);
    assert_eq!(outcome.error.map(|error| error.code), Some(freehold_core::ErrorCode::OutcomeUnknown));
    assert_eq!(stage.world.dead_letters.len(), 1);
    assert_eq!(stage.updates(A), 0);
}

/// Everybody is gone for almost twice W, with a retry in the log that came in time, and every copy is rebuilt. The log still has
/// the first outcome.
#[test]
fn s24_a_rebuilt_copy_knows_what_a_waiting_retry_repeats() {
    both_ways(|setup| {
        let outcomes_ms = setup.outcomes_ms;
        let mut stage = Stage::held(setup);
        let rejected = stage.call(A, "add", 1);
        stage.settle();
        (0..2).for_each(|index| stage.world.crash(index, CopyLeft::Nothing));
        stage.world.now += outcomes_ms - 5_000;
        let create = stage.call(A, "create", 1);
        stage.again(rejected);
        stage.world.now += outcomes_ms - 5_000;
        stage.rest();
        assert!(!stage.world.forgetful, "nothing can be missing");
        assert_eq!((stage.status(rejected), stage.status(create)), (Status::Rejected, Status::Applied));
        assert_eq!((stage.counter(A), stage.version(A)), (Some(1), 1));
    });
}

/// The position never came to be logged; W has passed, and the copies have dropped what they may drop.
#[test]
fn s02_an_outcome_above_the_position_counts_however_old_it_is() {
    both_ways(|setup| {
        let (outcomes_ms, retention) = (setup.outcomes_ms, setup.retention());
        let mut stage = Stage::held(setup);
        stage.call(A, "create", 1);
        stage.call(A, "add", 2);
        stage.call(B, "add", 2);
        stage.settle();
        let logged = stage.logged();
        stage.world.crash(0, CopyLeft::Committed);
        stage.world.now += 3 * outcomes_ms / 2;
        for id in [A, B] {
            // The log's time goes on, for the copies too.
            stage.world.instances[1].copy.time = stage.world.now;
            stage.world.instances[1].copy.expire(retention);
            assert_eq!(stage.version(id), if id == A { 2 } else { 0 });
        }
        stage.take_over(1);
        stage.rest();
        assert_eq!((stage.counter(A), stage.version(A), stage.updates(A)), (Some(3), 2, 1));
        assert_eq!(stage.logged(), logged + 2, "a claim and a position");
    });
}

/// A copy whose store has failed.
struct BrokenCopy;

#[derive(Debug)]
struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the store has failed")
    }
}

impl std::error::Error for Broken {}

impl CopyRead for BrokenCopy {
    type Error = Broken;

    fn applied(&self, _: &SiteName) -> Result<StreamSequence, Broken> {
        Err(Broken)
    }

    fn dropped_until(&self, _: &SiteName) -> Result<StreamSequence, Broken> {
        Err(Broken)
    }

    fn record(&self, _: &KindName, _: &RecordId) -> Result<Option<RecordState>, Broken> {
        Err(Broken)
    }

    fn outcome(&self, _: &KindName, _: Option<&RecordId>, _: &CommandId) -> Result<Option<StoredOutcome>, Broken> {
        Err(Broken)
    }

    fn group(&self, _: &SiteName, _: &KindName, _: GroupNumber) -> Result<GroupState, Broken> {
        Err(Broken)
    }

    fn outcomes_of_message(&self, _: &SiteName, _: StreamSequence) -> Result<Vec<StoredOutcome>, Broken> {
        Err(Broken)
    }

    fn outcomes_complete_from(&self, _: &SiteName) -> Result<LogTime, Broken> {
        Err(Broken)
    }

    fn digest(&self, _: &SiteName, _: &KindName, _: GroupNumber) -> Result<GroupDigest, Broken> {
        Err(Broken)
    }

    fn ids_with_prefix(&self, _: &KindName, _: &str) -> Result<Vec<RecordId>, Broken> {
        Err(Broken)
    }

    fn takeovers(&self) -> Result<freehold_core::Takeovers, Broken> {
        Err(Broken)
    }

    fn forwards(&self, _: &Lane<'_>, _: ForwardNumber, _: usize) -> Result<Vec<(ForwardNumber, ForwardState)>, Broken> {
        Err(Broken)
    }
}
