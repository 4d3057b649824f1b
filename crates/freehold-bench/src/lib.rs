//! What Freehold costs, beside what its engines cost without it, measured in one run on one machine.
//!
//! Two services answer the same load in turns, each on a nats-server of its own:
//!
//! * **Freehold**: the `records` service, as anybody runs it, asked by a real client.
//! * **The floor** ([`serve_floor`]): the same NATS and redb operations for each command, of the same number and size, pipelined, and no logic.
//!   Nothing is decided, checked, remembered or recovered there: it is what the engines allow.
//!
//! A closed loop keeps a number of requests in flight and shows what is possible; an open loop sends at a fixed rate, whatever comes
//! back, and measures from when a request was due, so that a pause counts for all that it held up ("coordinated omission").
//!
//! No service uses this crate. It names async-nats and redb itself, since it measures them as they are.

mod copies;
mod failover;
mod floor;
mod load;
mod place;
mod plot;
mod reads;
mod report;
mod seed;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use freehold_jetstream::Client;
use freehold_sandbox::wait_until;

pub use copies::{CatchUp, Join, Lag, LagOf, LagOptions, catch_up, join, lag};
pub use failover::{Failover, FailoverOptions, FailoverReport, failover};
pub use floor::{FloorOptions, Sizes, serve_floor};
pub use load::{Loop, Workload};
pub use plot::{Series, draw};
pub use reads::{Beside, BesideOptions, Listing, listing, reads_beside};
pub use report::{CpuMicroseconds, Figures, Idle, LatencyMicroseconds, Milliseconds, Report};

use load::{Load, record_of};
use place::{Place, Plan, READY_WITH_ALL, SITE};
use report::Turn;
use seed::Seed;

/// Up to so many records are made by commands, as a client makes them; more are put into the log.
const MAX_COMMANDED_RECORDS: u64 = 20_000;
/// Groups of the kind, and bytes of a record, where nothing else is asked for.
const GROUPS: u16 = 64;
const RECORD_BYTES: usize = 200;
/// How long a service rests before it is watched doing nothing.
const SETTLE: Duration = Duration::from_secs(5);
/// How often a service is asked how far it is.
const APPLIED_PAUSE: Duration = Duration::from_millis(50);

/// How the servers store what they acknowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// One server, which fsyncs every two minutes, as nats-server does unless told otherwise.
    Default,
    /// One server, which fsyncs before it acknowledges.
    SyncAlways,
    /// Three servers, streams in three copies.
    Cluster,
}

/// What is asked of whom: what a report repeats.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Asked {
    /// What is asked for.
    pub workload: Workload,
    /// How it is asked.
    pub pace: Loop,
    /// How the servers store.
    pub profile: Profile,
    /// Instances of the `records` service at the owner's site; other sites have one.
    pub instances: u16,
    /// Groups of the kind.
    pub groups: u16,
    /// Records that there are.
    pub records: u64,
    /// Bytes of a record.
    pub record_bytes: usize,
}

impl Asked {
    /// Commands for records at random, of one instance.
    pub(crate) fn usual(pace: Loop, records: u64) -> Self {
        Self {
            workload: Workload::Uniform,
            pace,
            profile: Profile::Default,
            instances: 1,
            groups: GROUPS,
            records,
            record_bytes: RECORD_BYTES,
        }
    }
}

/// What is measured.
#[derive(Debug, Clone)]
pub struct Options {
    /// The `freehold` program, which runs the `records` service and the floor.
    pub program: PathBuf,
    /// What is asked of whom.
    pub asked: Asked,
    /// How long each turn is measured.
    pub time: Duration,
    /// How often both have their turn.
    pub rounds: u16,
    /// Whether the floor has a turn, too. It has one site only.
    pub floor: bool,
}

impl Options {
    fn plan(&self) -> Plan {
        Plan {
            profile: self.asked.profile,
            groups: self.asked.groups,
            ..Plan::usual(self.program.clone(), self.asked.workload.sites())
        }
    }
}

/// Measures. `progress` is told what is being done.
pub async fn run(options: &Options, mut progress: impl FnMut(&str)) -> Result<Report> {
    let (mut freehold, mut floor) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        let round = format!("round {round} of {}", options.rounds);
        progress(&format!("{round}: Freehold"));
        let mut place = Place::start(options.plan()).await?;
        place.serve(options.asked.instances).await?;
        let load = Arc::new(Load::new(&place, &options.asked).await?);
        if options.asked.records <= MAX_COMMANDED_RECORDS {
            load.fill().await?;
        } else {
            let mut told = |made: u64| progress(&format!("{round}: {made} of {} records", options.asked.records));
            seed(&place, options.asked.records, options.asked.record_bytes, &mut told).await?;
        }
        progress(&format!("{round}: Freehold"));
        freehold.push(measure(&place, &load, options.time).await?);
        let sizes = place.sizes(load.answer_bytes()).await?;
        place.stop().await?;
        if options.floor {
            progress(&format!("{round}: the floor"));
            let mut place = Place::start(options.plan()).await?;
            place.serve_floor(options.asked.records, sizes).await?;
            let load = Arc::new(Load::new(&place, &options.asked).await?);
            floor.push(measure(&place, &load, options.time).await?);
            place.stop().await?;
        }
    }
    Report::new(options.asked.clone(), &freehold, &floor)
}

/// Runs the load, and tells what it showed.
async fn measure(place: &Place, load: &Arc<Load>, time: Duration) -> Result<Turn> {
    let before = async || anyhow::Ok((place.cpu()?, place.disk_bytes()?));
    let (measured, (cpu, disk_bytes)) = load.run(time, before).await?;
    Ok(Turn {
        measured,
        cpu: place.cpu()?.since(cpu),
        disk_bytes: place.disk_bytes()?.saturating_sub(disk_bytes),
        memory_bytes: place.memory_bytes()?,
    })
}

/// Watches a service that has nothing to do.
pub async fn idle(program: PathBuf, groups: u16, time: Duration) -> Result<Idle> {
    let plan = Plan { groups, ..Plan::usual(program, &[SITE]) };
    let mut place = Place::start(plan).await?;
    place.serve(1).await?;
    tokio::time::sleep(SETTLE).await;
    let before = place.cpu()?;
    tokio::time::sleep(time).await;
    let used = place.cpu()?.since(before);
    let idle = Idle {
        groups,
        service_cores: used.service.as_secs_f64() / time.as_secs_f64(),
        server_cores: used.server.as_secs_f64() / time.as_secs_f64(),
        memory_bytes: place.memory_bytes()?,
    };
    place.stop().await?;
    Ok(idle)
}

/// Puts records into the log of [`SITE`], and waits until its instances have them.
async fn seed(place: &Place, records: u64, bytes: usize, progress: &mut dyn FnMut(u64)) -> Result<()> {
    let client = place.client(SITE).await?;
    let seed = Seed::new(place, &client, &record_of(bytes)).await?;
    let last = seed.make(0..records, progress).await?;
    wait_applied(&client, last).await
}

/// Waits until all instances of a client's site have the log of [`SITE`] up to a message.
async fn wait_applied(client: &Client, sequence: u64) -> Result<()> {
    let has_all = || async { applied(client).await.is_ok_and(|applied| applied >= sequence) };
    Ok(wait_until("the copies have all records", READY_WITH_ALL, has_all).await?)
}

/// How far the instances of a client's site have the log of [`SITE`], the one that is behind the others.
async fn applied(client: &Client) -> Result<u64> {
    let answers = client.ask_all("$SRV.STATS.records", APPLIED_PAUSE).await?;
    let applied = |answer: &bytes::Bytes| {
        let statistics: serde_json::Value = serde_json::from_slice(answer).ok()?;
        statistics["data"]["applied"][SITE].as_u64()
    };
    answers.iter().filter_map(applied).min().context("no instance answers")
}
