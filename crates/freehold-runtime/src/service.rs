//! A service: one instance of it from start to stop.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use freehold_core::{
    Incarnation, KindDefinition, KindName, NameTaken, REHOME_COMMAND, SiteName, StreamSequence, Takeovers,
};
use freehold_jetstream::{ApiError, ConnectError, ProvisionError};
use freehold_store::{Error as StoreError, OpenError};

use crate::config::ServiceConfig;
use crate::failure::Failure;
use crate::group_worker::describe;
use crate::instance::{Instance, Rebuild};
use crate::metrics;
use crate::read_requests::RESERVED_ENDPOINTS;

/// A copy that differs again so soon after it was rebuilt is not rebuilt: that would not help.
const REBUILD_PAUSE: Duration = Duration::from_secs(600);

/// The pause before an instance whose start has failed for now is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// Builds a service.
pub struct ServiceBuilder {
    name: String,
    config: ServiceConfig,
    kinds: Vec<KindDefinition>,
}

/// A service that is ready to run.
pub struct Service {
    pub(crate) name: String,
    pub(crate) config: ServiceConfig,
    pub(crate) definitions: Arc<HashMap<KindName, Arc<KindDefinition>>>,
}

/// Why a service does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The site does not have what the service needs.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// JetStream did not do what the service needs.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The copy cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The directory of the copy cannot be made.
    #[error("the data directory cannot be used")]
    DataDir(#[source] std::io::Error),
    /// Another instance has the name.
    #[error(transparent)]
    NameTaken(NameTaken),
    /// The member list of a kind never stood still.
    #[error("the member list of {kind} changed too often to join it")]
    Contended {
        /// The kind.
        kind: KindName,
    },
    /// The copy failed while it was being filled.
    #[error("the copy failed")]
    Store(#[source] StoreError),
    /// Another site has more of this site's log than this site.
    #[error("this site's log ends at {ours}, but {site} has it up to {theirs}: run `freehold restore`")]
    LogBehind {
        /// The log's last message.
        ours: StreamSequence,
        /// The last message of the other site's mirror.
        theirs: StreamSequence,
        /// That site.
        site: SiteName,
    },
    /// The site's log is another one than the one that the copy has applied.
    #[error("the copy has applied log {applied}, but the site's log is {found}: was the stream made anew by hand?")]
    LogReplaced {
        /// The log that the copy has applied.
        applied: Incarnation,
        /// The log that is there.
        found: Incarnation,
    },
    /// The site was taken over, and what it had cannot be set aside.
    #[error("the site was taken over and does not come back yet")]
    Homecoming(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What is measured cannot be scraped there.
    #[error("metrics cannot be served at {address}")]
    Metrics {
        /// The configured address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A definition cannot work.
    #[error("kind {kind}: {reason}")]
    Definition {
        /// The kind.
        kind: KindName,
        /// Why not.
        reason: String,
    },
}

impl StartError {
    /// Whether another try may go better: a server or a link was away, or what this instance was before has not quite ended.
    fn may_pass(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Api(_) | Self::NameTaken(_) | Self::Contended { .. } | Self::Homecoming(_) => true,
            Self::Provision(error) => matches!(error, ProvisionError::Api(_)),
            _ => false,
        }
    }
}

/// Why a running service ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl Service {
    /// Starts to build a service. `name` is what discovery shows.
    pub fn builder(name: impl Into<String>, config: ServiceConfig) -> ServiceBuilder {
        ServiceBuilder { name: name.into(), config, kinds: Vec::new() }
    }

    /// Runs until SIGINT or SIGTERM, then stops gracefully. A damaged copy is set aside and rebuilt from the streams. Metrics are served
    /// where the configuration says so.
    pub async fn run(self) -> Result<(), ServiceError> {
        if let Some(address) = self.config.metrics_address {
            metrics::serve(address).map_err(|error| StartError::Metrics { address, source: error.into() })?;
        }
        let mut running = self.start().await?;
        running.announce();
        running.until(stop_signal()).await?;
        running.stop().await;
        Ok(())
    }

    /// Starts an instance; returns when it answers requests.
    pub async fn start(self) -> Result<RunningService, StartError> {
        let instance = Instance::start(&self, Rebuild::No, &Takeovers::default()).await?;
        Ok(RunningService { service: self, instance: Some(instance), rebuilt: HashMap::new() })
    }
}

impl ServiceBuilder {
    /// Adds a kind.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<KindDefinition>) -> Self {
        self.kinds.push(kind.into());
        self
    }

    /// Checks the definitions.
    pub fn build(self) -> Result<Service, StartError> {
        let mut definitions = HashMap::new();
        for definition in self.kinds {
            let kind = definition.name.clone();
            let is_reserved = |name: &str| RESERVED_ENDPOINTS.contains(&name) || name == REHOME_COMMAND;
            if let Some(name) = definition.commands.keys().find(|name| is_reserved(name.as_str())) {
                return Err(StartError::Definition { kind, reason: format!("every kind has its own {name}") });
            }
            if definitions.insert(kind.clone(), Arc::new(definition)).is_some() {
                return Err(StartError::Definition { kind, reason: "it is defined twice".to_owned() });
            }
        }
        Ok(Service { name: self.name, config: self.config, definitions: Arc::new(definitions) })
    }

    /// Builds the service and runs it.
    pub async fn run(self) -> Result<(), ServiceError> {
        self.build()?.run().await
    }
}

/// A running instance.
pub struct RunningService {
    service: Service,
    instance: Option<Instance>,
    /// When the copy was last rebuilt since it was not what a site had logged.
    rebuilt: HashMap<SiteName, Instant>,
}

impl RunningService {
    /// Says on stdout, in one line of JSON, that the instance answers: for whoever started the process.
    #[allow(clippy::print_stdout, reason = "the line is the process's signal that it is ready")]
    fn announce(&self) {
        if let Some(instance) = &self.instance {
            let member = instance.member();
            let line = serde_json::json!({
                "ready": self.service.name, "site": self.service.config.site,
                "instance": member.instance, "nonce": member.nonce, "pid": std::process::id(),
            });
            println!("{line}");
        }
    }

    /// Runs until `stop` is done. When the copy or the connection fails for good the instance is dropped and another one
    /// started; a copy that is damaged is set aside and made anew.
    pub async fn until(&mut self, stop: impl Future<Output = ()>) -> Result<(), StartError> {
        tokio::pin!(stop);
        loop {
            let Some(instance) = self.instance.as_mut() else { return Ok(()) };
            let failure = tokio::select! {
                () = &mut stop => return Ok(()),
                failure = instance.failed() => failure,
            };
            let rebuild = match &failure {
                Failure::Diverged(origin) if self.was_just_rebuilt(origin) => {
                    tracing::error!(%origin, "a copy that was just rebuilt differs again: see `freehold verify`");
                    continue;
                }
                Failure::Diverged(origin) => Rebuild::AtOrigin(origin.clone()),
                Failure::TakenOver { .. } | Failure::Ahead(_) => Rebuild::FromStreams,
                Failure::Store(_) | Failure::Connection => Rebuild::No,
            };
            let known = self.instance.as_ref().map(Instance::takeovers).unwrap_or_default();
            tracing::error!(failure = describe(&failure), "the instance starts again");
            if let Some(instance) = self.instance.take() {
                instance.abandon().await;
            }
            let mut how = rebuild.clone();
            self.instance = loop {
                match Instance::start(&self.service, how.clone(), &known).await {
                    Ok(instance) => break Some(instance),
                    Err(error) if error.may_pass() => {
                        tracing::warn!(error = describe(&error), "the instance starts again a little later");
                        tokio::select! {
                            () = &mut stop => return Ok(()),
                            () = tokio::time::sleep(RESTART_PAUSE) => {}
                        }
                        if how == Rebuild::FromStreams {
                            // The copy that had to be made anew is set aside by now.
                            how = Rebuild::No;
                        }
                    }
                    Err(error) => return Err(error),
                }
            };
            if let Rebuild::AtOrigin(origin) = rebuild {
                self.rebuilt.insert(origin, Instant::now());
            }
        }
    }

    fn was_just_rebuilt(&self, origin: &SiteName) -> bool {
        self.rebuilt.get(origin).is_some_and(|at| at.elapsed() < REBUILD_PAUSE)
    }

    /// Stops gracefully: answers what it has taken, logs positions, hands its groups over.
    pub async fn stop(mut self) {
        if let Some(instance) = self.instance.take() {
            instance.stop().await;
        }
    }

    /// How many groups the instance holds.
    pub fn groups_held(&self) -> usize {
        self.instance.as_ref().map_or(0, Instance::groups_held)
    }
}

/// SIGINT or SIGTERM.
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                terminate.recv().await;
            }
            Err(error) => {
                tracing::error!(%error, "SIGTERM cannot be heard");
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = terminated => {}
        interrupted = tokio::signal::ctrl_c() => {
            if let Err(error) = interrupted {
                tracing::error!(%error, "SIGINT cannot be heard");
            }
        }
    }
}
