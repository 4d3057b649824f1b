//! One supervised child process: started, watched, signalled, and never left behind.
//!
//! It owns the child and its log file (stdout and stderr together, appended over restarts). Signals go out only
//! while the child is known not to have been reaped, so a reused process id is never hit. Dropping a [`Process`]
//! kills the child and waits for it. It restarts nothing by itself.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::poll::{DeadlinePassed, poll, poll_blocking};

/// How long a child has to end after SIGTERM before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// How long the system has to carry out a SIGKILL or a SIGSTOP.
const SIGNAL_DEADLINE: Duration = Duration::from_secs(5);
/// How much of a log is quoted in errors.
const LOG_TAIL_BYTES: u64 = 4096;

/// What to run, and how.
#[derive(Debug)]
#[non_exhaustive]
pub struct ProcessOptions {
    /// What errors and traces call it.
    pub name: String,
    /// The program: a path, or a name to look up on PATH.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Environment variables in addition to this process's own.
    pub env: Vec<(OsString, OsString)>,
    /// Its working directory; by default this process's own.
    pub current_dir: Option<PathBuf>,
    /// Where stdout and stderr go. Appended to; parent directories are made.
    pub log_file: PathBuf,
    /// Starts the child in a process group of its own, so that Ctrl-C in a terminal reaches only the parent, which
    /// can then stop its children in order. Off by default: a test runner that kills the group gets the children too.
    pub own_process_group: bool,
    /// Given to the child as stdin, only to be held open by it (see the directory lock in `server`).
    pub(crate) held_file: Option<File>,
}

impl ProcessOptions {
    /// A program without arguments.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>, log_file: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            current_dir: None,
            log_file: log_file.into(),
            own_process_group: false,
            held_file: None,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets one environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.current_dir = Some(directory.into());
        self
    }

    /// Sets [`own_process_group`](Self::own_process_group).
    #[must_use]
    pub fn own_process_group(mut self, own: bool) -> Self {
        self.own_process_group = own;
        self
    }
}

/// A child process that cannot outlive this value.
#[derive(Debug)]
pub struct Process {
    options: ProcessOptions,
    run: Mutex<Run>,
}

/// One run of the program, from a start to its end.
#[derive(Debug)]
struct Run {
    child: Child,
    /// Where in the log file this run begins.
    log_start: u64,
}

impl Process {
    /// Starts the program. Does not wait for it to be ready: see [`wait_for_line`](Self::wait_for_line).
    ///
    /// # Errors
    /// When the log file cannot be opened or the program cannot be started.
    pub fn start(options: ProcessOptions) -> Result<Self, ProcessError> {
        let run = spawn(&options)?;
        Ok(Self { options, run: Mutex::new(run) })
    }

    /// Starts the program again with the same options, after stopping it if it still runs.
    ///
    /// # Errors
    /// When it cannot be stopped or started.
    pub async fn restart(&self) -> Result<(), ProcessError> {
        self.stop().await?;
        *self.lock() = spawn(&self.options)?;
        Ok(())
    }

    /// The name from the options.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// The process id of the current run, or of the last one.
    pub fn pid(&self) -> u32 {
        self.lock().child.id()
    }

    /// Whether it has not ended. A paused process is running.
    pub fn is_running(&self) -> bool {
        self.exit_status().is_none()
    }

    /// How it ended, or `None` while it runs.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        exit_status(&mut self.lock().child)
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it still runs after `deadline`.
    pub async fn wait_exit(&self, deadline: Duration) -> Result<ExitStatus, ProcessError> {
        poll(deadline, || async { self.exit_status() })
            .await
            .ok_or_else(|| ProcessError::from(self.deadline_passed("the end", deadline)))
    }

    /// SIGKILL, and waits until it is gone. Does nothing when it has ended.
    ///
    /// # Errors
    /// When the system does not carry it out.
    pub async fn kill(&self) -> Result<(), ProcessError> {
        self.signal(Signal::SIGKILL)?;
        self.wait_exit(SIGNAL_DEADLINE).await.map(drop)
    }

    /// SIGTERM, then SIGKILL when it has not ended within ten seconds. Wakes a paused process first.
    ///
    /// # Errors
    /// When the system does not carry out a signal.
    pub async fn stop(&self) -> Result<(), ProcessError> {
        self.stop_within(STOP_DEADLINE).await
    }

    /// [`stop`](Self::stop) with another patience.
    ///
    /// # Errors
    /// When the system does not carry out a signal.
    pub async fn stop_within(&self, deadline: Duration) -> Result<(), ProcessError> {
        self.request_stop()?;
        if self.wait_exit(deadline).await.is_err() {
            tracing::warn!(process = self.name(), ?deadline, "did not stop in time: killing it");
            self.kill().await?;
        }
        Ok(())
    }

    /// Sends SIGTERM and does not wait, so that several can stop at the same time.
    pub(crate) fn request_stop(&self) -> Result<(), ProcessError> {
        self.signal(Signal::SIGTERM)?;
        // A paused process takes no SIGTERM before it goes on.
        self.signal(Signal::SIGCONT)
    }

    /// Sends SIGKILL and does not wait.
    pub(crate) fn request_kill(&self) {
        if let Err(error) = self.signal(Signal::SIGKILL) {
            tracing::warn!(process = self.name(), %error, "cannot kill");
        }
    }

    /// SIGSTOP: it keeps its connections and its memory, and does nothing until [`resume`](Self::resume).
    ///
    /// # Errors
    /// When it has ended, or the system does not carry it out.
    pub async fn pause(&self) -> Result<(), ProcessError> {
        self.signal_running(Signal::SIGSTOP)?;
        if cfg!(target_os = "linux") {
            let pid = self.pid();
            poll(SIGNAL_DEADLINE, || async move { is_stopped(pid).then_some(()) })
                .await
                .ok_or_else(|| self.deadline_passed("the pause", SIGNAL_DEADLINE))?;
        }
        Ok(())
    }

    /// SIGCONT: ends a [`pause`](Self::pause).
    ///
    /// # Errors
    /// When it has ended.
    pub fn resume(&self) -> Result<(), ProcessError> {
        self.signal_running(Signal::SIGCONT)
    }

    /// Waits until the current run has written a line that contains `pattern`, and gives the first such line.
    ///
    /// # Errors
    /// When the process ends without it, or it has not appeared after `deadline`.
    pub async fn wait_for_line(&self, pattern: &str, deadline: Duration) -> Result<String, ProcessError> {
        let mut reader = LineReader::new(&self.options.log_file, self.lock().log_start);
        let found = poll(deadline, || {
            // The order matters: what was written before the end is read after it has been noticed.
            let ended = self.exit_status();
            let line = reader.find(pattern);
            async move {
                match (line, ended) {
                    (Ok(Some(line)), _) => Some(Ok(line)),
                    (Err(error), _) => Some(Err(ProcessError::from(LogUnusable {
                        path: self.options.log_file.clone(),
                        source: error,
                    }))),
                    (Ok(None), Some(status)) => Some(Err(ProcessError::from(self.exited_early(status)))),
                    (Ok(None), None) => None,
                }
            }
        });
        found.await.unwrap_or_else(|| {
            Err(ProcessError::from(LineNotSeen {
                pattern: pattern.to_owned(),
                passed: self.deadline_passed("a line in its log", deadline),
                log_tail: self.log_tail(),
            }))
        })
    }

    /// Where stdout and stderr go.
    pub fn log_path(&self) -> &Path {
        &self.options.log_file
    }

    /// The last 4 KiB of the current run's log, from the beginning of a line; a note when it cannot be read.
    pub fn log_tail(&self) -> String {
        let log_start = self.lock().log_start;
        read_tail(&self.options.log_file, log_start)
            .unwrap_or_else(|error| format!("(cannot read {}: {error})", self.options.log_file.display()))
    }

    /// The error for a process that has ended while something was expected of it.
    pub(crate) fn exited_early(&self, status: ExitStatus) -> ExitedEarly {
        ExitedEarly { name: self.options.name.clone(), status, log_tail: self.log_tail() }
    }

    fn deadline_passed(&self, what: &str, deadline: Duration) -> DeadlinePassed {
        DeadlinePassed { condition: format!("{what} of {}", self.options.name), waited: deadline }
    }

    fn signal_running(&self, signal: Signal) -> Result<(), ProcessError> {
        match self.exit_status() {
            Some(status) => Err(self.exited_early(status).into()),
            None => self.signal(signal),
        }
    }

    /// Sends the signal unless the child has been reaped.
    fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        // The lock is held over both steps, so nobody reaps the child in between.
        let mut run = self.lock();
        if exit_status(&mut run.child).is_some() {
            return Ok(());
        }
        let pid = Pid::from_raw(run.child.id() as i32);
        kill(pid, signal)
            .map_err(|source| NotSignalled { name: self.options.name.clone(), signal: signal.as_str(), source }.into())
    }

    fn lock(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.request_kill();
        if poll_blocking(SIGNAL_DEADLINE, || self.exit_status()).is_none() {
            tracing::warn!(process = self.name(), pid = self.pid(), "still there after SIGKILL");
        }
    }
}

/// Why a [`Process`] could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// The program could not be started.
    #[error(transparent)]
    NotStarted(#[from] NotStarted),
    /// The log file could not be opened or read.
    #[error(transparent)]
    LogUnusable(#[from] LogUnusable),
    /// The system refused a signal.
    #[error(transparent)]
    NotSignalled(#[from] NotSignalled),
    /// The process ended while something was expected of it.
    #[error(transparent)]
    ExitedEarly(#[from] ExitedEarly),
    /// The awaited line did not appear.
    #[error(transparent)]
    LineNotSeen(#[from] LineNotSeen),
    /// Something did not happen in time.
    #[error(transparent)]
    DeadlinePassed(#[from] DeadlinePassed),
}

/// The program could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {name} ({})", program.display())]
pub struct NotStarted {
    /// The name from the options.
    pub name: String,
    /// The program from the options.
    pub program: PathBuf,
    #[source]
    source: io::Error,
}

/// The log file could not be opened or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the log file {}", path.display())]
pub struct LogUnusable {
    /// The log file.
    pub path: PathBuf,
    #[source]
    source: io::Error,
}

/// The system refused a signal.
#[derive(Debug, thiserror::Error)]
#[error("cannot send {signal} to {name}")]
pub struct NotSignalled {
    /// The name from the options.
    pub name: String,
    /// The signal's name.
    pub signal: &'static str,
    #[source]
    source: nix::Error,
}

/// The process ended while something was expected of it.
#[derive(Debug, thiserror::Error)]
#[error("{name} has ended ({status}); the end of its log:\n{log_tail}")]
pub struct ExitedEarly {
    /// The name from the options.
    pub name: String,
    /// How it ended.
    pub status: ExitStatus,
    /// The end of its log.
    pub log_tail: String,
}

/// The awaited line did not appear.
#[derive(Debug, thiserror::Error)]
#[error("{passed}: {pattern:?}; the end of the log:\n{log_tail}")]
pub struct LineNotSeen {
    /// What the line was to contain.
    pub pattern: String,
    /// How long it was waited for.
    pub passed: DeadlinePassed,
    /// The end of the log.
    pub log_tail: String,
}

fn spawn(options: &ProcessOptions) -> Result<Run, ProcessError> {
    let log_unusable = |source| LogUnusable { path: options.log_file.clone(), source };
    let not_started = |source| NotStarted { name: options.name.clone(), program: options.program.clone(), source };
    if let Some(parent) = options.log_file.parent() {
        std::fs::create_dir_all(parent).map_err(log_unusable)?;
    }
    let log = OpenOptions::new().create(true).append(true).open(&options.log_file).map_err(log_unusable)?;
    let log_start = log.metadata().map_err(log_unusable)?.len();
    let stdin = match &options.held_file {
        Some(file) => Stdio::from(file.try_clone().map_err(not_started)?),
        None => Stdio::null(),
    };
    let mut command = Command::new(&options.program);
    command
        .args(&options.args)
        .envs(options.env.iter().map(|(name, value)| (name, value)))
        .stdin(stdin)
        .stdout(log.try_clone().map_err(log_unusable)?)
        .stderr(log);
    if let Some(directory) = &options.current_dir {
        command.current_dir(directory);
    }
    if options.own_process_group {
        command.process_group(0);
    }
    let child = command.spawn().map_err(not_started)?;
    tracing::debug!(process = options.name, pid = child.id(), "started");
    Ok(Run { child, log_start })
}

fn exit_status(child: &mut Child) -> Option<ExitStatus> {
    // It only fails when somebody else has reaped the child, which nobody does.
    child.try_wait().ok().flatten()
}

/// Whether the system says that the process is stopped by a signal. Linux only.
fn is_stopped(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The state follows the program's name, which is in parentheses and may contain anything.
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['T', 't']))
}

fn read_tail(path: &Path, log_start: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let start = log_start.max(length.saturating_sub(LOG_TAIL_BYTES));
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let whole_lines = if start == log_start { &text } else { text.split_once('\n').map_or(&*text, |(_, rest)| rest) };
    Ok(whole_lines.trim_end().to_owned())
}

/// Reads a growing file line by line.
#[derive(Debug)]
struct LineReader {
    path: PathBuf,
    offset: u64,
    unfinished: Vec<u8>,
}

impl LineReader {
    fn new(path: &Path, offset: u64) -> Self {
        Self { path: path.to_owned(), offset, unfinished: Vec::new() }
    }

    /// The next whole line with the pattern, as far as the file is written.
    fn find(&mut self, pattern: &str) -> io::Result<Option<String>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.offset))?;
        self.offset += file.read_to_end(&mut self.unfinished)? as u64;
        let mut start = 0;
        let mut found = None;
        while let Some(length) = self.unfinished[start..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.unfinished[start..start + length]);
            start += length + 1;
            if line.contains(pattern) {
                found = Some(line.trim_end().to_owned());
                break;
            }
        }
        self.unfinished.drain(..start);
        Ok(found)
    }
}
