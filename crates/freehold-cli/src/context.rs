//! What every command starts from: the configuration, how to print, and a connection when it needs one.

use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use freehold_core::{KindName, Refusal};
use freehold_jetstream::{Answer, Client, SendOptions};

use crate::arguments::GlobalArguments;
use crate::discovery;
use crate::failure::Verdict;
use crate::printer;
use crate::settings::Settings;

const DEFAULT_TIMEOUT_MS: u64 = 10_000;

/// The configuration and the output mode.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) json: bool,
}

impl Context {
    /// Reads the configuration.
    pub(crate) fn new(global: &GlobalArguments) -> anyhow::Result<Self> {
        let settings = Settings::load(global.config.as_deref(), global.url.as_deref())?;
        Ok(Self { settings, json: global.json })
    }

    /// Where the servers are.
    pub(crate) fn url(&self) -> &str {
        &self.settings.nats.url
    }

    /// Connects to the site's servers.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        Ok(Client::connect(&self.settings.nats, "freehold").await?)
    }

    /// How long a request may take.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.settings.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS))
    }

    /// Asks a service, and finds out why where nobody answers.
    pub(crate) async fn ask(
        &self,
        client: &Client,
        kind: &KindName,
        endpoint: &str,
        body: String,
        options: &SendOptions,
    ) -> anyhow::Result<Answer> {
        let body = Bytes::from(body);
        let error = match client.request(kind, endpoint, body.clone(), options).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let instances = discovery::discover(client).await?;
        if instances.iter().any(|instance| instance.kinds.contains(kind)) {
            // Somebody serves the kind. A command may have been taken: under the same command id it is safe to ask again.
            if options.command_id.is_none() {
                return Err(error.into());
            }
            return Ok(client.request_until_answered(kind, endpoint, body, options, self.timeout()).await?);
        }
        let mut served: Vec<_> =
            instances.iter().flat_map(|instance| &instance.kinds).map(ToString::to_string).collect();
        served.sort();
        served.dedup();
        let served = match served.as_slice() {
            [] => String::new(),
            served => format!(" (served are: {})", served.join(", ")),
        };
        bail!("no service answers for kind {kind} at {}: is it running?{served}", self.url())
    }

    /// Prints a refusal: for programs to stdout, for people to stderr.
    pub(crate) fn refused(&self, refusal: &Refusal) -> anyhow::Result<Verdict> {
        if self.json {
            printer::json(refusal)?;
        } else {
            printer::note(format!("{}: {}", refusal.code.as_str(), refusal.message));
        }
        Ok(Verdict::No)
    }
}
