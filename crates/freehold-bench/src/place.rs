//! A site with a service, and what its processes use.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_nats::jetstream;
use freehold_sandbox::{Process, ProcessOptions, Sandbox, Site};
use procfs::process::Process as Observed;

use crate::floor::{FloorOptions, Sizes};
use crate::load::{Load, Measured};
use crate::{Options, Profile};

/// The site.
pub(crate) const SITE: &str = "ewr";
/// The kind of its records.
pub(crate) const KIND: &str = "bench";
/// How long a service may take until it answers.
const READY: Duration = Duration::from_secs(30);

/// What answers the load.
pub(crate) enum Served {
    /// The `records` service.
    Freehold,
    /// The floor, with messages of these sizes.
    Floor(Sizes),
}

/// A site with a service.
pub(crate) struct Place {
    sandbox: Sandbox,
    services: Vec<Process>,
    data: tempfile::TempDir,
}

/// What one turn showed.
pub(crate) struct Turn {
    pub(crate) measured: Measured,
    pub(crate) cpu: Cpu,
    /// What the measured part has added to the disk, of server and service.
    pub(crate) disk_bytes: u64,
}

/// CPU time of processes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    pub(crate) client: Duration,
    pub(crate) service: Duration,
    pub(crate) server: Duration,
}

impl Place {
    pub(crate) async fn start(options: &Options, served: Served) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let builder = Sandbox::builder().data_dir(data.path().join("servers"));
        let builder = match options.asked.profile {
            Profile::Default => builder.site(SITE),
            Profile::SyncAlways => builder.site(SITE).sync_always(true),
            Profile::Cluster => builder.clustered_site(SITE),
        };
        let mut place = Self { sandbox: builder.start().await?, services: Vec::new(), data };
        match served {
            Served::Freehold => {
                for number in 0..options.asked.instances {
                    place.start_instance(options, &format!("i{number}")).await?;
                }
            }
            Served::Floor(sizes) => place.start_floor(options, sizes).await?,
        }
        Ok(place)
    }

    fn site(&self) -> &Site {
        self.sandbox.site(SITE)
    }

    pub(crate) fn urls(&self) -> String {
        self.site().urls().join(",")
    }

    async fn start_instance(&mut self, options: &Options, name: &str) -> Result<()> {
        let data = self.data.path().join(name);
        let config = self.data.path().join(format!("{name}.toml"));
        std::fs::write(&config, format!("replicas = {}\n", replicas(options)))?;
        let arguments = ["records", "--site", SITE, "--instance", name, "--kind", KIND, "--nats-url", &self.urls()];
        let started = ProcessOptions::new(name, &options.program, self.data.path().join(format!("{name}.log")))
            .args(arguments)
            .arg("--config")
            .arg(config)
            .arg("--data-dir")
            .arg(data);
        self.launch(started).await
    }

    async fn start_floor(&mut self, options: &Options, sizes: Sizes) -> Result<()> {
        let floor = FloorOptions {
            url: self.urls(),
            data_dir: self.data.path().join("floor"),
            replicas: replicas(options),
            sizes,
        };
        let started = ProcessOptions::new("floor", &options.program, self.data.path().join("floor.log"));
        self.launch(started.args(["bench", "--serve-floor"]).arg(serde_json::to_string(&floor)?)).await
    }

    async fn launch(&mut self, options: ProcessOptions) -> Result<()> {
        let process = Process::start(options)?;
        process.wait_for_line("\"ready\"", READY).await.context("the service did not start")?;
        self.services.push(process);
        Ok(())
    }

    /// Runs the load, and tells what it showed.
    pub(crate) async fn measure(&self, load: &Arc<Load>, options: &Options) -> Result<Turn> {
        let before = async || anyhow::Ok((self.cpu()?, self.disk_bytes()?));
        let (measured, (cpu, disk_bytes)) = load.run(options.time, before).await?;
        let used = self.cpu()?;
        let cpu = Cpu {
            client: used.client - cpu.client,
            service: used.service - cpu.service,
            server: used.server - cpu.server,
        };
        Ok(Turn { measured, cpu, disk_bytes: self.disk_bytes()?.saturating_sub(disk_bytes) })
    }

    /// Sizes of the service's messages, on average.
    pub(crate) async fn sizes(&self, load: &Load) -> Result<Sizes> {
        let context = jetstream::new(async_nats::connect(self.site().url()).await?);
        let mut sizes = Vec::new();
        for stream in ["FH_COMMANDS_ewr", "FH_RECORDS_ewr"] {
            let mut stream = context.get_stream(stream).await?;
            let state = stream.info().await?.state.clone();
            let bytes = state.bytes.checked_div(state.messages).unwrap_or_default();
            // What the server adds to each message: its subject and headers are sent by the floor, too.
            sizes.push(usize::try_from(bytes)?.saturating_sub(STORED_OVERHEAD_BYTES));
        }
        Ok(Sizes { command: sizes[0], update: sizes[1], reply: usize::try_from(load.answer_bytes())? })
    }

    fn cpu(&self) -> Result<Cpu> {
        let sum = |processes: Vec<u32>| processes.into_iter().map(cpu_of).sum::<Result<Duration>>();
        Ok(Cpu {
            client: cpu_of(std::process::id())?,
            service: sum(self.services.iter().map(Process::pid).collect())?,
            server: sum(self.site().servers().iter().map(|server| server.process().pid()).collect())?,
        })
    }

    fn disk_bytes(&self) -> Result<u64> {
        bytes_under(self.data.path())
    }

    pub(crate) async fn stop(self) -> Result<()> {
        for service in &self.services {
            service.kill().await?;
        }
        Ok(self.sandbox.stop().await?)
    }
}

/// Subject, headers and the server's own, of a stored message.
const STORED_OVERHEAD_BYTES: usize = 120;

fn replicas(options: &Options) -> usize {
    if options.asked.profile == Profile::Cluster { 3 } else { 1 }
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
