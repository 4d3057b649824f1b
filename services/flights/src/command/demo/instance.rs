//! One instance of the service: this very program, as a child process.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use freehold::core::{InstanceName, Member, Nonce};
use freehold::prelude::SiteName;
use freehold_sandbox::{Process, ProcessOptions};
use serde::Deserialize;

/// How long an instance has to answer requests. It reads its logs before that.
const READY_DEADLINE: Duration = Duration::from_secs(120);

/// A child process, and which life of it answers.
#[derive(Debug)]
pub(super) struct Instance {
    site: SiteName,
    process: Process,
    /// Nothing while it does not run.
    member: Mutex<Option<Member>>,
}

/// What an instance is to be.
#[derive(Debug)]
pub(super) struct InstancePlan<'a> {
    pub(super) program: &'a Path,
    pub(super) site: &'a SiteName,
    pub(super) sites: &'a [SiteName],
    /// From 1, within the site.
    pub(super) number: u8,
    pub(super) url: &'a str,
    /// Each instance has a directory in this one.
    pub(super) directory: PathBuf,
}

/// The line in which an instance says that it answers.
#[derive(Debug, Deserialize)]
struct ReadyLine {
    instance: InstanceName,
    nonce: Nonce,
}

impl Instance {
    /// Starts the process and does not wait for it.
    pub(super) fn start(plan: InstancePlan<'_>) -> anyhow::Result<Self> {
        let InstancePlan { program, site, sites, number, url, directory } = plan;
        let name = format!("{site}-{number}");
        let directory = directory.join(&name);
        std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        let sites = sites.iter().map(SiteName::as_str).collect::<Vec<_>>().join(",");
        let arguments = ["serve", "--site", site.as_str(), "--sites", &sites, "--instance", &name, "--nats-url", url];
        let options = ProcessOptions::new(&name, program, directory.join("instance.log"))
            .args(arguments)
            .args(["--data-dir", "."])
            // No freehold.toml of the caller's is read there.
            .current_dir(&directory)
            .own_process_group(true);
        Ok(Self { site: site.clone(), process: Process::start(options)?, member: Mutex::default() })
    }

    /// Waits until it answers requests.
    pub(super) async fn wait_ready(&self) -> anyhow::Result<()> {
        let line = self.process.wait_for_line("\"ready\":", READY_DEADLINE).await?;
        let ReadyLine { instance, nonce } = serde_json::from_str(&line).with_context(|| line.clone())?;
        self.set_member(Some(Member { instance, nonce }));
        Ok(())
    }

    /// SIGKILL. Returns when the process is gone, and says who it was.
    pub(super) async fn kill(&self) -> anyhow::Result<Option<Member>> {
        let member = self.member();
        self.set_member(None);
        self.process.kill().await?;
        Ok(member)
    }

    /// Starts it again on its directory and waits until it answers requests.
    pub(super) async fn restart(&self) -> anyhow::Result<()> {
        self.process.restart().await?;
        self.wait_ready().await
    }

    /// Stops it gracefully.
    pub(super) async fn stop(&self) -> anyhow::Result<()> {
        Ok(self.process.stop().await?)
    }

    /// Its name, unique over all sites here.
    pub(super) fn name(&self) -> &str {
        self.process.name()
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(super) fn site(&self) -> &SiteName {
        &self.site
    }

    /// The life of it that answers; nothing while it does not run.
    pub(super) fn member(&self) -> Option<Member> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_member(&self, member: Option<Member>) {
        *self.member.lock().unwrap_or_else(PoisonError::into_inner) = member;
    }
}
