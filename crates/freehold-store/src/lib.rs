//! An instance's copy of the records logs, in one redb file: records, outcomes, groups, digests and positions.
//!
//! Owns the file, its schema (one page: `schema.rs`) and its transactions. One [`Writer`] applies what the appliers have
//! read, many log messages in one transaction and one fsync; any number of [`Snapshot`]s, from a [`Reader`], see committed
//! states only. The rules of what a log message does to a copy are in `freehold_core::apply`; this crate only stores.
//!
//! Never: a clock, a network, NATS, async. Never a value that does not fit its checksum: whatever is damaged is an
//! [`Error::Corrupt`], and from the first failure on nothing is served or written until the file is opened again. The log
//! is the truth, so a damaged file is set aside ([`Store::set_aside`]) and rebuilt, never repaired by guessing.

mod cache;
mod change;
mod codec;
mod engine;
mod error;
mod health;
mod open;
mod reader;
mod rows;
mod schema;
mod snapshot;
mod store;
mod transaction;
mod writer;

pub use error::{Damage, Error, OpenError};
pub use reader::Reader;
pub use schema::{FORMAT_VERSION, OriginState};
pub use snapshot::{MAX_PAGE_ROWS, MAX_PAGE_SCAN_ROWS, Page, RecordSummary, Snapshot};
pub use store::{DEFAULT_CACHE_BYTES, Options, Store};
pub use transaction::{Expired, KEPT_OUTCOMES_REVISIT_MS, MAX_EXPIRED_OUTCOMES, Transaction};
pub use writer::Writer;
