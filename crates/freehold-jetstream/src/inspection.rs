//! What a site's JetStream says of itself, for those who look whether all is well: read, never changed.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use freehold_core::{SiteName, StreamSequence, subject};

use crate::connection::{Connection, api_prefix};
use crate::error::ApiError;
use crate::sites_log::SEALED_KEY;

/// How long a site may take to answer one question.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a site's JetStream says.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// Its domain.
    pub domain: Option<String>,
    /// Bytes that its files take.
    pub stored_bytes: u64,
    /// The most that they may take; nothing where there is no limit.
    pub max_stored_bytes: Option<u64>,
    /// Freehold's streams by name; nothing where one is missing.
    pub streams: BTreeMap<String, Option<StreamFacts>>,
    /// How far the server's clock is ahead of this machine's, in milliseconds, give or take the way there and back.
    pub clock_ahead_ms: Option<i64>,
}

/// What a stream says of itself.
#[derive(Debug, Clone)]
pub struct StreamFacts {
    /// Its last message.
    pub last: StreamSequence,
    /// Messages that it holds.
    pub messages: u64,
    /// Bytes that it holds.
    pub bytes: u64,
    /// The most that it may hold; nothing where there is no limit.
    pub max_bytes: Option<u64>,
    /// It mirrors another one.
    pub is_mirror: bool,
    /// It was a mirror, and is sealed since its origin was taken for lost.
    pub is_sealed: bool,
    /// What it keeps must not go by itself: old messages are kept, new ones refused where it is full.
    pub keeps_what_it_has: bool,
    /// Messages may have a time to live.
    pub allows_ttl: bool,
    /// Several messages can be published as one.
    pub allows_batches: bool,
    /// Updates of a record that it keeps.
    pub history: i64,
    /// Copies within the site, and how many of them are current.
    pub replicas: (usize, usize),
    /// The server that has made or last changed it.
    pub server_version: Option<String>,
    /// Settings that all sites must share: groups and home rule of each kind, and how long outcomes are kept.
    pub shared: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Account {
    domain: Option<String>,
    storage: u64,
    limits: Limits,
}

#[derive(Deserialize)]
struct Limits {
    max_storage: i64,
}

#[derive(Deserialize)]
struct StreamInfo {
    config: StreamConfig,
    state: StreamState,
    ts: Option<String>,
    cluster: Option<Cluster>,
}

#[derive(Deserialize)]
struct StreamConfig {
    #[serde(default)]
    mirror: Option<serde_json::Value>,
    discard: String,
    max_age: u64,
    max_bytes: i64,
    max_msgs_per_subject: i64,
    num_replicas: usize,
    #[serde(default)]
    allow_msg_ttl: bool,
    #[serde(default)]
    allow_atomic: bool,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct StreamState {
    messages: u64,
    bytes: u64,
    last_seq: u64,
}

#[derive(Deserialize)]
struct Cluster {
    #[serde(default)]
    replicas: Vec<Replica>,
}

#[derive(Deserialize)]
struct Replica {
    #[serde(default)]
    current: bool,
}

#[derive(Deserialize)]
struct Failed {
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    code: u16,
    description: String,
}

/// Looks at a site that has mirrors of all these sites, through its domain.
pub async fn inspect(connection: &Connection, site: &SiteName, sites: &[SiteName]) -> Result<Inspection, ApiError> {
    let account: Account = ask(connection, site, "INFO").await?.ok_or_else(|| failed(site, "it has no JetStream"))?;
    let own = [subject::commands_stream(site), subject::dead_letter_stream(site), subject::stranded_stream(site)];
    let bucket = format!("KV_{}", subject::members_bucket(site));
    let names = own.into_iter().chain([bucket]).chain(sites.iter().map(subject::records_stream));
    let (mut streams, mut clock_ahead_ms) = (BTreeMap::new(), None);
    for name in names {
        let asked = now_ms();
        let info: Option<StreamInfo> = ask(connection, site, &format!("STREAM.INFO.{name}")).await?;
        let middle = asked.midpoint(now_ms());
        let told = info.as_ref().and_then(|info| info.ts.as_ref()?.parse::<jiff::Timestamp>().ok());
        clock_ahead_ms = told.map(|told| told.as_millisecond() - middle).or(clock_ahead_ms);
        streams.insert(name, info.map(facts));
    }
    let max_stored_bytes = u64::try_from(account.limits.max_storage).ok();
    let Account { domain, storage: stored_bytes, .. } = account;
    Ok(Inspection { domain, stored_bytes, max_stored_bytes, streams, clock_ahead_ms })
}

fn facts(info: StreamInfo) -> StreamFacts {
    let StreamInfo { config, state, cluster, .. } = info;
    let shared = |key: &str| key.starts_with("freehold-kind-") || key == "freehold-outcomes-ms";
    let current = cluster.map_or(0, |cluster| cluster.replicas.iter().filter(|replica| replica.current).count());
    StreamFacts {
        last: StreamSequence(state.last_seq),
        messages: state.messages,
        bytes: state.bytes,
        max_bytes: u64::try_from(config.max_bytes).ok(),
        is_mirror: config.mirror.is_some(),
        is_sealed: config.metadata.contains_key(SEALED_KEY),
        keeps_what_it_has: config.discard == "new" && config.max_age == 0,
        allows_ttl: config.allow_msg_ttl,
        allows_batches: config.allow_atomic,
        history: config.max_msgs_per_subject,
        replicas: (config.num_replicas, current + 1),
        server_version: config.metadata.get("_nats.ver").cloned(),
        shared: config.metadata.into_iter().filter(|(key, _)| shared(key)).collect(),
    }
}

/// Asks a site's JetStream; nothing where it does not have what was asked for.
async fn ask<T: DeserializeOwned>(connection: &Connection, site: &SiteName, what: &str) -> Result<Option<T>, ApiError> {
    let request = async_nats::Request::new().payload(Bytes::new()).timeout(Some(PATIENCE));
    let reply = connection.client.send_request(format!("{}.{what}", api_prefix(site)), request).await;
    let reply = reply.map_err(|error| ApiError::new(format!("asking site {site}"), error))?;
    let read = |error| ApiError::new(format!("reading the answer of site {site}"), error);
    match serde_json::from_slice::<Failed>(&reply.payload).map_err(read)?.error {
        Some(Failure { code: 404, .. }) => Ok(None),
        Some(Failure { description, .. }) => Err(failed(site, &description)),
        None => serde_json::from_slice(&reply.payload).map(Some).map_err(read),
    }
}

fn failed(site: &SiteName, why: &str) -> ApiError {
    ApiError::new(format!("asking site {site}"), std::io::Error::other(why.to_owned()))
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
