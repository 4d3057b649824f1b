//! A site that has lost its log: it does not begin anew over what others have of it, and gets it back from them.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use freehold::{Client, SendOptions};
use freehold_core::{CommandId, Incarnation, SiteName, StreamSequence, subject};
use freehold_jetstream::SitesLog;
use freehold_sandbox::Sandbox;
use freehold_tests::place::{self, InstanceProcess};
use freehold_tests::{copies, counter, workload};
use serde_json::json;
use tokio::sync::Notify;

const SERVICE: &str = env!("CARGO_BIN_EXE_e2e-service");
const SITES: [&str; 2] = ["ewr", "jfk"];
const RECORDS: usize = 30;
const SOON: Duration = Duration::from_secs(30);

fn freehold(url: &str, arguments: &[&str]) -> Result<(bool, String)> {
    let ran = Command::new(env!("CARGO_BIN_EXE_e2e-freehold")).args(["--url", url]).args(arguments).output()?;
    Ok((ran.status.success(), String::from_utf8_lossy(&ran.stderr).into_owned()))
}

/// As if the restore had died on its way: it waits for more than there is, until it is dropped.
async fn begin_to_restore(client: &Client) -> Result<()> {
    let log = SitesLog::new(client.connection().clone(), "ewr".parse()?);
    let begun = Notify::new();
    let (from, life) = ("jfk".parse()?, Incarnation::new(1, "x"));
    let restore = log.restore(&from, StreamSequence(u64::MAX), &life, |_| begun.notify_one());
    tokio::select! {
        ended = restore => anyhow::bail!("{ended:?}"),
        () = begun.notified() => Ok(()),
    }
}

/// S42: return with an empty disk, with peers.
#[tokio::test(flavor = "multi_thread")]
async fn s42_a_site_that_has_lost_its_log_gets_it_back_from_another() -> Result<()> {
    let sandbox = Sandbox::builder().site("ewr").site("jfk").cuttable(true).start().await?;
    let data = tempfile::tempdir()?;
    let names = SITES.iter().map(|site| site.parse()).collect::<Result<Vec<SiteName>, _>>()?;
    let (mut instances, mut clients) = (Vec::new(), Vec::new());
    for site in SITES {
        let directory = data.path().join(site);
        std::fs::create_dir_all(&directory)?;
        let mut config = place::config(sandbox.site(site), "one", &directory)?;
        config.sites = names.clone();
        instances.push(InstanceProcess::start(SERVICE, &config, &directory).await?);
        clients.push(place::client(sandbox.site(site)).await?);
    }
    let add = async |at: usize, id: &str, command_id: &str, wait: &str| {
        let options = SendOptions {
            command_id: Some(CommandId::from_caller(command_id)?),
            wait: Some(wait.to_owned()),
            ..SendOptions::default()
        };
        let body = json!({ "id": id, "amount": 1 }).to_string();
        let answer = clients[at].request(&workload::kind(), "add", body.into(), &options).await?;
        anyhow::Ok(workload::reply::<counter::Total>(&answer)?.changes)
    };
    for number in 0..RECORDS {
        ensure!(add(0, &format!("ewr-{number}"), "first", "sites=1").await? == 1);
    }

    let url = sandbox.site("ewr").url();
    let (done, said) = freehold(&url, &["restore", "--site", "ewr", "--sites", "ewr,jfk", "--yes"])?;
    ensure!(!done && said.contains("is running"), "{said}");
    instances[0].process().kill().await?;
    // The disk is gone, and with it the log; the instance's copy may be gone with it or not.
    let context = async_nats::jetstream::new(async_nats::connect(&url).await?);
    context.delete_stream(subject::records_stream(&"ewr".parse()?)).await?;
    instances[0].process().restart().await?;
    let status = instances[0].process().wait_exit(SOON).await?;
    let log = std::fs::read_to_string(instances[0].process().log_path())?;
    ensure!(!status.success() && log.contains("freehold restore"), "{status}: {log}");

    let (done, said) = freehold(&url, &["restore", "--site", "ewr", "--sites", "ewr,jfk"])?;
    ensure!(!done && said.contains("--yes"), "{said}");
    begin_to_restore(&clients[0]).await?;
    instances[0].process().restart().await?;
    let status = instances[0].process().wait_exit(SOON).await?;
    let log = std::fs::read_to_string(instances[0].process().log_path())?;
    ensure!(!status.success() && log.contains("was interrupted"), "{status}: {log}");
    let (done, said) = freehold(&url, &["restore", "--site", "ewr", "--sites", "ewr,jfk", "--yes"])?;
    ensure!(done && said.contains("restored from jfk"), "{said}");
    instances[0].restart().await?;
    for number in 0..RECORDS {
        let id = format!("ewr-{number}");
        ensure!(add(0, &id, "first", "applied").await? == 1, "{id}: what was decided is known");
        // The other site's mirror may need a while to find the log again; its copies read it there meanwhile.
        ensure!(add(1, &id, "second", "applied").await? == 2, "{id}");
    }
    let (done, said) = freehold(&url, &["restore", "--site", "ewr", "--sites", "ewr,jfk", "--yes"])?;
    ensure!(!done && said.contains("is running"), "{said}");
    let asked: Vec<_> = SITES.iter().enumerate().map(|(at, site)| (&clients[at], *site, &instances[at])).collect();
    copies::wait_same(&asked, u64::try_from(RECORDS)?).await?;
    Ok(())
}
