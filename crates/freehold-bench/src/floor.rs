//! The floor: what a command needs of NATS and redb, pipelined, and no logic.
//!
//! For each command: a request; a publish to a command stream, which drops repeats by the message's id, and its acknowledgement; a delivery;
//! a publish to a records stream that names a claim (two headers, as Freehold's do) and its acknowledgement; a delivery
//! of that; three rows in redb, one commit for all that has arrived; a reply with the headers of Freehold's. A read is an echo: a reply as
//! long as Freehold's, with the same headers.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, push};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, stream};
use bytes::Bytes;
use freehold_sandbox::wait_until;
use freehold_store::DEFAULT_CACHE_BYTES;
use futures::{FutureExt as _, StreamExt as _};
use redb::{Database, TableDefinition};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::place::{KIND, SITE};

const COMMANDS: &str = "FLOOR_COMMANDS";
const RECORDS: &str = "FLOOR_RECORDS";
/// As many as Freehold's in the same run, unless another number was asked for.
const GROUPS: u64 = crate::GROUPS as u64;
/// Messages of a record that the stream keeps, as Freehold's default.
const HISTORY: i64 = 64;
/// How long a cluster may take to have a leader.
const LEADER_PATIENCE: Duration = Duration::from_secs(30);
/// Deliveries that are taken at once.
const CHUNK_MESSAGES: usize = 2_048;
/// The headers of an expectation.
const EXPECTS: [&str; 2] = ["Nats-Expected-Last-Subject-Sequence", "Nats-Expected-Last-Subject-Sequence-Subject"];
/// The headers of a reply; one to a command names its id before them.
const REPLY_HEADERS: [(&str, &str); 2] = [("Freehold-Version", "1"), ("Freehold-Owner", SITE)];
const COMMAND_ID_HEADER: &str = "Freehold-Command-Id";
/// What a stored message takes beside its subject, its headers and its payload: lengths, place, time and checksum.
const STORED_FRAME_BYTES: usize = 34;
/// Bytes around the headers of a message, and around each of them.
const HEADERS_FRAME_BYTES: usize = "NATS/1.0\r\n\r\n".len();
const HEADER_FRAME_BYTES: usize = ": \r\n".len();
const TABLE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("rows");
/// Bytes of the rows beside a record's own: its outcome and the message that brought it.
const OUTCOME_BYTES: usize = 200;
const MESSAGE_BYTES: usize = 60;

/// What the floor does: sizes are what Freehold's messages had in the same run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FloorOptions {
    /// Where the servers are, separated by commas.
    pub urls: String,
    /// Where redb's file goes.
    pub data_dir: PathBuf,
    /// Copies of each stream.
    pub replicas: usize,
    /// Records that there are.
    pub records: u64,
    /// Sizes of what is sent and stored, in bytes.
    pub sizes: Sizes,
}

/// Sizes in bytes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Sizes {
    /// What a message of the command stream takes there.
    pub command: usize,
    /// What a message of the records stream takes there.
    pub update: usize,
    /// The payload of a reply.
    pub reply: usize,
}

impl FloorOptions {
    /// Which record a command is for.
    fn record_of(&self, number: u64) -> u64 {
        number % self.records
    }
}

fn group_of(record: u64) -> usize {
    usize::try_from(record % GROUPS).unwrap_or_default()
}

type Replies = Arc<Mutex<HashMap<u64, async_nats::Subject>>>;

/// Runs the floor until it is killed; says on stdout when it is ready.
#[allow(clippy::print_stdout, reason = "the line is the process's signal that it is ready")]
pub async fn serve_floor(options: FloorOptions) -> Result<()> {
    let client = async_nats::connect(options.urls.split(',').collect::<Vec<_>>()).await?;
    let context = jetstream::new(client.clone());
    for (name, subjects, history) in [(COMMANDS, "floor.cmd.*", -1), (RECORDS, "floor.rec.>", HISTORY)] {
        let config = stream::Config {
            name: name.to_owned(),
            subjects: vec![subjects.to_owned()],
            max_messages_per_subject: history,
            num_replicas: options.replicas,
            ..stream::Config::default()
        };
        // A cluster that has just started may have no leader yet.
        let is_there = || async { context.create_stream(config.clone()).await.is_ok() };
        wait_until("the floor's streams are there", LEADER_PATIENCE, is_there).await?;
    }
    let replies = Replies::default();
    let mut claims = Vec::new();
    for group in 0..GROUPS {
        let claimed = context.publish(format!("floor.rec.claim.{group}"), Bytes::new()).await?.await?;
        claims.push(claimed.sequence);
    }
    // A cluster takes only one publish at a time that expects another subject's: the headers are sent under names that mean nothing.
    let expects = if options.replicas == 1 { EXPECTS } else { ["Floor-Sequence", "Floor-Subject"] };
    let headers = |(group, claim): (usize, u64)| {
        [(expects[0], claim.to_string()), (expects[1], format!("floor.rec.claim.{group}"))]
    };
    let headers: Vec<_> = claims.into_iter().enumerate().map(headers).collect();
    let commands = open_consumer(&client, &context, COMMANDS, "floor.cmd.*").await?;
    tokio::spawn(hand_on(commands, context.clone(), headers, options.clone()));
    let updates = open_consumer(&client, &context, RECORDS, "floor.rec.update.>").await?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(read(updates, sender));
    let store = Store::open(&options)?;
    let runtime = tokio::runtime::Handle::current();
    let replying = (client.clone(), Arc::clone(&replies));
    std::thread::spawn(move || store.run(receiver, &runtime, &replying.0, &replying.1));
    let requests = client.queue_subscribe(format!("freehold.{KIND}.*"), "q".to_owned()).await?;
    client.flush().await?;
    println!("{{\"ready\":\"floor\"}}");
    take(requests, client, context, replies, options).await;
    Ok(())
}

/// Puts what is asked for into the command stream; a read is answered at once.
async fn take(
    mut requests: async_nats::Subscriber,
    client: async_nats::Client,
    context: jetstream::Context,
    replies: Replies,
    options: FloorOptions,
) {
    let sizes = options.sizes;
    let mut number: u64 = 0;
    while let Some(request) = requests.next().await {
        let Some(reply) = request.reply else { continue };
        if request.subject.ends_with(".get") {
            let _ = client.publish_with_headers(reply, reply_headers(), vec![b'x'; sizes.reply].into()).await;
            continue;
        }
        number += 1;
        replies.lock().unwrap_or_else(PoisonError::into_inner).insert(number, reply);
        let subject = format!("floor.cmd.{}", group_of(options.record_of(number)));
        let headers = [("Nats-Msg-Id", format!("{number:032x}"))];
        let publish = stored(number, sizes.command, &subject, &headers);
        let context = context.clone();
        tokio::spawn(async move {
            // Whoever waits for a reply hears of a failure by its silence.
            if let Ok(sent) = context.send_publish(subject, publish).await {
                let _ = sent.await;
            }
        });
    }
}

fn reply_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in REPLY_HEADERS {
        headers.insert(name, value);
    }
    headers
}

/// Publishes an update for each command, with the headers of its group.
async fn hand_on(
    mut commands: push::Messages,
    context: jetstream::Context,
    headers: Vec<[(&'static str, String); 2]>,
    options: FloorOptions,
) {
    while let Some(Ok(command)) = commands.next().await {
        let number = number_of(&command.payload);
        let record = options.record_of(number);
        let group = group_of(record);
        let subject = format!("floor.rec.update.{group}.{record}");
        let publish = stored(number, options.sizes.update, &subject, &headers[group]);
        if let Ok(sent) = context.send_publish(subject, publish).await {
            tokio::spawn(async move {
                let _ = sent.await;
            });
        }
    }
}

/// Hands over what was delivered, as much as there is.
async fn read(mut updates: push::Messages, store: mpsc::Sender<Vec<Bytes>>) {
    while let Some(Ok(first)) = updates.next().await {
        let mut payloads = vec![first.payload.clone()];
        while payloads.len() < CHUNK_MESSAGES
            && let Some(Some(Ok(next))) = updates.next().now_or_never()
        {
            payloads.push(next.payload.clone());
        }
        if store.send(payloads).await.is_err() {
            return;
        }
    }
}

struct Store {
    database: Database,
    options: FloorOptions,
}

impl Store {
    fn open(options: &FloorOptions) -> Result<Self> {
        std::fs::create_dir_all(&options.data_dir)?;
        let database =
            Database::builder().set_cache_size(DEFAULT_CACHE_BYTES).create(options.data_dir.join("floor.redb"))?;
        let transaction = database.begin_write()?;
        transaction.open_table(TABLE)?;
        transaction.commit()?;
        Ok(Self { database, options: options.clone() })
    }

    /// Commits what has arrived, then replies.
    fn run(
        self,
        mut updates: mpsc::Receiver<Vec<Bytes>>,
        runtime: &tokio::runtime::Handle,
        client: &async_nats::Client,
        replies: &Replies,
    ) {
        while let Some(mut payloads) = updates.blocking_recv() {
            while let Ok(more) = updates.try_recv() {
                payloads.extend(more);
            }
            self.commit(&payloads).unwrap_or_else(|error| panic!("redb: {error:?}"));
            for payload in payloads {
                let to = replies.lock().unwrap_or_else(PoisonError::into_inner).remove(&number_of(&payload));
                if let Some(to) = to {
                    let mut headers = reply_headers();
                    headers.insert(COMMAND_ID_HEADER, format!("{:026}", number_of(&payload)));
                    let reply = vec![b'x'; self.options.sizes.reply];
                    let _ = runtime.block_on(client.publish_with_headers(to, headers, reply.into()));
                }
            }
        }
    }

    fn commit(&self, payloads: &[Bytes]) -> Result<()> {
        let transaction = self.database.begin_write().context("begin")?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for payload in payloads {
                let number = number_of(payload);
                let key = |table: u8, number: u64| {
                    let mut key = vec![table];
                    key.extend(number.to_be_bytes());
                    key
                };
                table.insert(key(0, self.options.record_of(number)).as_slice(), &payload[..])?;
                table.insert(key(1, number.wrapping_mul(0x9E37_79B9_7F4A_7C15)).as_slice(), &[0; OUTCOME_BYTES][..])?;
                table.insert(key(2, number).as_slice(), &[0; MESSAGE_BYTES][..])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

async fn open_consumer(
    client: &async_nats::Client,
    context: &jetstream::Context,
    stream: &str,
    filter: &str,
) -> Result<push::Messages> {
    let config = push::Config {
        deliver_subject: client.new_inbox(),
        ack_policy: AckPolicy::None,
        filter_subject: filter.to_owned(),
        flow_control: true,
        idle_heartbeat: Duration::from_secs(5),
        num_replicas: 1,
        memory_storage: true,
        ..push::Config::default()
    };
    Ok(context.create_consumer_on_stream(config, stream).await?.messages().await?)
}

/// A message that takes so many bytes where it is stored; its payload begins with a number.
fn stored(number: u64, bytes: usize, subject: &str, headers: &[(&str, String)]) -> PublishMessage {
    let header_bytes = |(name, value): &(&str, String)| name.len() + value.len() + HEADER_FRAME_BYTES;
    let beside =
        STORED_FRAME_BYTES + subject.len() + HEADERS_FRAME_BYTES + headers.iter().map(header_bytes).sum::<usize>();
    let mut payload = vec![b'x'; bytes.saturating_sub(beside).max(8)];
    payload[..8].copy_from_slice(&number.to_be_bytes());
    let publish = PublishMessage::build().payload(payload.into());
    headers.iter().fold(publish, |publish, (name, value)| publish.header(*name, value.as_str()))
}

fn number_of(payload: &[u8]) -> u64 {
    payload.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)).unwrap_or_default()
}
