//! The load: which requests are sent, and when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use freehold_jetstream::{Client, SendOptions};
use freehold_sandbox::wait_until;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hdrhistogram::Histogram;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, Zipf};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Asked;
use crate::place::{KIND, OTHER_SITE, Place, SITE, THIRD_SITE};
use crate::seed::record_id;

/// Requests in flight while records are made.
const FILL_IN_FLIGHT: usize = 256;
/// Requests that an open loop may have in flight: beyond that the service is hopelessly behind, and the run fails.
const MAX_IN_FLIGHT: usize = 65_536;
/// Times above this count as this.
const LONGEST_MICROSECONDS: u64 = 60_000_000;
/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Who keeps working gives a request up after this long: who took it may be gone.
const IMPATIENCE: Duration = Duration::from_millis(500);
/// Before it is measured, a load runs for this part of its time.
pub(crate) const WARM_UP_SHARE: u32 = 4;
/// The exponent of the zipfian workload: the hottest of 10,000 records gets a tenth of the commands.
const ZIPF_EXPONENT: f64 = 0.99;
/// Commands in a hundred requests of [`Workload::Reads`].
const READS_COMMANDS_PERCENT: u32 = 5;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Commands for records at random.
    Uniform,
    /// Commands for records by Zipf's law.
    Zipfian,
    /// Commands for one record.
    Hot,
    /// 95 reads and 5 commands in a hundred requests, for records at random.
    Reads,
    /// Reads of records at random, and nothing else.
    Gets,
    /// Commands for records at random, sent at another site than their owner's: three sites.
    Forwarded,
    /// Commands for records at random, answered when another site has confirmed what they did: three sites.
    Confirmed,
}

impl Workload {
    /// The sites that it needs.
    pub(crate) fn sites(self) -> &'static [&'static str] {
        match self {
            Self::Forwarded | Self::Confirmed => &[SITE, OTHER_SITE, THIRD_SITE],
            Self::Uniform | Self::Zipfian | Self::Hot | Self::Reads | Self::Gets => &[SITE],
        }
    }

    /// Commands in a hundred requests.
    fn commands_percent(self) -> u32 {
        match self {
            Self::Reads => READS_COMMANDS_PERCENT,
            Self::Gets => 0,
            _ => 100,
        }
    }
}

/// How it is asked.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loop {
    /// So many requests are in flight all the time.
    Closed {
        /// How many.
        in_flight: usize,
    },
    /// So many requests are sent each second, whatever comes back.
    Open {
        /// How many.
        rate: f64,
    },
}

/// What came of it.
pub(crate) struct Measured {
    /// Requests that were answered.
    pub(crate) requests: u64,
    pub(crate) took: Duration,
    /// In microseconds.
    pub(crate) times: Histogram<u64>,
}

impl Measured {
    pub(crate) fn per_second(&self) -> f64 {
        self.requests as f64 / self.took.as_secs_f64()
    }
}

/// Clients that work until they are stopped.
pub(crate) struct Working {
    stop: Arc<AtomicBool>,
    workers: JoinSet<u64>,
}

impl Working {
    /// Stops them; gives the number of requests that were answered.
    pub(crate) async fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let done: u64 = self.workers.join_all().await.into_iter().sum();
        ensure!(done > 0, "nothing was answered");
        Ok(done)
    }
}

/// One client's load on a service.
pub(crate) struct Load {
    client: Client,
    options: SendOptions,
    workload: Workload,
    pace: Loop,
    records: u64,
    record: String,
    /// Bytes of the answers so far, and how many there were.
    answered: Arc<(AtomicU64, AtomicU64)>,
}

impl Load {
    pub(crate) async fn new(place: &Place, asked: &Asked) -> Result<Self> {
        let (workload, pace, records) = (asked.workload, asked.pace, asked.records);
        let client = place.client(if workload == Workload::Forwarded { OTHER_SITE } else { SITE }).await?;
        let wait = (workload == Workload::Confirmed).then(|| "sites=1".to_owned());
        let options = SendOptions { timeout: TIMEOUT, wait, ..SendOptions::default() };
        let record = record_of(asked.record_bytes);
        Ok(Self { client, options, workload, pace, records, record, answered: Arc::default() })
    }

    /// Makes all records. The first is asked for until it is there: the logs of a cluster may have no leaders yet.
    pub(crate) async fn fill(&self) -> Result<()> {
        let is_there = || async { self.ask("create", self.command(0)).await.is_ok() };
        wait_until("the first record is there", TIMEOUT, is_there).await?;
        let made = (1..self.records).map(|number| self.ask("create", self.command(number)));
        stream::iter(made).buffer_unordered(FILL_IN_FLIGHT).try_collect::<()>().await
    }

    /// Bytes of an answer, on average.
    pub(crate) fn answer_bytes(&self) -> u64 {
        let (bytes, answers) = (self.answered.0.load(Ordering::Relaxed), self.answered.1.load(Ordering::Relaxed));
        bytes.checked_div(answers).unwrap_or_default()
    }

    /// Runs for a time, and then for another one in which it is measured; `warm` is called in between.
    pub(crate) async fn run<T>(
        self: &Arc<Self>,
        time: Duration,
        warm: impl AsyncFnOnce() -> Result<T>,
    ) -> Result<(Measured, T)> {
        self.run_for(time / WARM_UP_SHARE).await?;
        let between = warm().await?;
        Ok((self.run_for(time).await?, between))
    }

    async fn run_for(self: &Arc<Self>, time: Duration) -> Result<Measured> {
        match self.pace {
            Loop::Closed { in_flight } => self.closed(in_flight, time).await,
            Loop::Open { rate } => self.open(rate, time).await,
        }
    }

    /// Keeps so many clients asking until they are told to stop. What is not answered is asked for again.
    pub(crate) fn keep_working(self: Arc<Self>, clients: usize) -> Working {
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = JoinSet::new();
        for _ in 0..clients {
            let (load, stop) = (Arc::clone(&self), Arc::clone(&stop));
            workers.spawn(async move {
                let mut chance = rand::rngs::SmallRng::from_rng(&mut rand::rng());
                let mut done = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    let asked = tokio::time::timeout(IMPATIENCE, load.request(&mut chance)).await;
                    done += u64::from(asked.is_ok_and(|asked| asked.is_ok()));
                }
                done
            });
        }
        Working { stop, workers }
    }

    async fn closed(self: &Arc<Self>, in_flight: usize, time: Duration) -> Result<Measured> {
        let begun = Instant::now();
        let end = begun + time;
        let mut workers = JoinSet::new();
        for _ in 0..in_flight {
            let load = Arc::clone(self);
            workers.spawn(async move {
                let mut chance = rand::rngs::SmallRng::from_rng(&mut rand::rng());
                let mut times = Vec::new();
                while Instant::now() < end {
                    let sent = Instant::now();
                    load.request(&mut chance).await?;
                    times.push(sent.elapsed());
                }
                anyhow::Ok(times)
            });
        }
        self.collect(workers, begun).await
    }

    async fn open(self: &Arc<Self>, rate: f64, time: Duration) -> Result<Measured> {
        let begun = Instant::now();
        let free = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
        let mut workers = JoinSet::new();
        let mut chance = rand::rngs::SmallRng::from_rng(&mut rand::rng());
        for number in 0.. {
            let due = begun + Duration::from_secs_f64(f64::from(number) / rate);
            if due >= begun + time {
                break;
            }
            tokio::time::sleep_until(due).await;
            let permit = Arc::clone(&free).try_acquire_owned();
            let permit = permit.with_context(|| format!("{MAX_IN_FLIGHT} requests wait: {rate}/s is too much"))?;
            let load = Arc::clone(self);
            let mut chance = rand::rngs::SmallRng::from_rng(&mut chance);
            workers.spawn(async move {
                load.request(&mut chance).await?;
                drop(permit);
                anyhow::Ok(vec![due.elapsed()])
            });
        }
        self.collect(workers, begun).await
    }

    async fn collect(&self, mut workers: JoinSet<Result<Vec<Duration>>>, begun: Instant) -> Result<Measured> {
        let mut times = Histogram::new_with_bounds(1, LONGEST_MICROSECONDS, 3)?;
        while let Some(ended) = workers.join_next().await {
            for time in ended?? {
                times.record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).clamp(1, LONGEST_MICROSECONDS))?;
            }
        }
        let (requests, took) = (times.len(), begun.elapsed());
        ensure!(requests > 0, "nothing was answered");
        Ok(Measured { requests, took, times })
    }

    async fn request(&self, chance: &mut rand::rngs::SmallRng) -> Result<()> {
        let number = match self.workload {
            Workload::Uniform | Workload::Reads | Workload::Gets | Workload::Forwarded | Workload::Confirmed => {
                chance.random_range(0..self.records)
            }
            Workload::Hot => 0,
            Workload::Zipfian => {
                let zipf = Zipf::new(self.records as f64, ZIPF_EXPONENT)?;
                // Whole numbers from 1 on.
                zipf.sample(chance) as u64 - 1
            }
        };
        if !chance.random_ratio(self.workload.commands_percent(), 100) {
            self.ask("get", Bytes::from(format!(r#"{{"id":"{}"}}"#, record_id(number)))).await
        } else {
            self.ask("replace", self.command(number)).await
        }
    }

    fn command(&self, number: u64) -> Bytes {
        Bytes::from(format!(r#"{{"id":"{}","record":{}}}"#, record_id(number), self.record))
    }

    async fn ask(&self, endpoint: &str, body: Bytes) -> Result<()> {
        let body = ask(&self.client, endpoint, body, &self.options).await?;
        self.answered.0.fetch_add(body.len() as u64, Ordering::Relaxed);
        self.answered.1.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Asks the service, and gives its answer; a refusal is an error.
pub(crate) async fn ask(
    client: &Client,
    endpoint: &str,
    body: impl Into<Bytes>,
    options: &SendOptions,
) -> Result<Bytes> {
    let answer = client.request_to(format!("freehold.{KIND}.{endpoint}"), body.into(), options).await?;
    answer.result.map_err(|refusal| anyhow::anyhow!("{refusal:?}")).with_context(|| endpoint.to_owned())
}

/// A record of so many bytes.
pub(crate) fn record_of(bytes: usize) -> String {
    // What a record is beside its text.
    let text = "x".repeat(bytes.saturating_sub(r#"{"text":""}"#.len()));
    format!(r#"{{"text":"{text}"}}"#)
}
