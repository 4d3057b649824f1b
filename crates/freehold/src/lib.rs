//! Freehold: services whose every record has one system of record, on NATS JetStream.
//!
//! What a service needs is in the [`prelude`]; the crates behind it are re-exported for those who look deeper.

pub use freehold_core as core;
pub use freehold_runtime as runtime;

/// What a service written on Freehold uses.
pub mod prelude {
    pub use freehold_core::{
        Command, CommandId, DecisionContext, EmittedCommand, HomeRule, Kind, KindDefinition, LogTime, Never, Record,
        RecordId, Rejection, SiteName, Verdict,
    };
}
