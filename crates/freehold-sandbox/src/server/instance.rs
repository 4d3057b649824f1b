//! The running server: start, readiness, signals, restart.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde::Deserialize;

use super::config::{self, Directories, Ports};
use super::error::{DirectoryInUse, DirectoryUnusable, NotReady, PortTaken, ServerError};
use super::monitor::{self, JetStreamState, LeafConnections};
use super::options::ServerOptions;
use crate::file_lock;
use crate::nats_server::NatsServerBinary;
use crate::poll::{DeadlinePassed, poll};
use crate::port::{ReservedPort, is_free};
use crate::process::{Process, ProcessOptions};

/// A start takes 15 to 60 ms with empty streams; a large store on a busy machine takes longer.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// One nats-server child process with its directory. Dropping it kills the server and keeps the directory.
#[derive(Debug)]
pub struct Server {
    options: ServerOptions,
    process: Process,
    ports_file_dir: PathBuf,
    client_port: ReservedPort,
    leaf_port: Option<ReservedPort>,
    /// Zero until the server has said it; another one after each start.
    monitor_port: AtomicU16,
}

impl Server {
    /// Starts a server and waits until it takes connections, with JetStream if that was asked for.
    ///
    /// A member of a cluster is not waited for until it has found the others.
    ///
    /// # Errors
    /// When the directory is in use, the port taken, or the server is not ready within 30 seconds.
    pub async fn start(binary: &NatsServerBinary, options: ServerOptions) -> Result<Self, ServerError> {
        let server = Self::launch(binary, options)?;
        server.wait_ready().await?;
        Ok(server)
    }

    /// Starts the process and does not wait.
    pub(crate) fn launch(binary: &NatsServerBinary, options: ServerOptions) -> Result<Self, ServerError> {
        let ports_file_dir = options.data_dir.join("ports");
        std::fs::create_dir_all(&ports_file_dir).map_err(unusable(&ports_file_dir))?;
        // The lock file is the child's stdin: whoever kills this process leaves a server that still has the lock.
        let lock = lock_directory(&options.data_dir)?;
        let client_port = reserve(&options, options.port)?;
        let leaf_port = options.leaf_listen.as_ref().map(|listen| reserve(&options, listen.port)).transpose()?;

        let config_file = options.data_dir.join("nats.conf");
        let text = config::render(
            &options,
            Ports { client: client_port.number(), leaf: leaf_port.as_ref().map(ReservedPort::number) },
            Directories { ports_file: &ports_file_dir, jetstream: &options.data_dir.join("jetstream") },
        );
        std::fs::write(&config_file, text).map_err(unusable(&config_file))?;
        remove_ports_files(&ports_file_dir)?;

        let mut process = ProcessOptions::new(&options.name, binary.path(), options.data_dir.join("server.log"))
            .arg("--config")
            .arg(&config_file)
            .own_process_group(options.own_process_group);
        process.held_file = Some(lock);
        let process = Process::start(process)?;
        note_pid(&options.data_dir, process.pid());
        Ok(Self { options, process, ports_file_dir, client_port, leaf_port, monitor_port: AtomicU16::new(0) })
    }

    /// The server's name.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// Where clients connect; the same over all restarts.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port())
    }

    /// The client port.
    pub fn port(&self) -> u16 {
        self.client_port.number()
    }

    /// Where leaf nodes connect, if it listens for them.
    pub fn leaf_port(&self) -> Option<u16> {
        self.leaf_port.as_ref().map(ReservedPort::number)
    }

    /// The monitoring port: `/varz`, `/jsz`, `/leafz` and so on. Another one after each restart; 0 before the first
    /// start is complete.
    pub fn monitor_port(&self) -> u16 {
        self.monitor_port.load(Ordering::Acquire)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its directory.
    pub fn data_dir(&self) -> &Path {
        &self.options.data_dir
    }

    /// The JetStream store inside its directory: what fault tests damage while the server is down.
    pub fn jetstream_dir(&self) -> PathBuf {
        self.options.data_dir.join("jetstream")
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }

    /// Whether the process has not ended. A paused server is running.
    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// The child process, for what is not forwarded here: waiting for a log line, its end, its status.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// When the system does not carry it out.
    pub async fn kill(&self) -> Result<(), ServerError> {
        Ok(self.process.kill().await?)
    }

    /// SIGTERM, then SIGKILL when it has not ended within ten seconds.
    ///
    /// # Errors
    /// When the system does not carry it out.
    pub async fn stop(&self) -> Result<(), ServerError> {
        Ok(self.process.stop().await?)
    }

    /// SIGSTOP: connections stay open and nothing is answered.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn pause(&self) -> Result<(), ServerError> {
        Ok(self.process.pause().await?)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> Result<(), ServerError> {
        Ok(self.process.resume()?)
    }

    /// Starts it again with the same directory and ports, after stopping it if it still runs, and waits as
    /// [`start`](Self::start) does.
    ///
    /// # Errors
    /// Those of [`start`](Self::start).
    pub async fn restart(&self) -> Result<(), ServerError> {
        self.process.stop().await?;
        remove_ports_files(&self.ports_file_dir)?;
        self.monitor_port.store(0, Ordering::Release);
        self.process.restart().await?;
        note_pid(&self.options.data_dir, self.process.pid());
        self.wait_ready().await
    }

    /// Whether the server says that all is well: JetStream up, all its streams and consumers recovered and, in a
    /// cluster, caught up with the others.
    pub async fn is_healthy(&self) -> bool {
        matches!(monitor::get(self.monitor_port(), "/healthz").await, Ok((200, _)))
    }

    /// Waits for [`is_healthy`](Self::is_healthy).
    ///
    /// # Errors
    /// When it ends first, or is not healthy after `deadline`.
    pub async fn wait_healthy(&self, deadline: Duration) -> Result<(), ServerError> {
        self.wait_running("the health", deadline, || async { self.is_healthy().await.then_some(()) }).await
    }

    /// How many leaf node connections it has, in either direction; `None` when it does not answer.
    pub async fn leaf_connections(&self) -> Option<usize> {
        let leafs: LeafConnections = monitor::get_json(self.monitor_port(), "/leafz").await.ok()?;
        Some(leafs.leafnodes)
    }

    /// Whether this server leads its JetStream cluster, and sees `size` members that are all up to date.
    pub(crate) async fn leads_complete_cluster(&self, size: usize) -> bool {
        let Ok(state) = monitor::get_json::<JetStreamState>(self.monitor_port(), "/jsz").await else { return false };
        state.meta_cluster.is_some_and(|meta| {
            meta.leader == self.options.name
                && meta.cluster_size == size
                && meta.replicas.len() + 1 == size
                && meta.replicas.iter().all(|replica| replica.current && !replica.offline)
        })
    }

    /// Waits until it takes connections and JetStream is enabled.
    pub(crate) async fn wait_ready(&self) -> Result<(), ServerError> {
        let monitor_port = self.wait_running("the start", START_DEADLINE, || async { self.read_ports_file() }).await?;
        self.monitor_port.store(monitor_port, Ordering::Release);
        let path = match self.options.jetstream {
            Some(_) => "/healthz?js-enabled-only=true",
            None => "/healthz",
        };
        self.wait_running("the readiness", START_DEADLINE, || async {
            matches!(monitor::get(monitor_port, path).await, Ok((200, _))).then_some(())
        })
        .await
    }

    /// The monitoring port, once the server has written all its ports.
    fn read_ports_file(&self) -> Option<u16> {
        /// As the server writes it, URLs by kind.
        #[derive(Deserialize)]
        struct PortsFile {
            nats: Vec<String>,
            monitoring: Vec<String>,
        }
        let suffix = format!("_{}.ports", self.process.pid());
        let path = std::fs::read_dir(&self.ports_file_dir)
            .ok()?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.to_string_lossy().ends_with(&suffix))?;
        // A file that is half written is read again at the next look.
        let file: PortsFile = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        file.nats.first()?;
        file.monitoring.first()?.rsplit_once(':')?.1.parse().ok()
    }

    /// Polls while the process runs.
    async fn wait_running<T, F, C>(&self, what: &str, deadline: Duration, mut check: F) -> Result<T, ServerError>
    where
        F: FnMut() -> C,
        C: Future<Output = Option<T>>,
    {
        let outcome = poll(deadline, || {
            let ended = self.process.exit_status();
            let checked = check();
            async move {
                match ended {
                    Some(status) => Some(Err(ServerError::from(self.process.exited_early(status)))),
                    None => checked.await.map(Ok),
                }
            }
        });
        outcome.await.unwrap_or_else(|| {
            Err(ServerError::from(NotReady {
                passed: DeadlinePassed { condition: format!("{what} of {}", self.options.name), waited: deadline },
                log_tail: self.process.log_tail(),
            }))
        })
    }
}

fn unusable(path: &Path) -> impl FnOnce(std::io::Error) -> DirectoryUnusable {
    let path = path.to_owned();
    move |source| DirectoryUnusable { path, source }
}

fn lock_directory(directory: &Path) -> Result<File, ServerError> {
    let path = directory.join("lock");
    match file_lock::try_lock(&path).map_err(unusable(&path))? {
        Some(lock) => Ok(lock),
        None => {
            let pid = std::fs::read_to_string(directory.join("pid")).unwrap_or_else(|_| "unknown".to_owned());
            Err(DirectoryInUse { path: directory.to_owned(), pid }.into())
        }
    }
}

/// Only for the error message of the next one that finds the directory locked: no reason to fail.
fn note_pid(directory: &Path, pid: u32) {
    if let Err(error) = std::fs::write(directory.join("pid"), pid.to_string()) {
        tracing::debug!(%error, directory = %directory.display(), "cannot note the process id");
    }
}

fn reserve(options: &ServerOptions, port: Option<u16>) -> Result<ReservedPort, ServerError> {
    match port {
        Some(port) if is_free(port) => Ok(ReservedPort::named(port)),
        Some(port) => Err(PortTaken { name: options.name.clone(), port }.into()),
        None => ReservedPort::pick().map_err(ServerError::NoPort),
    }
}

/// A server that is killed leaves its ports file behind, and process ids come round again.
fn remove_ports_files(directory: &Path) -> Result<(), ServerError> {
    for entry in std::fs::read_dir(directory).map_err(unusable(directory))? {
        let path = entry.map_err(unusable(directory))?.path();
        if path.extension().is_some_and(|extension| extension == "ports") {
            std::fs::remove_file(&path).map_err(unusable(&path))?;
        }
    }
    Ok(())
}
