//! Failover inside a site: one of two instances is killed, hangs or is stopped under load, and a client asks at once for a record of each
//! group.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream;
use freehold_core::subject::{RecordsSubject, RecordsTopic, records_stream};
use freehold_core::{Claim, CommandId, GroupNumber, RecordId};
use freehold_jetstream::{Client, SendOptions};
use freehold_sandbox::{Process, wait_until};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::load::{Load, Loop, ask, record_of};
use crate::place::{KIND, Place, Plan, SITE, wait_ready};
use crate::report::Milliseconds;
use crate::seed::record_id;
use crate::{Asked, GROUPS, RECORD_BYTES};

/// Instances.
const INSTANCES: u16 = 2;
/// Records that the load is for.
const RECORDS: u64 = 1_000;
/// Requests of the load that are in flight.
const IN_FLIGHT: usize = 16;
/// A client that has heard nothing asks again after this long. Who takes requests may be the one that is gone.
const ASK_AGAIN: Duration = Duration::from_millis(25);
/// How long a client asks.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long instances may take to share the groups again.
const BALANCED: Duration = Duration::from_secs(30);
/// How long an instance may take to start or to stop.
const ENDED: Duration = Duration::from_secs(30);

/// What becomes of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failover {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Hang,
    /// SIGTERM: a planned stop.
    Stop,
}

/// What is done, and how often.
#[derive(Debug, Clone)]
pub struct FailoverOptions {
    /// The `freehold` program.
    pub program: PathBuf,
    /// What becomes of the instance.
    pub failover: Failover,
    /// How often.
    pub times: u16,
}

/// How long the instance's groups were without a holder, over all tries.
#[derive(Debug, Clone, Serialize)]
pub struct FailoverReport {
    /// What became of the instance.
    pub failover: Failover,
    /// How often.
    pub times: u16,
    /// Until a command of one of its groups was applied that was sent at that moment.
    pub first_ms: Milliseconds,
    /// Until that was so for each of its groups.
    pub all_ms: Milliseconds,
}

/// Measures. `progress` is told how often it was done.
pub async fn failover(options: &FailoverOptions, mut progress: impl FnMut(&str)) -> Result<FailoverReport> {
    let mut place = Place::start(Plan::usual(options.program.clone(), &[SITE])).await?;
    place.serve(INSTANCES).await?;
    let asked = Asked { instances: INSTANCES, ..Asked::usual(Loop::Closed { in_flight: IN_FLIGHT }, RECORDS) };
    let load = Load::new(&place, &asked).await?;
    load.fill().await?;
    let working = Arc::new(load).keep_working(IN_FLIGHT);
    let groups = Groups::new(&place).await?;
    let (mut first, mut all) = (Vec::new(), Vec::new());
    for time in 0..options.times {
        progress(&format!("{time} of {}", options.times));
        let victim = &place.services()[usize::from(time % INSTANCES)];
        groups.wait_balanced().await?;
        let held = groups.held_by(victim.name()).await?;
        let took = groups.take_from(victim, options.failover, held).await?;
        first.push(*took.iter().min().context("it held no group")?);
        all.push(*took.iter().max().context("it held no group")?);
        bring_back(victim, options.failover).await?;
    }
    working.stop().await?;
    place.stop().await?;
    let (first_ms, all_ms) = (Milliseconds::of(first)?, Milliseconds::of(all)?);
    Ok(FailoverReport { failover: options.failover, times: options.times, first_ms, all_ms })
}

async fn bring_back(victim: &Process, failover: Failover) -> Result<()> {
    match failover {
        Failover::Kill => {}
        Failover::Hang => return Ok(victim.resume()?),
        Failover::Stop => {
            victim.wait_exit(ENDED).await?;
        }
    }
    victim.restart().await?;
    wait_ready(victim, ENDED).await
}

/// The groups, and a record of each.
struct Groups {
    client: Client,
    context: jetstream::Context,
    records: BTreeMap<GroupNumber, String>,
}

impl Groups {
    async fn new(place: &Place) -> Result<Self> {
        let count = place.groups()?;
        let mut records = BTreeMap::new();
        for number in 0..RECORDS {
            let id: RecordId = record_id(number).parse()?;
            records.entry(count.group_of(&id)).or_insert_with(|| id.to_string());
        }
        ensure!(records.len() == usize::from(GROUPS), "too few records for all groups");
        let context = jetstream::new(async_nats::connect(place.site().url()).await?);
        Ok(Self { client: place.client(SITE).await?, context, records })
    }

    /// The groups whose newest claim is an instance's.
    async fn held_by(&self, instance: &str) -> Result<Vec<GroupNumber>> {
        let stream = self.context.get_stream(records_stream(&SITE.parse()?)).await?;
        let mut held = Vec::new();
        for group in self.records.keys() {
            let (site, kind) = (SITE.parse()?, KIND.parse()?);
            let subject = RecordsSubject { site, kind, group: *group, topic: RecordsTopic::Claim }.to_string();
            let message = stream.get_last_raw_message_by_subject(&subject).await?;
            let claim: Claim = serde_json::from_slice(&message.payload)?;
            if claim.instance.as_str() == instance {
                held.push(*group);
            }
        }
        Ok(held)
    }

    /// Waits until each instance holds its part.
    async fn wait_balanced(&self) -> Result<()> {
        let part = usize::from(GROUPS / INSTANCES);
        let has_part = || async { self.held_by("i0").await.is_ok_and(|held| held.len() == part) };
        Ok(wait_until("the instances share the groups", BALANCED, has_part).await?)
    }

    /// Takes the groups away from an instance, and asks for a record of each at once; how long each took.
    async fn take_from(&self, victim: &Process, failover: Failover, held: Vec<GroupNumber>) -> Result<Vec<Duration>> {
        let begun = Instant::now();
        match failover {
            Failover::Kill => victim.kill().await?,
            Failover::Hang => victim.pause().await?,
            Failover::Stop => signal_stop(victim)?,
        }
        let mut asking = JoinSet::new();
        for group in held {
            let (client, id) = (self.client.clone(), self.records[&group].clone());
            asking.spawn(async move {
                apply(&client, &id).await?;
                anyhow::Ok(begun.elapsed())
            });
        }
        asking.join_all().await.into_iter().collect()
    }
}

fn signal_stop(process: &Process) -> Result<()> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(process.pid())?);
    Ok(nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?)
}

/// Sends a command under one id, again and again without waiting for the answer to the last try, until one is answered.
async fn apply(client: &Client, id: &str) -> Result<()> {
    let command_id = CommandId::from_caller(&ulid::Ulid::generate().to_string())?;
    let options = SendOptions { command_id: Some(command_id), timeout: PATIENCE, ..SendOptions::default() };
    let body = format!(r#"{{"id":"{id}","record":{}}}"#, record_of(RECORD_BYTES));
    let mut tries = JoinSet::new();
    let mut again = tokio::time::interval(ASK_AGAIN);
    let deadline = Instant::now() + PATIENCE;
    loop {
        tokio::select! {
            _ = again.tick() => {
                ensure!(Instant::now() < deadline, "no command of {id} was applied");
                let (client, body, options) = (client.clone(), body.clone(), options.clone());
                tries.spawn(async move { ask(&client, "replace", body, &options).await });
            }
            Some(answered) = tries.join_next() => {
                if answered?.is_ok() {
                    return Ok(());
                }
            }
        }
    }
}
