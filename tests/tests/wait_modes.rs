//! P3: what `sites=N` has answered is at N other sites; in time or not, the answer says what is so.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use freehold::{Answer, Client, SendOptions};
use freehold_core::{CommandId, ErrorCode, SiteName};
use freehold_sandbox::{Sandbox, wait_until};
use freehold_tests::place::{self, InstanceProcess};
use freehold_tests::{counter, workload};
use serde_json::{Value, json};

const SERVICE: &str = env!("CARGO_BIN_EXE_e2e-service");
const SITES: [&str; 3] = ["ewr", "jfk", "lga"];
const SOON: Duration = Duration::from_secs(60);
const COMMANDS: usize = 20;

struct Deployment {
    sandbox: Sandbox,
    instances: Vec<InstanceProcess>,
    clients: Vec<Client>,
    _data: tempfile::TempDir,
}

impl Deployment {
    /// Three sites; jfk has two instances.
    async fn start() -> Result<Self> {
        let builder = SITES.iter().fold(Sandbox::builder(), |builder, site| builder.site(*site));
        let sandbox = builder.cuttable(true).start().await?;
        let data = tempfile::tempdir()?;
        let names = SITES.iter().map(|site| site.parse()).collect::<Result<Vec<SiteName>, _>>()?;
        let (mut instances, mut clients) = (Vec::new(), Vec::new());
        for (site, instance) in [("ewr", "one"), ("jfk", "first"), ("jfk", "second"), ("lga", "one")] {
            let directory = data.path().join(format!("{site}-{instance}"));
            std::fs::create_dir_all(&directory)?;
            let mut config = place::config(sandbox.site(site), instance, &directory)?;
            config.sites = names.clone();
            instances.push(InstanceProcess::start(SERVICE, &config, &directory).await?);
        }
        for site in SITES {
            clients.push(place::client(sandbox.site(site)).await?);
        }
        Ok(Self { sandbox, instances, clients, _data: data })
    }

    async fn add(&self, command_id: &str, wait: &str) -> Result<Answer> {
        let options = SendOptions {
            command_id: Some(CommandId::from_caller(command_id)?),
            wait: Some(wait.to_owned()),
            owner_down: None,
            timeout: Duration::from_secs(15),
        };
        let body = json!({ "id": "ewr-1", "amount": 1 }).to_string();
        Ok(self.clients[0].request(&workload::kind(), "add", body.into(), &options).await?)
    }

    /// Asks until other sites are linked and have caught up.
    async fn add_until_confirmed(&self, command_id: &str, wait: &str) -> Result<counter::Total> {
        let confirmed = || async { self.add(command_id, wait).await.is_ok_and(|answer| answer.result.is_ok()) };
        wait_until("the command is confirmed", SOON, confirmed).await?;
        workload::reply(&self.add(command_id, wait).await?)
    }
}

fn unconfirmed(answer: Answer) -> Result<Value> {
    let refusal = answer.result.err().context("it was answered as confirmed")?;
    ensure!(refusal.code == ErrorCode::Unconfirmed, "{refusal:?}");
    Ok(serde_json::from_str(refusal.details.context("no details")?.as_str())?)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_sites_confirmed_is_there_and_what_they_did_not_is_told() -> Result<()> {
    let mut place = Deployment::start().await?;
    place.add_until_confirmed("first", "sites=2").await?;

    // One of jfk's two instances has it, and lga's only one.
    for number in 1..=COMMANDS {
        let answer = place.add(&format!("c{number}"), "sites=2").await?;
        let total: counter::Total = workload::reply(&answer).context("with all sites there")?;
        let at_lga = workload::read(&place.clients[2], "ewr-1").await?;
        ensure!(at_lga.changes >= total.changes, "lga has {} of {} changes", at_lga.changes, total.changes);
    }

    // The instance that confirms for jfk dies: the other one does it from then on.
    place.instances[1].process().kill().await?;
    let total = place.add_until_confirmed("after the kill", "sites=2").await?;
    ensure!(total.changes == 2 + COMMANDS as u64, "{total:?}");

    place.sandbox.cut("jfk").await?;
    let answer = place.add("cut", "sites=1").await?;
    workload::reply::<counter::Total>(&answer).context("lga can still confirm")?;
    let details = unconfirmed(place.add("cut off", "sites=2").await?)?;
    ensure!((&details["wanted"], &details["confirmed"]) == (&json!(2), &json!(1)), "{details}");
    ensure!(details["outcome"]["status"] == "applied", "{details}");
    let changes = 4 + COMMANDS as u64;
    ensure!(workload::read(&place.clients[0], "ewr-1").await?.changes == changes, "it was not applied");

    place.sandbox.heal("jfk")?;
    place.sandbox.wait_linked("jfk").await?;
    let total = place.add_until_confirmed("cut off", "sites=2").await?;
    ensure!(total.changes == changes, "the retry was answered with {total:?}");

    // What was confirmed is still known to an instance that starts anew.
    place.instances[0].process().kill().await?;
    place.instances[0].restart().await?;
    let answer = place.add("cut off", "sites=2").await?;
    let total: counter::Total = workload::reply(&answer).context("after a restart")?;
    ensure!(total.changes == changes, "{total:?}");

    let refusal = place.add("too many", "sites=3").await?.result.err().context("there are only two others")?;
    ensure!(refusal.code == ErrorCode::Invalid, "{refusal:?}");
    ensure!(workload::read(&place.clients[0], "ewr-1").await?.changes == changes);
    Ok(())
}

/// Confirmations are messages, too: they must not make sites confirm each other's confirmations for ever.
#[tokio::test(flavor = "multi_thread")]
async fn sites_come_to_rest_after_the_last_change() -> Result<()> {
    let place = Deployment::start().await?;
    place.add_until_confirmed("first", "sites=2").await?;
    let log = freehold_jetstream::RecordsLog::new(place.clients[0].connection().clone(), "ewr".parse()?);
    let ends = async || {
        let mut ends = Vec::new();
        for site in SITES {
            ends.push(log.state(&site.parse()?).await?.last);
        }
        anyhow::Ok(ends)
    };
    // Positions are logged within a second or so; then nothing moves for as long.
    let mut before = ends().await?;
    let mut still_since = std::time::Instant::now();
    let deadline = std::time::Instant::now() + SOON;
    while still_since.elapsed() < Duration::from_secs(3) {
        ensure!(std::time::Instant::now() < deadline, "the logs still grow: {before:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = ends().await?;
        if now != before {
            (before, still_since) = (now, std::time::Instant::now());
        }
    }
    Ok(())
}
