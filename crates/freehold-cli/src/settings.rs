//! The configuration: defaults < `freehold.toml` < `FREEHOLD_…` variables < flags.
//!
//! A file may be shared with a service: every key of a service's configuration is known here. The keys of this command alone
//! are `kinds`, `groups` and `timeout_ms`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use figment::Figment;
use figment::error::Kind;
use figment::providers::{Env, Format as _, Serialized, Toml};
use serde::{Deserialize, Serialize};

use freehold_core::{GroupCount, InstanceName, KindName, Retention, SiteName};
use freehold_jetstream::ConnectOptions;

const DEFAULT_URL: &str = "nats://127.0.0.1:4222";
const DEFAULT_FILE: &str = "freehold.toml";
/// Variables that other parts of Freehold read.
const OTHER_VARIABLES: [&str; 4] = ["seed", "keep", "cache", "config"];

/// What the file and the variables say; nothing where they say nothing.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// The site to provision.
    pub(crate) site: Option<SiteName>,
    /// All sites.
    pub(crate) sites: Vec<SiteName>,
    /// The kinds.
    pub(crate) kinds: Vec<KindName>,
    /// Groups of a kind.
    pub(crate) groups: Option<GroupCount>,
    /// Where the servers are, and as whom to connect.
    pub(crate) nats: ConnectOptions,
    /// How long a request may take.
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) replicas: Option<usize>,
    #[serde(flatten)]
    pub(crate) service: ServiceSettings,
}

/// Keys of a service that `dev` hands on to its instances.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ServiceSettings {
    pub(crate) outcomes_ms: Option<u64>,
    pub(crate) history: Option<u64>,
    pub(crate) max_command_log_bytes: Option<i64>,
    pub(crate) duplicate_window_ms: Option<u64>,
    pub(crate) audit_window_ms: Option<u64>,
    pub(crate) cache_bytes: Option<usize>,
    pub(crate) decide_timeout_ms: Option<u64>,
    pub(crate) max_requests: Option<usize>,
    instance: Option<InstanceName>,
    data_dir: Option<PathBuf>,
    provision: Option<bool>,
}
