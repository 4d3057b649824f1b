//! The drill: a long cut, a site that is killed and taken over under load, its return, and its records back home.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use freehold::{Client, SendOptions};
use freehold_core::Stranded;
use freehold_sandbox::wait_until;
use freehold_tests::takeover::{give_back, take_over};
use freehold_tests::three_sites::SITES;
use freehold_tests::workload;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::deployment::{PROCESSORS, SOON, all_equal, start, stranded, wait_back};

const CLIENTS: usize = 16;
/// How long the link is cut.
const CUT: Duration = Duration::from_secs(60);
/// How long a site works alone before it dies.
const ALONE: Duration = Duration::from_millis(500);
/// How long a client waits before it sends a command again.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Between two commands of a client: the machine is small.
const PAUSE: Duration = Duration::from_millis(20);

/// The ids of the commands that clients were answered, by record: applied, or kept for an owner that was away.
type Answered = BTreeMap<String, Vec<String>>;

/// Clients of one site, each with a record of its own, which belong to all sites in turn.
struct Clients {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    tasks: JoinSet<Result<(String, Vec<String>)>>,
}

impl Clients {
    fn start(at: usize, client: &Client) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let work = |number: usize| {
            let id = format!("{}-{}-{number}", SITES[(at + number) % SITES.len()], SITES[at]);
            work(client.clone(), id, Arc::clone(&stop), Arc::clone(&acknowledged))
        };
        let tasks = (0..CLIENTS).map(work).collect();
        Self { stop, acknowledged, tasks }
    }

    async fn finish(self) -> Result<Answered> {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await.into_iter().collect()
    }

    /// Waits until they have got further.
    async fn go_on(&self) -> Result<()> {
        let goal = self.acknowledged.load(Ordering::Relaxed) + 100;
        let reached = || async { self.acknowledged.load(Ordering::Relaxed) >= goal };
        Ok(wait_until("the clients make progress", SOON, reached).await?)
    }
}

async fn work(
    client: Client,
    id: String,
    stop: Arc<AtomicBool>,
    total: Arc<AtomicU64>,
) -> Result<(String, Vec<String>)> {
    let mut answered = Vec::new();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let command_id = format!("{id}-{number}");
        let body = json!({ "id": id, "amount": 1 });
        let answer = workload::send_asking_again(&client, "add", &body, &command_id, ASK_AGAIN).await;
        let answer = answer.with_context(|| command_id.clone())?;
        answer.result.map_err(|refusal| anyhow::anyhow!("{command_id}: {refusal:?}"))?;
        answered.push(command_id);
        total.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
    Ok((id, answered))
}

/// What every site says of a command: applied, or nothing.
async fn is_applied(client: &Client, id: &str, command_id: &str) -> Result<bool> {
    let body = json!({ "id": id, "command_id": command_id }).to_string();
    let answer = client.request(&workload::kind(), "outcome", body.into(), &SendOptions::default()).await?;
    let Ok(body) = answer.result else { return Ok(false) };
    Ok(serde_json::from_slice::<Value>(&body)?["status"] == "applied")
}

/// `freehold verify` at a site, as an operator runs it.
fn verify(url: &str) -> Result<()> {
    let sites = SITES.join(",");
    let ran = Command::new(env!("CARGO_BIN_EXE_e2e-freehold"))
        .args(["--url", url, "verify", "--sites", &sites, "--kind", "counter", "--patience", "60"])
        .output()?;
    let said = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    ensure!(ran.status.success(), "{}{}", said.0, said.1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drill() -> Result<()> {
    let _alone = PROCESSORS.lock().await;
    let mut place = start(&["one", "two"]).await?;
    let clients: Vec<_> = place.clients.iter().enumerate().map(|(at, client)| Clients::start(at, client)).collect();
    for clients in &clients {
        clients.go_on().await?;
    }
    place.sandbox.cut("ewr").await?;
    tokio::time::sleep(CUT).await;
    for clients in &clients {
        // Every site works on with what it owns.
        clients.go_on().await?;
    }
    place.sandbox.heal("ewr")?;
    place.sandbox.wait_linked("ewr").await?;
    for clients in &clients {
        clients.go_on().await?;
    }

    // A site dies: servers and instances, and with them what its clients ask. It had been alone for a moment, and nobody knows what
    // it has decided then.
    place.sandbox.cut("lga").await?;
    tokio::time::sleep(ALONE).await;
    place.kill("lga").await?;
    let begun = Instant::now();
    let taken = take_over(&place.clients[1], "lga", &["jfk", "ewr"]).await?;
    let taken = taken.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
    println!("taken over in {:?}, cut at {}", begun.elapsed(), taken.answer.cut);
    for clients in &clients[..2] {
        clients.go_on().await?;
    }
    place.restart_servers("lga").await?;
    place.sandbox.heal("lga")?;
    place.sandbox.wait_linked("lga").await?;
    place.restart_instances("lga").await?;
    wait_back(&place.clients[1], "lga", &["jfk", "ewr"]).await?;
    for clients in &clients {
        clients.go_on().await?;
    }

    // Its records go home, while everybody works.
    let of_lga = |at: usize| (0..CLIENTS).filter(move |number| (at + number) % SITES.len() == 2);
    let ids = (0..SITES.len()).flat_map(|at| of_lga(at).map(move |number| format!("lga-{}-{number}", SITES[at])));
    give_back(&place.clients[1], "jfk", "lga", &ids.collect::<Vec<_>>()).await?;
    for clients in &clients {
        clients.go_on().await?;
    }
    let mut answered = Answered::new();
    for clients in clients {
        answered.extend(clients.finish().await?);
    }

    // Every command that was answered is applied once, or set aside where it is not.
    let stranded: BTreeSet<String> = stranded(&place, "lga")
        .await?
        .into_iter()
        .flat_map(|entry| match entry {
            Stranded::Update { update, .. } => update.changes.into_iter().map(|it| it.command_id.to_string()).collect(),
            Stranded::Outcome { change, .. } => vec![change.command_id.to_string()],
            Stranded::Command { command, .. } => vec![command.command_id.to_string()],
        })
        .collect();
    let (mut applied, mut set_aside) = (0, 0);
    let ewr = &place.clients[0];
    for (id, command_ids) in &answered {
        let mut of_record = 0;
        for command_id in command_ids {
            let is_there = || async { is_applied(ewr, id, command_id).await.unwrap_or(false) };
            if !stranded.contains(command_id) {
                wait_until("what was answered is applied", SOON, is_there).await.with_context(|| command_id.clone())?;
            }
            if is_there().await { of_record += 1 } else { set_aside += 1 }
        }
        let changes = workload::read(ewr, id).await?.changes;
        ensure!(changes == of_record, "{id}: {changes} changes, {of_record} of {} commands applied", command_ids.len());
        applied += of_record;
    }
    println!("{applied} commands are applied once, {set_aside} are stranded");
    ensure!(set_aside > 0, "nothing was stranded: the drill has shown nothing of that");
    verify(&place.sandbox.site("ewr").url())?;
    all_equal(place).await
}
