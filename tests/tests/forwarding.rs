//! P1, P2 and P5 between sites: a command is taken anywhere, decided once by the owner of its record, and its outcome is where
//! it was taken; records move while clients work.

#![allow(clippy::print_stdout, reason = "the figures are part of the result")]

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use freehold::{Answer, Client, SendOptions};
use freehold_core::subject::{self, commands_stream};
use freehold_core::{CommandId, ErrorCode, GroupCount, OwnerDown, REHOME_COMMAND, SiteName};
use freehold_sandbox::{Sandbox, wait_until};
use freehold_tests::counter;
use freehold_tests::place::{self, InstanceProcess};
use freehold_tests::three_sites::{SITES, ThreeSites};
use freehold_tests::workload::{self, Workload};
use rand::RngExt as _;
use serde_json::{Value, json};

const SERVICE: &str = env!("CARGO_BIN_EXE_e2e-service");
const SOON: Duration = Duration::from_secs(60);
/// A refusal that does not wait for the other site comes within this.
const AT_ONCE: Duration = Duration::from_secs(2);
/// How long one request goes without an answer before it is sent again.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Commands that wait for a site.
const WAITING: u64 = 100;
/// Results of a group that a log keeps, and more.
const BEYOND_THE_HISTORY: usize = 80;

async fn add(client: &Client, id: &str, command_id: &str, options: SendOptions) -> Result<Answer> {
    let options = SendOptions { command_id: Some(CommandId::from_caller(command_id)?), ..options };
    let body = json!({ "id": id, "amount": 1 }).to_string();
    Ok(client.request(&workload::kind(), "add", body.into(), &options).await?)
}

async fn rehome(client: &Client, at: &str, id: &str, command_id: &str, to: &str) -> Result<Answer> {
    let options = SendOptions {
        command_id: Some(CommandId::from_caller(command_id)?),
        timeout: ASK_AGAIN,
        ..SendOptions::default()
    };
    let body = json!({ "id": id, "to": to }).to_string();
    let subject = subject::operator(&at.parse()?, &workload::kind(), REHOME_COMMAND);
    Ok(client.request_to(subject, body.into(), &options).await?)
}

async fn owner(client: &Client, id: &str) -> Result<String> {
    let body = json!({ "id": id }).to_string();
    let answer = client.request(&workload::kind(), "get", body.into(), &SendOptions::default()).await?;
    let view: Value = serde_json::from_slice(&answer.result.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?)?;
    Ok(view["owner"].as_str().context("no owner")?.to_owned())
}

/// Every site's clients change records of every site; who has a reply finds the change at its own site.
#[tokio::test(flavor = "multi_thread")]
async fn commands_are_taken_anywhere_and_what_was_answered_is_read_at_once() -> Result<()> {
    let place = ThreeSites::start(SERVICE, &["one"]).await?;
    for (at, client) in SITES.iter().zip(&place.clients) {
        for of in SITES {
            for number in 0..20 {
                let id = format!("{of}-{number}");
                let answer = workload::send(client, "add", &json!({ "id": id, "amount": 1 }), None).await?;
                let total: counter::Total = workload::reply(&answer).with_context(|| format!("{id} at {at}"))?;
                ensure!(answer.owner.as_ref().is_some_and(|owner| owner.as_str() == of), "{answer:?}");
                let read = workload::read(client, &id).await?;
                ensure!(read.changes >= total.changes, "{id} at {at}: {} of {} changes", read.changes, total.changes);
            }
        }
    }
    // Clients at two sites, each with records of its own at the third.
    let at_jfk = Workload::start(&place.clients[1], "ewr-j", 16, 16);
    let at_lga = Workload::start(&place.clients[2], "ewr-l", 16, 16);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let sent = at_jfk.finish(&place.clients[1], "ewr-j").await? + at_lga.finish(&place.clients[2], "ewr-l").await?;
    println!("{sent} forwarded commands in 3 s");
    place.all_equal(92).await
}

/// A cut-off site refuses at once what may not wait, and keeps the rest in order.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_owner_that_is_away_would_decide_is_refused_or_kept_as_the_caller_chose() -> Result<()> {
    let place = ThreeSites::start(SERVICE, &["one"]).await?;
    let jfk = &place.clients[1];
    for id in ["ewr-1", "ewr-2"] {
        workload::reply::<counter::Total>(&add(jfk, id, "first", SendOptions::default()).await?)?;
    }
    place.sandbox.cut("ewr").await?;
    let fail = || SendOptions { owner_down: Some(OwnerDown::Fail), timeout: ASK_AGAIN, ..SendOptions::default() };
    let mut tries = 0;
    let mut unreachable = async || {
        tries += 1;
        let asked = Instant::now();
        let answer = add(jfk, "ewr-2", &format!("fail-{tries}"), fail()).await;
        let refused = answer.is_ok_and(|it| it.result.is_err_and(|it| it.code == ErrorCode::OwnerUnreachable));
        refused && asked.elapsed() < AT_ONCE
    };
    let deadline = Instant::now() + SOON;
    while !unreachable().await {
        ensure!(Instant::now() < deadline, "the owner that is away is not noticed");
    }
    for number in 1..=20 {
        let body = json!({ "id": "ewr-1", "amount": 1, "client": "queued", "number": number }).to_string();
        let options = SendOptions {
            command_id: Some(CommandId::from_caller(&format!("queued-{number}"))?),
            owner_down: Some(OwnerDown::Queue),
            ..SendOptions::default()
        };
        let asked = Instant::now();
        let answer = jfk.request(&workload::kind(), "add", body.into(), &options).await?;
        let kept: Value = serde_json::from_slice(&answer.result.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?)?;
        ensure!(kept["accepted"] == true && kept["command_id"] == format!("queued-{number}"), "{kept}");
        ensure!(asked.elapsed() < AT_ONCE, "it took {:?}", asked.elapsed());
    }
    // Its own records a cut-off site changes as ever, and reads all.
    let own = add(&place.clients[0], "ewr-1", "own", SendOptions::default()).await?;
    ensure!(workload::reply::<counter::Total>(&own)?.changes == 2, "{own:?}");
    ensure!(workload::read(jfk, "ewr-1").await?.changes == 1, "the cut leaks");

    place.sandbox.heal("ewr")?;
    place.sandbox.wait_linked("ewr").await?;
    let healed = Instant::now();
    let decided = || async {
        let body = json!({ "id": "ewr-1", "command_id": "queued-20" }).to_string();
        let answer = jfk.request(&workload::kind(), "outcome", body.into(), &SendOptions::default()).await;
        let outcome = answer.ok().and_then(|answer| answer.result.ok());
        outcome.and_then(|body| serde_json::from_slice::<Value>(&body).ok()).is_some_and(|it| it["status"] == "applied")
    };
    wait_until("what was kept is decided, and known where it was taken", SOON, decided).await?;
    println!("20 commands that waited were answered {:?} after the heal", healed.elapsed());
    let counter = workload::read(jfk, "ewr-1").await?;
    ensure!(counter.changes == 22 && counter.breaches.is_empty(), "{counter:?}");
    place.all_equal(2).await
}

/// S28, S48: what one caller was told is kept comes in its order, however often the record moves meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn s28_one_callers_commands_stay_in_order_while_the_record_moves() -> Result<()> {
    let place = ThreeSites::start(SERVICE, &["one"]).await?;
    let (ewr, jfk, lga) = (&place.clients[0], &place.clients[1], &place.clients[2]);
    workload::reply::<counter::Total>(&add(ewr, "ewr-1", "first", SendOptions::default()).await?)?;
    let accepted = async |client: &Client, name: &str, number: u64| {
        let body = json!({ "id": "ewr-1", "amount": 1, "client": name, "number": number }).to_string();
        let options = SendOptions {
            command_id: Some(CommandId::from_caller(&format!("{name}-{number}"))?),
            wait: Some("accepted".to_owned()),
            ..SendOptions::default()
        };
        let answer = client.request(&workload::kind(), "add", body.into(), &options).await?;
        answer.result.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
        anyhow::Ok(())
    };
    let mut number = 0;
    for (round, to) in ["jfk", "ewr", "lga", "jfk", "lga", "ewr", "jfk"].into_iter().enumerate() {
        for _ in 0..10 {
            number += 1;
            for (name, client) in [("at-ewr", ewr), ("at-jfk", jfk), ("at-lga", lga)] {
                accepted(client, name, number).await?;
            }
        }
        // Any site takes the command that moves the record.
        rehome(lga, SITES[round % 3], "ewr-1", &format!("move-{round}"), to).await?;
    }
    let changes = 1 + 3 * number;
    let all = || async { workload::read(ewr, "ewr-1").await.is_ok_and(|counter| counter.changes == changes) };
    wait_until("everything is decided", SOON, all).await?;
    let counter = workload::read(ewr, "ewr-1").await?;
    ensure!(counter.breaches.is_empty(), "{:?}", counter.breaches);
    place.all_equal(3).await?;
    for client in &place.clients {
        ensure!(owner(client, "ewr-1").await? == "jfk", "the record did not end where it was sent");
    }
    Ok(())
}

/// The right to create records moves, for some ids or for all; nothing that exists moves with it.
#[tokio::test(flavor = "multi_thread")]
async fn the_right_to_create_records_moves_and_no_id_is_created_twice() -> Result<()> {
    let place = ThreeSites::start(SERVICE, &["one"]).await?;
    let (ewr, lga) = (&place.clients[0], &place.clients[2]);
    let created = async |client: &Client, id: &str| {
        let answer = workload::send(client, "add", &json!({ "id": id, "amount": 1 }), None).await?;
        let total: counter::Total = workload::reply(&answer).with_context(|| id.to_owned())?;
        anyhow::Ok((total.changes, answer.owner.map(|owner| owner.to_string()).unwrap_or_default()))
    };
    ensure!(created(ewr, "ewr-vip-0").await? == (1, "ewr".to_owned()));
    let give = async |from: &str, prefix: &str, to: &str| {
        let body = json!({ "prefix": prefix, "to": to }).to_string();
        let subject = subject::operator(&from.parse()?, &workload::kind(), "rehome-right");
        let answer = lga.request_to(subject, body.into(), &SendOptions::default()).await?;
        let reply = answer.result.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
        anyhow::Ok(serde_json::from_slice::<Value>(&reply)?["rights"].as_u64().unwrap_or_default())
    };
    // Callers at both ends race the move: whoever creates a record, there is one.
    let racers = (0..20).map(|number| {
        let clients = [ewr.clone(), lga.clone()];
        async move {
            for client in &clients {
                let id = format!("ewr-vip-race-{number}");
                let answer = workload::send(client, "add", &json!({ "id": id, "amount": 1 }), None).await?;
                workload::reply::<counter::Total>(&answer).context(id)?;
            }
            anyhow::Ok(())
        }
    });
    let (rights, raced) = tokio::join!(give("ewr", "ewr-vip", "jfk"), futures::future::try_join_all(racers));
    raced?;
    let rights = rights?;
    ensure!(rights > 0, "nothing moved");
    for number in 0..20 {
        ensure!(workload::read_at_least(ewr, &format!("ewr-vip-race-{number}"), 2).await?.changes == 2, "{number}");
    }
    for client in &place.clients {
        ensure!(created(client, "ewr-vip-0").await?.1 == "ewr", "what exists stays");
    }
    ensure!(created(ewr, "ewr-vip-1").await? == (1, "jfk".to_owned()));
    ensure!(created(lga, "ewr-vip-2").await? == (1, "jfk".to_owned()));
    ensure!(created(lga, "ewr-other").await? == (1, "ewr".to_owned()));
    ensure!(give("ewr", "ewr-vip", "lga").await? == 0, "a site gave what it does not have");
    // Those that it was given, and those over ids of its own that begin like this.
    ensure!(give("jfk", "ewr-vip", "lga").await? >= rights);
    ensure!(created(ewr, "ewr-vip-3").await? == (1, "lga".to_owned()));
    ensure!(give("ewr", "", "jfk").await? == rights);
    ensure!(created(ewr, "ewr-any").await? == (1, "jfk".to_owned()));
    ensure!(created(ewr, "ewr-vip-4").await? == (1, "lga".to_owned()));
    let refused = workload::send(ewr, "add", &json!({ "id": "\0home/1/ewr/", "amount": 1 }), None).await?.result;
    ensure!(refused.as_ref().is_err_and(|refusal| refusal.code == ErrorCode::Invalid), "{refused:?}");
    Ok(())
}

/// S33: commands wait for a site that is not there yet. When it comes, the log that took them has purged them, and has dropped what it
/// published next; it decides them all, in order.
#[tokio::test(flavor = "multi_thread")]
async fn s33_a_new_site_decides_what_has_waited_for_it_in_a_purged_log() -> Result<()> {
    let sandbox = SITES.iter().fold(Sandbox::builder(), |builder, site| builder.site(*site)).start().await?;
    let data = tempfile::tempdir()?;
    let names = SITES.iter().map(|site| site.parse()).collect::<Result<Vec<SiteName>, _>>()?;
    let start = async |site: &str| {
        let directory = data.path().join(site);
        std::fs::create_dir_all(&directory)?;
        let mut config = place::config(sandbox.site(site), "one", &directory)?;
        config.sites = names.clone();
        config.audit_window_ms = 0;
        InstanceProcess::start(SERVICE, &config, &directory).await
    };
    let mut instances = vec![start("ewr").await?, start("jfk").await?];
    let jfk = place::client(sandbox.site("jfk")).await?;
    let groups = GroupCount::DEFAULT;
    let waiting = place::record_in_group("lga", groups, 1);
    let own = place::record_in_group("jfk", groups, 1);
    for number in 1..=WAITING {
        let body = json!({ "id": waiting, "amount": 1, "client": "jfk", "number": number }).to_string();
        let options = SendOptions {
            command_id: Some(CommandId::from_caller(&format!("waiting-{number}"))?),
            wait: Some("accepted".to_owned()),
            ..SendOptions::default()
        };
        let kept = jfk.request(&workload::kind(), "add", body.into(), &options).await?;
        ensure!(kept.result.is_ok(), "{kept:?}");
    }
    // Each of these is answered in a result of the group, as forwards are told: more of them than a log keeps.
    for number in 1..=BEYOND_THE_HISTORY {
        let taken = workload::send(&jfk, "take", &json!({ "id": own, "amount": 1 }), None).await?;
        ensure!(taken.result.is_err(), "rejection {number}: {taken:?}");
    }
    let jetstream = async_nats::jetstream::new(async_nats::connect(sandbox.site("jfk").url()).await?);
    let mut log = jetstream.get_stream(commands_stream(&names[1])).await?;
    let deadline = Instant::now() + SOON;
    while log.info().await?.state.first_sequence <= WAITING {
        ensure!(Instant::now() < deadline, "the command log is not purged: {:?}", log.cached_info().state);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    instances.push(start("lga").await?);
    let lga = place::client(sandbox.site("lga")).await?;
    let decided = || async { workload::changes(&lga, &waiting).await.is_ok_and(|changes| changes == WAITING) };
    wait_until("all that has waited is decided", SOON, decided).await?;
    let counter = workload::read(&lga, &waiting).await?;
    ensure!(counter.breaches.is_empty() && counter.changes == WAITING, "{counter:?}");
    // And the site that took them has the answers.
    ensure!(workload::read_at_least(&jfk, &waiting, WAITING).await?.changes == WAITING);
    for number in 1..=WAITING {
        let body = json!({ "id": waiting, "amount": 1, "client": "jfk", "number": number });
        let again = workload::send(&jfk, "add", &body, Some(&format!("waiting-{number}"))).await?;
        let total: counter::Total = workload::reply(&again)?;
        ensure!(total.changes == number, "command {number} was told {total:?}");
    }
    Ok(())
}

/// 50 moves, in each of which an instance of either side is killed at a random time.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_moves_with_kills_leave_one_owner_and_lose_nothing() -> Result<()> {
    const RECORDS: usize = 4;
    let mut place = ThreeSites::start(SERVICE, &["one", "two"]).await?;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut chance = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
    let workload = Workload::start_asking_again(&place.clients[2], "ewr", 2 * RECORDS, RECORDS, ASK_AGAIN);
    let started = || async { workload.acknowledged.load(std::sync::atomic::Ordering::Relaxed) > 100 };
    wait_until("the clients make progress", SOON, started).await?;
    let mut owners = ["ewr"; RECORDS];
    for round in 0..50 {
        let record = chance.random_range(0..RECORDS);
        let (from, to) = (owners[record], SITES[chance.random_range(0..SITES.len())]);
        let side = if chance.random_bool(0.5) { from } else { to };
        let of_side = place.instances.iter().enumerate().filter(|(_, (site, _))| *site == side).map(|(at, _)| at);
        let of_side: Vec<_> = of_side.collect();
        let victim = of_side[chance.random_range(0..of_side.len())];
        let id = format!("ewr-{record}");
        let command_id = format!("move-{round}");
        let client = place.clients[SITES.iter().position(|site| *site == from).unwrap_or_default()].clone();
        let moving = {
            let (id, command_id) = (id.clone(), command_id.clone());
            tokio::spawn(async move { rehome_until_done(&client, from, &id, &command_id, to).await })
        };
        tokio::time::sleep(Duration::from_millis(chance.random_range(0..60))).await;
        place.instances[victim].1.process().kill().await?;
        moving.await?.with_context(|| format!("round {round}: {id} from {from} to {to}"))?;
        place.instances[victim].1.restart().await?;
        owners[record] = to;
    }
    let sent = workload.finish(&place.clients[2], "ewr").await?;
    println!("{sent} commands during 50 moves with a kill each");
    for (record, expected) in owners.iter().enumerate() {
        for client in &place.clients {
            let id = format!("ewr-{record}");
            let there = || async { owner(client, &id).await.is_ok_and(|owner| owner == *expected) };
            wait_until("every site knows the owner", SOON, there).await.with_context(|| id.clone())?;
        }
    }
    Ok(())
}

async fn rehome_until_done(client: &Client, from: &str, id: &str, command_id: &str, to: &str) -> Result<()> {
    let deadline = Instant::now() + SOON;
    loop {
        match rehome(client, from, id, command_id, to).await {
            Ok(answer) if answer.result.is_ok() => return Ok(()),
            other => ensure!(Instant::now() < deadline, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
