//! One holder: 8, 9, 10, 11, 19, 20 and 25. The log refuses the others, whatever they believe and however late they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use freehold_core::{GroupCount, GroupNumber};
use freehold_sandbox::wait_until;
use freehold_tests::audit::RecordsLog;
use freehold_tests::gate::{Answers, Frame, Gate, Verdict};
use freehold_tests::place::InstanceProcess;
use freehold_tests::workload::Workload;
use serde_json::json;

use crate::crashes::COMMAND;
use crate::given::{
    ASK_AGAIN, BUSY_MS, Given, REFUSED, SITE, SOON, group_of, records_of_one_group, said, token, wait_said,
};

/// What a holder says when it has waited too long for the log's answer.
const UNHEARD: &str = "the publish was not confirmed";
/// Longer than anything that an instance waits for.
const PAUSE: Duration = Duration::from_secs(10);

/// Of 64 groups, those that must have changed hands before they all do again.
const MOST_GROUPS: usize = 48;

fn all_groups() -> Vec<GroupNumber> {
    GroupCount::DEFAULT.groups().collect()
}

/// The group moves while its command is being decided: both instances decide it, and only one decision counts.
#[tokio::test(flavor = "multi_thread")]
async fn s08_a_slow_decision_has_no_second_effect() -> Result<()> {
    let given = Given::one_site().await?;
    let one = given.process("one").await?;
    let _two = given.process("two").await?;
    let id = format!("{SITE}-slow");
    let group = group_of(&id)?;
    given.assign(|_| "one").await?;
    given.wait_held("one", &[group]).await?;
    given.keep_busy(&one, &id, COMMAND).await?;
    let refused = said(&one, REFUSED)?;
    given.assign(|_| "two").await?;
    let answer = given.tell(&id, "add", COMMAND, &json!({ "amount": 1, "slow_ms": BUSY_MS })).await?;
    ensure!(answer.version.map(|version| version.0) == Some(1), "{answer:?}");
    wait_said(&one, REFUSED, refused).await?;
    given.add_is_answered(&id, "another", 2).await?;
    let log = given.log().await?;
    log.check()?;
    let (under, claims) = (log.decided_under(&id, COMMAND)?, log.claims(group));
    let holder = claims.iter().find(|(sequence, _)| *sequence == under).map(|(_, claim)| claim.instance.to_string());
    ensure!(holder.as_deref() == Some("two"), "decided by {holder:?} under {under}");
    Ok(())
}

/// The log's answers reach a holder after its successor has gone on.
#[tokio::test(flavor = "multi_thread")]
async fn s09_late_acks_of_a_former_holder() -> Result<()> {
    let given = Given::one_site().await?;
    let gate = given.gate().await?;
    let one = given.process_behind(&gate, "one").await?;
    let _two = given.process("two").await?;
    let ids = records_of_one_group("late", 4)?;
    let group = group_of(&ids[0])?;
    given.assign(|_| "one").await?;
    given.wait_held("one", &[group]).await?;
    let acks = Answers::to(Frame::is_decision);
    gate.rule(move |frame| if acks.is_one(frame) { Verdict::Stall } else { Verdict::Pass });
    given.append(&ids[0], "add", COMMAND, &json!({ "amount": 1 })).await?;
    gate.caught(1).await?;
    for id in &ids[1..] {
        given.append(id, "add", COMMAND, &json!({ "amount": 1 })).await?;
    }
    given.assign(|_| "two").await?;
    for id in &ids {
        given.add_is_answered(id, COMMAND, 1).await?;
    }
    // The holder hears that its update is stored and wants to log its position; or it has given up waiting long ago.
    let (refused, unheard) = (said(&one, REFUSED)?, said(&one, UNHEARD)?);
    gate.lift();
    gate.late_arrival().await?;
    if unheard == 0 {
        wait_said(&one, REFUSED, refused).await?;
    }
    for id in &ids {
        given.add_is_answered(id, "another", 2).await?;
    }
    let log = given.log().await?;
    ensure!(log.decided_under(&ids[0], COMMAND)? < log.decided_under(&ids[1], COMMAND)?);
    log.check()
}

/// One instance hears nothing of the members any more, and nobody can ask whether it lives: it goes on in good faith.
async fn both_believe(given: Given) -> Result<()> {
    let gate = given.gate().await?;
    let one = given.process_behind(&gate, "one").await?;
    let two = given.process("two").await?;
    let workload = Workload::start_asking_again(&given.client, SITE, 16, 16, ASK_AGAIN);
    given.wait_shared().await?;
    progress(&workload, 200).await?;
    let refused = said(&one, REFUSED)?;
    gate.rule(|frame| {
        let members = frame.subject.contains("FH_MEMBERS");
        if members || frame.subject.ends_with(".probe") { Verdict::Lose } else { Verdict::Pass }
    });
    given.wait_held("two", &all_groups()).await?;
    wait_said(&one, REFUSED, refused).await?;
    progress(&workload, 200).await?;
    gate.lift();
    given.wait_shared().await?;
    progress(&workload, 200).await?;
    workload.finish(&given.client, SITE).await?;
    given.wait_same(&[&one, &two], 16).await?;
    given.log().await?.check()
}

#[tokio::test(flavor = "multi_thread")]
async fn s10_two_instances_believe_that_they_hold_r1() -> Result<()> {
    both_believe(Given::one_site().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn s10_two_instances_believe_that_they_hold_r3() -> Result<()> {
    both_believe(Given::one_cluster().await?).await
}

/// An instance stands still in the middle of its work, is given up by the others, and goes on where it was.
async fn paused_and_continued(given: Given) -> Result<()> {
    let one = given.process("one").await?;
    let two = given.process("two").await?;
    let workload = Workload::start_asking_again(&given.client, SITE, 16, 16, ASK_AGAIN);
    given.wait_shared().await?;
    progress(&workload, 200).await?;
    one.process().pause().await?;
    let paused = Instant::now();
    given.wait_held("two", &all_groups()).await?;
    progress(&workload, 200).await?;
    wait_until("the pause is over", PAUSE * 2, || async { paused.elapsed() >= PAUSE }).await?;
    let claims_of_one = given.claims_of("one").await?;
    one.process().resume()?;
    let back = || async { given.claims_of("one").await.is_ok_and(|claims| claims > claims_of_one) };
    wait_until("the paused instance holds groups again", SOON, back).await?;
    given.wait_shared().await?;
    progress(&workload, 200).await?;
    let sent = workload.finish(&given.client, SITE).await?;
    ensure!(sent > 600, "{sent} commands are no load");
    let members = given.members().await?;
    ensure!(members.members.len() == 2, "{members:?}");
    given.wait_same(&[&one, &two], 16).await?;
    given.log().await?.check()
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_holder_is_stopped_past_every_timeout_and_goes_on_r1() -> Result<()> {
    paused_and_continued(Given::one_site().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_holder_is_stopped_past_every_timeout_and_goes_on_r3() -> Result<()> {
    paused_and_continued(Given::one_cluster().await?).await
}

/// Of three updates that go out together the first is lost with its connection. At R1 the others are stored, and only the
/// first is decided again; at R3 they are one batch, of which nothing is stored.
async fn first_of_a_flush_lost(given: Given, batched: bool) -> Result<()> {
    let gate = given.gate().await?;
    let one = given.process_behind(&gate, "one").await?;
    let ids = records_of_one_group("flush", 4)?;
    given.add_is_answered(&ids[0], "before", 1).await?;
    let claim = given.log().await?.decided_under(&ids[0], "before")?;
    let tokens: Vec<String> = ids[1..].iter().map(|id| token(id)).collect::<Result<_>>()?;
    let passed = Arc::new(AtomicUsize::new(0));
    let (lost, seen) = (AtomicBool::new(false), Arc::clone(&passed));
    gate.rule(move |frame| {
        let together = tokens.iter().any(|token| frame.subject.ends_with(&format!(".{token}")));
        if !frame.is_decision() || !together {
            return Verdict::Pass;
        }
        if !lost.swap(true, Ordering::Relaxed) {
            return Verdict::Lose;
        }
        seen.fetch_add(1, Ordering::Relaxed);
        Verdict::Pass
    });
    given.gather_while_busy(&one, &ids[0], &ids[1..], COMMAND).await?;
    gate.caught(1).await?;
    wait_until("the later messages pass", SOON, || async { passed.load(Ordering::Relaxed) >= 2 }).await?;
    if !batched {
        let stored = || async {
            let log = given.log().await;
            log.is_ok_and(|log| ids[2..].iter().all(|id| log.decided_under(id, COMMAND).is_ok()))
        };
        wait_until("the later messages are stored", SOON, stored).await?;
    }
    gate.cut();
    for id in &ids[1..] {
        given.add_is_answered(id, COMMAND, 1).await?;
    }
    let log = given.log().await?;
    log.check()?;
    let under: Vec<_> = ids[1..].iter().map(|id| log.decided_under(id, COMMAND)).collect::<Result<_>>()?;
    ensure!(claim < under[0], "the lost update was decided under {under:?}, as if nothing had happened");
    let expected = if batched { under[0] } else { claim };
    ensure!(under[1] == expected && under[2] == expected, "decided under {under:?}, before that {claim}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn s19_the_first_message_of_a_flush_is_lost_at_a_reconnect_r1() -> Result<()> {
    first_of_a_flush_lost(Given::one_site().await?, false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn s19_the_first_message_of_a_flush_is_lost_at_a_reconnect_r3() -> Result<()> {
    first_of_a_flush_lost(Given::one_cluster().await?, true).await
}

/// A flush stays somewhere on its way; the holder loses the connection, claims again and decides again; then the old flush
/// arrives. Gives the log before the arrival, and the records that the flush was about.
pub(crate) async fn delay_past_the_own_new_claim(
    given: &Given,
    gate: &Gate,
    one: &InstanceProcess,
) -> Result<(RecordsLog, Vec<String>)> {
    let ids = records_of_one_group("delayed", 4)?;
    given.add_is_answered(&ids[0], "before", 1).await?;
    let tokens: Vec<String> = ids[1..].iter().map(|id| token(id)).collect::<Result<_>>()?;
    let stalled = AtomicBool::new(false);
    gate.rule(move |frame| {
        let together = tokens.iter().any(|token| frame.subject.ends_with(&format!(".{token}")));
        let first = frame.is_decision() && together && !stalled.swap(true, Ordering::Relaxed);
        if first { Verdict::Stall } else { Verdict::Pass }
    });
    given.gather_while_busy(one, &ids[0], &ids[1..], COMMAND).await?;
    gate.caught(1).await?;
    gate.cut();
    for id in &ids[1..] {
        given.add_is_answered(id, COMMAND, 1).await?;
    }
    let before = given.log().await?;
    gate.lift();
    gate.late_arrival().await?;
    Ok((before, ids[1..].to_vec()))
}

async fn delayed_past_the_own_new_claim(given: Given) -> Result<()> {
    let gate = given.gate().await?;
    let one = given.process_behind(&gate, "one").await?;
    let (before, ids) = delay_past_the_own_new_claim(&given, &gate, &one).await?;
    for id in &ids {
        given.add_is_answered(id, "another", 2).await?;
        given.add_is_answered(id, COMMAND, 1).await?;
    }
    let log = given.log().await?;
    for id in &ids {
        ensure!(log.decided_under(id, COMMAND)? == before.decided_under(id, COMMAND)?, "{id}");
    }
    log.check()
}

#[tokio::test(flavor = "multi_thread")]
async fn s20_publishes_are_delayed_until_after_the_holders_own_new_claim_r1() -> Result<()> {
    delayed_past_the_own_new_claim(Given::one_site().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn s20_publishes_are_delayed_until_after_the_holders_own_new_claim_r3() -> Result<()> {
    delayed_past_the_own_new_claim(Given::one_cluster().await?).await
}

/// All groups change hands again and again, under load.
async fn claims_in_turn(given: Given, rounds: u64) -> Result<()> {
    let one = given.process("one").await?;
    let two = given.process("two").await?;
    let workload = Workload::start_asking_again(&given.client, SITE, 8, 8, ASK_AGAIN);
    given.wait_shared().await?;
    for round in 0..rounds {
        let turn = u16::from(round % 2 == 0);
        given.assign(|group| if group % 2 == turn { "one" } else { "two" }).await?;
        let most = || async { given.held_as_listed().await.is_ok_and(|held| held >= MOST_GROUPS) };
        wait_until("most groups have changed hands", SOON, most).await?;
    }
    progress(&workload, 100).await?;
    workload.finish(&given.client, SITE).await?;
    given.wait_same(&[&one, &two], 8).await?;
    let log = given.log().await?;
    let claims = log.claim_count();
    // What has not changed hands in one round need not in the next.
    ensure!(claims as u64 >= rounds * 32, "{claims} claims in {rounds} rounds");
    println!("{claims} claims");
    log.check()
}

#[tokio::test(flavor = "multi_thread")]
async fn s25_two_instances_claim_in_turn_thousands_of_times_r1() -> Result<()> {
    claims_in_turn(Given::one_site().await?, 64).await
}

#[tokio::test(flavor = "multi_thread")]
async fn s25_two_instances_claim_in_turn_thousands_of_times_r3() -> Result<()> {
    claims_in_turn(Given::one_cluster().await?, 64).await
}

/// Waits until so many more commands are acknowledged.
pub(crate) async fn progress(workload: &Workload, more: u64) -> Result<()> {
    let before = workload.acknowledged.load(Ordering::Relaxed);
    let enough = || async { workload.acknowledged.load(Ordering::Relaxed) >= before + more };
    Ok(wait_until("the clients make progress", SOON, enough).await?)
}
