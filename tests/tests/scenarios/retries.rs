//! The same command again: 5, 6, 7, 16 and 22. It has the first answer and no second effect.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use freehold_core::ErrorCode;
use freehold_sandbox::wait_until;
use freehold_tests::counter::Total;
use freehold_tests::workload;
use serde_json::json;

use crate::crashes::COMMAND;
use crate::given::{Given, SITE, SOON, group_of, records_of_one_group, rejection};

/// The server forgets message ids after this long.
const SHORT_WINDOW_MS: u64 = 200;
/// How far back a client's retries reach.
const BACK: usize = 10;

/// A command that the log takes a second time, since the server has forgotten it.
#[tokio::test(flavor = "multi_thread")]
async fn s05_a_retry_beyond_the_duplicate_window() -> Result<()> {
    let given = Given::one_site().await?;
    let mut config = given.config("one")?;
    config.duplicate_window_ms = SHORT_WINDOW_MS;
    let one = given.process_of(&config).await?;
    let id = format!("{SITE}-1");
    given.add_is_answered(&id, COMMAND, 1).await?;
    given.append_again(&id, COMMAND).await?;
    given.add_is_answered(&id, COMMAND, 1).await?;
    given.add_is_answered(&id, "behind-it", 2).await?;
    one.process().kill().await?;
    config.instance = "two".parse()?;
    let _two = given.process_of(&config).await?;
    given.append_again(&id, COMMAND).await?;
    given.add_is_answered(&id, COMMAND, 1).await?;
    given.add_is_answered(&id, "behind-that", 3).await?;
    let log = given.log().await?;
    ensure!(log.decisions(&id, COMMAND)?.len() == 1);
    log.check()
}

#[tokio::test(flavor = "multi_thread")]
async fn s06_the_same_command_id_with_other_content_is_refused() -> Result<()> {
    let given = Given::one_site().await?;
    let mut one = given.process("one").await?;
    let ids = records_of_one_group("content", 2)?;
    let id = &ids[0];
    given.add_is_answered(id, COMMAND, 1).await?;
    // Both contents of one id are in one flush: the first in the log counts.
    given.keep_busy(&one, &ids[1], "busy").await?;
    given.append(id, "add", "twice", &json!({ "amount": 1 })).await?;
    given.append(id, "add", "twice", &json!({ "amount": 100 })).await?;
    for _ in 0..2 {
        for (name, body) in [("add", json!({ "amount": 2 })), ("take", json!({ "amount": 1 })), ("clear", json!({}))] {
            is_conflict(&given.tell(id, name, COMMAND, &body).await?)?;
        }
        is_conflict(&given.tell(id, "add", "twice", &json!({ "amount": 100 })).await?)?;
        given.add_is_answered(id, COMMAND, 1).await?;
        given.add_is_answered(id, "twice", 2).await?;
        one.process().kill().await?;
        one.restart().await?;
    }
    ensure!(workload::read(&given.client, id).await?.total == 2);
    given.log().await?.check()
}

#[tokio::test(flavor = "multi_thread")]
async fn s07_the_same_command_id_on_two_records_of_two_groups() -> Result<()> {
    let given = Given::one_site().await?;
    let mut one = given.process("one").await?;
    let mut ids = records_of_one_group("same", 2)?;
    let elsewhere = (0..).map(|number| format!("{SITE}-elsewhere-{number}"));
    let group = group_of(&ids[0])?;
    ids.extend(elsewhere.filter(|id| group_of(id).is_ok_and(|other| other != group)).take(1));
    // The records are told apart by what they had before, and so are the answers.
    for (number, id) in ids.iter().enumerate() {
        for before in 0..number {
            given.tell(id, "add", &format!("before-{before}"), &json!({ "amount": 1 })).await?;
        }
    }
    for _ in 0..2 {
        for (changes, id) in (1..).zip(&ids) {
            given.add_is_answered(id, COMMAND, changes).await?;
        }
        one.process().kill().await?;
        one.restart().await?;
    }
    let log = given.log().await?;
    for id in &ids {
        ensure!(log.decisions(id, COMMAND)?.len() == 1, "{id}");
    }
    log.check()
}

#[tokio::test(flavor = "multi_thread")]
async fn s16_a_rejection_on_a_record_that_never_existed_outlives_takeover_and_creation() -> Result<()> {
    let given = Given::one_site().await?;
    let one = given.process("one").await?;
    let _two = given.process("two").await?;
    let id = format!("{SITE}-1");
    given.assign(|_| "one").await?;
    given.wait_held("one", &[group_of(&id)?]).await?;
    let body = json!({ "amount": 5 });
    let first = rejection(&given.tell(&id, "take", COMMAND, &body).await?)?;
    one.process().kill().await?;
    given.wait_held("two", &[group_of(&id)?]).await?;
    ensure!(rejection(&given.tell(&id, "take", COMMAND, &body).await?)? == first);
    given.tell(&id, "add", "created", &json!({ "amount": 50 })).await?;
    ensure!(rejection(&given.tell(&id, "take", COMMAND, &body).await?)? == first);
    let taken = given.tell(&id, "take", "another", &body).await?;
    ensure!(workload::reply::<Total>(&taken)?.total == 45, "{taken:?}");
    let log = given.log().await?;
    ensure!(log.decisions(&id, COMMAND)?.len() == 1);
    log.check()
}

/// The log has the command twice, and the holder takes both into one flush.
#[tokio::test(flavor = "multi_thread")]
async fn s22_the_same_command_twice_in_one_flush() -> Result<()> {
    let given = Given::one_site().await?;
    let mut config = given.config("one")?;
    config.duplicate_window_ms = SHORT_WINDOW_MS;
    let one = given.process_of(&config).await?;
    let ids = records_of_one_group("twice", 2)?;
    given.add_is_answered(&ids[0], "before", 1).await?;
    given.keep_busy(&one, &ids[0], "busy").await?;
    given.append(&ids[1], "add", COMMAND, &json!({ "amount": 1 })).await?;
    given.append_again(&ids[1], COMMAND).await?;
    ensure!(given.log().await?.decisions(&ids[0], "busy")?.is_empty(), "the commands did not gather");
    given.add_is_answered(&ids[1], COMMAND, 1).await?;
    given.add_is_answered(&ids[1], "behind-them", 2).await?;
    let log = given.log().await?;
    ensure!(log.decisions(&ids[1], COMMAND)?.len() == 1);
    log.check()
}

/// Clients retry what they have had answered long ago, while the instances are killed in turn.
#[tokio::test(flavor = "multi_thread")]
async fn retries_long_after_the_duplicate_window_while_instances_die() -> Result<()> {
    let given = Arc::new(Given::one_site().await?);
    let mut instances = Vec::new();
    for name in ["one", "two"] {
        let mut config = given.config(name)?;
        config.duplicate_window_ms = SHORT_WINDOW_MS;
        instances.push(given.process_of(&config).await?);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> =
        (0..8).map(|number| tokio::spawn(retrying_client(Arc::clone(&given), number, Arc::clone(&stop)))).collect();
    for kill in 0..6 {
        let before = given.commands_stored().await?;
        let enough = || async { given.commands_stored().await.is_ok_and(|commands| commands >= before + 60) };
        wait_until("the clients make progress", SOON, enough).await?;
        let victim = &mut instances[kill % 2];
        victim.process().kill().await?;
        victim.restart().await?;
    }
    stop.store(true, Ordering::Relaxed);
    let mut repeated = 0;
    for (number, client) in clients.into_iter().enumerate() {
        let (sent, again) = client.await??;
        let counter = workload::read(&given.client, &format!("{SITE}-{}", number % 4)).await?;
        ensure!(counter.breaches.is_empty(), "{:?}", counter.breaches);
        ensure!(counter.last.get(&format!("c{number}")) == Some(&sent), "{sent} commands, but {:?}", counter.last);
        ensure!(counter.changes == counter.last.values().sum::<u64>(), "{counter:?}");
        repeated += again;
    }
    let log = given.log().await?;
    log.check()?;
    let logged = given.commands().await?.len();
    println!("{logged} commands in the log, {repeated} of them again");
    ensure!(repeated > 50, "{repeated} retries are no test");
    Ok(())
}

/// Sends numbered commands, and each of them again later. Gives how many commands there were and how many of them the log has
/// taken again.
async fn retrying_client(given: Arc<Given>, number: usize, stop: Arc<AtomicBool>) -> Result<(u64, u64)> {
    let (name, id) = (format!("c{number}"), format!("{SITE}-{}", number % 4));
    let send = async |number: u64| {
        let body = json!({ "amount": 1, "client": name, "number": number });
        let answer = given.tell(&id, "add", &format!("{name}-{number}"), &body).await?;
        workload::reply::<Total>(&answer).with_context(|| format!("{name}-{number}"))
    };
    // Straight into the log: a retry that no request handler has looked up before.
    let log_again = async |number: u64| {
        let body = json!({ "amount": 1, "client": name, "number": number });
        // The log may not answer while its server is busy with the dead; then it is one repeat less.
        let taken = given.append(&id, "add", &format!("{name}-{number}"), &body).await;
        u64::from(taken.is_ok_and(|taken| !taken.duplicate))
    };
    let mut answers: Vec<Total> = Vec::new();
    let mut relogged = 0;
    while !stop.load(Ordering::Relaxed) {
        answers.push(send(answers.len() as u64 + 1).await?);
        if let Some(old) = answers.len().checked_sub(BACK) {
            relogged += log_again(old as u64 + 1).await;
            ensure!(send(old as u64 + 1).await? == answers[old], "{name}-{} has another answer", old + 1);
        }
    }
    tokio::time::timeout(Duration::from_secs(60), async {
        for (old, answer) in (1..).zip(&answers) {
            relogged += log_again(old).await;
            ensure!(send(old).await? == *answer, "{name}-{old} has another answer");
        }
        Ok(())
    })
    .await??;
    Ok((answers.len() as u64, relogged))
}

fn is_conflict(answer: &freehold::Answer) -> Result<()> {
    let conflict = answer.result.as_ref().is_err_and(|refusal| refusal.code == ErrorCode::Conflict);
    ensure!(conflict, "no conflict, but {answer:?}");
    Ok(())
}
