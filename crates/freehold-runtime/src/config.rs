//! What an instance is told: who it is, where its servers are, how much of everything it may use.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};

use freehold_core::{InstanceName, Retention, SiteName};
use freehold_jetstream::ConnectOptions;
use freehold_store::DEFAULT_CACHE_BYTES;

use crate::wait_mode::WaitMode;

/// The configuration of one instance. Defaults < `freehold.toml` < `FREEHOLD_…` < flags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ServiceConfig {
    /// The site that this instance belongs to.
    pub site: SiteName,
    /// All sites whose records it keeps copies of; its own is always among them.
    #[serde(default)]
    pub sites: Vec<SiteName>,
    /// The instance's name, unique within its site.
    pub instance: InstanceName,
    /// Where the site's nats-servers are, and as whom to connect.
    #[serde(default = "default_connect")]
    pub nats: ConnectOptions,
    /// The directory of the copy.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// Memory that redb may use as cache, in bytes.
    #[serde(default = "default_cache_bytes")]
    pub cache_bytes: usize,
    /// Whether the instance makes what is missing at its site.
    #[serde(default = "default_true")]
    pub provision: bool,
    /// Copies of each stream within the site: 1 or 3. Used when the instance provisions.
    #[serde(default = "default_replicas")]
    pub replicas: usize,
    /// How long outcomes are kept, in milliseconds of log time: W.
    #[serde(default = "default_outcomes_ms")]
    pub outcomes_ms: u64,
    /// Updates of a record that the log keeps, at least 8: N.
    #[serde(default = "default_history")]
    pub history: u64,
    /// How long decided commands stay in the command log, in milliseconds of log time.
    #[serde(default = "default_audit_window_ms")]
    pub audit_window_ms: u64,
    /// The most bytes that the command log holds. Used when the instance provisions.
    #[serde(default = "default_max_command_log_bytes")]
    pub max_command_log_bytes: i64,
    /// How long the server remembers the message ids of commands, in milliseconds. Used when the instance provisions.
    #[serde(default = "default_duplicate_window_ms")]
    pub duplicate_window_ms: u64,
    /// How long a request waits for its outcome, in milliseconds.
    #[serde(default = "default_decide_timeout_ms")]
    pub decide_timeout_ms: u64,
    /// What a change waits for where the caller does not say: `accepted`, `applied` or `sites=N`.
    #[serde(default)]
    pub default_wait: WaitMode,
    /// The least that every change waits for, whatever the caller says.
    #[serde(default = "default_least_wait")]
    pub least_wait: WaitMode,
    /// What a site does that starts while no other site answers, and so cannot know whether it was taken over.
    #[serde(default)]
    pub alone: Alone,
    /// Requests that are worked on at a time; more are refused (`busy`).
    #[serde(default = "default_max_requests")]
    pub max_requests: usize,
    /// Where Prometheus can scrape what the instance counts and measures, as in `127.0.0.1:9090`; nothing where nowhere.
    #[serde(default)]
    pub metrics_address: Option<SocketAddr>,
}

/// What a site does that starts while no other site answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alone {
    /// It begins. Where it was taken over meanwhile, what it decides until it hears of that is stranded.
    #[default]
    Serve,
    /// It waits until another site answers.
    Refuse,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file or a variable is wrong; the source says which key and where it stands.
    #[error("the configuration is wrong")]
    Wrong(#[source] Box<figment::Error>),
    /// The named file is not there.
    #[error("there is no configuration file {}", .0.display())]
    NoFile(PathBuf),
    /// A value is out of range.
    #[error("{key} is {value}: {rule}")]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        rule: &'static str,
    },
}

impl ServiceConfig {
    /// A configuration with defaults for all but these.
    pub fn new(site: SiteName, instance: InstanceName, url: &str, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            sites: vec![site.clone()],
            site,
            instance,
            nats: ConnectOptions::to(url),
            data_dir: data_dir.into(),
            cache_bytes: default_cache_bytes(),
            provision: true,
            replicas: default_replicas(),
            outcomes_ms: default_outcomes_ms(),
            history: default_history(),
            audit_window_ms: default_audit_window_ms(),
            max_command_log_bytes: default_max_command_log_bytes(),
            duplicate_window_ms: default_duplicate_window_ms(),
            decide_timeout_ms: default_decide_timeout_ms(),
            default_wait: WaitMode::default(),
            least_wait: default_least_wait(),
            alone: Alone::default(),
            max_requests: default_max_requests(),
            metrics_address: None,
        }
    }

    /// Reads `freehold.toml`, if there is one, and `FREEHOLD_…` variables: for a service without flags of its own.
    pub fn from_environment() -> Result<Self, ConfigError> {
        Self::load(None, &BTreeMap::<String, String>::new())
    }

    /// Reads `freehold.toml` (or the named file, which must be there), then `FREEHOLD_…` variables (`__` for a dot, as in
    /// `FREEHOLD_NATS__URL`), then `overrides`, in which nothing stands for "not given".
    pub fn load(file: Option<&Path>, overrides: &impl Serialize) -> Result<Self, ConfigError> {
        let path = match file {
            Some(path) if !path.is_file() => return Err(ConfigError::NoFile(path.to_owned())),
            Some(path) => path.to_owned(),
            None => PathBuf::from("freehold.toml"),
        };
        let figment = Figment::new()
            .merge(Toml::file(path))
            .merge(Env::prefixed("FREEHOLD_").ignore(&["seed", "keep", "cache", "config"]).split("__"))
            .merge(Serialized::defaults(overrides));
        let config: Self = figment.extract().map_err(|error| ConfigError::Wrong(Box::new(error)))?;
        config.checked()
    }

    /// Checks ranges and adds the own site to the sites.
    pub fn checked(mut self) -> Result<Self, ConfigError> {
        let out = |key, value: String, rule| Err(ConfigError::OutOfRange { key, value, rule });
        if self.history < 8 {
            return out("history", self.history.to_string(), "at least 8 updates of a record must be kept");
        }
        if !matches!(self.replicas, 1 | 3 | 5) {
            return out("replicas", self.replicas.to_string(), "1, 3 or 5");
        }
        if self.outcomes_ms < 1_000 {
            return out("outcomes_ms", self.outcomes_ms.to_string(), "at least 1000");
        }
        if self.max_requests == 0 {
            return out("max_requests", self.max_requests.to_string(), "at least 1");
        }
        if !self.sites.contains(&self.site) {
            self.sites.insert(0, self.site.clone());
        }
        let others = self.sites.len() - 1;
        for (key, mode) in [("default_wait", self.default_wait), ("least_wait", self.least_wait)] {
            if matches!(mode, WaitMode::Sites(wanted) if wanted.get() > others) {
                return out(key, mode.to_string(), "no more sites than there are others");
            }
        }
        Ok(self)
    }

    /// How long things are kept.
    pub fn retention(&self) -> Retention {
        Retention { outcomes_ms: self.outcomes_ms, history: self.history }
    }
}

fn default_connect() -> ConnectOptions {
    ConnectOptions::to("nats://127.0.0.1:4222")
}

fn default_data_dir() -> PathBuf {
    PathBuf::from("freehold-data")
}

fn default_cache_bytes() -> usize {
    DEFAULT_CACHE_BYTES
}

fn default_true() -> bool {
    true
}

fn default_replicas() -> usize {
    1
}

fn default_outcomes_ms() -> u64 {
    Retention::default().outcomes_ms
}

fn default_history() -> u64 {
    Retention::default().history
}

fn default_audit_window_ms() -> u64 {
    60_000
}

fn default_max_command_log_bytes() -> i64 {
    1 << 30
}

fn default_duplicate_window_ms() -> u64 {
    120_000
}

fn default_decide_timeout_ms() -> u64 {
    5_000
}

fn default_least_wait() -> WaitMode {
    WaitMode::Accepted
}

fn default_max_requests() -> usize {
    8_192
}
