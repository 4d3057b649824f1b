//! Copies: how far behind they are, how fast they catch up, and how long a new one takes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use freehold_jetstream::{Client, SendOptions};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::load::{Load, Loop, record_of};
use crate::place::{KIND, OTHER_SITE, Place, Plan, READY_WITH_ALL, SITE};
use crate::report::Milliseconds;
use crate::seed::Seed;
use crate::{Asked, GROUPS, Profile, RECORD_BYTES, applied, measure, seed, wait_applied};

/// How often the lag is sampled.
const SAMPLE: Duration = Duration::from_millis(10);
/// Clients that work while somebody joins.
const CLIENTS: usize = 16;

/// What goes on while the lag is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meanwhile {
    /// Commands are sent.
    Commands,
    /// Updates of other records are put into the log as their owner would log them: what commands cost is left out.
    Updates,
}

/// What the lag is measured under.
#[derive(Debug, Clone)]
pub struct LagOptions {
    /// The `freehold` program.
    pub program: PathBuf,
    /// What goes on meanwhile.
    pub meanwhile: Meanwhile,
    /// How often each second.
    pub rate: f64,
    /// How long it is measured.
    pub time: Duration,
}

/// How long an update takes to another site.
#[derive(Debug, Clone, Serialize)]
pub struct Lag {
    /// Commands that were answered, or updates that were logged, each second meanwhile.
    pub per_second: f64,
    /// From the answer at the owner's site until the record can be read at the other one; 0 where it could be read there first.
    pub behind_answer_ms: Milliseconds,
    /// From sending the command at the owner's site until the record can be read at the other one.
    pub from_sending_ms: Milliseconds,
}

/// How fast a site catches up.
#[derive(Debug, Clone, Serialize)]
pub struct CatchUp {
    /// Updates that it missed while it was cut off.
    pub missed: u64,
    /// From the heal until the link is there, in seconds.
    pub linked_seconds: f64,
    /// From the heal until the copy has all of them, in seconds.
    pub equal_seconds: f64,
    /// Updates each second, once the link is there.
    pub per_second: f64,
}

/// How long new copies take.
#[derive(Debug, Clone, Serialize)]
pub struct Join {
    /// Records that there are.
    pub records: u64,
    /// Until another instance of the site is ready, in seconds.
    pub instance_seconds: f64,
    /// Until the first instance of another site is ready, in seconds.
    pub site_seconds: f64,
    /// Commands that were answered each second meanwhile, by sixteen clients that each wait for their answers.
    pub meanwhile_per_second: f64,
    /// Resident memory of the instance that has the most, in bytes.
    pub memory_bytes: u64,
}

fn plan(program: PathBuf, cuttable: bool) -> Plan {
    Plan { program, profile: Profile::Default, sites: &[SITE, OTHER_SITE], groups: GROUPS, cuttable }
}

/// Measures how long updates take from site to site, while a rate of others goes on.
pub async fn lag(options: &LagOptions, mut progress: impl FnMut(&str)) -> Result<Lag> {
    const RECORDS: u64 = 10_000;
    let LagOptions { program, meanwhile, rate, time } = options;
    progress("two sites");
    let mut place = Place::start(plan(program.clone(), false)).await?;
    place.serve(1).await?;
    let load = Arc::new(Load::new(&place, &Asked::usual(Loop::Open { rate: *rate }, RECORDS)).await?);
    load.fill().await?;
    let (here, there) = (place.client(SITE).await?, place.client(OTHER_SITE).await?);
    let seed = Seed::new(&place, &here, &record_of(RECORD_BYTES)).await?;
    progress(&format!("updates at {rate}/s"));
    let stop = Arc::new(AtomicBool::new(false));
    let sampling = tokio::spawn(sample(here, there, Arc::clone(&stop)));
    let per_second = match meanwhile {
        Meanwhile::Commands => {
            let turn = measure(&place, &load, *time).await?;
            turn.measured.requests as f64 / turn.measured.took.as_secs_f64()
        }
        Meanwhile::Updates => seed.make_at(*rate, RECORDS, *time).await?,
    };
    stop.store(true, Ordering::Relaxed);
    let samples = sampling.await??;
    place.stop().await?;
    let (behind, from): (Vec<_>, Vec<_>) = samples.into_iter().unzip();
    Ok(Lag { per_second, behind_answer_ms: Milliseconds::of(behind)?, from_sending_ms: Milliseconds::of(from)? })
}

/// Makes records at one site, and reads each at the other as soon as it is there.
async fn sample(here: Client, there: Client, stop: Arc<AtomicBool>) -> Result<Vec<(Duration, Duration)>> {
    let record = record_of(RECORD_BYTES);
    let mut samples = JoinSet::new();
    let mut interval = tokio::time::interval(SAMPLE);
    for number in 0_u64.. {
        interval.tick().await;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = format!("{SITE}-sample-{number}");
        let body = format!(r#"{{"id":"{id}","record":{record}}}"#);
        let (here, there) = (here.clone(), there.clone());
        samples.spawn(async move {
            let sent = Instant::now();
            let write = async {
                ask(&here, "create", body).await?;
                anyhow::Ok(sent.elapsed())
            };
            let read = async {
                ask(&there, "get", format!(r#"{{"id":"{id}","min_version":1}}"#)).await?;
                anyhow::Ok(sent.elapsed())
            };
            let (answered, readable) = tokio::try_join!(write, read)?;
            anyhow::Ok((readable.saturating_sub(answered), readable))
        });
    }
    samples.join_all().await.into_iter().collect()
}

/// Cuts a site off, makes records elsewhere, heals, and measures until the site has them.
pub async fn catch_up(program: PathBuf, missed: u64, mut progress: impl FnMut(&str)) -> Result<CatchUp> {
    progress("two sites");
    let mut place = Place::start(plan(program, true)).await?;
    place.serve(1).await?;
    let (here, there) = (place.client(SITE).await?, place.client(OTHER_SITE).await?);
    let seed = Seed::new(&place, &here, &record_of(RECORD_BYTES)).await?;
    place.sandbox.cut(OTHER_SITE).await?;
    progress(&format!("{missed} updates that a site misses"));
    let last = seed.make(0..missed, &mut |_| ()).await?;
    wait_applied(&here, last).await?;
    let before = applied(&there).await?;
    progress("catching up");
    place.sandbox.heal(OTHER_SITE)?;
    let healed = Instant::now();
    place.sandbox.wait_linked(OTHER_SITE).await?;
    let linked = healed.elapsed();
    wait_applied(&there, last).await?;
    let equal = healed.elapsed();
    anyhow::ensure!(before + missed <= last, "the site was not cut off");
    place.stop().await?;
    let per_second = missed as f64 / (equal - linked).as_secs_f64();
    let (linked_seconds, equal_seconds) = (linked.as_secs_f64(), equal.as_secs_f64());
    Ok(CatchUp { missed, linked_seconds, equal_seconds, per_second })
}

/// Measures how long another instance, and another site, take until they are ready.
pub async fn join(program: PathBuf, records: u64, mut progress: impl FnMut(&str)) -> Result<Join> {
    progress("one instance");
    let mut place = Place::start(plan(program, false)).await?;
    place.start_instance(SITE, "i0", READY_WITH_ALL).await?;
    seed(&place, records, RECORD_BYTES, &mut |made| progress(&format!("{made} of {records} records"))).await?;
    let load = Load::new(&place, &Asked::usual(Loop::Closed { in_flight: CLIENTS }, records)).await?;
    let working = Arc::new(load).keep_working(CLIENTS);
    progress("another instance");
    let begun = Instant::now();
    place.start_instance(SITE, "i1", READY_WITH_ALL).await?;
    let instance_seconds = begun.elapsed().as_secs_f64();
    progress("another site");
    let site_begun = Instant::now();
    place.start_instance(OTHER_SITE, "i0", READY_WITH_ALL).await?;
    let site_seconds = site_begun.elapsed().as_secs_f64();
    let done = working.stop().await?;
    let meanwhile_per_second = done as f64 / begun.elapsed().as_secs_f64();
    let memory_bytes = place.memory_bytes()?;
    place.stop().await?;
    Ok(Join { records, instance_seconds, site_seconds, meanwhile_per_second, memory_bytes })
}

async fn ask(client: &Client, endpoint: &str, body: String) -> Result<()> {
    let options = SendOptions::default();
    let answer = client.request_to(format!("freehold.{KIND}.{endpoint}"), body.into(), &options).await?;
    answer.result.map(|_| ()).map_err(|refusal| anyhow::anyhow!("{refusal:?}")).context(endpoint.to_owned())
}
