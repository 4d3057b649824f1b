//! P1 and P2: one owner, exactly once, in order, whatever happens to the holders.
//!
//! Clients number their commands; the records notice every gap, repeat and disorder (`counter.rs`).

#![allow(clippy::print_stdout, reason = "the figures are part of the result")]

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use freehold::Client;
use freehold_core::GroupCount;
use freehold_sandbox::{Sandbox, wait_until};
use freehold_tests::place::{self, InstanceProcess};
use freehold_tests::workload::{self, Workload};

const SERVICE: &str = env!("CARGO_BIN_EXE_e2e-service");
const CLIENTS: usize = 64;
const RECORDS: usize = 200;
/// Of two instances each holds half of them, so that a kill moves 64 groups at once.
const GROUPS: u16 = 128;
const PATIENCE: Duration = Duration::from_secs(30);

/// Kills an instance again and again while clients retry; measures from the kill to the first acknowledged command of
/// each group that it held.
async fn kills(sandbox: Sandbox, count: usize) -> Result<()> {
    let site = sandbox.site("ewr");
    let directory = tempfile::tempdir()?;
    let groups = GROUPS.to_string();
    let environment = [("E2E_GROUPS", groups.as_str())];
    let mut instances = Vec::new();
    for name in ["one", "two"] {
        let config = place::config(site, name, directory.path())?;
        instances.push(InstanceProcess::start_with(SERVICE, &config, directory.path(), &environment).await?);
    }
    let client = place::client(site).await?;
    let workload = Workload::start(&client, "ewr", CLIENTS, RECORDS);
    let mut failovers = Vec::new();
    for kill in 0..count {
        let before = workload.acknowledged.load(std::sync::atomic::Ordering::Relaxed);
        let enough = || async { workload.acknowledged.load(std::sync::atomic::Ordering::Relaxed) > before + 500 };
        wait_until("the clients make progress", PATIENCE, enough).await?;
        wait_until("each instance holds its half", PATIENCE, || each_holds_its_half(&client)).await?;
        let victim = &mut instances[kill % 2];
        victim.process().kill().await?;
        failovers.push(failover(&client).await?);
        victim.restart().await?;
    }
    let sent = workload.finish(&client, "ewr").await?;
    ensure!(sent > 0, "nothing was sent");
    failovers.sort();
    println!(
        "{count} kills, {sent} commands: failover median {:?}, worst {:?}",
        failovers[failovers.len() / 2],
        failovers[failovers.len() - 1]
    );
    Ok(())
}

async fn each_holds_its_half(client: &Client) -> bool {
    let statuses = workload::statuses(client, Duration::from_millis(200)).await.unwrap_or_default();
    let held = statuses.iter().filter_map(|status| status["groups_held"].as_u64());
    held.collect::<Vec<_>>() == [u64::from(GROUPS / 2); 2]
}

/// The time until every group, the 64 of the victim among them, has applied a command that was sent after the kill.
async fn failover(client: &Client) -> Result<Duration> {
    let killed = Instant::now();
    let probes = (0..GROUPS).map(|group| {
        let client = client.clone();
        async move {
            let record = place::record_in_group("ewr", GroupCount::new(GROUPS)?, group);
            let body = serde_json::json!({ "id": record, "amount": 0 });
            workload::send_quickly(&client, "add", &body).await?;
            anyhow::Ok(killed.elapsed())
        }
    });
    let times = futures::future::try_join_all(probes).await?;
    Ok(times.into_iter().max().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_of_the_holder_lose_double_and_reorder_nothing_r1() -> Result<()> {
    kills(place::one_site().await?, 20).await
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_of_the_holder_lose_double_and_reorder_nothing_r3() -> Result<()> {
    kills(place::one_cluster().await?, 20).await
}
