//! What a site's servers must have: streams, mirrors and the bucket of member lists.
//!
//! [`plan`] compares what is there with what must be and changes nothing; [`Plan::carry_out`] makes the difference. Doing it
//! twice is harmless. Settings that a kind has for good (its group count, its home rule) are kept in the records stream's metadata, and a
//! service that disagrees is refused.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, push};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{
    Config, ConsumerErrorKind, DiscardPolicy, RetentionPolicy, StorageType, StreamConsumerSource,
};
use async_nats::jetstream::{self, ErrorCode};

use freehold_core::subject;
use freehold_core::{Incarnation, KindName, KindSettings, Retention, SiteName};

use crate::connection::Connection;
use crate::error::ApiError;
use crate::sites_log::{RESTORING_KEY, SEALED_KEY, mirror_of};

pub(crate) const INCARNATION_KEY: &str = "freehold-incarnation";
const RETENTION_KEY: &str = "freehold-outcomes-ms";
const KIND_KEY_PREFIX: &str = "freehold-kind-";

/// The server's own default is 1,000, too few for a consumer a group of several kinds.
const MAX_CONSUMERS: i32 = 20_000;

/// Messages on their way to a mirror whose consumer was made for it.
const MAX_MIRROR_PENDING: i64 = 10_000;

/// What to provision at a site.
#[derive(Debug, Clone)]
pub struct ProvisionOptions {
    /// The site that the connection leads to.
    pub site: SiteName,
    /// All sites, this one included or not.
    pub sites: Vec<SiteName>,
    /// The kinds and their settings.
    pub kinds: Vec<(KindName, KindSettings)>,
    /// How long things are kept.
    pub retention: Retention,
    /// Copies of each stream within the site: 1 or 3.
    pub replicas: usize,
    /// The most bytes that the command log holds; requests are refused (`busy`) when it is full.
    pub max_command_log_bytes: i64,
    /// How long the server remembers the message ids of commands.
    pub duplicate_window: Duration,
    /// New mirrors read consumers that are made for them at the origin, and make none themselves: then no site needs the right to make
    /// a consumer at another. Mirrors that are there already, and read such a consumer, do so whatever this says.
    pub mirror_consumers: bool,
}

impl ProvisionOptions {
    /// The defaults for one site: R1, a command log of 1 GiB, a duplicate window of two minutes.
    pub fn new(site: SiteName, kinds: Vec<(KindName, KindSettings)>) -> Self {
        Self {
            sites: vec![site.clone()],
            site,
            kinds,
            retention: Retention::default(),
            replicas: 1,
            max_command_log_bytes: 1 << 30,
            duplicate_window: Duration::from_secs(120),
            mirror_consumers: false,
        }
    }
}

/// Why a site cannot be provisioned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// A kind is there with other settings, which it has for good.
    #[error("kind {kind} exists at {site} with {found}, but this service has {wanted}")]
    KindDiffers {
        /// The kind.
        kind: KindName,
        /// The site.
        site: SiteName,
        /// The settings in the stream.
        found: String,
        /// The settings of the service.
        wanted: String,
    },
    /// Outcomes or histories are kept differently.
    #[error("{what} is {found} at {site}, but this service has {wanted}")]
    RetentionDiffers {
        /// Which setting.
        what: &'static str,
        /// The site.
        site: SiteName,
        /// The stream's value.
        found: String,
        /// The service's value.
        wanted: String,
    },
    /// A restore was begun and not ended.
    #[error("the restore of the log of {0} was interrupted: run `freehold restore` again")]
    RestoreInterrupted(SiteName),
    /// A mirror makes its own consumer, although one is made for it. A mirror stays as it was made.
    #[error("mirror {stream} at {site} makes its own consumer: delete the stream there, and provision again")]
    MirrorMakesConsumer {
        /// The mirror.
        stream: String,
        /// The site.
        site: SiteName,
    },
    /// A stream of that name is not Freehold's.
    #[error("stream {0} exists and was not made by Freehold")]
    ForeignStream(String),
    /// A service that may not provision found something missing.
    #[error("{0} is missing: run `freehold provision`, or allow the service to provision")]
    Missing(String),
    /// The server did not do it.
    #[error(transparent)]
    Api(#[from] ApiError),
}

/// One difference between what is there and what must be.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum PlanStep {
    /// A stream is missing.
    CreateStream(Box<Config>),
    /// A stream differs.
    UpdateStream {
        /// As it must be.
        config: Box<Config>,
        /// What differs.
        differences: Vec<String>,
    },
    /// A consumer is missing that another site's mirror reads.
    CreateMirrorConsumer {
        /// The stream that it reads.
        stream: String,
        /// What it is.
        config: Box<push::Config>,
    },
    /// The bucket of member lists is missing.
    CreateBucket {
        /// Its name.
        name: String,
        /// Copies within the site.
        replicas: usize,
    },
}

impl std::fmt::Display for PlanStep {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::CreateStream(config) => match &config.mirror {
                Some(_) => write!(formatter, "create mirror {}", config.name),
                None => write!(formatter, "create stream {}", config.name),
            },
            Self::UpdateStream { config, differences } => {
                write!(formatter, "update stream {}: {}", config.name, differences.join(", "))
            }
            Self::CreateMirrorConsumer { stream, config } => {
                let name = config.durable_name.as_deref().unwrap_or_default();
                write!(formatter, "create consumer {name} of {stream}")
            }
            Self::CreateBucket { name, .. } => write!(formatter, "create key-value bucket {name}"),
        }
    }
}

/// What must be done at a site.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The differences; none where everything is as it must be.
    pub steps: Vec<PlanStep>,
}

/// What the records stream says of its site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordsLogFacts {
    /// The life of the log.
    pub incarnation: Incarnation,
    /// Copies of the stream within the site.
    pub replicas: usize,
}

/// Compares a site with what it must have.
pub async fn plan(connection: &Connection, options: &ProvisionOptions) -> Result<Plan, ProvisionError> {
    let mut steps = Vec::new();
    for wanted in wanted_streams(options) {
        let found = find_stream(&connection.jetstream, &wanted.name).await?;
        steps.extend(match found {
            None => Some(PlanStep::CreateStream(Box::new(wanted))),
            Some(found) => compare(options, &found, wanted)?,
        });
    }
    let records = subject::records_stream(&options.site);
    for other in options.sites.iter().filter(|other| options.mirror_consumers && **other != options.site) {
        if !has_consumer(&connection.jetstream, &records, &subject::mirror_consumer(other)).await? {
            let config = Box::new(mirror_consumer(&options.site, other));
            steps.push(PlanStep::CreateMirrorConsumer { stream: records.clone(), config });
        }
    }
    let bucket = subject::members_bucket(&options.site);
    if find_stream(&connection.jetstream, &format!("KV_{bucket}")).await?.is_none() {
        steps.push(PlanStep::CreateBucket { name: bucket, replicas: options.replicas });
    }
    Ok(Plan { steps })
}

impl Plan {
    /// Makes the differences. Safe when several instances do it at once.
    pub async fn carry_out(&self, connection: &Connection) -> Result<(), ProvisionError> {
        for step in &self.steps {
            match step {
                PlanStep::CreateStream(config) => create_stream(&connection.jetstream, config).await?,
                PlanStep::UpdateStream { config, .. } => {
                    let updated = connection.jetstream.update_stream(config.as_ref().clone()).await;
                    updated.map_err(|error| ApiError::new(format!("updating stream {}", config.name), error))?;
                }
                PlanStep::CreateMirrorConsumer { stream, config } => {
                    let created = connection.jetstream.create_consumer_on_stream(config.as_ref().clone(), stream).await;
                    created.map_err(|error| ApiError::new(format!("creating a consumer of {stream}"), error))?;
                }
                PlanStep::CreateBucket { name, replicas } => {
                    let config = jetstream::kv::Config {
                        bucket: name.clone(),
                        history: 1,
                        storage: StorageType::File,
                        num_replicas: *replicas,
                        ..jetstream::kv::Config::default()
                    };
                    let created = connection.jetstream.create_key_value(config).await;
                    created.map_err(|error| ApiError::new(format!("creating bucket {name}"), error))?;
                }
            }
        }
        Ok(())
    }
}

/// Reads what a site's own records stream says of it.
pub async fn read_records_log_facts(
    connection: &Connection,
    site: &SiteName,
) -> Result<RecordsLogFacts, ProvisionError> {
    let name = subject::records_stream(site);
    let found = find_stream(&connection.jetstream, &name).await?;
    let config = found.ok_or_else(|| ProvisionError::Missing(name.clone()))?;
    let incarnation = config.metadata.get(INCARNATION_KEY).and_then(|text| Incarnation::parse(text));
    let incarnation = incarnation.ok_or(ProvisionError::ForeignStream(name))?;
    Ok(RecordsLogFacts { incarnation, replicas: config.num_replicas })
}

async fn find_stream(jetstream: &jetstream::Context, name: &str) -> Result<Option<Config>, ApiError> {
    match jetstream.get_stream(name).await {
        Ok(stream) => Ok(Some(stream.cached_info().config.clone())),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(answer) if answer.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
            _ => Err(ApiError::new(format!("asking for stream {name}"), error)),
        },
    }
}

async fn has_consumer(jetstream: &jetstream::Context, stream: &str, name: &str) -> Result<bool, ApiError> {
    match jetstream.get_consumer_from_stream::<push::Config, _, _>(name, stream).await {
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            // The plan may be made before the stream is.
            ConsumerErrorKind::JetStream(answer)
                if [ErrorCode::CONSUMER_NOT_FOUND, ErrorCode::STREAM_NOT_FOUND].contains(&answer.error_code()) =>
            {
                Ok(false)
            }
            _ => Err(ApiError::new(format!("asking for consumer {name} of {stream}"), error)),
        },
    }
}

/// The consumer that is made at a site for another one's mirror of its records log. What was stored there is acknowledged by the words
/// of flow control; heartbeats come each second, as the server wants it for this.
fn mirror_consumer(origin: &SiteName, mirroring: &SiteName) -> push::Config {
    push::Config {
        durable_name: Some(subject::mirror_consumer(mirroring)),
        deliver_subject: subject::mirror_delivery(origin, mirroring),
        ack_policy: AckPolicy::FlowControl,
        flow_control: true,
        idle_heartbeat: Duration::from_secs(1),
        max_ack_pending: MAX_MIRROR_PENDING,
        ..push::Config::default()
    }
}

async fn create_stream(jetstream: &jetstream::Context, config: &Config) -> Result<(), ApiError> {
    match jetstream.create_stream(config.clone()).await {
        Ok(_) => Ok(()),
        Err(error) => {
            // Another instance may have made it meanwhile, under an incarnation of its own.
            match find_stream(jetstream, &config.name).await? {
                Some(_) => Ok(()),
                None => Err(ApiError::new(format!("creating stream {}", config.name), error)),
            }
        }
    }
}

fn wanted_streams(options: &ProvisionOptions) -> Vec<Config> {
    let ProvisionOptions { site, sites, retention, replicas, .. } = options;
    let history = i64::try_from(retention.history).unwrap_or(i64::MAX);
    let base = Config {
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        num_replicas: *replicas,
        max_consumers: MAX_CONSUMERS,
        ..Config::default()
    };
    let records = Config {
        name: subject::records_stream(site),
        subjects: ["rec", "res", "ctl"].iter().map(|family| format!("fh.{site}.{family}.>")).collect(),
        max_messages_per_subject: history,
        allow_message_ttl: true,
        allow_direct: true,
        allow_atomic_publish: true,
        metadata: records_metadata(options),
        ..base.clone()
    };
    let commands = Config {
        name: subject::commands_stream(site),
        subjects: vec![format!("fh.{site}.cmd.>")],
        max_bytes: options.max_command_log_bytes,
        duplicate_window: options.duplicate_window,
        allow_atomic_publish: true,
        ..base.clone()
    };
    let dead_letters = Config {
        name: subject::dead_letter_stream(site),
        subjects: vec![format!("fh.{site}.dead.>")],
        duplicate_window: options.duplicate_window,
        ..base.clone()
    };
    let mirrors = sites.iter().filter(|other| *other != site).map(|other| Config {
        name: subject::records_stream(other),
        max_messages_per_subject: history,
        allow_message_ttl: true,
        allow_direct: true,
        mirror: Some(mirror_of(other, options.mirror_consumers.then(|| consumer_for(site, other)))),
        ..base.clone()
    });
    let stranded = Config {
        name: subject::stranded_stream(site),
        subjects: vec![format!("fh.{site}.stranded.>")],
        duplicate_window: options.duplicate_window,
        ..base.clone()
    };
    [records, commands, dead_letters, stranded].into_iter().chain(mirrors).collect()
}

/// How a site's mirror of an origin's log names the consumer that was made for it.
fn consumer_for(site: &SiteName, origin: &SiteName) -> StreamConsumerSource {
    StreamConsumerSource::new(subject::mirror_consumer(site), subject::mirror_delivery(origin, site))
}

fn records_metadata(options: &ProvisionOptions) -> HashMap<String, String> {
    let incarnation = Incarnation::new(1, &ulid::Ulid::generate().to_string());
    let mut metadata = HashMap::from([
        (INCARNATION_KEY.to_owned(), incarnation.to_string()),
        (RETENTION_KEY.to_owned(), options.retention.outcomes_ms.to_string()),
    ]);
    metadata.extend(options.kinds.iter().map(|(kind, settings)| (kind_key(kind), settings_text(settings))));
    metadata
}

fn kind_key(kind: &KindName) -> String {
    format!("{KIND_KEY_PREFIX}{kind}")
}

fn settings_text(settings: &KindSettings) -> String {
    // Plain numbers and names: printing cannot fail, and an empty text would be refused by the next reader.
    serde_json::to_string(settings).unwrap_or_default()
}

fn compare(options: &ProvisionOptions, found: &Config, wanted: Config) -> Result<Option<PlanStep>, ProvisionError> {
    let site = &options.site;
    let mut config = found.clone();
    if found.metadata.contains_key(RESTORING_KEY) {
        return Err(ProvisionError::RestoreInterrupted(site.clone()));
    }
    let mut differences = Vec::new();
    if wanted.metadata.contains_key(INCARNATION_KEY) {
        if !found.metadata.contains_key(INCARNATION_KEY) {
            return Err(ProvisionError::ForeignStream(found.name.clone()));
        }
        for (kind, settings) in &options.kinds {
            let wanted = settings_text(settings);
            let Some(text) = found.metadata.get(&kind_key(kind)) else {
                differences.push(format!("new kind {kind}"));
                config.metadata.insert(kind_key(kind), wanted);
                continue;
            };
            let Some(existing) = read_settings(text).filter(|existing| settings.fits(existing)) else {
                let (kind, site, found) = (kind.clone(), site.clone(), text.clone());
                return Err(ProvisionError::KindDiffers { kind, site, found, wanted });
            };
            if existing.home.is_none() && settings.home.is_some() {
                differences.push(format!("home rule of kind {kind}"));
                config.metadata.insert(kind_key(kind), wanted);
            }
        }
        let kept = found.metadata.get(RETENTION_KEY).cloned().unwrap_or_default();
        let wanted_kept = options.retention.outcomes_ms.to_string();
        if kept != wanted_kept {
            let what = "the time that outcomes are kept (ms)";
            return Err(ProvisionError::RetentionDiffers {
                what,
                site: site.clone(),
                found: kept,
                wanted: wanted_kept,
            });
        }
    }
    // A mirror that was sealed stays as it is until its origin has come back.
    let is_sealed = found.metadata.contains_key(SEALED_KEY);
    if found.mirror.is_some() != wanted.mirror.is_some() && !is_sealed {
        return Err(ProvisionError::ForeignStream(found.name.clone()));
    }
    let reads_consumer = |config: &Config| config.mirror.as_ref().is_some_and(|mirror| mirror.consumer.is_some());
    if reads_consumer(&wanted) && found.mirror.is_some() && !reads_consumer(found) {
        return Err(ProvisionError::MirrorMakesConsumer { stream: found.name.clone(), site: site.clone() });
    }
    let has_history = wanted.max_messages_per_subject > 0;
    if has_history && found.max_messages_per_subject != wanted.max_messages_per_subject {
        return Err(ProvisionError::RetentionDiffers {
            what: "the history of a record (updates)",
            site: site.clone(),
            found: found.max_messages_per_subject.to_string(),
            wanted: wanted.max_messages_per_subject.to_string(),
        });
    }
    if wanted.allow_direct && !found.allow_direct {
        differences.push("direct reads".to_owned());
        config.allow_direct = true;
    }
    if wanted.allow_atomic_publish && !found.allow_atomic_publish {
        differences.push("atomic batches".to_owned());
        config.allow_atomic_publish = true;
    }
    if found.num_replicas != wanted.num_replicas {
        differences.push(format!("replicas {} → {}", found.num_replicas, wanted.num_replicas));
        config.num_replicas = wanted.num_replicas;
    }
    if wanted.max_bytes > 0 && found.max_bytes != wanted.max_bytes {
        differences.push(format!("max bytes {} → {}", found.max_bytes, wanted.max_bytes));
        config.max_bytes = wanted.max_bytes;
    }
    if wanted.duplicate_window > Duration::ZERO && found.duplicate_window != wanted.duplicate_window {
        differences.push(format!("duplicate window {:?} → {:?}", found.duplicate_window, wanted.duplicate_window));
        config.duplicate_window = wanted.duplicate_window;
    }
    let changed = !differences.is_empty();
    Ok(changed.then(|| PlanStep::UpdateStream { config: Box::new(config), differences }))
}

fn read_settings(text: &str) -> Option<KindSettings> {
    serde_json::from_str(text).ok()
}
