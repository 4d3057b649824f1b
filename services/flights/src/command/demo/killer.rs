//! Kills instances during the load, and measures how long their groups stand still.
//!
//! **Failover time** of a group: from the SIGKILL of the instance that held it until a command in this group has its answer. The
//! command is a probe of its own, a cancellation of a flight that does not exist: the successor has to claim the group, pass
//! its barrier, decide, log the rejection, and have it fsynced in a copy before it can be answered; and no record comes
//! of it. One probe a group is sent at once when the process is gone, and sent again under the same id until it is answered.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use flights::FlightId;
use flights::data::FlightCommand;
use freehold::core::{CommandId, ErrorCode, GroupNumber, Member};
use freehold::jetstream::Members;
use freehold::prelude::SiteName;
use freehold::{Client, SendOptions};
use futures::future::try_join_all;
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::deployment::Deployment;
use super::instance::Instance;
use crate::command::load::{Meter, Sites, flight_kind, milliseconds};
use crate::command::printer::Printer;

/// How long one try of a probe waits.
const PROBE_TRY: Duration = Duration::from_millis(250);
/// Between two tries where the first was refused at once.
const PROBE_PAUSE: Duration = Duration::from_millis(5);
/// A group that stands still for longer fails the demonstration.
const PROBE_PATIENCE: Duration = Duration::from_secs(30);

/// Kills at given places of a load.
pub(super) struct Killer<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) clients: &'a Sites,
    pub(super) meter: &'a Meter,
    pub(super) load_is_over: watch::Receiver<bool>,
    pub(super) bar: &'a ProgressBar,
    pub(super) printer: Printer,
}

/// One kill and what came of it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Kill {
    pub(super) instance: String,
    pub(super) site: SiteName,
    /// Commands of the load that were answered before it.
    pub(super) after_commands: u64,
    /// Groups that the instance held.
    pub(super) groups: usize,
    /// When the first of them, half of them, all of them answered.
    pub(super) first_ms: f64,
    pub(super) median_ms: f64,
    pub(super) worst_ms: f64,
}

impl Killer<'_> {
    /// Kills so many times, evenly over the load, at one site after the other; each time it waits until the groups answer
    /// and the instance is back. Kills that the load left no time for are left out.
    pub(super) async fn run(self, kills: u32, commands: u64) -> anyhow::Result<Vec<Kill>> {
        let mut done = Vec::new();
        let mut load_is_over = self.load_is_over.clone();
        for number in 1..=kills {
            let place = commands * u64::from(number) / (u64::from(kills) + 1);
            tokio::select! {
                biased;
                _ = load_is_over.wait_for(|over| *over) => break,
                () = self.meter.wait_for(place) => {}
            }
            let victim = self.victim(number - 1);
            let kill = self.kill(victim).await.with_context(|| format!("killing {}", victim.name()))?;
            let Kill { instance, groups, median_ms, worst_ms, .. } = &kill;
            let text = format!(
                "killed {instance} (SIGKILL): its {groups} groups answered again after {median_ms:.0} ms (median), {worst_ms:.0} ms (worst)"
            );
            self.bar.suspend(|| self.printer.step(text));
            done.push(kill);
            victim.restart().await?;
        }
        Ok(done)
    }

    /// One site after the other, and at each site one instance after the other.
    fn victim(&self, number: u32) -> &Instance {
        let instances = self.deployment.instances();
        let sites = self.clients.iter().count();
        let each = instances.len() / sites;
        let number = number as usize;
        &instances[(number % sites) * each + (number / sites) % each]
    }

    async fn kill(&self, victim: &Instance) -> anyhow::Result<Kill> {
        let site = victim.site();
        let client = self.clients.client(site).with_context(|| format!("site {site} is not known"))?;
        let member = victim.member().context("it does not run")?;
        let groups = groups_held(client, site, &member).await?;
        let after_commands = self.meter.commands();
        let killed = Instant::now();
        victim.kill().await?;
        let probes = groups.iter().map(|group| probe(client, site, *group, &member, killed));
        let mut times = try_join_all(probes).await?;
        times.sort();
        let at = |place: usize| times.get(place).copied().map(milliseconds).unwrap_or_default();
        Ok(Kill {
            instance: victim.name().to_owned(),
            site: site.clone(),
            after_commands,
            groups: groups.len(),
            first_ms: at(0),
            median_ms: at(times.len() / 2),
            worst_ms: at(times.len().saturating_sub(1)),
        })
    }
}

async fn groups_held(client: &Client, site: &SiteName, member: &Member) -> anyhow::Result<Vec<GroupNumber>> {
    let entry = Members::open(client.connection(), site).await?.read(&flight_kind()).await?;
    Ok(entry.list.context("there is no member list")?.groups_of(member))
}

/// Sends a probe until it is answered; the time since the kill.
async fn probe(
    client: &Client,
    site: &SiteName,
    group: GroupNumber,
    victim: &Member,
    killed: Instant,
) -> anyhow::Result<Duration> {
    let flight = flight_of_group(site, group)?;
    let command = FlightCommand::Cancel(flights::Cancel {});
    let body = Bytes::from(command.request(&flight)?);
    // Another life has other probes: what is stored of this one answers none of them.
    let command_id = CommandId::from_caller(&format!("probe/{}", victim.nonce))?;
    let options = SendOptions { command_id: Some(command_id), timeout: PROBE_TRY, ..SendOptions::default() };
    loop {
        let answer = client.request(&flight_kind(), command.name(), body.clone(), &options).await;
        let failure = match answer {
            Ok(answer) => match answer.result {
                Err(refusal) if refusal.code == ErrorCode::Rejected => return Ok(killed.elapsed()),
                Err(refusal) => format!("{}: {}", refusal.code.as_str(), refusal.message),
                Ok(_) => anyhow::bail!("flight {flight} does not exist and was cancelled"),
            },
            Err(error) => format!("{:#}", anyhow::Error::from(error)),
        };
        anyhow::ensure!(killed.elapsed() < PROBE_PATIENCE, "group {group} of {site} stands still: {failure}");
        tokio::time::sleep(PROBE_PAUSE).await;
    }
}

/// A flight of this group that no data has: before powered flight.
fn flight_of_group(site: &SiteName, group: GroupNumber) -> anyhow::Result<FlightId> {
    let groups = flights::kind_definition().settings.groups;
    let origin = site.as_str().to_ascii_uppercase();
    for number in 1..=9999 {
        let flight: FlightId = format!("{origin}-19000101-ZZ{number}").parse()?;
        if groups.group_of(&flight.record_id()) == group {
            return Ok(flight);
        }
    }
    anyhow::bail!("no flight's id falls into group {group}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_has_a_flight_that_no_data_has() {
        let groups = flights::kind_definition().settings.groups;
        let site = "ewr".parse().unwrap();
        for group in groups.groups() {
            let flight = flight_of_group(&site, group).unwrap();
            assert_eq!(groups.group_of(&flight.record_id()), group);
            assert_eq!((flight.home(), flight.date.year()), (site.clone(), 1900));
        }
    }
}
