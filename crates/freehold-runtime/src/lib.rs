//! A running Freehold service: request handlers, group workers, copy appliers and the store thread.
//!
//! ```text
//!  Micro ─▶ RequestHandler ─▶ CommandLog                 RecordsReader ─▶ applier ─▶ store thread ─▶ redb
//!              ▲    (append)      │ consumer of a claim        ▲                        │
//!              │                  ▼                            │ records log            │ outcomes, progress
//!              │             GroupWorker ── fenced publish ────┘                        │
//!              └──────────────────── Waiters ◀──────────────────────────────────────────┘
//! ```
//!
//! What is decided, and under which claim, is up to `freehold-core`; this crate carries its effects out and feeds it events.
//! Only the store thread writes the copy.

mod admission;
mod adopter;
mod applier;
mod applying;
mod config;
mod confirmations;
mod copy;
mod discovery;
mod failure;
mod group_worker;
mod homecoming;
mod instance;
mod instance_api;
mod loss_care;
mod losses;
mod membership;
mod metrics;
mod operator_requests;
mod origin_watch;
mod past;
mod read_requests;
mod request_handler;
mod service;
mod store_thread;
mod takeover_requests;
mod wait_mode;

pub use config::{Alone, ConfigError, ServiceConfig};
pub use instance_api::{
    DigestAnswer, DigestRequest, GroupRecord, GroupRecordsAnswer, GroupRecordsRequest, OriginDigest,
};
pub use read_requests::RESERVED_ENDPOINTS;
pub use service::{RunningService, Service, ServiceBuilder, ServiceError, StartError};
pub use takeover_requests::{LossAnswer, LossRequest, SealAnswer, SealRequest, TakeOverAnswer, TakeOverRequest};
pub use wait_mode::{WaitMode, WaitModeError};
