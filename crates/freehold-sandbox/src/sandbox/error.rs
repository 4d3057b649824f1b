//! Why a sandbox could not be started or changed.

use std::io;

use crate::nats_server::LocateError;
use crate::poll::DeadlinePassed;
use crate::server::ServerError;

/// Why a [`Sandbox`](super::Sandbox) could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// A site's name becomes part of subjects, stream names and paths.
    #[error("{name:?} is no name for a site: use lower case letters, digits, - and _")]
    InvalidSiteName {
        /// The name.
        name: String,
    },
    /// The name was given twice, or is the hub's.
    #[error("there is already a {name}")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// The port numbers after the first one run out of range.
    #[error("there are not enough port numbers after {first}")]
    PortRange {
        /// The first port.
        first: u16,
    },
    /// There is no such site.
    #[error("there is no site {name}")]
    NoSuchSite {
        /// The name.
        name: String,
    },
    /// The site has no link that could be cut.
    #[error("the link of site {name} cannot be cut: build the sandbox with a hub and `cuttable(true)`")]
    NotCuttable {
        /// The name.
        name: String,
    },
    /// There is no nats-server to run.
    #[error(transparent)]
    Locate(#[from] LocateError),
    /// The temporary directory could not be made.
    #[error("cannot make a temporary directory")]
    TemporaryDirectory(#[source] io::Error),
    /// The proxy of a link could not be started.
    #[error("cannot start the proxy of a link")]
    LinkProxy(#[source] io::Error),
    /// A server could not be started or signalled.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The sandbox did not come into the awaited state in time.
    #[error(transparent)]
    DeadlinePassed(#[from] DeadlinePassed),
}
