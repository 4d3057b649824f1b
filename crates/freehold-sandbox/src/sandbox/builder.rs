//! What a sandbox is to be, and its start.

use std::collections::HashSet;
use std::path::PathBuf;

use super::error::SandboxError;
use super::hub::{Hub, HubOptions};
use super::site::{Site, SiteKind, SiteOptions};
use super::topology::{DataDirectory, Sandbox};
use crate::nats_server::NatsServerBinary;

/// Builds a [`Sandbox`]: see [`Sandbox::builder`].
#[derive(Debug, Clone, Default)]
pub struct SandboxBuilder {
    binary: Option<NatsServerBinary>,
    data_dir: Option<PathBuf>,
    hub: Option<bool>,
    sites: Vec<(String, SiteKind)>,
    cuttable: bool,
    sync_always: bool,
    base_port: Option<u16>,
    own_process_group: bool,
    extra_config: String,
}

impl SandboxBuilder {
    /// The program to run; without it, [`NatsServerBinary::locate`] is asked.
    #[must_use]
    pub fn binary(mut self, binary: NatsServerBinary) -> Self {
        self.binary = Some(binary);
        self
    }

    /// Keeps everything in this directory, and goes on with what is stored there. Without it, a temporary directory
    /// is used and removed in the end.
    #[must_use]
    pub fn data_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(directory.into());
        self
    }

    /// Whether there is a transit hub; by default there is one as soon as there are two sites.
    #[must_use]
    pub fn hub(mut self, hub: bool) -> Self {
        self.hub = Some(hub);
        self
    }

    /// Adds a site with one server.
    #[must_use]
    pub fn site(self, name: impl Into<String>) -> Self {
        self.site_of_kind(name, SiteKind::Single)
    }

    /// Adds a site with a cluster of three servers.
    #[must_use]
    pub fn clustered_site(self, name: impl Into<String>) -> Self {
        self.site_of_kind(name, SiteKind::Cluster3)
    }

    /// Adds a site.
    #[must_use]
    pub fn site_of_kind(mut self, name: impl Into<String>, kind: SiteKind) -> Self {
        self.sites.push((name.into(), kind));
        self
    }

    /// Puts a proxy into each link to the hub, so that it can be [cut](Sandbox::cut).
    #[must_use]
    pub fn cuttable(mut self, cuttable: bool) -> Self {
        self.cuttable = cuttable;
        self
    }

    /// Fsyncs each message before it is acknowledged.
    #[must_use]
    pub fn sync_always(mut self, sync_always: bool) -> Self {
        self.sync_always = sync_always;
        self
    }

    /// The client port of the first site; the further sites get the numbers after it in their order, then the hub,
    /// then the second and third servers of clusters. Without it, free ports are picked.
    #[must_use]
    pub fn port(mut self, base: Option<u16>) -> Self {
        self.base_port = base;
        self
    }

    /// See [`ProcessOptions::own_process_group`](crate::ProcessOptions::own_process_group).
    #[must_use]
    pub fn own_process_group(mut self, own: bool) -> Self {
        self.own_process_group = own;
        self
    }

    /// More of nats-server's configuration language for every server of every site.
    #[must_use]
    pub fn extra_config(mut self, text: impl Into<String>) -> Self {
        self.extra_config = text.into();
        self
    }

    /// Starts everything and waits until it is ready: servers, clusters, links.
    ///
    /// # Errors
    /// When a name is bad, a port taken, the data directory in use, there is no nats-server, or a server does not
    /// become ready. What was started is then stopped again.
    pub async fn start(self) -> Result<Sandbox, SandboxError> {
        check_names(&self.sites)?;
        let mut ports = Ports::assign(self.base_port, &self.sites)?;
        let binary = match self.binary {
            Some(binary) => binary,
            None => NatsServerBinary::locate(&mut |progress| tracing::info!(?progress, "nats-server")).await?,
        };
        let directory = DataDirectory::open(self.data_dir)?;
        let hub = match self.hub.unwrap_or(self.sites.len() > 1) {
            true => {
                let options = HubOptions {
                    data_dir: directory.path(),
                    port: ports.hub,
                    own_process_group: self.own_process_group,
                };
                Some(Hub::start(&binary, options).await?)
            }
            false => None,
        };
        let mut sandbox = Sandbox::new(hub, directory);
        for ((name, kind), ports) in self.sites.into_iter().zip(ports.sites.drain(..)) {
            let options = SiteOptions {
                name,
                kind,
                data_dir: sandbox.data_dir(),
                ports,
                hub_leaf_port: sandbox.hub().map(Hub::leaf_port),
                cuttable: self.cuttable,
                sync_always: self.sync_always,
                own_process_group: self.own_process_group,
                extra_config: &self.extra_config,
            };
            let site = Site::launch(&binary, options).await?;
            sandbox.add(site);
        }
        for site in sandbox.sites() {
            site.wait_started().await?;
        }
        Ok(sandbox)
    }
}

/// The client ports of all servers.
#[derive(Debug, PartialEq, Eq)]
struct Ports {
    sites: Vec<Vec<Option<u16>>>,
    hub: Option<u16>,
}

impl Ports {
    fn assign(base: Option<u16>, sites: &[(String, SiteKind)]) -> Result<Self, SandboxError> {
        let mut next = base;
        let mut take = || match (base, next) {
            (None, _) => Ok(None),
            (Some(first), None) => Err(SandboxError::PortRange { first }),
            (Some(_), Some(port)) => {
                next = port.checked_add(1);
                Ok(Some(port))
            }
        };
        let mut assigned = Vec::new();
        for _ in sites {
            assigned.push(vec![take()?]);
        }
        let hub = take()?;
        for (ports, (_, kind)) in assigned.iter_mut().zip(sites) {
            while ports.len() < kind.server_count() {
                ports.push(take()?);
            }
        }
        Ok(Self { sites: assigned, hub })
    }
}

fn check_names(sites: &[(String, SiteKind)]) -> Result<(), SandboxError> {
    let mut seen = HashSet::from([Hub::NAME]);
    for (name, _) in sites {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
        if name.is_empty() || !name.bytes().all(allowed) {
            return Err(SandboxError::InvalidSiteName { name: name.clone() });
        }
        if !seen.insert(name) {
            return Err(SandboxError::DuplicateName { name: name.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sites(kinds: &[SiteKind]) -> Vec<(String, SiteKind)> {
        kinds.iter().enumerate().map(|(index, kind)| (format!("s{index}"), *kind)).collect()
    }

    #[test]
    fn the_first_site_gets_the_base_port_and_the_hub_follows_the_sites() {
        let sites = sites(&[SiteKind::Cluster3, SiteKind::Single]);
        let ports = Ports::assign(Some(4222), &sites).unwrap();
        let expected = vec![vec![Some(4222), Some(4225), Some(4226)], vec![Some(4223)]];
        assert_eq!(ports, Ports { sites: expected, hub: Some(4224) });
    }

    #[test]
    fn without_a_base_port_none_is_named() {
        let ports = Ports::assign(None, &sites(&[SiteKind::Single])).unwrap();
        assert_eq!(ports, Ports { sites: vec![vec![None]], hub: None });
    }

    #[test]
    fn port_numbers_can_run_out() {
        let result = Ports::assign(Some(65535), &sites(&[SiteKind::Single]));
        assert!(matches!(result, Err(SandboxError::PortRange { first: 65535 })));
    }

    #[test]
    fn bad_and_repeated_names_are_refused() {
        for name in ["", "EWR", "a.b", "a/b", "a b", "*"] {
            let result = check_names(&[(name.to_owned(), SiteKind::Single)]);
            assert!(matches!(result, Err(SandboxError::InvalidSiteName { .. })), "{name:?}");
        }
        for names in [["ewr", "ewr"], ["ewr", "hub"]] {
            let result = check_names(&names.map(|name| (name.to_owned(), SiteKind::Single)));
            assert!(matches!(result, Err(SandboxError::DuplicateName { .. })), "{names:?}");
        }
    }
}
