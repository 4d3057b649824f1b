//! Three sites, and what operators and clients ask of them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use freehold::runtime::{LossAnswer, LossRequest};
use freehold::{Client, SendOptions};
use freehold_core::{CommandId, ErrorCode, SiteName, Stranded, subject};
use freehold_jetstream::StrandedLog;
use freehold_sandbox::{Sandbox, wait_until};
use freehold_tests::place::{self, InstanceProcess};
use freehold_tests::takeover::ask;
use freehold_tests::{copies, counter, workload};
use serde_json::{Value, json};

const SERVICE: &str = env!("CARGO_BIN_EXE_e2e-service");
pub(crate) const SITES: [&str; 3] = ["ewr", "jfk", "lga"];
pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) struct Deployment {
    pub(crate) sandbox: Sandbox,
    /// By site, then by instance.
    pub(crate) instances: Vec<(&'static str, InstanceProcess)>,
    pub(crate) clients: Vec<Client>,
    _data: tempfile::TempDir,
}

impl Deployment {
    pub(crate) async fn start(instances: &[&str]) -> Result<Self> {
        let builder = SITES.iter().fold(Sandbox::builder(), |builder, site| builder.site(*site));
        let sandbox = builder.cuttable(true).start().await?;
        let data = tempfile::tempdir()?;
        let names = SITES.iter().map(|site| site.parse()).collect::<Result<Vec<SiteName>, _>>()?;
        let (mut started, mut clients) = (Vec::new(), Vec::new());
        for site in SITES {
            for instance in instances {
                let directory = data.path().join(format!("{site}-{instance}"));
                std::fs::create_dir_all(&directory)?;
                let mut config = place::config(sandbox.site(site), instance, &directory)?;
                config.sites = names.clone();
                started.push((site, InstanceProcess::start(SERVICE, &config, &directory).await?));
            }
            clients.push(place::client(sandbox.site(site)).await?);
        }
        Ok(Self { sandbox, instances: started, clients, _data: data })
    }

    /// Everything is killed and started again, and then all copies are the same.
    pub(crate) async fn all_equal(&mut self) -> Result<()> {
        for (_, instance) in &mut self.instances {
            instance.process().kill().await?;
            instance.restart().await?;
        }
        let of_site = |site: &str| SITES.iter().position(|it| *it == site).unwrap_or_default();
        let asked: Vec<_> = self.instances.iter().map(|(site, it)| (&self.clients[of_site(site)], *site, it)).collect();
        copies::wait_same(&asked, None).await?;
        Ok(())
    }

    pub(crate) async fn stranded(&self, site: &str) -> Result<Vec<Stranded>> {
        let at = SITES.iter().position(|it| *it == site).context("no such site")?;
        let log = StrandedLog::new(self.clients[at].connection().clone(), site.parse()?);
        Ok(log.entries().await?.into_iter().map(|(_, _, entry)| entry).collect())
    }
}

pub(crate) async fn add(client: &Client, id: &str, command_id: &str) -> Result<counter::Total> {
    let answer = workload::send(client, "add", &json!({ "id": id, "amount": 1 }), Some(command_id)).await?;
    workload::reply(&answer).with_context(|| id.to_owned())
}

pub(crate) async fn owner(client: &Client, id: &str) -> Result<String> {
    let body = json!({ "id": id }).to_string();
    let answer = client.request(&workload::kind(), "get", body.into(), &SendOptions::default()).await?;
    let view: Value = serde_json::from_slice(&answer.result.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?)?;
    Ok(view["owner"].as_str().context("no owner")?.to_owned())
}

/// Gives records back: the right to create them, and each that exists.
pub(crate) async fn give_back(client: &Client, from: &str, to: &str, ids: &[String]) -> Result<()> {
    let rights = json!({ "prefix": to, "to": to });
    let records = ids.iter().map(|id| ("rehome", json!({ "id": id, "to": to })));
    for (what, body) in std::iter::once(("rehome-right", rights)).chain(records) {
        let subject = subject::operator(&from.parse()?, &workload::kind(), what);
        let command_id = Some(CommandId::from_caller(&ulid::Ulid::generate().to_string())?);
        let options = SendOptions { command_id, ..SendOptions::default() };
        let deadline = Instant::now() + SOON;
        loop {
            match client.request_to(subject.clone(), body.to_string().into(), &options).await?.result {
                Ok(_) => break,
                Err(refusal) if refusal.code == ErrorCode::OutcomeUnknown && Instant::now() < deadline => {
                    println!("{body}: {refusal:?}");
                }
                Err(refusal) => anyhow::bail!("{body}: {refusal:?}"),
            }
        }
    }
    Ok(())
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
