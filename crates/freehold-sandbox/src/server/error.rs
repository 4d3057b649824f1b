//! Why a server could not be started, signalled or asked.

use std::io;
use std::path::PathBuf;

use crate::poll::DeadlinePassed;
use crate::process::{ExitedEarly, ProcessError};

/// Why a [`Server`](super::Server) could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Its directory could not be made or written.
    #[error(transparent)]
    DirectoryUnusable(#[from] DirectoryUnusable),
    /// Another server has its directory.
    #[error(transparent)]
    DirectoryInUse(#[from] DirectoryInUse),
    /// The port that was asked for is taken.
    #[error(transparent)]
    PortTaken(#[from] PortTaken),
    /// No port could be picked.
    #[error("cannot pick a free port")]
    NoPort(#[source] io::Error),
    /// The child process could not be started or signalled.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The server ended while it was waited for.
    #[error(transparent)]
    ExitedEarly(#[from] ExitedEarly),
    /// The server runs, and was not ready in time.
    #[error(transparent)]
    NotReady(#[from] NotReady),
}

/// The directory could not be made or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
pub struct DirectoryUnusable {
    /// The directory, or the file in it.
    pub path: PathBuf,
    #[source]
    pub(super) source: io::Error,
}

/// Another server has the directory: started by another program, or left over from one that was killed.
#[derive(Debug, thiserror::Error)]
#[error("{} is in use by another nats-server (process id {pid}): stop that one first", path.display())]
pub struct DirectoryInUse {
    /// The directory.
    pub path: PathBuf,
    /// The other server's process id, as far as it is known.
    pub pid: String,
}

/// The port that was asked for is taken.
#[derive(Debug, thiserror::Error)]
#[error("port {port} for {name} is taken by another program: choose another one, or stop that program")]
pub struct PortTaken {
    /// The server's name.
    pub name: String,
    /// The port.
    pub port: u16,
}

/// The server runs, and was not ready in time.
#[derive(Debug, thiserror::Error)]
#[error("{passed}; the end of its log:\n{log_tail}")]
pub struct NotReady {
    /// What was waited for.
    pub passed: DeadlinePassed,
    /// The end of its log.
    pub log_tail: String,
}
