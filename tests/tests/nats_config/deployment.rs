//! A folder of nats-config, running: the servers that its README starts, in a copy of the folder.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream;
use freehold::{Client, ConnectOptions, ServiceConfig};
use freehold_sandbox::{NatsServerBinary, Process, ProcessOptions, wait_until};
use freehold_tests::place::InstanceProcess;
use tempfile::TempDir;

use crate::ports::Ports;

/// How long servers, links and clusters may take to be there.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// How a README starts a server.
const START: &str = "nats-server --config ";
pub(crate) const SERVICE: &str = env!("CARGO_BIN_EXE_e2e-service");

/// A site as the README of its folder names it: its servers' client ports in the files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SiteAt {
    pub(crate) name: &'static str,
    pub(crate) ports: &'static [u16],
}

/// What a folder needs besides its files.
#[derive(Default)]
pub(crate) struct Setup {
    /// Lines of its files that are left out.
    pub(crate) left_out: Option<fn(&str) -> bool>,
    /// Files that its servers read: certificates, seeds.
    pub(crate) files: Vec<(String, String)>,
    /// Its servers' environment.
    pub(crate) environment: Vec<(String, String)>,
}

/// The servers of a folder.
pub(crate) struct Deployment {
    binary: NatsServerBinary,
    environment: Vec<(String, String)>,
    servers: Vec<(String, Process)>,
    ports: Ports,
    directory: TempDir,
}

impl Deployment {
    /// Starts what the folder's README starts.
    pub(crate) async fn start(folder: &str) -> Result<Self> {
        Self::start_with(folder, Setup::default()).await
    }

    /// The same with what it needs besides, or without some of its lines.
    pub(crate) async fn start_with(folder: &str, setup: Setup) -> Result<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nats-config").join(folder);
        let directory = tempfile::tempdir()?;
        let mut ports = Ports::default();
        for entry in std::fs::read_dir(&source).with_context(|| source.display().to_string())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "conf") {
                let text = std::fs::read_to_string(&path)?;
                let kept: String = text
                    .split_inclusive('\n')
                    .filter(|line| !setup.left_out.is_some_and(|left_out| left_out(line)))
                    .collect();
                let name = path.file_name().context("a file has a name")?;
                std::fs::write(directory.path().join(name), ports.rewrite(&kept)?)?;
            }
        }
        let readme = std::fs::read_to_string(source.join("README.md"))?;
        let files: Vec<_> = readme.lines().filter_map(|line| line.strip_prefix(START)).collect();
        let there = std::fs::read_dir(directory.path())?.count();
        ensure!(files.len() == there, "{folder} has {there} configurations, and its README starts {files:?}");
        for (file, content) in &setup.files {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().context("a file has a directory")?)?;
            std::fs::write(path, content)?;
        }
        let binary = NatsServerBinary::locate(&mut |_| {}).await?;
        let mut deployment = Self { binary, environment: setup.environment, servers: Vec::new(), ports, directory };
        for file in files {
            deployment.start_server(file)?;
        }
        for (_, server) in &deployment.servers {
            server.wait_for_line("Server is ready", SOON).await?;
        }
        Ok(deployment)
    }

    /// Starts one more server, which is none of the folder's.
    pub(crate) async fn add_server(&mut self, file: &str, text: &str) -> Result<()> {
        std::fs::write(self.directory.path().join(file), self.ports.rewrite(text)?)?;
        self.start_server(file)?;
        self.server(file)?.wait_for_line("Server is ready", SOON).await?;
        Ok(())
    }

    fn start_server(&mut self, file: &str) -> Result<()> {
        let log = self.directory.path().join(format!("{file}.log"));
        // In the folder, since the directories in the files are relative.
        let options = ProcessOptions::new(file, self.binary.path(), log).args(["--config", file]);
        let options = self.environment.iter().fold(options, |options, (name, value)| options.env(name, value));
        self.servers.push((file.to_owned(), Process::start(options.current_dir(self.directory.path()))?));
        Ok(())
    }

    /// The server of a file.
    pub(crate) fn server(&self, file: &str) -> Result<&Process> {
        let found = self.servers.iter().find(|(name, _)| name == file);
        Ok(&found.with_context(|| format!("{file} was not started"))?.1)
    }

    /// The directory of the copy of the folder.
    pub(crate) fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// The URLs of a site's servers.
    pub(crate) fn urls(&mut self, site: SiteAt) -> Result<String> {
        let url = |port: &u16| Ok(format!("nats://127.0.0.1:{}", self.ports.of(*port)?));
        Ok(site.ports.iter().map(url).collect::<Result<Vec<_>>>()?.join(","))
    }

    /// Where the monitoring port in the files is, as `host:port`.
    pub(crate) fn monitoring(&mut self, port: u16) -> Result<String> {
        Ok(format!("127.0.0.1:{}", self.ports.of(port)?))
    }

    /// A connection to a site, without Freehold.
    pub(crate) async fn plain(&mut self, site: SiteAt) -> Result<async_nats::Client> {
        let urls: Vec<_> = self.urls(site)?.split(',').map(str::to_owned).collect();
        Ok(async_nats::connect(urls).await?)
    }

    /// A client of a site's services.
    pub(crate) async fn client(&mut self, site: SiteAt) -> Result<Client> {
        Ok(Client::connect(&ConnectOptions::to(self.urls(site)?), "test").await?)
    }

    /// Starts an instance of the service at a site, once the site and its links are there.
    pub(crate) async fn instance(&mut self, site: SiteAt, sites: &[SiteAt]) -> Result<InstanceProcess> {
        self.wait_linked(site, sites).await?;
        let directory = self.directory().join(format!("{}-service", site.name));
        std::fs::create_dir(&directory)?;
        let mut config =
            ServiceConfig::new(site.name.parse()?, "one".parse()?, &self.urls(site)?, directory.join("copy"));
        config.sites = sites.iter().map(|site| site.name.parse()).collect::<Result<_, _>>()?;
        config.replicas = site.ports.len();
        InstanceProcess::start(SERVICE, &config, &directory).await
    }

    /// Waits until a site takes streams with a copy on each of its servers, and reaches the JetStream of the other sites.
    pub(crate) async fn wait_linked(&mut self, site: SiteAt, sites: &[SiteAt]) -> Result<()> {
        let client = self.plain(site).await?;
        let own = jetstream::new(client.clone());
        let name = format!("PROBE_{}", site.name);
        let takes = || async {
            let probe = jetstream::stream::Config {
                name: name.clone(),
                num_replicas: site.ports.len(),
                ..jetstream::stream::Config::default()
            };
            own.create_stream(probe).await.is_ok()
        };
        wait_until(&format!("site {} takes streams", site.name), SOON, takes).await?;
        own.delete_stream(&name).await?;
        for other in sites {
            let far = jetstream::with_domain(client.clone(), other.name);
            let answers = || async { far.query_account().await.is_ok() };
            wait_until(&format!("{} reaches {}", site.name, other.name), SOON, answers).await?;
        }
        Ok(())
    }
}

/// Whether a file below a directory contains a text.
pub(crate) fn contains(directory: &Path, text: &str) -> Result<bool> {
    for entry in std::fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        let found = match path.is_dir() {
            true => contains(&path, text)?,
            false => std::fs::read(&path)?.windows(text.len()).any(|window| window == text.as_bytes()),
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}
