//! A nats-server program that has been asked for its version.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::OnceCell;

use super::error::{LocateError, UnusableBinary};
use super::locator::{LocateProgress, Locator};
use super::version::{MINIMUM, NatsServerVersion};

/// `--version` takes milliseconds; a program that takes this long is something else.
const VERSION_DEADLINE: Duration = Duration::from_secs(10);
/// How much of a wrong answer is quoted.
const QUOTED_CHARS: usize = 200;

/// A nats-server program that can be run and is new enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsServerBinary {
    path: PathBuf,
    version: NatsServerVersion,
    origin: Origin,
}

/// Where a program was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// Named by the caller or by `$NATS_SERVER`.
    Configured,
    /// On PATH.
    Path,
    /// Fetched by an earlier call, and verified now.
    Cache,
    /// Fetched by this call.
    Fetched,
}

impl NatsServerBinary {
    /// Finds or fetches a nats-server, once in the life of this process; see [`Locator`] for the order.
    ///
    /// # Errors
    /// When `$NATS_SERVER` names an unusable program, or nothing was found anywhere.
    pub async fn locate(progress: &mut (dyn FnMut(LocateProgress) + Send)) -> Result<Self, LocateError> {
        static LOCATED: OnceCell<NatsServerBinary> = OnceCell::const_new();
        let locator = Locator::from_env();
        LOCATED.get_or_try_init(|| locator.locate(progress)).await.cloned()
    }

    /// Takes the program at `path`, after asking it for its version.
    ///
    /// # Errors
    /// When it cannot be run, is no nats-server, or is too old.
    pub async fn at(path: impl Into<PathBuf>) -> Result<Self, UnusableBinary> {
        Self::inspect(path.into(), Origin::Configured).await
    }

    pub(super) async fn inspect(path: PathBuf, origin: Origin) -> Result<Self, UnusableBinary> {
        let version = ask_version(&path).await?;
        if version < MINIMUM {
            return Err(UnusableBinary::TooOld { found: version });
        }
        Ok(Self { path, version, origin })
    }

    /// The program.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says its version is.
    pub fn version(&self) -> NatsServerVersion {
        self.version
    }

    /// Where it was found.
    pub fn origin(&self) -> Origin {
        self.origin
    }
}

async fn ask_version(path: &Path) -> Result<NatsServerVersion, UnusableBinary> {
    let output = Command::new(path).arg("--version").stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(VERSION_DEADLINE, output)
        .await
        .map_err(|_| UnusableBinary::NoAnswer(VERSION_DEADLINE))?
        .map_err(UnusableBinary::NotRunnable)?;
    let answer = String::from_utf8_lossy(&output.stdout);
    answer.parse().map_err(|_| {
        let said = if answer.trim().is_empty() { String::from_utf8_lossy(&output.stderr) } else { answer.clone() };
        UnusableBinary::NotNatsServer { answer: said.trim().chars().take(QUOTED_CHARS).collect() }
    })
}
