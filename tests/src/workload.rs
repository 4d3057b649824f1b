//! Clients that send numbered commands and retry until they are answered, and the check of what came of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use freehold::{Client, SendOptions};
use freehold_core::{CommandId, KindName};

use crate::counter::Counter;

/// How long a client goes on trying one command.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a client waits for an answer unless it is told otherwise: longer than a request handler waits for an outcome.
const ASK_AGAIN: Duration = Duration::from_secs(6);

/// The pause before a command that is kept is asked for again.
const KEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a copy may take to have a version.
const VERSION_PATIENCE_MS: u64 = 30_000;

/// What a client knows when it ends: how many of its commands were acknowledged, by record.
pub type Acknowledged = BTreeMap<String, u64>;

/// The kind of the tests.
pub fn kind() -> KindName {
    "counter".parse().unwrap_or_else(|error| panic!("a fixed name: {error}"))
}

/// Clients at work.
pub struct Workload {
    stop: Arc<AtomicBool>,
    /// Commands acknowledged so far, over all clients.
    pub acknowledged: Arc<AtomicU64>,
    clients: Vec<(String, tokio::task::JoinHandle<Result<u64>>)>,
    records: usize,
}

impl Workload {
    /// Starts clients. Client `c<n>` works on record `<site>-<n mod records>`, one command after the other.
    pub fn start(client: &Client, site: &str, clients: usize, records: usize) -> Self {
        Self::start_asking_again(client, site, clients, records, ASK_AGAIN)
    }

    /// The same with clients that ask again after this time without an answer.
    pub fn start_asking_again(
        client: &Client,
        site: &str,
        clients: usize,
        records: usize,
        ask_again: Duration,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let start = |number: usize| {
            let name = format!("c{number}");
            let record = format!("{site}-{}", number % records);
            let (client, stop, acknowledged) = (client.clone(), Arc::clone(&stop), Arc::clone(&acknowledged));
            let working = work(client, name.clone(), record, ask_again, stop, acknowledged);
            (name, tokio::spawn(working))
        };
        let clients = (0..clients).map(start).collect();
        Self { stop, acknowledged, clients, records }
    }

    /// Stops the clients and checks every record: nothing lost, nothing twice, nothing out of order.
    pub async fn finish(self, client: &Client, site: &str) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut expected: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        for (number, (name, working)) in self.clients.into_iter().enumerate() {
            let sent = working.await?.with_context(|| format!("client {name}"))?;
            expected.entry(format!("{site}-{}", number % self.records)).or_default().insert(name, sent);
        }
        let mut total = 0;
        for (record, last) in expected {
            let last: BTreeMap<_, _> = last.into_iter().filter(|(_, sent)| *sent > 0).collect();
            let sent: u64 = last.values().sum();
            if sent == 0 {
                continue;
            }
            // Who reads may be another instance than the one that has answered the last command: its copy may be a little behind.
            let counter = read_at_least(client, &record, sent).await?;
            ensure!(counter.breaches.is_empty(), "{record}: {:?}", counter.breaches);
            ensure!(counter.last == last, "{record}: the record has {:?}, the clients {last:?}", counter.last);
            ensure!(counter.changes == sent, "{record}: {} changes for {sent} commands", counter.changes);
            total += sent;
        }
        Ok(total)
    }
}

async fn work(
    client: Client,
    name: String,
    record: String,
    ask_again: Duration,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
) -> Result<u64> {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let body = serde_json::json!({ "id": record, "amount": 1, "client": name, "number": number });
        let answer = send_asking_again(&client, "add", &body, &format!("{name}-{number}"), ask_again).await?;
        if let Err(refusal) = answer.result {
            anyhow::bail!("command {number}: {refusal:?}");
        }
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    Ok(number)
}

/// How often a counter was changed. An instance that starts again meanwhile answers nothing: who waits asks again.
pub async fn changes(client: &Client, id: &str) -> Result<u64> {
    let options = SendOptions { timeout: Duration::from_secs(1), ..SendOptions::default() };
    let body = serde_json::json!({ "id": id }).to_string();
    let answer = client.request(&kind(), "get", body.into(), &options).await?;
    let view: serde_json::Value =
        serde_json::from_slice(&answer.result.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?)?;
    view["record"]["changes"].as_u64().context("no counter")
}

/// What the instances of the service say of themselves, as far as they do within this time.
pub async fn statuses(client: &Client, patience: Duration) -> Result<Vec<serde_json::Value>> {
    let answers = client.ask_all("$SRV.STATS.counters", patience).await?;
    let stats = answers.iter().filter_map(|answer| serde_json::from_slice::<serde_json::Value>(answer).ok());
    Ok(stats.map(|mut stats| stats["data"].take()).collect())
}

/// Sends a command until its outcome is told. Where the owner of the record was just out of reach, the first answer may be that it is kept.
pub async fn send(
    client: &Client,
    command: &str,
    body: &serde_json::Value,
    command_id: Option<&str>,
) -> Result<freehold::Answer> {
    let command_id = command_id.map(str::to_owned).unwrap_or_else(|| ulid::Ulid::generate().to_string());
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let answer = send_asking_again(client, command, body, &command_id, ASK_AGAIN).await?;
        let is_kept = |body: &bytes::Bytes| {
            let body: Option<serde_json::Value> = serde_json::from_slice(body).ok();
            body.is_some_and(|body| body["accepted"] == true)
        };
        if !answer.result.as_ref().is_ok_and(is_kept) {
            return Ok(answer);
        }
        ensure!(tokio::time::Instant::now() < deadline, "{command_id} is kept and not decided");
        tokio::time::sleep(KEPT_PAUSE).await;
    }
}

/// Sends a command until it is answered, asking again soon: a request whose instance dies gets no answer.
pub async fn send_quickly(client: &Client, command: &str, body: &serde_json::Value) -> Result<freehold::Answer> {
    let command_id = ulid::Ulid::generate().to_string();
    send_asking_again(client, command, body, &command_id, Duration::from_millis(100)).await
}

/// Sends a command until it is answered, asking again after this time without an answer.
pub async fn send_asking_again(
    client: &Client,
    command: &str,
    body: &serde_json::Value,
    command_id: &str,
    ask_again: Duration,
) -> Result<freehold::Answer> {
    let options = options(command_id, ask_again)?;
    let body = bytes::Bytes::from(body.to_string());
    Ok(client.request_until_answered(&kind(), command, body, &options, PATIENCE).await?)
}

/// Sends a command once. An error means that there was no answer.
pub async fn send_once(
    client: &Client,
    command: &str,
    body: &serde_json::Value,
    command_id: &str,
    patience: Duration,
) -> Result<freehold::Answer> {
    let body = bytes::Bytes::from(body.to_string());
    Ok(client.request(&kind(), command, body, &options(command_id, patience)?).await?)
}

fn options(command_id: &str, timeout: Duration) -> Result<SendOptions> {
    Ok(SendOptions { command_id: Some(CommandId::from_caller(command_id)?), timeout, ..SendOptions::default() })
}

/// The reply of an accepted command.
pub fn reply<T: serde::de::DeserializeOwned>(answer: &freehold::Answer) -> Result<T> {
    match &answer.result {
        Ok(body) => Ok(serde_json::from_slice(body)?),
        Err(refusal) => anyhow::bail!("{refusal:?}"),
    }
}

/// Reads a counter.
pub async fn read(client: &Client, record: &str) -> Result<Counter> {
    read_at_least(client, record, 0).await
}

/// Reads a counter from a copy that has at least this version of it.
pub async fn read_at_least(client: &Client, record: &str, version: u64) -> Result<Counter> {
    #[derive(serde::Deserialize)]
    struct View {
        record: Counter,
    }
    let body = serde_json::json!({ "id": record, "min_version": version, "timeout_ms": VERSION_PATIENCE_MS });
    let options = SendOptions { timeout: PATIENCE, ..SendOptions::default() };
    let answer = client.request(&kind(), "get", body.to_string().into(), &options).await?;
    let body = answer.result.map_err(|refusal| anyhow::anyhow!("{record}: {refusal:?}"))?;
    Ok(serde_json::from_slice::<View>(&body)?.record)
}
