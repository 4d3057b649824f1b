//! Publishes of which nobody knows the fate: the holder never guesses, it claims again and reads.

use freehold_core::{Event, PublishFailure, ReleaseReason, Status};

use crate::scenarios::stage::{A, B, C, Stage, both_ways};
use crate::world::{Fate, Setup};

fn is_unknown(stage: &Stage) -> bool {
    matches!(stage.last_release(), Some(ReleaseReason::Publish(PublishFailure::Unknown(_))))
}

/// Of three messages, the first is stored without an ack, the second is lost, the third is stored.
#[test]
fn s04_a_lost_log_ack_leads_to_a_new_claim_that_decides_only_what_is_missing() {
    both_ways(|setup| {
        let batched = setup.batched;
        let mut stage = Stage::held(setup);
        let calls = [A, B, C].map(|id| stage.call(id, "create", 1));
        stage.decide(0);
        let (fates, stored): (&[Fate], _) = match batched {
            true => (&[Fate::AnswerLost], [1, 1, 1]),
            false => (&[Fate::AnswerLost, Fate::Lost, Fate::Arrives], [1, 0, 1]),
        };
        stage.serve(0, fates);
        stage.hear(0);
        assert!(is_unknown(&stage) && !stage.holds(0, 0), "what it has published is in doubt");
        assert_eq!([A, B, C].map(|id| stage.updates(id)), stored);
        let before = stage.world.records.newest_claim(0);
        stage.rest();
        assert!(stage.world.records.newest_claim(0) > before, "it has claimed again");
        assert_eq!([A, B, C].map(|id| stage.updates(id)), [1, 1, 1]);
        assert_eq!(calls.map(|call| stage.status(call)), [Status::Applied; 3]);
    });
}

/// Nobody is told of success while no publish gets through, and nothing is lost behind it.
#[test]
fn s14_an_unreachable_log_never_means_success() {
    both_ways(|setup| {
        let mut stage = Stage::held(setup);
        let create = stage.call(A, "create", 1);
        let rejected = stage.call(B, "add", 1);
        stage.decide(0);
        let logged = stage.logged();
        for _ in 0..30 {
            while stage.world.serve_as(0, Fate::Lost) {}
            stage.hear(0);
            assert!(!stage.holds(0, 0) && is_unknown(&stage));
            assert_eq!((stage.answer(0, create), stage.answer(1, rejected)), (None, None));
            stage.world.learn(0, 0);
            assert_eq!(stage.on_the_wire(0), 1, "it claims again");
        }
        assert_eq!(stage.logged(), logged);
        stage.rest();
        assert_eq!((stage.status(create), stage.status(rejected)), (Status::Applied, Status::Rejected));
        assert_eq!(stage.updates(A), 1);
    });
}

/// The commands behind the missing message have outcomes, so that only the position says where to read on.
#[test]
fn s19_the_first_message_of_a_flush_is_lost_and_later_ones_are_stored() {
    let mut stage = Stage::held(Setup::default());
    let first = stage.call(A, "create", 1);
    let same = stage.call(A, "add", 2);
    let others = [B, C].map(|id| stage.call(id, "create", 1));
    let rejected = stage.call(B, "create", 2);
    let elsewhere = stage.call("ewr-d", "add", 1);
    stage.decide(0);
    assert_eq!(stage.on_the_wire(0), 4, "three updates and a result");
    stage.serve(0, &[Fate::Lost, Fate::Arrives, Fate::Arrives, Fate::Arrives]);
    // The answers never come: the connection is gone.
    stage.world.disconnect(0);
    assert_eq!([A, B, C].map(|id| stage.updates(id)), [0, 1, 1]);
    stage.rest();
    assert_eq!([A, B, C].map(|id| stage.updates(id)), [1, 1, 1]);
    assert_eq!(stage.counter(A), Some(3));
    let [second, third] = others;
    assert_eq!([first, same, second, third].map(|call| stage.status(call)), [Status::Applied; 4]);
    assert_eq!([rejected, elsewhere].map(|call| stage.status(call)), [Status::Rejected; 2]);
}

/// The same holder, the same process, the same group: only the claim tells the old publishes from the new.
#[test]
fn s20_publishes_delayed_behind_the_own_new_claim_are_refused() {
    both_ways(|setup| {
        let messages = if setup.batched { 1 } else { 2 };
        let mut stage = Stage::held(setup);
        let calls = [A, B].map(|id| stage.call(id, "create", 5));
        stage.decide(0);
        stage.serve(0, &vec![Fate::Delayed; messages]);
        stage.hear(0);
        stage.world.learn(0, 0);
        stage.serve_all(0);
        stage.hear(0);
        stage.read(0);
        stage.decide(0);
        // Two claims without an outcome: the attempt is logged first, then the first command is decided alone.
        stage.serve_all(0);
        stage.hear(0);
        assert_eq!(stage.on_the_wire(0), 1);
        let logged = stage.logged();
        stage.world.arrive_all_late();
        assert_eq!(stage.logged(), logged, "the log refuses what the older claim sent");
        stage.rest();
        assert_eq!([A, B].map(|id| stage.updates(id)), [1, 1]);
        assert_eq!(calls.map(|call| stage.status(call)), [Status::Applied; 2]);
    });
}

/// A claim whose answer never came is claimed over, and when it comes late it is no claim any more.
#[test]
fn s20_a_delayed_claim_never_lands_behind_a_newer_one() {
    let mut stage = Stage::held(Setup::default());
    let create = stage.call(A, "create", 5);
    stage.world.assign(0, Some(1));
    stage.world.learn(1, 0);
    stage.serve(1, &[Fate::Delayed]);
    stage.hear(1);
    stage.world.learn(1, 0);
    stage.serve_all(1);
    stage.hear(1);
    stage.read(1);
    let claim = stage.world.records.newest_claim(0);
    stage.world.arrive_all_late();
    assert_eq!(stage.world.records.newest_claim(0), claim);
    stage.rest();
    assert_eq!(stage.updates(A), 1);
    assert_eq!(stage.status(create), Status::Applied);
}

/// A consumer that delivers a command again, or an older one, is none to rely on.
#[test]
fn s56_a_consumer_that_goes_back_ends_the_claim() {
    let mut stage = Stage::held(Setup::default());
    let calls = [A, B].map(|id| stage.call(id, "create", 1));
    stage.decide(0);
    let first = stage.world.commands.behind(0, 0).take(1).collect();
    stage.tell(0, Event::Delivered(first));
    assert!(matches!(stage.last_release(), Some(ReleaseReason::OutOfOrder { .. })));
    assert!(!stage.holds(0, 0));
    stage.rest();
    assert_eq!(calls.map(|call| stage.status(call)), [Status::Applied; 2]);
}

/// Whether the command log is the one that was read is asked before anything is decided; no answer is no consent.
#[test]
fn s14_a_command_log_that_does_not_answer_is_not_read() {
    let mut stage = Stage::held(Setup::default());
    let create = stage.call(A, "create", 1);
    stage.settle();
    stage.world.assign(0, Some(1));
    stage.world.learn(1, 0);
    stage.serve(1, &[Fate::Arrives]);
    stage.hear(1);
    stage.read(1);
    stage.serve(1, &[Fate::AnswerLost]);
    stage.hear(1);
    assert_eq!(stage.last_release(), Some(&ReleaseReason::NoAnswer));
    assert_eq!(stage.world.instances[1].seats[0].consumer, None);
    stage.rest();
    assert_eq!((stage.status(create), stage.updates(A)), (Status::Applied, 1));
}
