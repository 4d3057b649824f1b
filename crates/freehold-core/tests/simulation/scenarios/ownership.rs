//! Who only believes that it holds a group is refused by the log.

use freehold_core::{
    CommandLogCheck, EmitFailure, Event, MembersRevision, PublishFailure, ReleaseReason, Status, StreamSequence,
};

use crate::scenarios::stage::{A, B, Stage, both_ways};
use crate::world::{CONNECTION_ENDS_MS, Fate, Setup};

fn is_refused(stage: &Stage) -> bool {
    matches!(stage.last_release(), Some(ReleaseReason::Publish(PublishFailure::Refused)))
}

/// The decision takes so long that another instance holds the group when it is sent.
#[test]
fn s08_a_slow_decision_has_no_second_effect() {
    both_ways(|setup| {
        let mut stage = Stage::held(setup);
        let create = stage.call(A, "create", 1);
        let add = stage.call(A, "add", 2);
        stage.decide(0);
        stage.take_over(1);
        let (told, updates) = (stage.answer(1, add), stage.updates(A));
        assert!(told.is_some(), "the successor has decided both");
        // The slow one's copy knows the newer claim by now. It must not borrow it.
        while stage.world.apply(0, usize::MAX) {}
        stage.serve_all(0);
        stage.hear(0);
        assert!(is_refused(&stage));
        stage.rest();
        assert_eq!((stage.updates(A), stage.version(A)), (updates, 2));
        assert_eq!((stage.answer(0, add), stage.status(create)), (told, Status::Applied));
    });
}

/// Nobody acks commands; what comes late are the answers to a former holder's publishes, checks and purges.
#[test]
fn s09_late_answers_to_a_former_claim_have_no_effect() {
    let mut stage = Stage::held(Setup::default());
    let create = stage.call(A, "create", 1);
    stage.decide(0);
    let late = || {
        [
            Event::Published(Ok(vec![StreamSequence(900)])),
            Event::Emitted(Ok(())),
            Event::CommandLogChecked(CommandLogCheck::Matches),
            Event::CommandLogChecked(CommandLogCheck::Rewound),
            Event::Purged(CommandLogCheck::Matches),
        ]
    };
    let check = |stage: &mut Stage, state: &str, more: Vec<Event>| {
        for event in late().into_iter().chain(more) {
            let text = format!("{event:?} while {state}");
            let before = stage.world.instances[0].seats[0].holder.waiting();
            let instance = &mut stage.world.instances[0];
            let seat = &mut instance.seats[0];
            let Ok(effects) = seat.holder.handle(event, &instance.copy);
            assert!(effects.is_empty(), "{text}: {effects:?}");
            assert!(!seat.holder.position_moved(), "{text}");
            assert_eq!(seat.holder.waiting(), before, "{text}");
        }
    };
    let failures =
        || vec![Event::Published(Err(PublishFailure::Refused)), Event::Emitted(Err(EmitFailure("late".into())))];
    stage.world.disconnect(0);
    check(&mut stage, "idle", failures());
    stage.world.learn(0, 0);
    check(&mut stage, "claiming", failures());
    stage.serve_all(0);
    stage.hear(0);
    check(&mut stage, "before the barrier", failures());
    stage.read(0);
    assert!(stage.holds(0, 0));
    check(
        &mut stage,
        "holding",
        vec![Event::Claimed(Ok(StreamSequence(1))), Event::Claimed(Err(PublishFailure::Refused))],
    );
    assert!(stage.holds(0, 0));
    // A flush is under way, and not yet stored: what says that emissions were sent is not about this one.
    stage.decide(0);
    assert_eq!(stage.on_the_wire(0), 1);
    let instance = &mut stage.world.instances[0];
    let holder = &mut instance.seats[0].holder;
    for event in [Event::Emitted(Ok(())), Event::PositionDue] {
        let Ok(effects) = holder.handle(event, &instance.copy);
        assert!(effects.is_empty() && !holder.position_moved(), "{effects:?}");
    }
    stage.rest();
    assert_eq!((stage.updates(A), stage.status(create)), (1, Status::Applied));
}

/// The newer claim is in the copy before the own one is heard of: it has nothing to say any more.
#[test]
fn s10_a_claim_that_is_superseded_at_the_barrier_is_let_go() {
    let mut stage = Stage::held(Setup::default());
    stage.call(A, "create", 1);
    stage.world.assign(0, Some(1));
    stage.world.learn(1, 0);
    stage.serve(1, &[Fate::Arrives]);
    stage.take_over(0);
    while stage.world.apply(1, usize::MAX) {}
    stage.hear(1);
    assert_eq!(stage.last_release(), Some(&ReleaseReason::Superseded));
    assert_eq!(stage.on_the_wire(1), 0);
    stage.rest();
    assert_eq!(stage.updates(A), 1);
}

/// A purge that a former holder asked for arrives when another has gone on.
#[test]
fn s09_a_late_purge_of_a_former_holder_removes_nothing_undecided() {
    let mut stage = Stage::held(Setup { audit_window_ms: 0, ..Setup::default() });
    // Only what is asked for here is purged.
    stage.world.audits = false;
    for n in 0..3 {
        stage.call(A, if n == 0 { "create" } else { "add" }, n);
        stage.settle();
        stage.tell(0, Event::PositionDue);
        stage.serve_all(0);
        stage.hear(0);
        stage.settle();
    }
    stage.call(A, "add", 5);
    stage.tell(0, Event::PositionDue);
    assert_eq!(stage.on_the_wire(0), 1, "a purge");
    stage.serve(0, &[Fate::Delayed]);
    stage.take_over(1);
    stage.world.log_command(0, b"undecided".to_vec()).unwrap();
    let before = stage.world.purged;
    stage.world.arrive_all_late();
    assert!(stage.world.purged > before, "it is carried out, on what it was meant for");
    stage.rest();
}

/// The first reads no member list. It decides what the second decides, and only one of them is heard.
#[test]
fn s10_of_two_instances_that_both_believe_one_is_refused() {
    both_ways(|setup| {
        let mut stage = Stage::held(setup);
        stage.world.instances[0].deaf = true;
        let old = MembersRevision(stage.world.revision);
        stage.take_over(1);
        assert!(stage.holds(0, 0) && stage.holds(1, 0));
        let create = stage.call(A, "create", 1);
        let add = stage.call(A, "add", 2);
        stage.decide(0);
        stage.decide(1);
        stage.serve_all(0);
        assert_eq!(stage.updates(A), 0);
        stage.serve_all(1);
        stage.hear(0);
        assert!(is_refused(&stage));
        // It still believes the older list. Without the newer claim in its copy the log refuses it; with it, it asks.
        stage.tell(0, Event::Assigned(old));
        stage.serve_all(0);
        stage.hear(0);
        assert!(is_refused(&stage));
        while stage.world.apply(0, usize::MAX) {}
        let claim = stage.world.records.newest_claim(0);
        stage.tell(0, Event::Assigned(old));
        assert_eq!(stage.on_the_wire(0), 0, "nobody claims over a claim of a newer list");
        assert!(stage.world.instances[0].seats[0].reading);
        assert_eq!(stage.world.records.newest_claim(0), claim);
        stage.rest();
        assert_eq!((stage.updates(A), stage.version(A)), (1, 2));
        assert_eq!((stage.status(create), stage.status(add)), (Status::Applied, Status::Applied));
    });
}

/// It sleeps with a flush on the wire and more in its hands, for less and for more than a connection lives.
#[test]
fn s11_a_stopped_process_that_goes_on_past_every_timeout_changes_nothing() {
    for asleep_ms in [CONNECTION_ENDS_MS / 2, 20 * CONNECTION_ENDS_MS, 1_000_000] {
        both_ways(|setup| {
            let mut stage = Stage::held(setup);
            let calls = [A, B].map(|id| stage.call(id, "create", 1));
            stage.decide(0);
            stage.call(A, "add", 2);
            stage.decide(0);
            stage.world.pause(0);
            stage.take_over(1);
            stage.call(A, "add", 4);
            stage.alone(1);
            let updates = stage.updates(A);
            stage.world.now += asleep_ms;
            stage.world.resume(0);
            // It reads no list before it has tried everything that it had in mind.
            stage.serve_all(0);
            stage.hear(0);
            stage.world.arrive_all_late();
            assert_eq!((stage.updates(A), stage.updates(B)), (updates, 1));
            assert!(!stage.holds(0, 0));
            stage.rest();
            assert_eq!((stage.counter(A), stage.version(A)), (Some(7), 3));
            if asleep_ms < stage.world.setup.outcomes_ms {
                assert_eq!(calls.map(|call| stage.status(call)), [Status::Applied; 2]);
            }
        });
    }
}
