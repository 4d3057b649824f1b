//! Finds the `nats-server` program, or fetches it.
//!
//! It owns the order of the places that are looked at ([`Locator`]), the least version, and the pinned hashes of the
//! copy that it fetches. It never runs a fetched file whose hash is not pinned here, and never falls back silently
//! from what the user named.

mod binary;
mod cache;
mod error;
mod locator;
mod pins;
mod pip;
mod version;

pub use binary::{NatsServerBinary, Origin};
pub use error::{Attempt, ConfiguredUnusable, LocateError, NothingFound, UnusableBinary};
pub use locator::{LocateProgress, Locator};
pub use version::{MINIMUM, NatsServerVersion};
