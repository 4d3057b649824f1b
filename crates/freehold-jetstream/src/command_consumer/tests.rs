//! Claims that join the consumer for all groups, on a real server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_nats::jetstream::stream;
use freehold_core::{GroupCount, GroupNumber, SiteName};
use freehold_sandbox::{Sandbox, wait_until};
use tokio::task::JoinHandle;

use super::*;
use crate::command_log::CommandLog;
use crate::connection::{ConnectOptions, Connection};
use crate::direct_read::read_range;

const PATIENCE: Duration = Duration::from_secs(30);
const STREAM: &str = "FH_COMMANDS_ewr";

struct Site {
    // Ends with its servers.
    _sandbox: Sandbox,
    connection: Connection,
    log: CommandLog,
}

impl Site {
    async fn start() -> Self {
        let sandbox = Sandbox::builder().site("ewr").start().await.unwrap();
        let options = ConnectOptions::to(sandbox.site("ewr").url());
        let connection = Connection::open(&options, "test").await.unwrap();
        let subjects = vec!["fh.ewr.cmd.>".to_owned()];
        let config = stream::Config { name: STREAM.to_owned(), subjects, allow_direct: true, ..Default::default() };
        connection.jetstream.create_stream(config).await.unwrap();
        let log = CommandLog::new(connection.clone(), site());
        Self { _sandbox: sandbox, connection, log }
    }

    async fn consume(&self, group: u16, after: u64) -> CommandConsumer {
        self.log.consume(group_of(group), StreamSequence(1), StreamSequence(after)).await.unwrap()
    }

    /// Publishes to groups in turn until it is told to end.
    fn publish_to(&self, groups: u16, end: Arc<AtomicBool>) -> JoinHandle<()> {
        let client = self.connection.client.clone();
        tokio::spawn(async move {
            while !end.load(Ordering::Relaxed) {
                // As much as is under way when a claim changes from one consumer to the other.
                for group in (0..groups).cycle().take(40) {
                    client.publish(subject_of(group), "{}".into()).await.unwrap();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    }

    async fn sequences(&self, group: u16) -> Vec<u64> {
        let read = read_range(&self.connection, STREAM, &subject_of(group), StreamSequence(0), usize::MAX).await;
        read.unwrap().iter().map(|message| message.sequence.0).collect()
    }

    async fn last(&self) -> u64 {
        self.log.last().await.unwrap().0
    }
}

fn site() -> SiteName {
    "ewr".parse().unwrap()
}

fn group_of(group: u16) -> CommandGroup {
    CommandGroup { kind: "flight".parse().unwrap(), group: GroupNumber(group), groups: GroupCount::new(8).unwrap() }
}

fn subject_of(group: u16) -> String {
    group_of(group).subject(&site())
}

/// A claim that takes its commands, and tells when it has joined.
struct Claim {
    reads: JoinHandle<()>,
    taken: Arc<std::sync::Mutex<Vec<u64>>>,
    joined: Arc<AtomicUsize>,
}

impl Claim {
    fn take(mut consumer: CommandConsumer, joined: &Arc<AtomicUsize>) -> Self {
        let taken = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (takes, joins) = (Arc::clone(&taken), Arc::clone(joined));
        let reads = tokio::spawn(async move {
            let mut is_shared = false;
            while let Ok(commands) = consumer.next().await {
                takes.lock().unwrap().extend(commands.iter().map(|command| command.sequence.0));
                if !is_shared && matches!(consumer.source, Source::Shared(_)) {
                    is_shared = true;
                    joins.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { reads, taken, joined: Arc::clone(joined) }
    }

    fn last(&self) -> u64 {
        self.taken.lock().unwrap().last().copied().unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_that_join_miss_nothing_and_take_nothing_twice() {
    let site = Site::start().await;
    let end = Arc::new(AtomicBool::new(false));
    let publishing = site.publish_to(8, Arc::clone(&end));
    let joined = Arc::new(AtomicUsize::new(0));
    let mut claims = Vec::new();
    // Some at first, then some more: another consumer takes the first one's place, and a third when one has left.
    for groups in [0..3, 3..6, 6..8] {
        for group in groups {
            claims.push(Claim::take(site.consume(group, 0).await, &joined));
        }
        let all = claims.len();
        let have_joined = || async { joined.load(Ordering::Relaxed) == all };
        wait_until("all claims have joined", PATIENCE, have_joined).await.unwrap();
        if all == 6 {
            let left = &claims[0];
            left.reads.abort();
            let after = left.last();
            let again = Claim::take(site.consume(0, after).await, &joined);
            again.taken.lock().unwrap().splice(0..0, claims[0].taken.lock().unwrap().iter().copied());
            claims[0] = again;
            wait_until("it has joined again", PATIENCE, || async { joined.load(Ordering::Relaxed) == all + 1 })
                .await
                .unwrap();
            joined.fetch_sub(1, Ordering::Relaxed);
        }
    }
    end.store(true, Ordering::Relaxed);
    publishing.await.unwrap();
    site.connection.client.flush().await.unwrap();
    for (group, claim) in (0..).zip(&claims) {
        let expected = site.sequences(group).await;
        let has_all = || async { claim.last() == *expected.last().unwrap() };
        wait_until("a claim has all commands", PATIENCE, has_all).await.unwrap();
        assert_eq!(*claim.taken.lock().unwrap(), expected, "group {group}");
        assert_eq!(claim.joined.load(Ordering::Relaxed), 8);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_takes_nothing_does_not_hold_up_the_others() {
    let site = Site::start().await;
    let joined = Arc::new(AtomicUsize::new(0));
    let busy = Claim::take(site.consume(0, 0).await, &joined);
    let mut stuck = site.consume(1, 0).await;
    let (client, publish) = (&site.connection.client, |group| (subject_of(group), "{}"));
    // Both join on their ways to a first command.
    let first = async {
        let (subject, payload) = publish(1);
        tokio::time::sleep(2 * JOIN_AFTER).await;
        client.publish(subject, payload.into()).await.unwrap();
    };
    let (taken, ()) = tokio::join!(stuck.next(), first);
    assert!(taken.is_ok() && matches!(stuck.source, Source::Shared(_)));
    let many = crate::command_feed::MAX_FED + 1_000;
    for number in 0..many {
        let (subject, payload) = publish(u16::from(number % 2 == 0));
        client.publish(subject, payload.into()).await.unwrap();
        let (subject, payload) = publish(1);
        client.publish(subject, payload.into()).await.unwrap();
    }
    let expected = site.sequences(0).await;
    let has_all = || async { busy.last() == site.sequences(0).await.last().copied().unwrap_or_default() };
    wait_until("the other claim has all commands", PATIENCE, has_all).await.unwrap();
    assert!(busy.taken.lock().unwrap().starts_with(&expected));
    // What waited for it is still there; then it must begin anew, as after any other end of its consumer.
    let mut sequences = vec![taken.unwrap()[0].sequence.0];
    while let Ok(commands) = stuck.next().await {
        sequences.extend(commands.iter().map(|command| command.sequence.0));
    }
    assert!(sequences.len() <= crate::command_feed::MAX_FED + 1 && !sequences.is_empty());
    let mut again = site.consume(1, *sequences.last().unwrap()).await;
    let expected = site.sequences(1).await;
    while sequences.len() < expected.len() {
        let commands = tokio::time::timeout(PATIENCE, again.next()).await.unwrap().unwrap();
        sequences.extend(commands.iter().map(|command| command.sequence.0));
    }
    assert_eq!(sequences, expected);
    assert_eq!(site.last().await, u64::try_from(2 * many + 1).unwrap());
}
