//! A lost site that goes on changing a record until its log has dropped what counts of it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use freehold::{Client, SendOptions};
use freehold_core::{CommandId, Stranded};
use freehold_sandbox::wait_until;
use freehold_tests::takeover::take_over;
use freehold_tests::{counter, workload};
use serde_json::{Value, json};

use crate::deployment::{SOON, add, all_equal, start, stranded, wait_back};

const ID: &str = "ewr-1";
/// Updates that count.
const KEPT: u64 = 5;
/// More than a log keeps of a record.
const ALONE: u64 = 100;

/// Each of these was decided before the site was lost: the first answer is given again, and nothing changes.
async fn are_repeats(client: &Client, site: &str) -> Result<()> {
    for number in 1..=KEPT {
        let again = add(client, ID, &format!("kept-{number}")).await.with_context(|| site.to_owned())?;
        ensure!(again.changes == number, "kept-{number} at {site} was decided again: {again:?}");
    }
    let counter = workload::read(client, ID).await?;
    ensure!(counter.changes == KEPT && counter.breaches.is_empty(), "{site}: {counter:?}");
    Ok(())
}

/// How the instance at a client's site says that it is with an origin's log.
async fn health(client: &Client, origin: &str) -> Result<Value> {
    let statuses = workload::statuses(client, Duration::from_millis(200)).await?;
    Ok(statuses.first().context("nobody answers")?["health"][origin].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_counts_is_known_though_the_lost_site_has_made_its_log_drop_it() -> Result<()> {
    let mut place = start(&["one"]).await?;
    let [ewr, jfk, lga] = [0, 1, 2].map(|at| place.clients[at].clone());
    for number in 1..=KEPT {
        let options = SendOptions {
            command_id: Some(CommandId::from_caller(&format!("kept-{number}"))?),
            wait: Some("sites=2".to_owned()),
            ..SendOptions::default()
        };
        let body = json!({ "id": ID, "amount": 1 }).to_string();
        let answer = ewr.request(&workload::kind(), "add", body.into(), &options).await?;
        ensure!(workload::reply::<counter::Total>(&answer)?.changes == number);
    }
    place.sandbox.cut("ewr").await?;
    let mut alone = BTreeSet::new();
    for number in 1..=ALONE {
        let command_id = format!("alone-{number}");
        ensure!(add(&ewr, ID, &command_id).await?.changes == KEPT + number);
        alone.insert(command_id);
    }
    take_over(&jfk, "ewr", &["jfk", "lga"]).await?.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
    ensure!(workload::read(&jfk, ID).await?.changes == KEPT);
    let told = || async { health(&jfk, "ewr").await.is_ok_and(|health| health == "taken_over") };
    wait_until("the statistics tell it", SOON, told).await?;

    place.sandbox.heal("ewr")?;
    place.sandbox.wait_linked("ewr").await?;
    wait_back(&jfk, "ewr", &["jfk", "lga"]).await?;
    let told = || async { health(&jfk, "ewr").await.is_ok_and(|health| health == "reading") };
    wait_until("the statistics tell it", SOON, told).await?;
    let mut set_aside = BTreeSet::new();
    for entry in stranded(&place, "ewr").await? {
        match entry {
            Stranded::Update { update, .. } => {
                set_aside.extend(update.changes.into_iter().map(|change| change.command_id.to_string()));
            }
            // Where it does not hear in time what its taker has kept, it lists outcomes that count, too.
            Stranded::Outcome { change, .. } if change.command_id.as_str().starts_with("kept-") => {
                println!("{} is listed all the same", change.command_id);
            }
            Stranded::Outcome { change, .. } => _ = set_aside.insert(change.command_id.to_string()),
            Stranded::Command { command, .. } => ensure!(command.command_id.as_str().starts_with("alone-")),
        }
    }
    ensure!(set_aside == alone, "not exactly what was decided alone is set aside: {set_aside:?}");

    for (client, site) in [(&ewr, "ewr"), (&jfk, "jfk"), (&lga, "lga")] {
        are_repeats(client, site).await?;
    }
    // Copies that are made of the logs as they are now know it, too.
    for (site, instance) in &mut place.instances {
        instance.process().kill().await?;
        let directory = instance.process().log_path().parent().context("a log is in a directory")?.to_owned();
        std::fs::remove_file(directory.join(format!("{site}-one.redb")))?;
        instance.restart().await?;
    }
    for (client, site) in [(&ewr, "ewr"), (&jfk, "jfk"), (&lga, "lga")] {
        are_repeats(client, site).await?;
    }
    all_equal(place).await
}
