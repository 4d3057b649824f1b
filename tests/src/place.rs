//! Sites with instances: as tasks of the test, or as processes that can be killed and paused.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use freehold::{Client, ConnectOptions, RunningService, Service, ServiceConfig};
use freehold_core::{GroupCount, KindDefinition};
use freehold_sandbox::{Process, ProcessOptions, Sandbox, Site};

/// How long a process may take until it answers.
const READY: Duration = Duration::from_secs(30);

/// One site without a hub.
pub async fn one_site() -> Result<Sandbox> {
    Ok(Sandbox::builder().site("ewr").start().await?)
}

/// One site of three servers.
pub async fn one_cluster() -> Result<Sandbox> {
    Ok(Sandbox::builder().clustered_site("ewr").start().await?)
}

/// The URLs of a site's servers, as a configuration takes them.
pub fn urls(site: &Site) -> String {
    site.urls().join(",")
}

/// The configuration of an instance at a site; R3 where the site is a cluster.
pub fn config(site: &Site, instance: &str, data: &Path) -> Result<ServiceConfig> {
    let mut config = ServiceConfig::new(site.name().parse()?, instance.parse()?, &urls(site), data);
    config.replicas = if site.servers().len() > 1 { 3 } else { 1 };
    Ok(config)
}

/// Starts an instance within the test.
pub async fn start(config: ServiceConfig, definition: KindDefinition) -> Result<RunningService> {
    Ok(Service::builder("counters", config).kind(definition).build()?.start().await?)
}

/// A client of a site.
pub async fn client(site: &Site) -> Result<Client> {
    Ok(Client::connect(&ConnectOptions::to(urls(site)), "test").await?)
}

/// An instance in a process of its own.
pub struct InstanceProcess {
    /// Its name.
    pub name: String,
    process: Process,
    ready: serde_json::Value,
}

impl InstanceProcess {
    /// Starts `e2e-service`, whose path the test knows, and waits until it answers.
    pub async fn start(program: &str, config: &ServiceConfig, directory: &Path) -> Result<Self> {
        Self::start_with(program, config, directory, &[]).await
    }

    /// The same with environment variables.
    pub async fn start_with(
        program: &str,
        config: &ServiceConfig,
        directory: &Path,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let file = config_file(config, directory)?;
        let name = config.instance.to_string();
        let log = directory.join(format!("{name}.log"));
        let options = ProcessOptions::new(name.clone(), program, log).arg(&file);
        let options = environment.iter().fold(options, |options, (name, value)| options.env(name, value));
        Self::launch(name, options, READY).await
    }

    /// The same where it has much to read before it answers.
    pub async fn start_patiently(
        program: &str,
        config: &ServiceConfig,
        directory: &Path,
        patience: Duration,
    ) -> Result<Self> {
        let file = config_file(config, directory)?;
        let name = config.instance.to_string();
        let log = directory.join(format!("{name}.log"));
        Self::launch(name.clone(), ProcessOptions::new(name, program, log).arg(&file), patience).await
    }

    /// The same, in a process that gets an error, and not a deadly signal, where a file may not grow any more.
    pub async fn start_with_file_limits(program: &str, config: &ServiceConfig, directory: &Path) -> Result<Self> {
        let file = config_file(config, directory)?;
        let name = config.instance.to_string();
        let log = directory.join(format!("{name}.log"));
        let script = "trap '' XFSZ; exec \"$0\" \"$1\"";
        let options = ProcessOptions::new(name.clone(), "sh", log).args(["-c", script, program]).arg(&file);
        Self::launch(name, options, READY).await
    }

    async fn launch(name: String, options: ProcessOptions, patience: Duration) -> Result<Self> {
        let process = Process::start(options)?;
        let ready = ready_line(&process, patience).await?;
        Ok(Self { name, process, ready })
    }

    /// Starts it again under the same name, after it has ended.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.restart().await?;
        self.ready = ready_line(&self.process, READY).await?;
        Ok(())
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// What it said when it was ready.
    pub fn ready(&self) -> &serde_json::Value {
        &self.ready
    }
}

fn config_file(config: &ServiceConfig, directory: &Path) -> Result<PathBuf> {
    let file = directory.join(format!("{}.json", config.instance));
    std::fs::write(&file, serde_json::to_vec_pretty(config)?)?;
    Ok(file)
}

async fn ready_line(process: &Process, patience: Duration) -> Result<serde_json::Value> {
    let line = process.wait_for_line("\"ready\"", patience).await.context("the instance did not start")?;
    Ok(serde_json::from_str(line.trim())?)
}

/// The id of a record of a site that falls into a group of a kind with so many groups.
pub fn record_in_group(site: &str, groups: GroupCount, group: u16) -> String {
    let falls = |id: &String| {
        let id: Result<freehold_core::RecordId, _> = id.parse();
        id.is_ok_and(|id| groups.group_of(&id).0 == group)
    };
    let found = (0..100_000).map(|number| format!("{site}-probe-{number}")).find(falls);
    found.unwrap_or_else(|| panic!("no id falls into group {group}"))
}
