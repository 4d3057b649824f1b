//! Runs real nats-servers on this machine: for `freehold dev`, the flights demo and all end-to-end tests.
//!
//! It owns: finding or fetching the `nats-server` program ([`nats_server`]), child processes and their logs
//! ([`Process`]), one nats-server with its directory and configuration ([`Server`]), and the shape of Freehold's
//! deployments in small: sites, the transit hub, and the links between them ([`Sandbox`]).
//!
//! It never speaks the NATS protocol (readiness is read from the server's monitoring port), knows nothing of
//! streams, listens on nothing but 127.0.0.1, and leaves no child behind when its owner is dropped.
//!
//! ```no_run
//! # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
//! let sandbox = freehold_sandbox::Sandbox::builder()
//!     .site("ewr")
//!     .site("jfk")
//!     .cuttable(true)
//!     .start()
//!     .await?;
//! println!("ewr: {}", sandbox.site("ewr").url());
//! sandbox.cut("ewr").await?;
//! sandbox.heal("ewr")?;
//! sandbox.wait_linked("ewr").await?;
//! sandbox.stop().await?;
//! # Ok(())
//! # }
//! ```

mod file_lock;
pub mod nats_server;
mod poll;
mod port;
mod process;
mod sandbox;
mod server;

pub use nats_server::{LocateError, LocateProgress, Locator, NatsServerBinary};
pub use poll::{DeadlinePassed, wait_until};
pub use process::{
    ExitedEarly, LineNotSeen, LogUnusable, NotSignalled, NotStarted, Process, ProcessError, ProcessOptions,
};
pub use sandbox::{Hub, Sandbox, SandboxBuilder, SandboxError, Site, SiteKind};
pub use server::{
    ClusterOptions, DirectoryInUse, DirectoryUnusable, JetStreamOptions, LeafListenOptions, LeafRemote, NotReady,
    PortTaken, Server, ServerError, ServerOptions, read_monitoring,
};
