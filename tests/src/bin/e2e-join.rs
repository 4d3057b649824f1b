//! Measures how long a new instance and a new site take to join, while others work, and how fast a site catches up after a cut.
//! `e2e-join [records]`, run in release. Servers, instances and clients share the machine.

#![allow(clippy::print_stdout, reason = "a program that prints figures")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use freehold::{Client, SendOptions};
use freehold_core::SiteName;
use freehold_sandbox::{Sandbox, wait_until};
use freehold_tests::place::{self, InstanceProcess};
use freehold_tests::{copies, workload};

const IN_FLIGHT: u64 = 256;
/// Clients that work while somebody joins.
const CLIENTS: u64 = 16;
/// Updates that a site misses while it is cut off.
const UPDATES: u64 = 100_000;
const READY: Duration = Duration::from_secs(600);

async fn add(client: &Client, id: &str) -> Result<()> {
    let body = format!(r#"{{"id":"{id}","amount":1}}"#);
    let answer = client.request(&workload::kind(), "add", body.into(), &SendOptions::default()).await?;
    answer.result.map(|_| ()).map_err(|refusal| anyhow::anyhow!("{id}: {refusal:?}"))
}

/// Changes records in turn, so many times.
async fn change(client: &Client, times: u64, records: u64) -> Result<()> {
    let next = Arc::new(AtomicU64::new(0));
    let work = |_| {
        let (client, next) = (client.clone(), Arc::clone(&next));
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= times {
                    return anyhow::Ok(());
                }
                add(&client, &format!("ewr-{}", number % records)).await?;
            }
        })
    };
    for worker in (0..IN_FLIGHT).map(work).collect::<Vec<_>>() {
        worker.await??;
    }
    Ok(())
}

/// How far the instances that answer have an origin's log, all of them.
async fn position(client: &Client, origin: &str) -> Result<u64> {
    let statuses = workload::statuses(client, Duration::from_millis(50)).await?;
    let positions = statuses.iter().filter_map(|status| status["applied"][origin].as_u64());
    positions.min().context("no instance answers")
}

#[tokio::main]
async fn main() -> Result<()> {
    let records: u64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let sandbox = Sandbox::builder().site("ewr").site("jfk").cuttable(true).start().await?;
    let data = tempfile::tempdir()?;
    let program = std::env::current_exe()?.with_file_name("e2e-service").to_string_lossy().into_owned();
    let sites = ["ewr", "jfk"].iter().map(|site| site.parse()).collect::<Result<Vec<SiteName>, _>>()?;
    let start = async |site: &str, name: &str| {
        let directory = data.path().join(format!("{site}-{name}"));
        std::fs::create_dir_all(&directory)?;
        let mut config = place::config(sandbox.site(site), name, &directory)?;
        config.sites.clone_from(&sites);
        InstanceProcess::start_patiently(&program, &config, &directory, READY).await
    };
    let first = start("ewr", "one").await?;
    let client = place::client(sandbox.site("ewr")).await?;
    let begun = Instant::now();
    change(&client, records, records).await?;
    println!("{records} records made in {:?}", begun.elapsed());

    let (stop, changed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let work = |number: u64| {
        let (client, stop, changed) = (client.clone(), Arc::clone(&stop), Arc::clone(&changed));
        tokio::spawn(async move {
            let mut record = number;
            while !stop.load(Ordering::Relaxed) {
                record = (record + 7_919) % records;
                add(&client, &format!("ewr-{record}")).await?;
                changed.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        })
    };
    let workers: Vec<_> = (0..CLIENTS).map(work).collect();
    let mut instances = vec![("ewr", first)];
    for (site, name) in [("ewr", "two"), ("jfk", "one")] {
        let (begun, before) = (Instant::now(), changed.load(Ordering::Relaxed));
        instances.push((site, start(site, name).await?));
        let took = begun.elapsed();
        let meanwhile = (changed.load(Ordering::Relaxed) - before) as f64 / took.as_secs_f64();
        println!("{name} joined {site} in {took:?}; meanwhile {meanwhile:.0} changes/s");
    }
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await??;
    }
    let jfk = place::client(sandbox.site("jfk")).await?;
    let asked: Vec<_> =
        instances.iter().map(|(site, it)| (if *site == "ewr" { &client } else { &jfk }, *site, it)).collect();
    copies::wait_same(&asked, records).await?;
    println!("all copies are equal");

    sandbox.cut("jfk").await?;
    change(&client, UPDATES, records).await?;
    let last = position(&client, "ewr").await?;
    sandbox.heal("jfk")?;
    let begun = Instant::now();
    sandbox.wait_linked("jfk").await?;
    let linked = begun.elapsed();
    let equal = || async { position(&jfk, "ewr").await.is_ok_and(|there| there >= last) };
    wait_until("the copy is equal", READY, equal).await?;
    let took = begun.elapsed();
    let rate = UPDATES as f64 / (took - linked).as_secs_f64();
    println!(
        "{UPDATES} updates behind: linked {linked:?} after the heal, equal {took:?} after it: {rate:.0} updates/s"
    );
    Ok(())
}
