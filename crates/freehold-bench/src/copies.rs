//! Copies: how far behind they are, how fast they catch up, and how long a new one takes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use freehold_jetstream::{Client, SendOptions};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::load::{Load, Loop, WARM_UP_SHARE, ask, record_of};
use crate::place::{OTHER_SITE, Place, Plan, READY_WITH_ALL, SITE};
use crate::report::Milliseconds;
use crate::seed::{Seed, record_id};
use crate::{Asked, RECORD_BYTES, applied, seed, wait_applied};

/// How often the lag is sampled.
const SAMPLE: Duration = Duration::from_millis(10);
/// A copy that is further behind fails the run.
const LONGEST_LAG: Duration = Duration::from_secs(10);
/// Of so many updates one is a sample.
const UPDATES_A_SAMPLE: u64 = 50;
/// Updates that wait for their acknowledgements, or until they can be read.
const MAX_UPDATES_UNDER_WAY: usize = 4_096;
/// Clients that work while somebody joins.
const CLIENTS: usize = 16;

/// What the lag is measured of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LagOf {
    /// Commands, while others are sent.
    Commands,
    /// Updates, put into the log as their owner would log them: what commands cost is left out.
    Updates,
}

/// What the lag is measured under.
#[derive(Debug, Clone)]
pub struct LagOptions {
    /// The `freehold` program.
    pub program: PathBuf,
    /// Of what.
    pub of: LagOf,
    /// How many go on each second.
    pub rate: f64,
    /// How long it is measured.
    pub time: Duration,
}

/// How long an update takes to another site.
#[derive(Debug, Clone, Serialize)]
pub struct Lag {
    /// Commands that were answered, or updates that were logged, each second meanwhile.
    pub per_second: f64,
    /// From the answer at the owner's site, or the acknowledgement of its log, until the record can be read at the other one; 0 where it could be
    /// read there first.
    pub behind_answer_ms: Milliseconds,
    /// From sending the command, or the update, at the owner's site until the record can be read at the other one.
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
    Plan { cuttable, ..Plan::usual(program, &[SITE, OTHER_SITE]) }
}

/// Measures how long updates take from site to site, while a rate of others goes on.
pub async fn lag(options: &LagOptions, mut progress: impl FnMut(&str)) -> Result<Lag> {
    progress("two sites");
    let mut place = Place::start(plan(options.program.clone(), false)).await?;
    place.serve(1).await?;
    progress(&format!("updates at {}/s", options.rate));
    let (per_second, samples) = match options.of {
        LagOf::Commands => lag_of_commands(&place, options).await?,
        LagOf::Updates => lag_of_updates(&place, options).await?,
    };
    place.stop().await?;
    let (behind, from): (Vec<_>, Vec<_>) = samples.into_iter().unzip();
    let (behind_answer_ms, from_sending_ms) = (Milliseconds::of(behind)?, Milliseconds::of(from)?);
    Ok(Lag { per_second, behind_answer_ms, from_sending_ms })
}

/// How long a record took to the other site: behind the answer, and from sending.
type Sample = (Duration, Duration);

async fn lag_of_commands(place: &Place, options: &LagOptions) -> Result<(f64, Vec<Sample>)> {
    const RECORDS: u64 = 10_000;
    let load = Load::new(place, &Asked::usual(Loop::Open { rate: options.rate }, RECORDS)).await?;
    load.fill().await?;
    let (here, there) = (place.client(SITE).await?, place.client(OTHER_SITE).await?);
    let stop = Arc::new(AtomicBool::new(false));
    let begin = async || Ok(tokio::spawn(sample(here, there, Arc::clone(&stop))));
    let (measured, sampling) = Arc::new(load).run(options.time, begin).await?;
    stop.store(true, Ordering::Relaxed);
    Ok((measured.per_second(), sampling.await??))
}

/// No commands meanwhile: a group's digest must not tell of updates that its holder has not made.
async fn lag_of_updates(place: &Place, options: &LagOptions) -> Result<(f64, Vec<Sample>)> {
    let LagOptions { rate, time, .. } = *options;
    let warm_up = time / WARM_UP_SHARE;
    let (here, there) = (place.client(SITE).await?, place.client(OTHER_SITE).await?);
    let seed = Seed::new(place, &here, &record_of(RECORD_BYTES)).await?;
    let begun = Instant::now();
    let update = async |number: u64| {
        let due = Duration::from_secs_f64(number as f64 / rate);
        let sent = begun + due;
        tokio::time::sleep_until(sent).await;
        let write = async {
            seed.put(number).await?;
            anyhow::Ok(sent.elapsed())
        };
        if due < warm_up || !number.is_multiple_of(UPDATES_A_SAMPLE) {
            return write.await.map(|_| None);
        }
        let (logged, readable) = tokio::try_join!(write, readable(&there, record_id(number), sent))?;
        anyhow::Ok(Some((readable.saturating_sub(logged), readable)))
    };
    let count = (rate * (warm_up + time).as_secs_f64()) as u64;
    let updates = stream::iter(0..count).map(update).buffer_unordered(MAX_UPDATES_UNDER_WAY);
    let updates: Vec<_> = updates.try_collect().await?;
    let per_second = updates.len() as f64 / begun.elapsed().as_secs_f64();
    Ok((per_second, updates.into_iter().flatten().collect()))
}

/// Makes records at one site, and reads each at the other as soon as it is there.
async fn sample(here: Client, there: Client, stop: Arc<AtomicBool>) -> Result<Vec<Sample>> {
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
                ask(&here, "create", body, &SendOptions::default()).await?;
                anyhow::Ok(sent.elapsed())
            };
            let (answered, readable) = tokio::try_join!(write, readable(&there, id, sent))?;
            anyhow::Ok((readable.saturating_sub(answered), readable))
        });
    }
    samples.join_all().await.into_iter().collect()
}

/// Returns when a record can be read: how long after it was sent.
async fn readable(there: &Client, id: String, sent: Instant) -> Result<Duration> {
    let body = serde_json::json!({ "id": id, "min_version": 1, "timeout_ms": LONGEST_LAG.as_millis() as u64 });
    let options = SendOptions { timeout: 2 * LONGEST_LAG, ..SendOptions::default() };
    ask(there, "get", body.to_string(), &options).await?;
    Ok(sent.elapsed())
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
