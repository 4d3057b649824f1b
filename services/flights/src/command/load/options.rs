//! What `flights load` is told.

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Args;

use super::sites::SiteUrl;
use crate::command::input::Input;

/// How hard the services are pressed, and how long they are waited for.
#[derive(Debug, Clone, Args)]
pub(crate) struct Pace {
    /// Commands, and in the verification reads, that are under way at a time, over all sites.
    #[arg(long, default_value = "256", value_name = "N")]
    pub(crate) in_flight: NonZeroUsize,
    /// How long one try waits for its answer before the command is sent again under the same id.
    #[arg(long, default_value_t = 2_000, value_name = "MS")]
    try_timeout_ms: u64,
    /// How long a command is tried before the load gives it up.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    patience_seconds: u64,
}

impl Pace {
    pub(crate) fn try_timeout(&self) -> Duration {
        Duration::from_millis(self.try_timeout_ms)
    }

    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs(self.patience_seconds)
    }
}

/// Where the flights come from and where they go.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) input: Input,
    /// Where a site's service is reached, as `ewr=nats://…`, once for each site; or one URL for all sites.
    #[arg(long = "url", required = true, value_name = "[SITE=]URL")]
    pub(crate) urls: Vec<SiteUrl>,
    #[command(flatten)]
    pub(crate) pace: Pace,
    /// Compare every flight with the data in the end (the default).
    #[arg(long, overrides_with = "no_verify")]
    verify: bool,
    /// Do not compare the flights with the data in the end.
    #[arg(long)]
    no_verify: bool,
    /// Print the report as one line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Options {
    pub(crate) fn verifies(&self) -> bool {
        self.verify || !self.no_verify
    }
}
