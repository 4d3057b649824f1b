//! Connections to one site's servers.
//!
//! A [`Connection`] reconnects by itself and serves everything that may be repeated. A [`FencedConnection`] never
//! reconnects: when it is lost, whatever the client had buffered is lost with it, so that no publish of a holder can come
//! through behind a doubt. Whoever owns it opens a new one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::{Event, ServerInfo};
use freehold_core::SiteName;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::error::ApiError;
use crate::publisher::Publisher;

/// The oldest nats-server that has what Freehold uses.
pub const MINIMUM_SERVER_VERSION: (u64, u64, u64) = (2, 14, 0);

/// How long the log may take to answer a publish before its fate counts as unknown.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long JetStream's API may take to answer.
const API_TIMEOUT: Duration = Duration::from_secs(5);
/// Publishes that may wait for their acks on one connection.
const MAX_PUBLISHES_IN_FLIGHT: usize = 65_536;
/// Nothing listens there and nothing can: where a fenced connection looks for a server once it is lost.
const NO_SERVER: &str = "nats://127.0.0.1:0";

/// Where and as whom to connect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// Server URLs, separated by commas.
    pub url: String,
    /// A credentials file (JWT and seed).
    pub credentials_file: Option<PathBuf>,
    /// A file that holds an nkey seed.
    pub nkey_seed_file: Option<PathBuf>,
    /// User name, with `password`.
    pub user: Option<String>,
    /// Password, with `user`.
    pub password: Option<String>,
    /// A file with the certificates to trust.
    pub tls_ca_file: Option<PathBuf>,
}

impl ConnectOptions {
    /// Connects to these URLs without credentials.
    pub fn to(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    async fn native(&self, name: &str) -> Result<async_nats::ConnectOptions, ConnectError> {
        let file = |path: &PathBuf| {
            let path = path.clone();
            move |source| ConnectError::File { path, source }
        };
        let mut options = async_nats::ConnectOptions::new().name(name);
        if let Some(path) = &self.credentials_file {
            options = options.credentials_file(path).await.map_err(file(path))?;
        }
        if let Some(path) = &self.nkey_seed_file {
            let seed = tokio::fs::read_to_string(path).await.map_err(file(path))?;
            options = options.nkey(seed.trim().to_owned());
        }
        if let (Some(user), Some(password)) = (&self.user, &self.password) {
            options = options.user_and_password(user.clone(), password.clone());
        }
        if let Some(path) = &self.tls_ca_file {
            options = options.add_root_certificates(path.clone());
        }
        Ok(options)
    }

    fn addresses(&self) -> Vec<String> {
        self.url.split(',').map(|url| url.trim().to_owned()).filter(|url| !url.is_empty()).collect()
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A file that the options name cannot be read.
    #[error("{} cannot be read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The server refused, or could not be reached.
    #[error("no connection to {url}")]
    Refused {
        /// Where to.
        url: String,
        /// Why not.
        #[source]
        source: async_nats::ConnectError,
    },
    /// The server is too old.
    #[error("nats-server {found} at {url} is too old: {}.{}.{} or newer is needed", MINIMUM_SERVER_VERSION.0, MINIMUM_SERVER_VERSION.1, MINIMUM_SERVER_VERSION.2)]
    TooOld {
        /// Where.
        url: String,
        /// Its version.
        found: String,
    },
    /// JetStream does not answer.
    #[error("JetStream is not available at {url}: enable it, with a domain of its own for the site")]
    NoJetStream {
        /// Where.
        url: String,
        /// What the server said.
        #[source]
        source: ApiError,
    },
}

/// A connection that reconnects by itself.
#[derive(Debug, Clone)]
pub struct Connection {
    pub(crate) client: async_nats::Client,
    pub(crate) jetstream: jetstream::Context,
    /// What the subjects of that JetStream's API begin with.
    pub(crate) api_prefix: Arc<str>,
    options: Arc<ConnectOptions>,
    name: Arc<str>,
}

impl Connection {
    /// Connects; `name` is what the server's connection lists show.
    pub async fn open(options: &ConnectOptions, name: &str) -> Result<Self, ConnectError> {
        let client = connect(options, options.native(name).await?).await?;
        check_version(&options.url, &client.server_info())?;
        let (options, name) = (Arc::new(options.clone()), name.into());
        Ok(Self { jetstream: context(&client), api_prefix: "$JS.API".into(), client, options, name })
    }

    /// Checks that JetStream answers.
    pub async fn check_jetstream(&self) -> Result<(), ConnectError> {
        let answer = self.jetstream.query_account().await;
        answer.map(|_| ()).map_err(|error| ConnectError::NoJetStream {
            url: self.options.url.clone(),
            source: ApiError::new("asking for the JetStream account", error),
        })
    }

    /// Whether a server is there.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    /// The most bytes of payload that the server takes in one message.
    pub fn max_payload_bytes(&self) -> usize {
        self.client.server_info().max_payload
    }

    /// Opens a connection to the same servers that never reconnects.
    pub async fn open_fenced(&self) -> Result<FencedConnection, ConnectError> {
        let (lost, watch_lost) = watch::channel(false);
        let native = self.options.native(&format!("{}-fenced", self.name)).await?;
        let native = native.max_reconnects(1).ignore_discovered_servers().event_callback(move |event| {
            if matches!(event, Event::Disconnected | Event::Closed) {
                let _ = lost.send(true);
            }
            std::future::ready(())
        });
        let client = connect(&self.options, native).await?;
        check_version(&self.options.url, &client.server_info())?;
        let pool = client.set_server_pool(NO_SERVER).await;
        pool.map_err(|_| ConnectError::TooOld { url: NO_SERVER.to_owned(), found: String::new() }).or_else(
            |error| {
                // The connection was lost before it could be fenced: the next check of `lost` finds it.
                if *watch_lost.borrow() { Ok(()) } else { Err(error) }
            },
        )?;
        let jetstream = context(&client);
        Ok(FencedConnection { publisher: Publisher::new(client, jetstream.clone()), jetstream, lost: watch_lost })
    }

    /// The same connection with another site's JetStream: its API through its domain.
    #[must_use]
    pub fn in_domain(&self, site: &SiteName) -> Self {
        let jetstream =
            jetstream::ContextBuilder::new().domain(site.as_str()).timeout(API_TIMEOUT).build(self.client.clone());
        Self { jetstream, api_prefix: api_prefix(site).into(), ..self.clone() }
    }

    /// Asks a private subject of an instance whether it is alive.
    pub async fn probe(&self, subject: String, timeout: Duration) -> Probe {
        let request = async_nats::Request::new().timeout(Some(timeout));
        match self.client.send_request(subject, request).await {
            Ok(_) => Probe::Alive,
            Err(error) if error.kind() == async_nats::RequestErrorKind::NoResponders => Probe::Gone,
            Err(_) => Probe::Silent,
        }
    }

    /// Subscribes to a private subject: each message that comes is answered by `answer`.
    pub async fn answer(
        &self,
        subject: String,
        answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static,
    ) -> Result<(), ApiError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| ApiError::new("subscribing", error);
        let mut messages = self.client.subscribe(subject).await.map_err(|error| failed(error.into()))?;
        self.client.flush().await.map_err(|error| failed(error.into()))?;
        let client = self.client.clone();
        tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                let Some(reply) = message.reply else { continue };
                if let Err(error) = client.publish(reply, answer(&message.payload).into()).await {
                    tracing::debug!(%error, "an answer could not be sent");
                }
            }
        });
        Ok(())
    }

    /// Sends what is buffered and closes.
    pub async fn drain(&self) {
        if let Err(error) = self.client.drain().await {
            tracing::debug!(%error, "the connection was closed already");
        }
    }

    /// Publishes without an answer.
    pub async fn publish(&self, subject: String, payload: Vec<u8>) -> Result<(), ApiError> {
        self.client.publish(subject, payload.into()).await.map_err(|error| ApiError::new("publishing", error))
    }
}

/// What an instance's private subject answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// It answered.
    Alive,
    /// Nobody is there.
    Gone,
    /// No answer in time.
    Silent,
}

/// A connection that is used until it is lost and then thrown away.
#[derive(Debug, Clone)]
pub struct FencedConnection {
    pub(crate) jetstream: jetstream::Context,
    /// To the records log.
    pub(crate) publisher: Publisher,
    lost: watch::Receiver<bool>,
}

impl FencedConnection {
    /// Returns when the connection is lost.
    pub async fn lost(&mut self) {
        // A closed channel means that the client is gone, which is as lost as can be.
        let _ = self.lost.wait_for(|lost| *lost).await;
    }
}

async fn connect(
    options: &ConnectOptions,
    native: async_nats::ConnectOptions,
) -> Result<async_nats::Client, ConnectError> {
    let connected = native.connect(options.addresses()).await;
    connected.map_err(|source| ConnectError::Refused { url: options.url.clone(), source })
}

/// What the subjects of a site's JetStream API begin with, as other sites reach it.
pub(crate) fn api_prefix(site: &SiteName) -> String {
    format!("$JS.{site}.API")
}

fn context(client: &async_nats::Client) -> jetstream::Context {
    jetstream::ContextBuilder::new()
        .timeout(API_TIMEOUT)
        .ack_timeout(PUBLISH_TIMEOUT)
        .max_ack_inflight(MAX_PUBLISHES_IN_FLIGHT)
        .backpressure_on_inflight(true)
        .build(client.clone())
}

fn check_version(url: &str, info: &ServerInfo) -> Result<(), ConnectError> {
    let mut numbers = info.version.split(['.', '-']).map(|part| part.parse::<u64>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    let version = (next(), next(), next());
    if version < MINIMUM_SERVER_VERSION {
        return Err(ConnectError::TooOld { url: url.to_owned(), found: info.version.clone() });
    }
    Ok(())
}
