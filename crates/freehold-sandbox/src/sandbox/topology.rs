//! The running sandbox: its sites, its hub, its directory; cuts and heals; the end.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::builder::SandboxBuilder;
use super::error::SandboxError;
use super::hub::Hub;
use super::link::Link;
use super::site::Site;
use crate::server::Server;

/// Sites, and the hub between them. Dropping it kills all its servers.
///
/// A temporary data directory is removed in the end, unless the environment variable `FREEHOLD_KEEP` is set,
/// [`keep`](Self::keep) was called, or the thread is panicking, as in a failed test: then its path is traced.
#[derive(Debug)]
pub struct Sandbox {
    // Dropped in this order: servers first, the directory after them.
    sites: Vec<Site>,
    hub: Option<Hub>,
    directory: DataDirectory,
}

impl Sandbox {
    /// Says what the sandbox is to be.
    pub fn builder() -> SandboxBuilder {
        SandboxBuilder::default()
    }

    pub(super) fn new(hub: Option<Hub>, directory: DataDirectory) -> Self {
        Self { sites: Vec::new(), hub, directory }
    }

    pub(super) fn add(&mut self, site: Site) {
        self.sites.push(site);
    }

    /// The transit hub, if there is one.
    pub fn hub(&self) -> Option<&Hub> {
        self.hub.as_ref()
    }

    /// The sites, in the order in which they were added.
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// The site with this name.
    ///
    /// # Panics
    /// When there is none: the names were written in the same test or command. See [`find_site`](Self::find_site).
    pub fn site(&self, name: &str) -> &Site {
        match self.find_site(name) {
            Some(site) => site,
            None => panic!("the sandbox has no site {name}"),
        }
    }

    /// The site with this name, if there is one.
    pub fn find_site(&self, name: &str) -> Option<&Site> {
        self.sites.iter().find(|site| site.name() == name)
    }

    /// All servers: those of the sites, then the hub's.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.sites.iter().flat_map(Site::servers).chain(self.hub.as_ref().map(Hub::server))
    }

    /// Where everything is stored.
    pub fn data_dir(&self) -> &Path {
        self.directory.path()
    }

    /// Cuts a site off from the hub, and so from all other sites; its servers go on. Returns when the connections are
    /// closed; the servers notice at once.
    ///
    /// # Errors
    /// When there is no such site, or the sandbox was not built with `cuttable(true)`.
    pub async fn cut(&self, site: &str) -> Result<(), SandboxError> {
        Ok(self.link(site)?.cut().await?)
    }

    /// Ends a [`cut`](Self::cut). The servers connect again by themselves within some hundred milliseconds: see
    /// [`wait_linked`](Self::wait_linked).
    ///
    /// # Errors
    /// Those of [`cut`](Self::cut).
    pub fn heal(&self, site: &str) -> Result<(), SandboxError> {
        self.link(site)?.heal();
        Ok(())
    }

    /// Waits until each running server of the site has its link to the hub.
    ///
    /// # Errors
    /// When there is no such site, or that takes longer than 15 seconds.
    pub async fn wait_linked(&self, site: &str) -> Result<(), SandboxError> {
        let found = self.find_site(site).ok_or_else(|| SandboxError::NoSuchSite { name: site.to_owned() })?;
        Ok(found.wait_linked().await?)
    }

    /// Does not remove a temporary data directory in the end.
    pub fn keep(&mut self) {
        self.directory.keep = true;
    }

    /// Stops all servers in an orderly way.
    ///
    /// # Errors
    /// When the system does not carry out a signal.
    pub async fn stop(self) -> Result<(), SandboxError> {
        for server in self.servers() {
            server.process().request_stop().map_err(crate::server::ServerError::from)?;
        }
        for server in self.servers() {
            server.stop().await?;
        }
        Ok(())
    }

    fn link(&self, name: &str) -> Result<&Link, SandboxError> {
        let site = self.find_site(name).ok_or_else(|| SandboxError::NoSuchSite { name: name.to_owned() })?;
        site.link().ok_or_else(|| SandboxError::NotCuttable { name: name.to_owned() })
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // All at once; each one is waited for when its field is dropped.
        for server in self.servers() {
            server.process().request_kill();
        }
    }
}

/// The directory of everything: the caller's, or a temporary one.
#[derive(Debug)]
pub(super) struct DataDirectory {
    path: PathBuf,
    temporary: Option<TempDir>,
    keep: bool,
}

impl DataDirectory {
    pub(super) fn open(given: Option<PathBuf>) -> Result<Self, SandboxError> {
        match given {
            Some(path) => Ok(Self { path, temporary: None, keep: true }),
            None => {
                let temporary = tempfile::Builder::new()
                    .prefix("freehold-sandbox-")
                    .tempdir()
                    .map_err(SandboxError::TemporaryDirectory)?;
                let keep = std::env::var_os("FREEHOLD_KEEP").is_some_and(|value| !value.is_empty());
                Ok(Self { path: temporary.path().to_owned(), temporary: Some(temporary), keep })
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for DataDirectory {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.take()
            && (self.keep || std::thread::panicking())
        {
            let path = temporary.keep();
            tracing::warn!(path = %path.display(), "the sandbox's directory is kept");
        }
    }
}
