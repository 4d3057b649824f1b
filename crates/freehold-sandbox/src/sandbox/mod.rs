//! Freehold's deployments in small: sites, the transit hub, and links that can be cut.

mod builder;
mod error;
mod hub;
mod link;
mod site;
mod topology;

pub use builder::SandboxBuilder;
pub use error::SandboxError;
pub use hub::Hub;
pub use site::{Site, SiteKind};
pub use topology::Sandbox;
