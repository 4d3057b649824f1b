//! Takeovers at random moments, and what becomes of what was acknowledged before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use freehold::{Client, SendOptions};
use freehold_core::{CommandId, Stranded};
use freehold_jetstream::StrandedLog;
use freehold_tests::takeover::take_over;
use freehold_tests::three_sites::SITES;
use freehold_tests::workload;
use rand::RngExt as _;
use serde_json::json;

use crate::deployment::{PROCESSORS, add, all_equal, start, wait_back};

/// One acknowledged command of a client at a site that was lost.
#[derive(Debug, Clone)]
struct Acknowledged {
    id: String,
    command_id: String,
    version: u64,
    confirmed: bool,
}

/// A client that changes one record until it gets no answer or is stopped.
async fn change_until(
    client: Client,
    id: String,
    round: usize,
    wait: &'static str,
    stop: Arc<AtomicBool>,
) -> Result<Vec<Acknowledged>> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let command_id = format!("{round}-{id}-{number}");
        let options = SendOptions {
            command_id: Some(CommandId::from_caller(&command_id)?),
            wait: Some(wait.to_owned()),
            timeout: Duration::from_millis(500),
            ..SendOptions::default()
        };
        let body = json!({ "id": id, "amount": 1 }).to_string();
        let Ok(answer) = client.request(&workload::kind(), "add", body.into(), &options).await else { break };
        let (Ok(_), Some(version)) = (&answer.result, answer.version) else { break };
        acknowledged.push(Acknowledged {
            id: id.clone(),
            command_id,
            version: version.0,
            confirmed: wait != "applied",
        });
    }
    Ok(acknowledged)
}

/// 50 takeovers at random moments under load: what is said to be kept is kept, what is not is set aside, and nothing that
/// another site had confirmed is lost.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_takeovers_say_exactly_what_is_kept() -> Result<()> {
    const ROUNDS: usize = 50;
    const RECORDS: usize = 6;
    let _alone = PROCESSORS.lock().await;
    let place = start(&["one"]).await?;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut chance = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
    let ids: Vec<String> = (0..RECORDS).map(|number| format!("ewr-{number}")).collect();
    for id in &ids {
        add(&place.clients[0], id, "first").await?;
    }
    // Mirrors that were made a moment ago may not have begun.
    place.all_equal(None).await?;
    let mut lost = 0;
    let (mut kept, mut stranded, mut listed_too, mut slowest) = (0, 0, 0, Duration::ZERO);
    for round in 0..ROUNDS {
        let taker = (lost + chance.random_range(1..3)) % 3;
        let third = 3 - lost - taker;
        let (there, here) = (place.clients[lost].clone(), place.clients[taker].clone());
        let before = StrandedLog::new(there.connection().clone(), SITES[lost].parse()?).last().await?;
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = ids
            .iter()
            .enumerate()
            .map(|(number, id)| {
                let wait = if number % 2 == 0 { "applied" } else { "sites=1" };
                tokio::spawn(change_until(there.clone(), id.clone(), round, wait, Arc::clone(&stop)))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(chance.random_range(30..200))).await;
        place.sandbox.cut(SITES[lost]).await?;
        tokio::time::sleep(Duration::from_millis(chance.random_range(0..200))).await;
        let begun = Instant::now();
        let members = [SITES[taker], SITES[third]];
        let taken = take_over(&here, SITES[lost], &members).await?.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
        slowest = slowest.max(begun.elapsed());
        ensure!(taken.answer.is_ready, "round {round}: {taken:?}");
        // What the taker has of each record when it begins.
        let mut begins = BTreeMap::new();
        for id in &ids {
            begins.insert(id.clone(), workload::read(&here, id).await?.changes);
        }
        stop.store(true, Ordering::Relaxed);
        let mut acknowledged = Vec::new();
        for client in clients {
            acknowledged.extend(client.await??);
        }
        place.sandbox.heal(SITES[lost])?;
        place.sandbox.wait_linked(SITES[lost]).await?;
        wait_back(&here, SITES[lost], &members).await.with_context(|| format!("round {round}"))?;
        let log = StrandedLog::new(there.connection().clone(), SITES[lost].parse()?);
        let entries = log.entries().await?.into_iter().filter(|(sequence, _, _)| *sequence > before);
        let (mut updates, mut outcomes) = (BTreeSet::new(), BTreeSet::new());
        for (_, _, entry) in entries {
            let sequence = match entry {
                Stranded::Update { update, sequence, .. } => {
                    updates.extend(update.changes.into_iter().map(|change| change.command_id.to_string()));
                    sequence
                }
                // The log keeps a number of updates of a record; the outcomes of those before them are in results.
                Stranded::Outcome { change, sequence, .. } => {
                    outcomes.insert(change.command_id.to_string());
                    sequence
                }
                Stranded::Command { .. } => continue,
            };
            ensure!(sequence > taken.answer.cut, "round {round}: {sequence} is not behind the cut");
        }
        for Acknowledged { id, command_id, version, confirmed } in &acknowledged {
            let is_kept = *version <= begins[id];
            // Where the returning site does not hear in time what its taker has kept, it lists outcomes that count, too.
            listed_too += usize::from(is_kept && outcomes.contains(command_id));
            let is_set_aside = updates.contains(command_id) || !is_kept && outcomes.contains(command_id);
            ensure!(
                is_kept != is_set_aside,
                "round {round}: {command_id} at version {version}, kept up to {}: kept {is_kept}, set aside {is_set_aside}",
                begins[id]
            );
            ensure!(is_kept || !confirmed, "round {round}: {command_id} was confirmed by another site and is lost");
            kept += usize::from(is_kept);
            stranded += usize::from(is_set_aside);
        }
        lost = taker;
    }
    println!(
        "{ROUNDS} takeovers: {kept} acknowledged commands kept, {listed_too} of them listed all the same, {stranded} set aside; \
         the slowest took {slowest:?}"
    );
    ensure!(stranded > 0 && kept > 0, "nothing was tried");
    all_equal(place).await
}
