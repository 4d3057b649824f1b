//! Reads: beside commands, and page by page.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use freehold_jetstream::SendOptions;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::load::{Load, Loop, Workload, ask};
use crate::place::{Place, Plan, SITE};
use crate::report::Milliseconds;
use crate::{Asked, RECORD_BYTES, seed};

/// Reads in flight all the time.
const IN_FLIGHT: usize = 256;
const RECORDS: u64 = 10_000;
/// Records in a page: as many as one can have.
const PAGE_RECORDS: u64 = 1_000;

/// What reads are measured beside.
#[derive(Debug, Clone)]
pub struct BesideOptions {
    /// The `freehold` program.
    pub program: PathBuf,
    /// Commands that are sent each second.
    pub rate: f64,
    /// How long each turn is measured.
    pub time: Duration,
}

/// How much commands slow reads down.
#[derive(Debug, Clone, Serialize)]
pub struct Beside {
    /// Commands answered each second, beside the reads.
    pub commands_per_second: f64,
    /// The part of the machine's cores that client, service and server use for the same commands without reads.
    pub commands_share: f64,
    /// Reads answered each second without commands.
    pub alone_per_second: f64,
    /// Reads answered each second beside the commands.
    pub beside_per_second: f64,
    /// The rate beside commands as a part of the rate without.
    pub kept: f64,
}

/// What it takes to list all records.
#[derive(Debug, Clone, Serialize)]
pub struct Listing {
    /// Records that were listed.
    pub records: u64,
    /// Records each second, to one client that asks for page after page.
    pub per_second: f64,
    /// How long a page takes.
    pub page_ms: Milliseconds,
    /// Resident memory of the instance before, in bytes.
    pub memory_before_bytes: u64,
    /// The most that it had after any page, in bytes.
    pub memory_most_bytes: u64,
}

/// Measures reads alone, commands alone, and both together.
pub async fn reads_beside(options: &BesideOptions, mut progress: impl FnMut(&str)) -> Result<Beside> {
    progress("one instance");
    let mut place = Place::start(Plan::usual(options.program.clone(), &[SITE])).await?;
    place.serve(1).await?;
    let commands = Asked::usual(Loop::Open { rate: options.rate }, RECORDS);
    let reads = Asked { workload: Workload::Gets, ..Asked::usual(Loop::Closed { in_flight: IN_FLIGHT }, RECORDS) };
    let commands = Arc::new(Load::new(&place, &commands).await?);
    let reads = Arc::new(Load::new(&place, &reads).await?);
    commands.fill().await?;
    progress("reads");
    let (alone, _) = reads.run(options.time, async || Ok(())).await?;
    progress("commands");
    let (measured, before) = commands.run(options.time, async || place.cpu()).await?;
    let used = place.cpu()?.since(before);
    progress("both");
    let (beside, commanded) =
        tokio::try_join!(reads.run(options.time, async || Ok(())), commands.run(options.time, async || Ok(())),)?;
    place.stop().await?;
    let cores = std::thread::available_parallelism()?.get() as f64;
    let used = used.client + used.service + used.server;
    let (alone_per_second, beside_per_second) = (alone.per_second(), beside.0.per_second());
    Ok(Beside {
        commands_per_second: commanded.0.per_second(),
        commands_share: used.as_secs_f64() / measured.took.as_secs_f64() / cores,
        alone_per_second,
        beside_per_second,
        kept: beside_per_second / alone_per_second,
    })
}

/// Lists all records, page by page.
pub async fn listing(program: PathBuf, records: u64, mut progress: impl FnMut(&str)) -> Result<Listing> {
    #[derive(Deserialize)]
    struct Page {
        records: Vec<serde::de::IgnoredAny>,
        cursor: Option<String>,
    }
    progress("one instance");
    let mut place = Place::start(Plan::usual(program, &[SITE])).await?;
    place.serve(1).await?;
    seed(&place, records, RECORD_BYTES, &mut |made| progress(&format!("{made} of {records} records"))).await?;
    let client = place.client(SITE).await?;
    let memory_before_bytes = place.memory_bytes()?;
    progress("listing");
    let (mut listed, mut memory_most_bytes, mut times) = (0, memory_before_bytes, Vec::new());
    let begun = Instant::now();
    let mut cursor = None;
    loop {
        let request = serde_json::json!({ "limit": PAGE_RECORDS, "cursor": cursor }).to_string();
        let sent = Instant::now();
        let body = ask(&client, "list", request, &SendOptions::default()).await?;
        times.push(sent.elapsed());
        let page: Page = serde_json::from_slice(&body).context("a page")?;
        listed += page.records.len() as u64;
        memory_most_bytes = memory_most_bytes.max(place.memory_bytes()?);
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    let per_second = listed as f64 / begun.elapsed().as_secs_f64();
    ensure!(listed == records, "{listed} of {records} records were listed");
    place.stop().await?;
    let page_ms = Milliseconds::of(times)?;
    Ok(Listing { records, per_second, page_ms, memory_before_bytes, memory_most_bytes })
}
