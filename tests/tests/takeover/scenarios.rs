//! What goes wrong around a lost site, by the numbers of the scenario list.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use freehold::runtime::{LossAnswer, LossRequest, TakeOverAnswer, TakeOverRequest};
use freehold::{Client, SendOptions};
use freehold_core::{CommandId, ErrorCode, SiteName};
use freehold_jetstream::SitesLog;
use freehold_sandbox::wait_until;
use freehold_tests::counter::Total;
use freehold_tests::takeover::{ask, ballot, give_back, seal, take_over};
use freehold_tests::three_sites::ThreeSites;
use freehold_tests::workload;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

use crate::deployment::{SOON, add, all_equal, owner, start, stranded, updates, wait_back};

/// Updates of a record that a log keeps, and more.
const BEYOND_THE_HISTORY: usize = 70;

fn clients(place: &ThreeSites) -> [Client; 3] {
    [0, 1, 2].map(|at| place.clients[at].clone())
}

async fn take_over_or_fail(client: &Client, lost: &str, members: &[&str]) -> Result<()> {
    let taken = take_over(client, lost, members).await?;
    taken.map(|_| ()).map_err(|refusal| anyhow::anyhow!("{refusal:?}"))
}

/// Asks for a rejection: nothing can be taken from an empty counter.
async fn take(client: &Client, id: &str, command_id: &str) -> Result<ErrorCode> {
    let answer = workload::send(client, "take", &json!({ "id": id, "amount": 100 }), Some(command_id)).await?;
    answer.result.err().map(|refusal| refusal.code).ok_or_else(|| anyhow::anyhow!("{command_id} was accepted"))
}

/// S29: what was rejected is rejected when it is tried again, though the record could now pay, and though another site owns it.
#[tokio::test(flavor = "multi_thread")]
async fn s29_a_rejection_stays_one_after_a_move_and_after_a_takeover() -> Result<()> {
    let place = start(&["one"]).await?;
    let [ewr, jfk, lga] = clients(&place);
    for id in ["ewr-1", "ewr-2"] {
        ensure!(take(&ewr, id, "rejected").await? == ErrorCode::Rejected);
        workload::send(&ewr, "add", &json!({ "id": id, "amount": 1_000 }), Some("rich")).await?;
    }
    give_back(&ewr, "ewr", "jfk", &["ewr-1".to_owned()]).await?;
    for client in [&ewr, &jfk, &lga] {
        ensure!(take(client, "ewr-1", "rejected").await? == ErrorCode::Rejected);
    }
    workload::read_at_least(&jfk, "ewr-2", 1).await?;
    place.sandbox.cut("ewr").await?;
    take_over_or_fail(&jfk, "ewr", &["jfk", "lga"]).await?;
    for client in [&jfk, &lga] {
        for id in ["ewr-1", "ewr-2"] {
            ensure!(take(client, id, "rejected").await? == ErrorCode::Rejected, "{id}");
            ensure!(workload::changes(client, id).await? == 1, "{id}");
        }
    }
    place.sandbox.heal("ewr")?;
    wait_back(&jfk, "ewr", &["jfk", "lga"]).await?;
    ensure!(take(&ewr, "ewr-2", "rejected").await? == ErrorCode::Rejected);
    all_equal(place).await
}

/// A command that jfk sends for a record of ewr.
async fn add_numbered(client: &Client, number: usize) -> Result<Total> {
    let body = json!({ "id": "ewr-hot", "amount": 1, "client": "jfk", "number": number + 1 });
    workload::reply(&workload::send(client, "add", &body, Some(&format!("kept-{number}"))).await?)
}

/// S30: a record exceeds its history while a site is cut off that sends commands for it: all of them are answered.
#[tokio::test(flavor = "multi_thread")]
async fn s30_forwarded_callers_are_answered_though_the_record_has_exceeded_its_history() -> Result<()> {
    let place = start(&["one"]).await?;
    let [ewr, jfk, _] = clients(&place);
    add(&ewr, "ewr-hot", "first").await?;
    workload::read_at_least(&jfk, "ewr-hot", 1).await?;
    place.sandbox.cut("jfk").await?;
    let command = |number: usize| CommandId::from_caller(&format!("kept-{number}"));
    for number in 0..BEYOND_THE_HISTORY {
        add(&ewr, "ewr-hot", &format!("own-{number}")).await?;
        let body = json!({ "id": "ewr-hot", "amount": 1, "client": "jfk", "number": number + 1 }).to_string();
        let wait = Some("accepted".to_owned());
        let options = SendOptions { command_id: Some(command(number)?), wait, ..SendOptions::default() };
        let kept = jfk.request(&workload::kind(), "add", body.into(), &options).await?;
        ensure!(kept.result.is_ok(), "{kept:?}");
    }
    place.sandbox.heal("jfk")?;
    // The last is answered when all before it are.
    let last = BEYOND_THE_HISTORY - 1;
    let decided = || async { add_numbered(&jfk, last).await.is_ok() };
    wait_until("the last command is decided", SOON, decided).await?;
    let mut seen = BTreeSet::new();
    for number in 0..BEYOND_THE_HISTORY {
        ensure!(seen.insert(add_numbered(&jfk, number).await?.changes), "told twice");
    }
    let counter = workload::read_at_least(&jfk, "ewr-hot", 1 + 2 * BEYOND_THE_HISTORY as u64).await?;
    ensure!(counter.changes == 1 + 2 * BEYOND_THE_HISTORY as u64 && counter.breaches.is_empty(), "{counter:?}");
    all_equal(place).await
}

/// S37: a taker is lost itself before it has adopted what it got. All of that passes on, and both come back.
#[tokio::test(flavor = "multi_thread")]
async fn s37_a_taker_is_taken_over_before_it_has_adopted_all() -> Result<()> {
    const RECORDS: usize = 1_000;
    let mut place = start(&["one"]).await?;
    let [ewr, jfk, lga] = clients(&place);
    add(&lga, "lga-1", "first").await?;
    let ids: Vec<_> = (0..RECORDS).map(|number| format!("jfk-{number}")).collect();
    let made = ids.iter().map(|id| add(&jfk, id, "first"));
    stream::iter(made).buffer_unordered(64).try_collect::<Vec<_>>().await?;
    place.all_equal(None).await?;
    place.sandbox.cut("jfk").await?;
    take_over_or_fail(&lga, "jfk", &["lga", "ewr"]).await?;
    place.kill_instances("lga").await?;
    let logged = SitesLog::new(lga.connection().clone(), "lga".parse()?).takeovers(&"lga".parse()?).await?;
    ensure!(logged.iter().all(|message| !message.takeover.adopted), "it has adopted all: this shows nothing");
    let knows = || async { owner(&ewr, "jfk-1").await.is_ok_and(|owner| owner == "lga") };
    wait_until("the other member knows of the takeover", SOON, knows).await?;
    for server in place.sandbox.site("lga").servers() {
        server.kill().await?;
    }
    place.sandbox.heal("jfk")?;
    place.sandbox.wait_linked("jfk").await?;
    let (log, site) = (SitesLog::new(jfk.connection().clone(), "jfk".parse()?), "lga".parse()?);
    let request = LossRequest { lost: site };
    let answers = || async { ask::<LossAnswer>(&ewr, "jfk", "loss", &request).await.is_ok() };
    wait_until("the site that was lost first answers", SOON, answers).await?;
    take_over_or_fail(&ewr, "lga", &["ewr", "jfk"]).await?;
    for id in ["jfk-1", "lga-1"] {
        ensure!(add(&ewr, id, "after").await?.changes == 2, "{id}");
    }
    place.restart_servers("lga").await?;
    place.restart_instances("lga").await?;
    wait_back(&ewr, "lga", &["ewr", "jfk"]).await?;
    wait_back(&ewr, "jfk", &["lga", "ewr"]).await?;
    ensure!(log.life(&"jfk".parse()?).await?.is_some(), "it has not begun a new life");
    for (id, changes) in [("jfk-1", 3), ("lga-1", 3), ("jfk-999", 2)] {
        for client in [&ewr, &jfk, &lga] {
            let told = || async { owner(client, id).await.is_ok_and(|owner| owner == "ewr") };
            wait_until("the owner is known", SOON, told).await?;
        }
        ensure!(add(&lga, id, "in the end").await?.changes == changes, "{id}");
    }
    all_equal(place).await
}

/// S40: the lost site's server is started again without its instances, and its mirrors could be flooded by what it had beyond the cut.
#[tokio::test(flavor = "multi_thread")]
async fn s40_a_lost_sites_server_returns_alone_and_nothing_of_its_tail_counts() -> Result<()> {
    let mut place = start(&["one"]).await?;
    let [ewr, jfk, lga] = clients(&place);
    add(&ewr, "ewr-1", "first").await?;
    for client in [&jfk, &lga] {
        workload::read_at_least(client, "ewr-1", 1).await?;
    }
    place.sandbox.cut("ewr").await?;
    for number in 0..50 {
        add(&ewr, "ewr-1", &format!("alone-{number}")).await?;
    }
    place.kill("ewr").await?;
    take_over_or_fail(&jfk, "ewr", &["jfk", "lga"]).await?;
    ensure!(add(&lga, "ewr-1", "after").await?.changes == 2);
    place.sandbox.heal("ewr")?;
    place.restart_servers("ewr").await?;
    place.sandbox.wait_linked("ewr").await?;
    // Long enough for a mirror to fetch it all; the clients' commands show that everything goes on.
    for number in 0..20 {
        ensure!(add(&lga, "ewr-1", &format!("later-{number}")).await?.changes == 3 + number);
    }
    for client in [&jfk, &lga] {
        let counter = workload::read_at_least(client, "ewr-1", 22).await?;
        ensure!(counter.changes == 22, "{counter:?}");
        ensure!(owner(client, "ewr-1").await? == "jfk");
    }
    place.restart_instances("ewr").await?;
    wait_back(&jfk, "ewr", &["jfk", "lga"]).await?;
    let updates = updates(&stranded(&place, "ewr").await?).len();
    ensure!(updates > 0 && workload::read_at_least(&ewr, "ewr-1", 22).await?.changes == 22, "{updates} updates");
    all_equal(place).await
}

/// S45: the same id is created at the lost site and at its taker: the taker's counts, the other is set aside.
#[tokio::test(flavor = "multi_thread")]
async fn s45_an_id_that_both_have_created_is_the_takers() -> Result<()> {
    let place = start(&["one"]).await?;
    let [ewr, jfk, lga] = clients(&place);
    add(&ewr, "ewr-1", "first").await?;
    workload::read_at_least(&jfk, "ewr-1", 1).await?;
    place.sandbox.cut("ewr").await?;
    for number in 0..3 {
        add(&ewr, "ewr-new", &format!("alone-{number}")).await?;
    }
    take_over_or_fail(&jfk, "ewr", &["jfk", "lga"]).await?;
    ensure!(add(&lga, "ewr-new", "taker").await?.changes == 1);
    place.sandbox.heal("ewr")?;
    wait_back(&jfk, "ewr", &["jfk", "lga"]).await?;
    for client in [&ewr, &jfk, &lga] {
        ensure!(workload::read_at_least(client, "ewr-new", 1).await?.changes == 1);
        ensure!(owner(client, "ewr-new").await? == "jfk");
    }
    let set_aside = updates(&stranded(&place, "ewr").await?);
    ensure!(set_aside == (1..=3).map(|version| ("ewr-new".to_owned(), version)).collect(), "{set_aside:?}");
    all_equal(place).await
}

/// S47: whoever takes part in a takeover and a return is killed at each step of it.
#[tokio::test(flavor = "multi_thread")]
async fn s47_a_takeover_and_a_return_are_gone_on_with_after_a_kill_at_each_step() -> Result<()> {
    let mut place = start(&["one"]).await?;
    let [ewr, jfk, lga] = clients(&place);
    let ids: Vec<_> = (0..200).map(|number| format!("ewr-{number}")).collect();
    for id in &ids {
        add(&ewr, id, "first").await?;
    }
    for id in &ids {
        workload::read_at_least(&jfk, id, 1).await?;
        workload::read_at_least(&lga, id, 1).await?;
    }
    place.sandbox.cut("ewr").await?;
    for id in &ids[..20] {
        add(&ewr, id, "alone").await?;
    }
    place.kill("ewr").await?;

    let refused = |refusal| anyhow::anyhow!("{refusal:?}");
    let lost: SiteName = "ewr".parse()?;
    let members = ["jfk", "lga"];
    let (_, ballot) = ballot(&jfk, &lost, &members).await?.map_err(refused)?;
    for (member, client) in [("jfk", &jfk), ("lga", &lga)] {
        seal(client, &lost, &ballot, &[member]).await?.map_err(refused)?;
        // The member dies behind its seal: asked again it says the same.
        place.kill_instances(member).await?;
        place.restart_instances(member).await?;
    }
    let sealed = seal(&jfk, &lost, &ballot, &members).await?.map_err(refused)?;
    let request = TakeOverRequest { lost, ballot, sealed };
    ask::<TakeOverAnswer>(&jfk, "jfk", "take-over", &request).await?.map_err(refused)?;
    // The taker dies while it adopts, more than once.
    for _ in 0..3 {
        place.kill_instances("jfk").await?;
        place.restart_instances("jfk").await?;
    }
    for id in &ids {
        ensure!(add(&lga, id, "after").await?.changes == 2, "{id}");
    }

    place.sandbox.heal("ewr")?;
    place.restart_servers("ewr").await?;
    place.sandbox.wait_linked("ewr").await?;
    // The returning site dies on its way, at several moments of it.
    for pause in [0, 30, 100, 300] {
        for (_, instance) in place.instances.iter_mut().filter(|(site, _)| *site == "ewr") {
            let started = tokio::time::timeout(Duration::from_millis(pause), instance.restart()).await;
            if started.is_ok_and(|started| started.is_ok()) || instance.process().is_running() {
                instance.process().kill().await?;
            }
        }
    }
    place.restart_instances("ewr").await?;
    wait_back(&jfk, "ewr", &["jfk", "lga"]).await?;
    for id in &ids {
        ensure!(workload::read_at_least(&ewr, id, 2).await?.changes == 2, "{id}");
    }
    let updates: BTreeSet<_> = updates(&stranded(&place, "ewr").await?).into_iter().map(|(id, _)| id).collect();
    ensure!(updates == ids[..20].iter().cloned().collect(), "{updates:?}");
    let home = || async { give_back(&jfk, "jfk", "ewr", &ids[..5]).await.is_ok() };
    wait_until("records are given back", SOON, home).await?;
    ensure!(add(&ewr, "ewr-0", "home").await?.changes == 3);
    all_equal(place).await
}

/// S49: the hub dies. Each site goes on with its own, keeps what is for others, and all is copied and answered when the hub is back.
#[tokio::test(flavor = "multi_thread")]
async fn s49_the_hub_dies_and_each_site_goes_on() -> Result<()> {
    let place = start(&["one"]).await?;
    let [ewr, jfk, lga] = clients(&place);
    let sites = [("ewr", &ewr), ("jfk", &jfk), ("lga", &lga)];
    for (site, client) in sites {
        add(client, &format!("{site}-1"), "first").await?;
    }
    let hub = place.sandbox.hub().ok_or_else(|| anyhow::anyhow!("there is no hub"))?.server();
    hub.kill().await?;
    for (site, client) in sites {
        for number in 0..20 {
            add(client, &format!("{site}-1"), &format!("alone-{number}")).await?;
        }
    }
    let options = SendOptions {
        command_id: Some(CommandId::from_caller("kept")?),
        wait: Some("accepted".to_owned()),
        ..SendOptions::default()
    };
    let kept = jfk.request(&workload::kind(), "add", r#"{"id":"ewr-1","amount":1}"#.into(), &options).await?;
    ensure!(kept.result.is_ok(), "{kept:?}");
    hub.restart().await?;
    for (site, _) in sites {
        place.sandbox.wait_linked(site).await?;
    }
    ensure!(add(&jfk, "ewr-1", "kept").await?.changes == 22);
    for (_, client) in sites {
        ensure!(workload::read_at_least(client, "ewr-1", 22).await?.changes == 22);
        ensure!(workload::read_at_least(client, "lga-1", 21).await?.changes == 21);
    }
    all_equal(place).await
}
