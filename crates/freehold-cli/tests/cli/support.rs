//! Runs the command, and `freehold dev` as a process that is always ended.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const STOP_DEADLINE: Duration = Duration::from_secs(90);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The command, in a directory where no configuration lies by chance.
pub(crate) fn freehold(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_freehold"));
    command.current_dir(directory);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("FREEHOLD_") && name != "FREEHOLD_CACHE" {
            command.env_remove(name);
        }
    }
    command
}

/// What a run of the command gave.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The one line of JSON on stdout.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// Checks that stderr is one line that says all of this.
    #[track_caller]
    pub(crate) fn says(self, expected: &[&str]) -> Self {
        for part in expected {
            assert!(self.stderr.contains(part), "{part:?} is not in {:?}", self.stderr);
        }
        self
    }
}

/// Runs the command.
pub(crate) fn run(directory: &Path, arguments: &[&str]) -> Ran {
    Ran::of(freehold(directory).args(arguments).output().unwrap())
}

/// A running `freehold dev --json`.
pub(crate) struct Dev {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// What it said when all was ready.
    pub(crate) ready: Value,
    pub(crate) first_port: u16,
    directory: PathBuf,
}

impl Dev {
    /// Starts it on `directory/data` and waits until it is ready.
    pub(crate) fn start(directory: &Path, sites: &str, instances: u16) -> Self {
        let first_port = free_ports(sites.split(',').count() + 1);
        let stderr = std::fs::File::options().create(true).append(true).open(directory.join("dev.log")).unwrap();
        let mut child = freehold(directory)
            .args(["dev", "--sites", sites, "--kind", "customer", "--data", "data", "--json"])
            .args(["--instances", &instances.to_string(), "--port", &first_port.to_string()])
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let log = || std::fs::read_to_string(directory.join("dev.log")).unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}; {}", log()));
        Self { child, stdout, ready, first_port, directory: directory.to_owned() }
    }

    /// Where it was started.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The URL of a site's server.
    pub(crate) fn url(&self, site: &str) -> &str {
        self.ready["sites"][site]["url"].as_str().unwrap()
    }

    /// Runs a command at a site.
    pub(crate) fn run(&self, site: &str, arguments: &[&str]) -> Ran {
        let url = ["--url", self.url(site)];
        run(&self.directory, &[&url, arguments].concat())
    }

    /// All child processes.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let sites = self.ready["sites"].as_object().unwrap().values();
        let of_site = |site: &Value| {
            let instances = site["instances"].as_array().unwrap().iter().map(|instance| instance["pid"].clone());
            instances.chain([site["server_pid"].clone()]).collect::<Vec<_>>()
        };
        let pids = sites.flat_map(of_site).chain([self.ready["hub"]["pid"].clone()]);
        pids.map(|pid| i32::try_from(pid.as_i64().unwrap()).unwrap()).collect()
    }

    /// Whether it has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// SIGINT; checks that it ends well, that its children are gone, and that it has said nothing more.
    pub(crate) fn interrupt(mut self) {
        kill(self.pid(), Signal::SIGINT).unwrap();
        assert!(wait_until(STOP_DEADLINE, || !self.is_running()), "it does not end");
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "", "exactly one line was promised");
        for pid in self.pids() {
            assert!(!is_alive(pid), "process {pid} was left behind");
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if self.is_running() {
            // Its children are in groups of their own: only it can end them.
            let _ = kill(self.pid(), Signal::SIGTERM);
            if !wait_until(STOP_DEADLINE, || !self.is_running()) {
                let _ = self.child.kill();
            }
            let _ = self.child.wait();
        }
    }
}

/// Whether a process is there.
pub(crate) fn is_alive(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None).is_ok()
}

/// Looks again and again until a condition holds; false where it does not in time.
pub(crate) fn wait_until(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// The first of some ports in a row that are free now. Below the ports that sandboxes pick and that the system uses for
/// outgoing connections; another start for each process and call.
fn free_ports(count: usize) -> u16 {
    static CALLS: AtomicU16 = AtomicU16::new(0);
    let count = u16::try_from(count).unwrap();
    let start = u16::try_from(std::process::id() % 150).unwrap() * 32;
    for _ in 0..200 {
        let first = 5_000 + (start + CALLS.fetch_add(1, Ordering::Relaxed) * 8) % 4_800;
        if (first..first + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first;
        }
    }
    panic!("no free ports");
}
