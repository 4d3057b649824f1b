//! The configuration: defaults < `freehold.toml` < `FREEHOLD_…` variables < flags.
//!
//! A file may be shared with a service: every key of a service's configuration is known here. The keys of this command alone
//! are `kinds`, `groups` and `timeout_ms`; a service refuses them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::error::Kind;
use figment::providers::{Env, Format as _, Serialized, Toml};
use serde::Deserialize;

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
    pub(crate) site: Option<SiteName>,
    pub(crate) sites: Vec<SiteName>,
    pub(crate) kinds: Vec<KindName>,
    pub(crate) groups: Option<GroupCount>,
    pub(crate) nats: ConnectOptions,
    /// How long a request may take.
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) replicas: Option<usize>,
    pub(crate) outcomes_ms: Option<u64>,
    pub(crate) history: Option<u64>,
    pub(crate) max_command_log_bytes: Option<i64>,
    pub(crate) duplicate_window_ms: Option<u64>,
    pub(crate) mirror_consumers: bool,
    audit_window_ms: Option<u64>,
    cache_bytes: Option<u64>,
    decide_timeout_ms: Option<u64>,
    max_requests: Option<u64>,
    // A service's alone: known, so that it may share the file.
    #[serde(rename = "instance")]
    _instance: Option<InstanceName>,
    #[serde(rename = "data_dir")]
    _data_dir: Option<PathBuf>,
    #[serde(rename = "provision")]
    _provision: Option<bool>,
    #[serde(rename = "default_wait")]
    _default_wait: Option<String>,
    #[serde(rename = "least_wait")]
    _least_wait: Option<String>,
    #[serde(rename = "alone")]
    _alone: Option<String>,
    #[serde(rename = "metrics_address")]
    _metrics_address: Option<String>,
}

impl Settings {
    /// Reads the file, which must be there where it is named, and the variables.
    pub(crate) fn load(file: Option<&Path>, url: Option<&str>) -> anyhow::Result<Self> {
        if let Some(path) = file.filter(|path| !path.is_file()) {
            anyhow::bail!("there is no configuration file {}", path.display());
        }
        let mut figment = Figment::new()
            .merge(Serialized::default("nats.url", DEFAULT_URL))
            .merge(Toml::file(file.unwrap_or(Path::new(DEFAULT_FILE))))
            .merge(Env::prefixed("FREEHOLD_").ignore(&OTHER_VARIABLES).split("__"));
        if let Some(url) = url {
            figment = figment.merge(Serialized::default("nats.url", url));
        }
        figment.extract().map_err(|error| explain(&figment, error))
    }

    /// How long things are kept.
    pub(crate) fn retention(&self) -> Retention {
        let default = Retention::default();
        Retention {
            outcomes_ms: self.outcomes_ms.unwrap_or(default.outcomes_ms),
            history: self.history.unwrap_or(default.history),
        }
    }

    /// The configuration file of an instance that `dev` starts: what it must share with this command.
    pub(crate) fn instance_toml(&self) -> String {
        let keys = [
            ("outcomes_ms", self.outcomes_ms),
            ("history", self.history),
            ("max_command_log_bytes", self.max_command_log_bytes.and_then(|bytes| u64::try_from(bytes).ok())),
            ("duplicate_window_ms", self.duplicate_window_ms),
            ("audit_window_ms", self.audit_window_ms),
            ("cache_bytes", self.cache_bytes),
            ("decide_timeout_ms", self.decide_timeout_ms),
            ("max_requests", self.max_requests),
        ];
        let mut text = String::from("# Written by `freehold dev` at each start.\n");
        for (key, value) in keys {
            if let Some(value) = value {
                // Writing to a string does not fail.
                let _ = writeln!(text, "{key} = {value}");
            }
        }
        text
    }
}

/// Figment's error with the file or variable that the wrong key stands in.
fn explain(figment: &Figment, error: figment::Error) -> anyhow::Error {
    let mut path = error.path.clone();
    if let Kind::UnknownField(name, _) = &error.kind
        && path.last() != Some(name)
    {
        path.push(name.clone());
    }
    let key = path.join(".");
    let metadata = error.metadata.as_ref().or_else(|| figment.find_metadata(&key));
    let place = metadata.map(|metadata| match &metadata.source {
        Some(figment::Source::File(path)) => path.display().to_string(),
        _ => metadata.name.to_string(),
    });
    let place = place.unwrap_or_else(|| "the configuration".to_owned());
    match &error.kind {
        Kind::UnknownField(_, known) => {
            anyhow::anyhow!("{place}: there is no key {key:?}; the keys are {}", known.join(", "))
        }
        // The parser draws the line with the mistake between its first and last line: the place is enough here.
        Kind::Message(text) if key.is_empty() => {
            let mut lines = text.lines().filter(|line| !line.is_empty());
            let (first, last) = (lines.next().unwrap_or_default(), lines.next_back());
            let last = last.map(|last| format!(": {last}")).unwrap_or_default();
            anyhow::anyhow!("{place}: {first}{last}")
        }
        kind if key.is_empty() => anyhow::anyhow!("{place}: {kind}"),
        kind => anyhow::anyhow!("{place}: {key:?} is wrong: {kind}"),
    }
}
