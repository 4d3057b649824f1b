//! P6 and P1 when a site is lost: another one takes over what it owned, says what is kept, and what the lost site has beyond
//! that is set aside when it returns.

#![allow(clippy::print_stdout, reason = "the figures are part of the result")]

mod deployment;
mod drill;
mod fifty;
mod history;
mod scenarios;
mod tails;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use freehold::SendOptions;
use freehold_core::{CommandId, ErrorCode, Stranded};
use freehold_sandbox::wait_until;
use freehold_tests::takeover::{give_back, take_over};
use freehold_tests::workload::{self, Workload};
use serde_json::json;

use deployment::{SOON, add, all_equal, owner, start, stranded, updates, wait_back};

/// What the taker owns can be changed within this.
const WRITABLE: Duration = Duration::from_secs(2);

/// A site that goes on deciding while it is cut off is taken over, comes back as a copy, and gets its records back.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_site_is_taken_over_and_comes_back_as_a_copy() -> Result<()> {
    let place = start(&["one"]).await?;
    let [ewr, jfk, lga] = [0, 1, 2].map(|at| place.clients[at].clone());
    let ids: Vec<String> = (0..10).map(|number| format!("ewr-{number}")).collect();
    for id in &ids {
        add(&ewr, id, "first").await?;
        workload::read_at_least(&lga, id, 1).await?;
        workload::read_at_least(&jfk, id, 1).await?;
    }
    place.sandbox.cut("ewr").await?;
    // It works on alone; what others send waits for it.
    for id in &ids[..5] {
        ensure!(add(&ewr, id, "alone").await?.changes == 2);
    }
    let body = json!({ "id": "ewr-7", "amount": 1 }).to_string();
    let options = SendOptions {
        command_id: Some(CommandId::from_caller("waits")?),
        wait: Some("accepted".to_owned()),
        ..SendOptions::default()
    };
    jfk.request(&workload::kind(), "add", body.into(), &options).await?;

    let begun = Instant::now();
    let taken = take_over(&lga, "ewr", &["jfk", "lga"]).await?.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
    ensure!(taken.answer.is_ready, "{taken:?}");
    ensure!(add(&lga, "ewr-1", "after").await?.changes == 2);
    println!("writable {:?} after the takeover began: {taken:?}", begun.elapsed());
    ensure!(begun.elapsed() < WRITABLE, "{:?}", begun.elapsed());
    ensure!(add(&jfk, "ewr-new", "after").await?.changes == 1, "the right to create records passes on");
    for client in [&jfk, &lga] {
        ensure!(owner(client, "ewr-1").await? == "jfk" && owner(client, "ewr-9").await? == "jfk");
    }
    // What had waited for the lost site is decided by the taker.
    ensure!(workload::read_at_least(&jfk, "ewr-7", 2).await?.changes == 2);
    // Somebody else is too late.
    let late = take_over(&lga, "ewr", &["lga", "jfk"]).await?;
    ensure!(late.as_ref().is_err_and(|refusal| refusal.code == ErrorCode::Conflict), "{late:?}");
    // The lost site does not know yet.
    ensure!(add(&ewr, "ewr-5", "alone").await?.changes == 2);

    place.sandbox.heal("ewr")?;
    place.sandbox.wait_linked("ewr").await?;
    let is_copy = || async { owner(&ewr, "ewr-1").await.is_ok_and(|owner| owner == "jfk") };
    wait_until("the lost site hears of it", SOON, is_copy).await?;
    let set_aside = || async { stranded(&place, "ewr").await.is_ok_and(|stranded| stranded.len() >= 12) };
    wait_until("what does not count is set aside", SOON, set_aside).await?;
    // It answers only when it is a copy.
    let answers = || async { workload::changes(&ewr, "ewr-1").await.is_ok_and(|changes| changes == 2) };
    wait_until("what was decided alone does not count", SOON, answers).await?;
    ensure!(workload::changes(&ewr, "ewr-2").await? == 1);
    let stranded = stranded(&place, "ewr").await?;
    let expected: BTreeSet<_> = (0..6).map(|number| (format!("ewr-{number}"), 2)).collect();
    // What had waited for it may have been decided there, too, before it heard that it was taken over.
    let updates: BTreeSet<_> = updates(&stranded).into_iter().filter(|(id, _)| id != "ewr-7").collect();
    ensure!(updates == expected, "{updates:?}");
    let commands: Vec<_> = stranded
        .iter()
        .filter_map(|entry| match entry {
            Stranded::Command { command, .. } => Some(command.id.to_string()),
            _ => None,
        })
        .collect();
    ensure!(commands.len() == 6, "{commands:?}");

    // Its commands are taken again, and decided where the records are now.
    ensure!(add(&ewr, "ewr-3", "alone").await?.changes == 2, "sent again");
    let adopted = || async { give_back(&jfk, "jfk", "ewr", &ids).await.is_ok() };
    wait_until("the records are given back", SOON, adopted).await?;
    let home = || async { owner(&ewr, "ewr-9").await.is_ok_and(|owner| owner == "ewr") };
    wait_until("they are there", SOON, home).await?;
    for (number, id) in ids.iter().enumerate() {
        let before = workload::read(&ewr, id).await?.changes;
        ensure!(add(&ewr, id, "home").await?.changes == before + 1, "{number}");
        ensure!(workload::read_at_least(&lga, id, before + 1).await?.changes == before + 1);
    }
    ensure!(add(&lga, "ewr-newer", "home").await?.changes == 1);
    ensure!(owner(&lga, "ewr-newer").await? == "ewr");
    all_equal(place).await
}

/// Clients of every site work while a site is killed, taken over and started again.
#[tokio::test(flavor = "multi_thread")]
async fn clients_go_on_while_a_site_is_killed_and_taken_over() -> Result<()> {
    let mut place = start(&["one", "two"]).await?;
    let [_, jfk, lga] = [0, 1, 2].map(|at| place.clients[at].clone());
    let ask_again = Duration::from_secs(1);
    let at_jfk = Workload::start_asking_again(&jfk, "ewr-j", 8, 8, ask_again);
    let at_lga = Workload::start_asking_again(&lga, "jfk-l", 8, 8, ask_again);
    let going = async |workload: &Workload, more: u64| {
        let goal = workload.acknowledged.load(std::sync::atomic::Ordering::Relaxed) + more;
        let reached = || async { workload.acknowledged.load(std::sync::atomic::Ordering::Relaxed) >= goal };
        wait_until("the clients make progress", SOON, reached).await
    };
    going(&at_jfk, 50).await?;
    place.kill("ewr").await?;
    going(&at_lga, 50).await?;
    take_over(&lga, "ewr", &["jfk", "lga"]).await?.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
    going(&at_jfk, 50).await?;
    place.restart_servers("ewr").await?;
    place.sandbox.wait_linked("ewr").await?;
    place.restart_instances("ewr").await?;
    going(&at_jfk, 50).await?;
    let sent = at_jfk.finish(&jfk, "ewr-j").await? + at_lga.finish(&lga, "jfk-l").await?;
    println!("{sent} commands around a takeover");
    all_equal(place).await
}

/// S37: of two that take the same site over at a time one wins everywhere, and the other is told.
#[tokio::test(flavor = "multi_thread")]
async fn s37_of_two_takers_one_wins_and_the_other_is_told() -> Result<()> {
    let place = start(&["one"]).await?;
    let [ewr, jfk, lga] = [0, 1, 2].map(|at| place.clients[at].clone());
    add(&ewr, "ewr-1", "first").await?;
    for client in [&jfk, &lga] {
        workload::read_at_least(client, "ewr-1", 1).await?;
    }
    place.sandbox.cut("ewr").await?;
    let (by_jfk, by_lga) =
        tokio::join!(take_over(&jfk, "ewr", &["jfk", "lga"]), take_over(&lga, "ewr", &["lga", "jfk"]));
    let mut winners = Vec::new();
    for (taker, taken) in [("jfk", by_jfk?), ("lga", by_lga?)] {
        match taken {
            Ok(_) => winners.push(taker),
            Err(refusal) => ensure!(refusal.code == ErrorCode::Conflict, "{taker}: {refusal:?}"),
        }
    }
    // Both may have been told, each by the other's seal: then one of them asks again.
    if winners.is_empty() {
        let again = take_over(&lga, "ewr", &["lga", "jfk"]).await?;
        again.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
        winners.push("lga");
    }
    let [winner] = winners[..] else { anyhow::bail!("{winners:?} have taken it over") };
    for client in [&jfk, &lga] {
        let knows = || async { owner(client, "ewr-1").await.is_ok_and(|owner| owner == winner) };
        wait_until("everybody knows the owner", SOON, knows).await?;
    }
    ensure!(add(&jfk, "ewr-1", "after").await?.changes == 2);
    place.sandbox.heal("ewr")?;
    place.sandbox.wait_linked("ewr").await?;
    let is_copy = || async { workload::changes(&ewr, "ewr-1").await.is_ok_and(|changes| changes == 2) };
    wait_until("the lost site is a copy", SOON, is_copy).await?;
    all_equal(place).await
}

/// S38: a takeover without a site that does not answer either; that one has more of the log, and is put right when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn s38_a_takeover_without_a_member_is_what_counts_when_that_one_is_back() -> Result<()> {
    let place = start(&["one"]).await?;
    let [ewr, jfk, lga] = [0, 1, 2].map(|at| place.clients[at].clone());
    for id in ["ewr-1", "ewr-2"] {
        add(&ewr, id, "first").await?;
        workload::read_at_least(&jfk, id, 1).await?;
    }
    // jfk is cut off first, so that lga has more of the lost site's log.
    place.sandbox.cut("jfk").await?;
    add(&ewr, "ewr-1", "jfk has not").await?;
    workload::read_at_least(&lga, "ewr-1", 2).await?;
    place.sandbox.cut("lga").await?;
    place.sandbox.cut("ewr").await?;
    let refused = take_over(&jfk, "ewr", &["jfk", "lga"]).await;
    ensure!(refused.is_err(), "a member that does not answer was passed over: {refused:?}");
    take_over(&jfk, "ewr", &["jfk"]).await?.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
    ensure!(add(&jfk, "ewr-2", "after").await?.changes == 2);

    for site in ["jfk", "lga"] {
        place.sandbox.heal(site)?;
        place.sandbox.wait_linked(site).await?;
    }
    let is_right = || async {
        let (one, two) = (workload::changes(&lga, "ewr-1").await?, workload::changes(&lga, "ewr-2").await?);
        anyhow::Ok(one == 1 && two == 2 && owner(&lga, "ewr-1").await? == "jfk")
    };
    let is_right = || async { is_right().await.unwrap_or(false) };
    wait_until("what the cut leaves out is gone where it had been seen", SOON, is_right).await?;
    place.sandbox.heal("ewr")?;
    place.sandbox.wait_linked("ewr").await?;
    wait_back(&jfk, "ewr", &["jfk", "lga"]).await?;
    let updates = updates(&stranded(&place, "ewr").await?);
    ensure!(updates == BTreeSet::from([("ewr-1".to_owned(), 2)]), "not what was left out");
    all_equal(place).await
}
