//! One instance of the records service as a child process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use tokio::time::Instant;

use freehold_core::{KindName, Nonce, SiteName};
use freehold_jetstream::Client;
use freehold_sandbox::{Process, ProcessOptions};

use crate::discovery;

/// An instance may have to rebuild its copy first.
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// Groups are claimed within tens of milliseconds; a machine that is short of processors takes longer.
const GROUPS_DEADLINE: Duration = Duration::from_secs(30);
const GROUPS_INTERVAL: Duration = Duration::from_millis(50);
/// The service's name among services.
const SERVICE: &str = "records";

/// A child process.
#[derive(Debug)]
pub(super) struct Instance {
    process: Process,
}

/// What an instance is told.
pub(super) struct InstanceOptions<'a> {
    pub(super) program: &'a Path,
    pub(super) directory: PathBuf,
    pub(super) site: &'a SiteName,
    pub(super) number: u16,
    pub(super) sites: &'a [SiteName],
    pub(super) kinds: &'a [KindName],
    pub(super) home: &'a str,
    pub(super) url: &'a str,
    pub(super) settings_toml: String,
}

impl Instance {
    /// Starts it and does not wait.
    pub(super) fn launch(options: InstanceOptions<'_>) -> anyhow::Result<Self> {
        let InstanceOptions { program, directory, site, number, sites, kinds, home, url, settings_toml } = options;
        let name = format!("{site}-{number}");
        std::fs::create_dir_all(&directory).with_context(|| format!("{} cannot be made", directory.display()))?;
        // A file of its own: what lies in the working directory may be meant for another service.
        let config = directory.join("freehold.toml");
        std::fs::write(&config, settings_toml).with_context(|| format!("{} cannot be written", config.display()))?;
        let sites: Vec<_> = sites.iter().map(SiteName::as_str).collect();
        let mut process = ProcessOptions::new(&name, program, directory.join("instance.log"))
            .args(["records", "--site", site.as_str(), "--instance", &name, "--sites", &sites.join(",")])
            .args(["--nats-url", url, "--home", home])
            .arg("--config")
            .arg(config)
            .arg("--data-dir")
            .arg(&directory)
            .own_process_group(true);
        for kind in kinds {
            process = process.args(["--kind", kind.as_str()]);
        }
        Ok(Self { process: Process::start(process)? })
    }

    /// Waits until it answers requests; gives its nonce.
    pub(super) async fn wait_ready(&self) -> anyhow::Result<Nonce> {
        #[derive(Deserialize)]
        struct Ready {
            nonce: Nonce,
        }
        // The fields of the line are in no particular order.
        let line = self.process.wait_for_line("\"ready\":", READY_DEADLINE).await?;
        let ready: Ready = serde_json::from_str(&line).with_context(|| format!("{}: {line}", self.process.name()))?;
        Ok(ready.nonce)
    }

    /// The child process.
    pub(super) fn process(&self) -> &Process {
        &self.process
    }
}

/// Waits until these instances together hold all groups of their site.
pub(super) async fn wait_for_groups(
    client: &Client,
    site: &SiteName,
    nonces: &[Nonce],
    groups: usize,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + GROUPS_DEADLINE;
    loop {
        let mut held = 0;
        for nonce in nonces {
            held += discovery::status_of(client, SERVICE, nonce).await.map_or(0, |status| status.groups_held);
        }
        if held >= groups {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("the instances at {site} hold {held} of {groups} groups after {} s", GROUPS_DEADLINE.as_secs());
        }
        tokio::time::sleep(GROUPS_INTERVAL).await;
    }
}
