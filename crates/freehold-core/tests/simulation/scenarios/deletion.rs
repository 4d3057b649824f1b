//! A record that is gone has a version too.

use freehold_core::{ErrorCode, RecordVersion, Status};

use crate::instance::CopyLeft;
use crate::rules::{Fields, command};
use crate::scenarios::stage::{A, ALL_LEFT, Stage, both_ways};

/// The tombstone is the oldest update that the log keeps, then the next but one to go, then gone.
#[test]
fn s23_a_record_deleted_and_created_again_goes_on_counting() {
    for later in [0, 6, 7, 8, 20] {
        for left in ALL_LEFT {
            both_ways(|setup| {
                let mut stage = Stage::held(setup);
                stage.world.instances[1].applier_stopped = true;
                stage.call(A, "create", 1);
                stage.alone(0);
                let delete = stage.call(A, "delete", 0);
                stage.alone(0);
                assert_eq!((stage.counter(A), stage.version(A)), (None, 2));
                let gone = stage.call(A, "add", 1);
                let mut message = command(A, "create", "stale", &Fields::default());
                message.if_version = Some(RecordVersion(0));
                let stale = stage.send(message);
                stage.alone(0);
                let mut message = command(A, "create", "again", &Fields { n: 5, ..Fields::default() });
                message.if_version = Some(RecordVersion(2));
                let create = stage.send(message);
                stage.alone(0);
                for _ in 0..later {
                    stage.call(A, "add", 1);
                    stage.alone(0);
                }
                // One that has read nothing of it takes over; the deletion is asked for again.
                stage.world.instances[1].applier_stopped = false;
                stage.world.crash(0, left);
                stage.take_over(1);
                stage.all_again(&[delete, gone, create]);
                stage.rest();
                assert_eq!((stage.counter(A), stage.version(A)), (Some(5 + later), 3 + later as u64));
                assert_eq!((stage.outcome(delete).version.0, stage.outcome(create).version.0), (2, 3));
                assert_eq!(stage.status(gone), Status::Rejected);
                assert_eq!(stage.outcome(stale).error.map(|error| error.code), Some(ErrorCode::Conflict));
            });
        }
    }
}

/// Deleted and created again in one flush: one update, two versions.
#[test]
fn s23_a_flush_that_deletes_and_creates_makes_one_update() {
    both_ways(|setup| {
        let mut stage = Stage::held(setup);
        let names = ["create", "delete", "create", "delete", "add", "create"];
        let calls = names.map(|name| stage.call(A, name, 3));
        stage.settle();
        stage.restart(0, CopyLeft::Nothing);
        stage.rest();
        assert_eq!((stage.updates(A), stage.version(A), stage.counter(A)), (1, 5, Some(3)));
        assert_eq!(calls.map(|call| stage.outcome(call).version.0), [1, 2, 3, 4, 4, 5]);
    });
}
