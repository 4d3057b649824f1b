//! Freehold on NATS: connections, streams, consumers, fenced publishing, member lists, the micro protocol and a client.
//!
//! The only crate of a service that names async-nats. It decides nothing: what is published, and under which claim, comes from
//! `freehold-core`; what becomes of the answers is up to `freehold-runtime`.

mod access;
mod arrivals;
mod client;
mod command_consumer;
mod command_feed;
mod command_log;
mod confirmations_log;
mod connection;
mod deliveries;
mod direct_read;
mod error;
mod inspection;
mod members;
mod micro;
mod provision;
mod publisher;
mod records_log;
mod records_reader;
mod sites_log;
mod stall;
mod stranded_log;

pub use access::{Access, Permission, USER_INFO};
pub use client::{Answer, Client, SendOptions};
pub use command_consumer::CommandConsumer;
pub use command_feed::CommandGroup;
pub use command_log::{AppendError, Appended, CommandLog, CommandLogRoom, CommandReader};
pub use confirmations_log::ConfirmationsLog;
pub use connection::{ConnectError, ConnectOptions, Connection, FencedConnection, MINIMUM_SERVER_VERSION, Probe};
pub use deliveries::DeliveryError;
pub use error::ApiError;
pub use inspection::{Inspection, StreamFacts, inspect};
pub use members::{Members, MembersEntry};
pub use micro::{EndpointInfo, Micro, MicroOptions, Reply, ReplyHeaders, Request};
pub use provision::{Plan, PlanStep, ProvisionError, ProvisionOptions, RecordsLogFacts, plan, read_records_log_facts};
pub use records_log::{RecordsLog, RecordsLogState};
pub use records_reader::{ReadFrom, ReadMessages, RecordsReader, RecordsReaderError};
pub use sites_log::{MirrorState, SitesLog};
pub use stranded_log::StrandedLog;
