//! Sites with a service, and what its processes use.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_nats::jetstream;
use freehold_core::GroupCount;
use freehold_jetstream::{Client, ConnectOptions};
use freehold_sandbox::{Process, ProcessOptions, Sandbox, Server, Site};
use procfs::process::Process as Observed;

use crate::floor::{FloorOptions, Sizes};
use crate::{GROUPS, Profile};

/// The site that owns the records.
pub(crate) const SITE: &str = "ewr";
/// Another one.
pub(crate) const OTHER_SITE: &str = "jfk";
/// A third one.
pub(crate) const THIRD_SITE: &str = "lga";
/// The kind of the records.
pub(crate) const KIND: &str = "bench";
/// How long a service may take until it answers.
const READY: Duration = Duration::from_secs(30);
/// How long one may take that has to read a whole log first.
pub(crate) const READY_WITH_ALL: Duration = Duration::from_secs(1_200);

/// What a place consists of.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The `freehold` program.
    pub(crate) program: PathBuf,
    pub(crate) profile: Profile,
    pub(crate) sites: &'static [&'static str],
    pub(crate) groups: u16,
    /// Whether links can be cut.
    pub(crate) cuttable: bool,
}

impl Plan {
    /// A server for each site, the usual number of groups, and links that hold.
    pub(crate) fn usual(program: PathBuf, sites: &'static [&'static str]) -> Self {
        Self { program, profile: Profile::Default, sites, groups: GROUPS, cuttable: false }
    }
}

/// Sites with a service.
pub(crate) struct Place {
    pub(crate) sandbox: Sandbox,
    plan: Plan,
    services: Vec<Process>,
    data: tempfile::TempDir,
}

/// CPU time of processes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    pub(crate) client: Duration,
    pub(crate) service: Duration,
    pub(crate) server: Duration,
}

impl Cpu {
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            client: self.client - earlier.client,
            service: self.service - earlier.service,
            server: self.server - earlier.server,
        }
    }
}

impl Place {
    /// Starts the servers.
    pub(crate) async fn start(plan: Plan) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let mut builder = Sandbox::builder().data_dir(data.path().join("servers")).cuttable(plan.cuttable);
        builder = builder.sync_always(plan.profile == Profile::SyncAlways);
        for site in plan.sites {
            builder = match plan.profile {
                Profile::Default | Profile::SyncAlways => builder.site(*site),
                Profile::Cluster => builder.clustered_site(*site),
            };
        }
        Ok(Self { sandbox: builder.start().await?, plan, services: Vec::new(), data })
    }

    /// Starts an instance at each site, and the others at the first.
    pub(crate) async fn serve(&mut self, instances: u16) -> Result<()> {
        for site in self.plan.sites {
            self.start_instance(site, "i0", READY).await?;
        }
        for number in 1..instances {
            self.start_instance(SITE, &format!("i{number}"), READY).await?;
        }
        Ok(())
    }

    /// Starts an instance; returns when it is ready.
    pub(crate) async fn start_instance(&mut self, site: &str, name: &str, patience: Duration) -> Result<()> {
        let directory = self.data.path().join(format!("{site}-{name}"));
        std::fs::create_dir_all(&directory)?;
        let config = directory.join("freehold.toml");
        std::fs::write(&config, format!("replicas = {}\n", self.replicas()))?;
        let (sites, groups) = (self.plan.sites.join(","), self.plan.groups.to_string());
        let urls = self.urls_of(site);
        let arguments =
            ["records", "--site", site, "--sites", &sites, "--instance", name, "--kind", KIND, "--nats-url", &urls];
        let started = ProcessOptions::new(name, &self.plan.program, directory.join("log"))
            .args(arguments)
            .args(["--groups", &groups])
            .arg("--config")
            .arg(config)
            .arg("--data-dir")
            .arg(directory.join("data"));
        self.launch(started, patience).await
    }

    /// Starts the floor, for so many records, with messages of these sizes.
    pub(crate) async fn serve_floor(&mut self, records: u64, sizes: Sizes) -> Result<()> {
        let floor = FloorOptions {
            urls: self.urls_of(SITE),
            data_dir: self.data.path().join("floor"),
            replicas: self.replicas(),
            records,
            sizes,
        };
        let started = ProcessOptions::new("floor", &self.plan.program, self.data.path().join("floor.log"));
        self.launch(started.args(["bench", "--serve-floor"]).arg(serde_json::to_string(&floor)?), READY).await
    }

    async fn launch(&mut self, options: ProcessOptions, patience: Duration) -> Result<()> {
        let process = Process::start(options)?;
        wait_ready(&process, patience).await?;
        self.services.push(process);
        Ok(())
    }

    /// The processes of the service, in the order in which they were started.
    pub(crate) fn services(&self) -> &[Process] {
        &self.services
    }

    pub(crate) fn site(&self) -> &Site {
        self.sandbox.site(SITE)
    }

    pub(crate) fn groups(&self) -> Result<GroupCount> {
        Ok(GroupCount::new(self.plan.groups)?)
    }

    fn urls_of(&self, site: &str) -> String {
        self.sandbox.site(site).urls().join(",")
    }

    /// A client of a site.
    pub(crate) async fn client(&self, site: &str) -> Result<Client> {
        Ok(Client::connect(&ConnectOptions::to(self.urls_of(site)), "bench").await?)
    }

    fn replicas(&self) -> usize {
        if self.plan.profile == Profile::Cluster { 3 } else { 1 }
    }

    /// Sizes of the service's messages, on average; `reply` is known to who has received them.
    pub(crate) async fn sizes(&self, reply: u64) -> Result<Sizes> {
        let context = jetstream::new(async_nats::connect(self.site().url()).await?);
        let mut sizes = Vec::new();
        for stream in [format!("FH_COMMANDS_{SITE}"), format!("FH_RECORDS_{SITE}")] {
            let mut stream = context.get_stream(stream).await?;
            let state = stream.info().await?.state.clone();
            let bytes = state.bytes.checked_div(state.messages).unwrap_or_default();
            sizes.push(usize::try_from(bytes)?);
        }
        Ok(Sizes { command: sizes[0], update: sizes[1], reply: usize::try_from(reply)? })
    }

    pub(crate) fn cpu(&self) -> Result<Cpu> {
        let sum = |processes: Vec<u32>| processes.into_iter().map(cpu_of).sum::<Result<Duration>>();
        Ok(Cpu {
            client: cpu_of(std::process::id())?,
            service: sum(self.services.iter().map(Process::pid).collect())?,
            server: sum(self.sandbox.servers().map(Server::pid).collect())?,
        })
    }

    /// Bytes on disk, of servers and service.
    pub(crate) fn disk_bytes(&self) -> Result<u64> {
        bytes_under(self.data.path())
    }

    /// Resident memory of the instance that has the most, in bytes.
    pub(crate) fn memory_bytes(&self) -> Result<u64> {
        let pages = |process: &Process| anyhow::Ok(Observed::new(i32::try_from(process.pid())?)?.statm()?.resident);
        let most = self.services.iter().map(pages).collect::<Result<Vec<_>>>()?.into_iter().max();
        Ok(most.unwrap_or_default() * procfs::page_size())
    }

    pub(crate) async fn stop(self) -> Result<()> {
        for service in self.services.iter().filter(|service| service.is_running()) {
            service.kill().await?;
        }
        Ok(self.sandbox.stop().await?)
    }
}

/// Returns when a process says that it answers.
pub(crate) async fn wait_ready(process: &Process, patience: Duration) -> Result<()> {
    process.wait_for_line("\"ready\"", patience).await.context("the service did not start")?;
    Ok(())
}

fn cpu_of(process: u32) -> Result<Duration> {
    let stat = Observed::new(i32::try_from(process)?)?.stat()?;
    let ticks = stat.utime + stat.stime;
    Ok(Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second() as f64))
}

fn bytes_under(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    let mut unread: Vec<PathBuf> = vec![directory.to_owned()];
    while let Some(directory) = unread.pop() {
        for entry in std::fs::read_dir(&directory)? {
            // A file may be gone by the time that it is looked at.
            let Ok(entry) = entry else { continue };
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                unread.push(entry.path());
            } else {
                bytes += std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
            }
        }
    }
    Ok(bytes)
}
