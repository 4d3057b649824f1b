//! What the end-to-end and fault tests share: a kind whose records notice every loss, repeat and disorder; sites with
//! instances as threads or as processes; clients that retry.
//!
//! The tests themselves are in `tests/`, one file a property. Nothing here mocks anything: every test has its own
//! nats-servers.

pub mod audit;
pub mod copies;
pub mod counter;
pub mod gate;
pub mod place;
pub mod takeover;
pub mod three_sites;
pub mod workload;
