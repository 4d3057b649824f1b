//! What operators and clients ask of three sites.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result};
use freehold::runtime::{LossAnswer, LossRequest};
use freehold::{Client, SendOptions};
use freehold_core::Stranded;
use freehold_jetstream::StrandedLog;
use freehold_sandbox::wait_until;
use freehold_tests::takeover::ask;
use freehold_tests::three_sites::{SITES, ThreeSites};
use freehold_tests::{counter, workload};
use serde_json::{Value, json};

pub(crate) const SOON: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Held by a test that needs the machine's processors for as long as it runs: two of them would measure one another.
pub(crate) static PROCESSORS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Starts them.
pub(crate) async fn start(instances: &[&str]) -> Result<ThreeSites> {
    ThreeSites::start(env!("CARGO_BIN_EXE_e2e-service"), instances).await
}

/// Everything is killed and started again, and then all copies are the same.
pub(crate) async fn all_equal(mut place: ThreeSites) -> Result<()> {
    for (_, instance) in &mut place.instances {
        instance.process().kill().await?;
        instance.restart().await?;
    }
    place.all_equal(None).await
}

/// What a site has set aside.
pub(crate) async fn stranded(place: &ThreeSites, site: &str) -> Result<Vec<Stranded>> {
    let at = SITES.iter().position(|it| *it == site).context("no such site")?;
    let log = StrandedLog::new(place.clients[at].connection().clone(), site.parse()?);
    Ok(log.entries().await?.into_iter().map(|(_, _, entry)| entry).collect())
}

/// The updates among them: of which record, and which version.
pub(crate) fn updates(stranded: &[Stranded]) -> BTreeSet<(String, u64)> {
    let update = |entry: &Stranded| match entry {
        Stranded::Update { update, .. } => Some((update.id.to_string(), update.version.0)),
        _ => None,
    };
    stranded.iter().filter_map(update).collect()
}

pub(crate) async fn add(client: &Client, id: &str, command_id: &str) -> Result<counter::Total> {
    let answer = workload::send(client, "add", &json!({ "id": id, "amount": 1 }), Some(command_id)).await?;
    workload::reply(&answer).with_context(|| id.to_owned())
}

pub(crate) async fn owner(client: &Client, id: &str) -> Result<String> {
    let body = json!({ "id": id }).to_string();
    let options = SendOptions { timeout: ASK_AGAIN, ..SendOptions::default() };
    let answer = client.request(&workload::kind(), "get", body.into(), &options).await?;
    let view: Value = serde_json::from_slice(&answer.result.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?)?;
    Ok(view["owner"].as_str().context("no owner")?.to_owned())
}

/// Waits until every member mirrors a site again that was taken over.
pub(crate) async fn wait_back(client: &Client, lost: &str, members: &[&str]) -> Result<()> {
    let came_back = || async {
        for member in members {
            let answer = ask::<LossAnswer>(client, member, "loss", &LossRequest { lost: lost.parse()? }).await?;
            let answer = answer.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
            if answer.taken_over_by.is_some() || answer.sealed_for.is_some() {
                return anyhow::Ok(false);
            }
        }
        Ok(true)
    };
    let is_back = || async { came_back().await.unwrap_or(false) };
    Ok(wait_until("the lost site is back", SOON, is_back).await?)
}
