//! A site: one nats-server, or three in a cluster, with a JetStream domain of its own and a leaf node link to the hub.

use std::path::Path;
use std::time::Duration;

use super::error::SandboxError;
use super::link::Link;
use crate::nats_server::NatsServerBinary;
use crate::poll::{DeadlinePassed, poll, wait_until};
use crate::port::ReservedPort;
use crate::server::{ClusterOptions, JetStreamOptions, LeafRemote, Server, ServerError, ServerOptions};

/// The second token of the subjects that a site's streams capture: commands, updates, results, control messages,
/// forwarded commands, dead letters.
const STREAM_SUBJECTS: [&str; 6] = ["cmd", "rec", "res", "ctl", "fwd", "dead"];
/// An election takes one to nine seconds.
const CLUSTER_DEADLINE: Duration = Duration::from_secs(30);
/// A lost link is tried again each 250 ms, and the server waits up to a second more at random.
const LINK_DEADLINE: Duration = Duration::from_secs(15);

/// How many servers a site has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SiteKind {
    /// One server: streams are R1.
    Single,
    /// Three servers in a cluster: streams can be R3.
    Cluster3,
}

impl SiteKind {
    pub(super) fn server_count(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Cluster3 => 3,
        }
    }
}

/// A place with its own nats-servers and its own JetStream domain, which has the site's name.
#[derive(Debug)]
pub struct Site {
    name: String,
    kind: SiteKind,
    servers: Vec<Server>,
    link: Option<Link>,
    has_hub: bool,
    /// The members' cluster ports, so that nobody else picks them.
    _cluster_ports: Vec<ReservedPort>,
}

/// What [`Site::launch`] is told.
#[derive(Debug)]
pub(super) struct SiteOptions<'a> {
    pub(super) name: String,
    pub(super) kind: SiteKind,
    pub(super) data_dir: &'a Path,
    /// The client port of each server; as many as the kind has servers.
    pub(super) ports: Vec<Option<u16>>,
    /// Where the hub listens, if there is one.
    pub(super) hub_leaf_port: Option<u16>,
    pub(super) cuttable: bool,
    pub(super) sync_always: bool,
    pub(super) own_process_group: bool,
    pub(super) extra_config: &'a str,
}

impl Site {
    /// Starts the servers and does not wait for them: several sites can start at the same time.
    pub(super) async fn launch(binary: &NatsServerBinary, options: SiteOptions<'_>) -> Result<Self, SandboxError> {
        let link = match options.hub_leaf_port {
            Some(port) if options.cuttable => Some(Link::start(port).await.map_err(SandboxError::LinkProxy)?),
            _ => None,
        };
        let remote_port = link.as_ref().map(Link::port).or(options.hub_leaf_port);
        let cluster_ports = match options.kind {
            SiteKind::Single => Vec::new(),
            SiteKind::Cluster3 => (0..options.kind.server_count())
                .map(|_| ReservedPort::pick())
                .collect::<Result<_, _>>()
                .map_err(ServerError::NoPort)?,
        };
        let mut servers = Vec::new();
        for (index, port) in options.ports.iter().enumerate() {
            let name = match options.kind {
                SiteKind::Single => options.name.clone(),
                SiteKind::Cluster3 => format!("{}-{}", options.name, index + 1),
            };
            let mut server = ServerOptions::new(&name, options.data_dir.join(&options.name).join(&name));
            server.port = *port;
            server.jetstream = Some(JetStreamOptions {
                sync_always: options.sync_always,
                ..JetStreamOptions::in_domain(&options.name)
            });
            server.leaf_remotes.extend(remote_port.map(|port| leaf_remote(&options.name, port)));
            server.cluster = cluster_ports.get(index).map(|own| {
                let all = cluster_ports.iter().map(ReservedPort::number).collect();
                ClusterOptions::new(&options.name, own.number(), all)
            });
            server.own_process_group = options.own_process_group;
            server.extra_config = options.extra_config.to_owned();
            servers.push(Server::launch(binary, server)?);
        }
        Ok(Self {
            name: options.name,
            kind: options.kind,
            servers,
            link,
            has_hub: options.hub_leaf_port.is_some(),
            _cluster_ports: cluster_ports,
        })
    }

    /// Waits until all servers take connections, a cluster is complete, and the link to the hub stands.
    pub(super) async fn wait_started(&self) -> Result<(), SandboxError> {
        for server in &self.servers {
            server.wait_ready().await?;
        }
        self.wait_complete().await?;
        if self.has_hub {
            self.wait_linked().await?;
        }
        Ok(())
    }

    /// The site's name, which is its JetStream domain too.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many servers it has.
    pub fn kind(&self) -> SiteKind {
        self.kind
    }

    /// Where clients connect: at its only server, or the first one of a cluster.
    pub fn url(&self) -> String {
        self.server().url()
    }

    /// The URLs of all its servers: clients that are to survive one of them need more than [`url`](Self::url).
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(Server::url).collect()
    }

    /// Its servers: to be killed, paused, restarted.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// Its only server, or the first one of a cluster.
    pub fn server(&self) -> &Server {
        &self.servers[0]
    }

    /// The server that leads the cluster's JetStream, when all members are there and up to date; the only server of a
    /// single site.
    pub async fn meta_leader(&self) -> Option<&Server> {
        if self.kind == SiteKind::Single {
            return self.servers.first();
        }
        for server in &self.servers {
            if server.leads_complete_cluster(self.servers.len()).await {
                return Some(server);
            }
        }
        None
    }

    /// Waits until a cluster has a leader and all members; a single site is always complete.
    ///
    /// # Errors
    /// When that takes longer than 30 seconds.
    pub async fn wait_complete(&self) -> Result<(), DeadlinePassed> {
        poll(CLUSTER_DEADLINE, || self.meta_leader()).await.map(drop).ok_or_else(|| DeadlinePassed {
            condition: format!("the cluster of site {} to be complete", self.name),
            waited: CLUSTER_DEADLINE,
        })
    }

    /// Whether each running server of it has its link to the hub.
    pub async fn is_linked(&self) -> bool {
        for server in self.servers.iter().filter(|server| server.is_running()) {
            if server.leaf_connections().await.unwrap_or(0) == 0 {
                return false;
            }
        }
        true
    }

    /// Waits for [`is_linked`](Self::is_linked).
    ///
    /// # Errors
    /// When that takes longer than 15 seconds.
    pub async fn wait_linked(&self) -> Result<(), DeadlinePassed> {
        wait_until(&format!("the link of site {} to the hub", self.name), LINK_DEADLINE, || self.is_linked()).await
    }

    pub(super) fn link(&self) -> Option<&Link> {
        self.link.as_ref()
    }
}

/// A link to the hub through which no peer can write into this site's streams: what another site publishes on their
/// subjects would else cross the link and be stored. Mirrors and sources are not concerned, they deliver on subjects
/// of their own.
fn leaf_remote(site: &str, port: u16) -> LeafRemote {
    let mut remote = LeafRemote::new(format!("nats-leaf://127.0.0.1:{port}"));
    remote.deny_imports = STREAM_SUBJECTS.iter().map(|class| format!("fh.{site}.{class}.>")).collect();
    remote
}
