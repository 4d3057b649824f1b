//! Freehold: services whose every record has one system of record, on NATS JetStream.
//!
//! A service is a record type, one type for each command with a pure `decide`, and a `main` of a few lines; what it needs is
//! in the [`prelude`]. The crates behind this one are re-exported for those who look deeper.

pub use freehold_core as core;
pub use freehold_jetstream as jetstream;
pub use freehold_runtime as runtime;

pub use freehold_jetstream::{Answer, Client, ConnectOptions, SendOptions};
pub use freehold_runtime::{
    ConfigError, RunningService, Service, ServiceBuilder, ServiceConfig, ServiceError, StartError,
};

/// What a service written on Freehold uses.
pub mod prelude {
    pub use freehold_core::{
        Command, CommandId, DecisionContext, EmittedCommand, HomeRule, Kind, KindDefinition, LogTime, Never, Record,
        RecordId, Rejection, SiteName, Verdict,
    };
    pub use freehold_runtime::{Service, ServiceConfig};
}
