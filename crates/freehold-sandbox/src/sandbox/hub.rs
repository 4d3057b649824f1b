//! The transit hub: where the sites' leaf node links meet, so that no site's end cuts others off. It stores nothing.

use std::path::Path;

use crate::nats_server::NatsServerBinary;
use crate::port::ReservedPort;
use crate::server::{LeafListenOptions, Server, ServerError, ServerOptions};

/// A nats-server without JetStream that listens for leaf nodes.
#[derive(Debug)]
pub struct Hub {
    server: Server,
    leaf_port: ReservedPort,
}

/// What [`Hub::start`] is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct HubOptions<'a> {
    pub(super) data_dir: &'a Path,
    pub(super) port: Option<u16>,
    pub(super) own_process_group: bool,
}

impl Hub {
    /// The hub's name among the servers.
    pub(super) const NAME: &'static str = "hub";

    pub(super) async fn start(binary: &NatsServerBinary, options: HubOptions<'_>) -> Result<Self, ServerError> {
        let mut server = ServerOptions::new(Self::NAME, options.data_dir.join(Self::NAME));
        server.port = options.port;
        let leaf_port = ReservedPort::pick().map_err(ServerError::NoPort)?;
        server.leaf_listen = Some(LeafListenOptions::on_port(leaf_port.number()));
        server.own_process_group = options.own_process_group;
        let server = Server::start(binary, server).await?;
        Ok(Self { server, leaf_port })
    }

    /// The server: to be killed, paused, restarted.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Where clients connect; they are rarely of use here.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Where leaf nodes connect, past all links that can be cut.
    pub fn leaf_port(&self) -> u16 {
        self.leaf_port.number()
    }
}
