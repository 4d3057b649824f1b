//! Measures one site: one command after the other, then many in flight. `e2e-throughput [instances] [seconds]`, run in
//! release. Server, instances and this client share the machine.

#![allow(clippy::print_stdout, reason = "a program that prints figures")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use freehold::{Client, SendOptions};
use freehold_tests::place::{self, InstanceProcess};
use freehold_tests::workload;

const RECORDS: u64 = 10_000;
const IN_FLIGHT: usize = 256;
const ALONE: usize = 2_000;

#[tokio::main]
async fn main() -> Result<()> {
    let number = |place: usize, otherwise: u64| {
        std::env::args().nth(place).and_then(|text| text.parse().ok()).unwrap_or(otherwise)
    };
    let (instances, seconds) = (number(1, 1), number(2, 10));
    let sandbox = place::one_site().await?;
    let site = sandbox.site("ewr");
    let directory = tempfile::tempdir()?;
    let program = std::env::current_exe()?.with_file_name("e2e-service");
    let program = program.to_string_lossy().into_owned();
    let mut running = Vec::new();
    for instance in 0..instances {
        let config = place::config(site, &format!("i{instance}"), directory.path())?;
        running.push(InstanceProcess::start(&program, &config, directory.path()).await?);
    }
    let client = place::client(site).await?;
    let mut alone = Vec::with_capacity(ALONE);
    for number in 0..ALONE {
        alone.push(one(&client, number as u64 % RECORDS).await?);
    }
    report(
        "one after the other",
        ALONE as f64 / alone.iter().sum::<Duration>().as_secs_f64(),
        alone.split_off(ALONE / 5),
    );

    let next = Arc::new(AtomicU64::new(0));
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let work = |_| {
        let (client, next) = (client.clone(), Arc::clone(&next));
        tokio::spawn(async move {
            let mut times = Vec::new();
            while Instant::now() < deadline {
                let record = next.fetch_add(1, Ordering::Relaxed).wrapping_mul(7_919) % RECORDS;
                times.push(one(&client, record).await?);
            }
            anyhow::Ok(times)
        })
    };
    let started = Instant::now();
    let workers: Vec<_> = (0..IN_FLIGHT).map(work).collect();
    let mut times = Vec::new();
    for worker in workers {
        times.extend(worker.await??);
    }
    let rate = times.len() as f64 / started.elapsed().as_secs_f64();
    report(&format!("{IN_FLIGHT} in flight, {instances} instance(s)"), rate, times);
    Ok(())
}

async fn one(client: &Client, record: u64) -> Result<Duration> {
    let body = format!(r#"{{"id":"ewr-{record}","amount":1}}"#);
    let started = Instant::now();
    let answer = client.request(&workload::kind(), "add", body.into(), &SendOptions::default()).await?;
    answer.result.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
    Ok(started.elapsed())
}

fn report(what: &str, rate: f64, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("{what}: {rate:.0}/s, p50 {:?}, p99 {:?}, p99.9 {:?}", at(0.5), at(0.99), at(0.999));
}
