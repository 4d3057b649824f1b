//! What a server is to be. Plain data, no I/O.

use std::path::PathBuf;

/// What one nats-server is to be. It listens on 127.0.0.1 only, whatever is chosen.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerOptions {
    /// The server's name; a JetStream cluster knows its members by it.
    pub name: String,
    /// Holds the configuration, the log and the JetStream store. Made when missing; what is stored in it is used again.
    pub data_dir: PathBuf,
    /// The client port; `None` picks a free one, which stays the same over restarts.
    pub port: Option<u16>,
    /// JetStream, when wanted.
    pub jetstream: Option<JetStreamOptions>,
    /// The listener for other servers' leaf node connections, when wanted.
    pub leaf_listen: Option<LeafListenOptions>,
    /// The servers that this one connects to as a leaf node.
    pub leaf_remotes: Vec<LeafRemote>,
    /// The cluster that it belongs to, if any.
    pub cluster: Option<ClusterOptions>,
    /// More of nats-server's configuration language, put at the end of the file as it is.
    pub extra_config: String,
    /// See [`ProcessOptions::own_process_group`](crate::ProcessOptions::own_process_group).
    pub own_process_group: bool,
}

impl ServerOptions {
    /// A server without JetStream, leaf nodes or cluster, on any free port.
    pub fn new(name: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            data_dir: data_dir.into(),
            port: None,
            jetstream: None,
            leaf_listen: None,
            leaf_remotes: Vec::new(),
            cluster: None,
            extra_config: String::new(),
            own_process_group: false,
        }
    }
}

/// How JetStream is to be set up. The default has no domain, syncs each two minutes and sets no limits.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct JetStreamOptions {
    /// The JetStream domain: the site's name.
    pub domain: Option<String>,
    /// `sync_interval: always`: each message is fsynced before it is acknowledged.
    pub sync_always: bool,
    /// The most that all file streams may take together; by default the server chooses.
    pub max_file_store_bytes: Option<u64>,
    /// The most that all memory streams may take together; by default the server chooses.
    pub max_memory_store_bytes: Option<u64>,
}

impl JetStreamOptions {
    /// JetStream with a domain.
    pub fn in_domain(domain: impl Into<String>) -> Self {
        Self { domain: Some(domain.into()), ..Self::default() }
    }
}

/// How a server listens for leaf node connections.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LeafListenOptions {
    /// The port; `None` picks a free one, which stays the same over restarts.
    pub port: Option<u16>,
}

impl LeafListenOptions {
    /// Listens on this port.
    pub fn on_port(port: u16) -> Self {
        Self { port: Some(port) }
    }
}

/// One server that is connected to as a leaf node.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LeafRemote {
    /// Where it listens for leaf nodes: `nats-leaf://127.0.0.1:7422`.
    pub url: String,
    /// Subjects of which nothing comes in from the other side.
    pub deny_imports: Vec<String>,
    /// Subjects of which nothing goes out to the other side.
    pub deny_exports: Vec<String>,
    /// More of nats-server's configuration language for this remote: credentials, TLS, an account.
    pub extra_config: String,
}

impl LeafRemote {
    /// A remote without restrictions.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), deny_imports: Vec::new(), deny_exports: Vec::new(), extra_config: String::new() }
    }
}

/// One server's place in a cluster.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClusterOptions {
    /// The cluster's name.
    pub name: String,
    /// Where this server listens for the other members.
    pub port: u16,
    /// The cluster ports of all members, its own too if that is easier.
    pub route_ports: Vec<u16>,
}

impl ClusterOptions {
    /// A member that listens on `port` and looks for the others on `route_ports`.
    pub fn new(name: impl Into<String>, port: u16, route_ports: Vec<u16>) -> Self {
        Self { name: name.into(), port, route_ports }
    }
}
