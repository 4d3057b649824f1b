//! P6 and P1 when a site is lost: another one takes over what it owned, says what is kept, and what the lost site has beyond
//! that is set aside when it returns.

#![allow(clippy::print_stdout, reason = "the figures are part of the result")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use freehold::{Client, SendOptions};
use freehold_core::{ErrorCode, SiteName, Stranded, subject};
use freehold_jetstream::StrandedLog;
use freehold_sandbox::{Sandbox, wait_until};
use freehold_tests::place::{self, InstanceProcess};
use freehold_tests::takeover::take_over;
use freehold_tests::workload::{self, Workload};
use freehold_tests::{copies, counter};
use rand::RngExt as _;
use serde_json::{Value, json};

const SERVICE: &str = env!("CARGO_BIN_EXE_e2e-service");
const SITES: [&str; 3] = ["ewr", "jfk", "lga"];
const SOON: Duration = Duration::from_secs(60);
/// What the taker owns can be changed within this.
const WRITABLE: Duration = Duration::from_secs(2);

struct Deployment {
    sandbox: Sandbox,
    /// By site, then by instance.
    instances: Vec<(&'static str, InstanceProcess)>,
    clients: Vec<Client>,
    _data: tempfile::TempDir,
}

impl Deployment {
    async fn start(instances: &[&str]) -> Result<Self> {
        let builder = SITES.iter().fold(Sandbox::builder(), |builder, site| builder.site(*site));
        let sandbox = builder.cuttable(true).start().await?;
        let data = tempfile::tempdir()?;
        let names = SITES.iter().map(|site| site.parse()).collect::<Result<Vec<SiteName>, _>>()?;
        let (mut started, mut clients) = (Vec::new(), Vec::new());
        for site in SITES {
            for instance in instances {
                let directory = data.path().join(format!("{site}-{instance}"));
                std::fs::create_dir_all(&directory)?;
                let mut config = place::config(sandbox.site(site), instance, &directory)?;
                config.sites = names.clone();
                started.push((site, InstanceProcess::start(SERVICE, &config, &directory).await?));
            }
            clients.push(place::client(sandbox.site(site)).await?);
        }
        Ok(Self { sandbox, instances: started, clients, _data: data })
    }

    /// Everything is killed and started again, and then all copies are the same.
    async fn all_equal(&mut self) -> Result<()> {
        for (_, instance) in &mut self.instances {
            instance.process().kill().await?;
            instance.restart().await?;
        }
        let of_site = |site: &str| SITES.iter().position(|it| *it == site).unwrap_or_default();
        let asked: Vec<_> = self.instances.iter().map(|(site, it)| (&self.clients[of_site(site)], *site, it)).collect();
        copies::wait_same(&asked, None).await?;
        Ok(())
    }

    async fn stranded(&self, site: &str) -> Result<Vec<Stranded>> {
        let at = SITES.iter().position(|it| *it == site).context("no such site")?;
        let log = StrandedLog::new(self.clients[at].connection().clone(), site.parse()?);
        Ok(log.entries().await?.into_iter().map(|(_, _, entry)| entry).collect())
    }
}

async fn add(client: &Client, id: &str, command_id: &str) -> Result<counter::Total> {
    let answer = workload::send(client, "add", &json!({ "id": id, "amount": 1 }), Some(command_id)).await?;
    workload::reply(&answer).with_context(|| id.to_owned())
}

async fn owner(client: &Client, id: &str) -> Result<String> {
    let body = json!({ "id": id }).to_string();
    let answer = client.request(&workload::kind(), "get", body.into(), &SendOptions::default()).await?;
    let view: Value = serde_json::from_slice(&answer.result.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?)?;
    Ok(view["owner"].as_str().context("no owner")?.to_owned())
}

/// Gives records back: the right to create them, and each that exists.
async fn give_back(client: &Client, from: &str, to: &str, ids: &[String]) -> Result<()> {
    let operator = |what: &str| anyhow::Ok(subject::operator(&from.parse()?, &workload::kind(), what));
    let body = json!({ "prefix": to, "to": to }).to_string();
    let answer = client.request_to(operator("rehome-right")?, body.into(), &SendOptions::default()).await?;
    answer.result.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
    for id in ids {
        let body = json!({ "id": id, "to": to }).to_string();
        let answer = client.request_to(operator("rehome")?, body.into(), &SendOptions::default()).await?;
        answer.result.map_err(|refusal| anyhow::anyhow!("{id}: {refusal:?}"))?;
    }
    Ok(())
}

/// A site that goes on deciding while it is cut off is taken over, comes back as a copy, and gets its records back.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_site_is_taken_over_and_comes_back_as_a_copy() -> Result<()> {
    let mut place = Deployment::start(&["one"]).await?;
    let [ewr, jfk, lga] = [0, 1, 2].map(|at| place.clients[at].clone());
    let ids: Vec<String> = (0..10).map(|number| format!("ewr-{number}")).collect();
    for id in &ids {
        add(&ewr, id, "first").await?;
        workload::read_at_least(&lga, id, 1).await?;
        workload::read_at_least(&jfk, id, 1).await?;
    }
    place.sandbox.cut("ewr").await?;
    // It works on alone; what others send waits for it.
    for id in &ids[..5] {
        ensure!(add(&ewr, id, "alone").await?.changes == 2);
    }
    let body = json!({ "id": "ewr-7", "amount": 1 }).to_string();
    let options = SendOptions {
        command_id: Some("waits".parse_id()?),
        wait: Some("accepted".to_owned()),
        ..SendOptions::default()
    };
    jfk.request(&workload::kind(), "add", body.into(), &options).await?;

    let begun = Instant::now();
    let taken = take_over(&lga, "ewr", &["jfk", "lga"]).await?.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
    ensure!(taken.answer.is_ready, "{taken:?}");
    ensure!(add(&lga, "ewr-1", "after").await?.changes == 2);
    println!("writable {:?} after the takeover began: {taken:?}", begun.elapsed());
    ensure!(begun.elapsed() < WRITABLE, "{:?}", begun.elapsed());
    ensure!(add(&jfk, "ewr-new", "after").await?.changes == 1, "the right to create records passes on");
    for client in [&jfk, &lga] {
        ensure!(owner(client, "ewr-1").await? == "jfk" && owner(client, "ewr-9").await? == "jfk");
    }
    // What had waited for the lost site is decided by the taker.
    ensure!(workload::read_at_least(&jfk, "ewr-7", 2).await?.changes == 2);
    // Somebody else is too late.
    let late = take_over(&lga, "ewr", &["lga", "jfk"]).await?;
    ensure!(late.as_ref().is_err_and(|refusal| refusal.code == ErrorCode::Conflict), "{late:?}");
    // The lost site does not know yet.
    ensure!(add(&ewr, "ewr-5", "alone").await?.changes == 2);

    place.sandbox.heal("ewr")?;
    place.sandbox.wait_linked("ewr").await?;
    let is_copy = || async { owner(&ewr, "ewr-1").await.is_ok_and(|owner| owner == "jfk") };
    wait_until("the lost site hears of it", SOON, is_copy).await?;
    let set_aside = || async { place.stranded("ewr").await.is_ok_and(|stranded| stranded.len() >= 12) };
    wait_until("what does not count is set aside", SOON, set_aside).await?;
    ensure!(workload::read_at_least(&ewr, "ewr-1", 2).await?.changes == 2, "what was decided alone does not count");
    ensure!(workload::read(&ewr, "ewr-2").await?.changes == 1);
    let stranded = place.stranded("ewr").await?;
    let updates: BTreeSet<_> = stranded
        .iter()
        .filter_map(|entry| match entry {
            Stranded::Update { update, .. } => Some((update.id.to_string(), update.version.0)),
            _ => None,
        })
        .collect();
    let expected: BTreeSet<_> = (0..6).map(|number| (format!("ewr-{number}"), 2)).collect();
    // What had waited for it may have been decided there, too, before it heard that it was taken over.
    let updates: BTreeSet<_> = updates.into_iter().filter(|(id, _)| id != "ewr-7").collect();
    ensure!(updates == expected, "{updates:?}");
    let commands: Vec<_> = stranded
        .iter()
        .filter_map(|entry| match entry {
            Stranded::Command { command, .. } => Some(command.id.to_string()),
            _ => None,
        })
        .collect();
    ensure!(commands.len() == 6, "{commands:?}");

    // Its commands are taken again, and decided where the records are now.
    ensure!(add(&ewr, "ewr-3", "alone").await?.changes == 2, "sent again");
    let adopted = || async { give_back(&jfk, "jfk", "ewr", &ids).await.is_ok() };
    wait_until("the records are given back", SOON, adopted).await?;
    let home = || async { owner(&ewr, "ewr-9").await.is_ok_and(|owner| owner == "ewr") };
    wait_until("they are there", SOON, home).await?;
    for (number, id) in ids.iter().enumerate() {
        let before = workload::read(&ewr, id).await?.changes;
        ensure!(add(&ewr, id, "home").await?.changes == before + 1, "{number}");
        ensure!(workload::read_at_least(&lga, id, before + 1).await?.changes == before + 1);
    }
    ensure!(add(&lga, "ewr-newer", "home").await?.changes == 1);
    ensure!(owner(&lga, "ewr-newer").await? == "ewr");
    place.all_equal().await
}

/// A text as a command id.
trait ParseId {
    fn parse_id(&self) -> Result<freehold_core::CommandId>;
}

impl ParseId for str {
    fn parse_id(&self) -> Result<freehold_core::CommandId> {
        Ok(freehold_core::CommandId::from_caller(self)?)
    }
}

/// Clients of every site work while a site is killed, taken over and started again.
#[tokio::test(flavor = "multi_thread")]
async fn clients_go_on_while_a_site_is_killed_and_taken_over() -> Result<()> {
    let mut place = Deployment::start(&["one", "two"]).await?;
    let [_, jfk, lga] = [0, 1, 2].map(|at| place.clients[at].clone());
    let ask_again = Duration::from_secs(1);
    let at_jfk = Workload::start_asking_again(&jfk, "ewr-j", 8, 8, ask_again);
    let at_lga = Workload::start_asking_again(&lga, "jfk-l", 8, 8, ask_again);
    let going = async |workload: &Workload, more: u64| {
        let goal = workload.acknowledged.load(std::sync::atomic::Ordering::Relaxed) + more;
        let reached = || async { workload.acknowledged.load(std::sync::atomic::Ordering::Relaxed) >= goal };
        wait_until("the clients make progress", SOON, reached).await
    };
    going(&at_jfk, 50).await?;
    for server in place.sandbox.site("ewr").servers() {
        server.kill().await?;
    }
    for (_, instance) in place.instances.iter().filter(|(site, _)| *site == "ewr") {
        instance.process().kill().await?;
    }
    println!("1");
    going(&at_lga, 50).await?;
    take_over(&lga, "ewr", &["jfk", "lga"]).await?.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
    going(&at_jfk, 50).await?;
    for server in place.sandbox.site("ewr").servers() {
        server.restart().await?;
    }
    place.sandbox.wait_linked("ewr").await?;
    for (_, instance) in place.instances.iter_mut().filter(|(site, _)| *site == "ewr") {
        instance.restart().await?;
    }
    going(&at_jfk, 50).await?;
    let sent = at_jfk.finish(&jfk, "ewr-j").await? + at_lga.finish(&lga, "jfk-l").await?;
    println!("{sent} commands around a takeover");
    place.all_equal().await
}

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
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
) -> Result<Vec<Acknowledged>> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        if stop.load(std::sync::atomic::Ordering::Relaxed) {
            break;
        }
        let command_id = format!("{round}-{id}-{number}");
        let options = SendOptions {
            command_id: Some(command_id.parse_id()?),
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
    let mut place = Deployment::start(&["one"]).await?;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut chance = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
    let ids: Vec<String> = (0..RECORDS).map(|number| format!("ewr-{number}")).collect();
    for id in &ids {
        add(&place.clients[0], id, "first").await?;
    }
    let mut lost = 0;
    let (mut kept, mut stranded, mut slowest) = (0, 0, Duration::ZERO);
    for round in 0..ROUNDS {
        let taker = (lost + chance.random_range(1..3)) % 3;
        let third = 3 - lost - taker;
        let (there, here) = (place.clients[lost].clone(), place.clients[taker].clone());
        let before = StrandedLog::new(there.connection().clone(), SITES[lost].parse()?).last().await?;
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let clients: Vec<_> = ids
            .iter()
            .enumerate()
            .map(|(number, id)| {
                let wait = if number % 2 == 0 { "applied" } else { "sites=1" };
                tokio::spawn(change_until(there.clone(), id.clone(), round, wait, std::sync::Arc::clone(&stop)))
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
        let mut begins = std::collections::BTreeMap::new();
        for id in &ids {
            begins.insert(id.clone(), workload::read(&here, id).await?.changes);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let mut acknowledged = Vec::new();
        for client in clients {
            acknowledged.extend(client.await??);
        }
        place.sandbox.heal(SITES[lost])?;
        place.sandbox.wait_linked(SITES[lost]).await?;
        let came_back = || async {
            for member in members {
                let request = freehold::runtime::LossRequest { lost: SITES[lost].parse()? };
                let answer = freehold_tests::takeover::ask(&here, member, "loss", &request).await?;
                let answer: freehold::runtime::LossAnswer = answer.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
                if answer.taken_over_by.is_some() || answer.sealed_for.is_some() {
                    return anyhow::Ok(false);
                }
            }
            Ok(true)
        };
        let is_back = || async { came_back().await.unwrap_or(false) };
        wait_until("the lost site is back", SOON, is_back).await.with_context(|| format!("round {round}"))?;
        let log = StrandedLog::new(there.connection().clone(), SITES[lost].parse()?);
        let entries = log.entries().await?.into_iter().filter(|(sequence, _, _)| *sequence > before);
        let mut set_aside = BTreeSet::new();
        for (_, _, entry) in entries {
            if let Stranded::Update { update, sequence, .. } = entry {
                ensure!(sequence > taken.answer.cut, "round {round}: {sequence} is not behind the cut");
                set_aside.extend(update.changes.iter().map(|change| change.command_id.to_string()));
            }
        }
        for Acknowledged { id, command_id, version, confirmed } in &acknowledged {
            let is_kept = *version <= begins[id];
            let is_set_aside = set_aside.contains(command_id);
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
        "{ROUNDS} takeovers: {kept} acknowledged commands kept, {stranded} set aside; the slowest took {slowest:?}"
    );
    ensure!(stranded > 0 && kept > 0, "nothing was tried");
    place.all_equal().await
}
