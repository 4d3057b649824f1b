//! The end of a lost site's log: what is confirmed of it while it is sealed, and what only an instance's copy still has of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use freehold::Client;
use freehold::runtime::{TakeOverAnswer, TakeOverRequest};
use freehold_core::subject::{ConfirmationSubject, commands_stream};
use freehold_core::{SiteName, Stranded, StreamSequence};
use freehold_jetstream::{ConfirmationsLog, SitesLog, read_records_log_facts};
use freehold_sandbox::wait_until;
use freehold_tests::takeover::{ask, ballot, seal, take_over};
use freehold_tests::workload;
use serde_json::json;
use tokio::task::JoinSet;

use crate::deployment::{SOON, add, all_equal, start, stranded, wait_back};

/// Clients that work while a log is sealed.
const CLIENTS: usize = 8;
/// Commands that are acknowledged behind a seal.
const BEHIND_THE_SEAL: u64 = 500;
/// Commands that only the lost site decides.
const ALONE: u64 = 10;

/// What a site says that it has of another one's log.
async fn confirmed(client: &Client, site: &str, origin: &str) -> Result<StreamSequence> {
    let log = ConfirmationsLog::new(client.connection().clone());
    let subject = ConfirmationSubject { site: site.parse()?, kind: workload::kind(), origin: origin.parse()? };
    let newest = log.newest(&subject).await?.and_then(|(_, confirmation)| confirmation);
    Ok(newest.map(|confirmation| confirmation.position).unwrap_or_default())
}

/// Clients of a site that change records of it until this is dropped, and how often they were acknowledged.
fn change_for_ever(client: &Client, site: &str) -> (JoinSet<()>, Arc<AtomicU64>) {
    let acknowledged = Arc::new(AtomicU64::new(0));
    let change = |number: usize| {
        let (client, acknowledged) = (client.clone(), Arc::clone(&acknowledged));
        let body = json!({ "id": format!("{site}-{number}"), "amount": 1 });
        async move {
            loop {
                let answer = workload::send(&client, "add", &body, None).await;
                if answer.is_ok_and(|answer| answer.result.is_ok()) {
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    };
    ((0..CLIENTS).map(change).collect(), acknowledged)
}

/// S36: a member has two instances, of which one confirms and dies, and the other confirms from then on: neither does behind the seal.
#[tokio::test(flavor = "multi_thread")]
async fn s36_no_instance_of_a_member_confirms_behind_its_seal() -> Result<()> {
    let mut place = start(&["one", "two"]).await?;
    let [ewr, jfk, lga] = [0, 1, 2].map(|at| place.clients[at].clone());
    let lost: SiteName = "ewr".parse()?;
    let (clients, acknowledged) = change_for_ever(&ewr, "ewr");
    let acknowledged = || acknowledged.load(Ordering::Relaxed);
    let confirms = || async { confirmed(&lga, "lga", "ewr").await.is_ok_and(|position| position.0 > 500) };
    wait_until("the member confirms", SOON, confirms).await?;

    let refused = |refusal| anyhow::anyhow!("{refusal:?}");
    let members = ["jfk", "lga"];
    let (_, ballot) = ballot(&jfk, &lost, &members).await?.map_err(refused)?;
    let sealed_at = seal(&lga, &lost, &ballot, &["lga"]).await?.map_err(refused)?[0].position;
    // Which of them confirms is the list's business: each is killed once.
    for (site, instance) in &mut place.instances {
        if *site == "lga" {
            instance.process().kill().await?;
            let goal = acknowledged() + BEHIND_THE_SEAL;
            wait_until("the lost site goes on", SOON, || async { acknowledged() > goal }).await?;
            instance.restart().await?;
        }
    }
    let other = confirmed(&jfk, "jfk", "ewr").await?;
    ensure!(other > sealed_at, "the member that has not sealed confirms on: {other}, sealed at {sealed_at}");
    let position = confirmed(&lga, "lga", "ewr").await?;
    ensure!(position.0 > 0 && position <= sealed_at, "sealed at {sealed_at}, confirmed up to {position}");

    let sealed = seal(&jfk, &lost, &ballot, &members).await?.map_err(refused)?;
    let at_jfk = sealed[0].position;
    ensure!(sealed[1].position == sealed_at, "a sealed log has grown: {sealed:?}");
    let request = TakeOverRequest { lost, ballot, sealed };
    let taken = ask::<TakeOverAnswer>(&jfk, "jfk", "take-over", &request).await?.map_err(refused)?;
    ensure!(taken.cut == at_jfk && at_jfk > sealed_at, "cut at {}, sealed at {at_jfk} and {sealed_at}", taken.cut);
    ensure!(confirmed(&jfk, "jfk", "ewr").await? <= at_jfk, "the taker has confirmed behind its own seal");
    drop(clients);
    wait_back(&jfk, "ewr", &members).await?;
    all_equal(place).await
}

/// S41: the lost site's log has lost its tail with its disk, and only the copy of an instance that starts late still has it.
#[tokio::test(flavor = "multi_thread")]
async fn s41_a_tail_that_only_the_copy_of_a_late_instance_has_is_set_aside() -> Result<()> {
    let mut place = start(&["one", "two"]).await?;
    let [ewr, jfk, lga] = [0, 1, 2].map(|at| place.clients[at].clone());
    add(&ewr, "ewr-1", "first").await?;
    for client in [&jfk, &lga] {
        workload::read_at_least(client, "ewr-1", 1).await?;
    }
    let site: SiteName = "ewr".parse()?;
    let life = read_records_log_facts(ewr.connection(), &site).await?.incarnation;
    place.sandbox.cut("ewr").await?;
    let mut alone = BTreeMap::new();
    for number in 1..=ALONE {
        let command_id = format!("alone-{number}");
        let total = add(&ewr, "ewr-1", &command_id).await?;
        alone.insert(command_id, total.changes);
    }
    place.equal_at("ewr").await?;
    place.kill("ewr").await?;
    let members = ["jfk", "lga"];
    let taken = take_over(&jfk, "ewr", &members).await?.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;

    // Its log is what the others have of it, as if the disk had lost what was written last; of one instance nothing is left.
    place.sandbox.heal("ewr")?;
    place.restart_servers("ewr").await?;
    place.sandbox.wait_linked("ewr").await?;
    let log = SitesLog::new(ewr.connection().clone(), site.clone());
    log.restore(&members[0].parse()?, taken.answer.cut, &life, |_| {}).await.context("restore")?;
    let jetstream = async_nats::jetstream::new(async_nats::connect(place.sandbox.site("ewr").url()).await?);
    jetstream.get_stream(commands_stream(&site)).await?.purge().await?;
    std::fs::remove_file(place.copy_file("ewr", "one"))?;
    place.restart_instance("ewr", "one").await?;
    wait_back(&jfk, "ewr", &members).await?;
    ensure!(stranded(&place, "ewr").await?.is_empty(), "somebody else had the tail: this shows nothing");
    ensure!(add(&jfk, "ewr-1", "after").await?.changes == 2);

    place.restart_instance("ewr", "two").await?;
    let set_aside = outcomes(&stranded(&place, "ewr").await?);
    ensure!(set_aside == alone, "not exactly what only one copy had is set aside: {set_aside:?}");
    // Starting again sets nothing aside twice.
    place.kill_instances("ewr").await?;
    place.restart_instances("ewr").await?;
    let entries = stranded(&place, "ewr").await?;
    ensure!(entries.len() == alone.len() && outcomes(&entries) == alone, "{entries:?}");
    ensure!(workload::read_at_least(&ewr, "ewr-1", 2).await?.changes == 2);
    all_equal(place).await
}

/// The outcomes that were set aside: of which command, and which version of the record.
fn outcomes(stranded: &[Stranded]) -> BTreeMap<String, u64> {
    let outcome = |entry: &Stranded| match entry {
        Stranded::Outcome { change, .. } => Some((change.command_id.to_string(), change.outcome.version.0)),
        _ => None,
    };
    stranded.iter().filter_map(outcome).collect()
}
