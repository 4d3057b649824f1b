//! One nats-server: its options, its configuration file, and the running child.
//!
//! Everything it has lives in one directory, which it locks: two servers on one JetStream store would destroy it.

mod config;
mod error;
mod instance;
mod monitor;
mod options;

pub use error::{DirectoryInUse, DirectoryUnusable, NotReady, PortTaken, ServerError};
pub use instance::Server;
pub use monitor::read_monitoring;
pub use options::{ClusterOptions, JetStreamOptions, LeafListenOptions, LeafRemote, ServerOptions};
