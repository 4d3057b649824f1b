//! `nats-config/three-sites`.

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream;
use freehold_tests::{copies, counter, workload};
use serde_json::json;

use crate::deployment::{Deployment, Setup, SiteAt};
use crate::peer;

const EWR: SiteAt = SiteAt { name: "ewr", ports: &[4222] };
const JFK: SiteAt = SiteAt { name: "jfk", ports: &[4223] };
const LGA: SiteAt = SiteAt { name: "lga", ports: &[4224] };
const SITES: [SiteAt; 3] = [EWR, JFK, LGA];

#[tokio::test(flavor = "multi_thread")]
async fn each_site_decides_its_own_all_copy_it_and_none_writes_into_another() -> Result<()> {
    let mut deployment = Deployment::start("three-sites").await?;
    let mut places = Vec::new();
    for site in SITES {
        let service = deployment.instance(site, &SITES).await?;
        places.push((site, service, deployment.client(site).await?));
    }
    for (site, _, client) in &places {
        for number in 1..=10 {
            let body = json!({ "id": format!("{}-1", site.name), "amount": 1, "client": "me", "number": number });
            workload::reply::<counter::Total>(&workload::send(client, "add", &body, None).await?)
                .with_context(|| format!("at {}", site.name))?;
        }
        let elsewhere = SITES.iter().find(|other| other.name != site.name).context("there are three")?;
        let body = json!({ "id": format!("{}-2", elsewhere.name), "amount": 1 });
        let answer = workload::send(client, "add", &body, None).await?;
        ensure!(answer.owner.as_ref().is_some_and(|owner| owner.as_str() == elsewhere.name), "{answer:?}");
    }
    for (owner, _, _) in &places {
        for (_, _, client) in &places {
            let counter = workload::read_at_least(client, &format!("{}-1", owner.name), 10).await?;
            ensure!(counter.total == 10 && counter.breaches.is_empty(), "{counter:?}");
        }
    }

    // Every site is attacked by the next one.
    for (number, owner) in SITES.iter().enumerate() {
        let peer = deployment.plain(SITES[(number + 1) % SITES.len()]).await?;
        let own = deployment.plain(*owner).await?;
        let before = peer::logs(&own, owner.name).await?;
        let arrived = peer::forge(&peer, &own, owner.name).await?;
        ensure!(arrived.is_empty(), "{arrived:?} came in at {}", owner.name);
        let destroyed = peer::destroy(&peer, owner.name).await?;
        ensure!(destroyed.is_empty(), "{destroyed:?} were carried out at {}", owner.name);
        peer::ensure_nothing_stored(&own, owner.name).await?;
        peer::ensure_kept(&own, owner.name, &before).await?;
    }
    // Asked from one site about all three, as `freehold verify` does it.
    let asked: Vec<_> = places.iter().map(|(site, service, _)| (&places[1].2, site.name, service)).collect();
    let content = copies::wait_same(&asked, 5).await?;
    ensure!(content.len() == 3, "{content:?}");
    for (_, service, _) in &places {
        service.process().stop().await?;
    }
    Ok(())
}

/// What the denied subjects are for: without them, all of that comes in. It shows that the checks above can fail, too.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_denied_subjects_a_peer_writes_and_deletes() -> Result<()> {
    let denied =
        |line: &str| line.starts_with("      deny_imports") || line.starts_with("        \"") || line == "      ]\n";
    let mut deployment =
        Deployment::start_with("three-sites", Setup { left_out: Some(denied), ..Setup::default() }).await?;
    deployment.wait_linked(EWR, &[JFK]).await?;
    deployment.wait_linked(JFK, &[EWR]).await?;
    let (own, peer) = (deployment.plain(EWR).await?, deployment.plain(JFK).await?);
    let jetstream = jetstream::new(own.clone());
    let streams = [
        ("FH_COMMANDS_ewr", vec!["cmd"]),
        ("FH_RECORDS_ewr", vec!["rec", "res", "ctl"]),
        ("FH_DEADLETTER_ewr", vec!["dead"]),
    ];
    for (name, families) in streams {
        let subjects = families.iter().map(|family| format!("fh.ewr.{family}.>")).collect();
        let config = jetstream::stream::Config { name: name.to_owned(), subjects, ..Default::default() };
        jetstream.create_stream(config).await?;
    }
    let arrived = peer::forge(&peer, &own, "ewr").await?;
    ensure!(arrived.len() == 14, "only {arrived:?} came in");
    ensure!(peer::ensure_nothing_stored(&own, "ewr").await.is_err(), "nothing of it was stored");
    let destroyed = peer::destroy(&peer, "ewr").await?;
    ensure!(destroyed.len() == 9, "only {destroyed:?} were carried out");
    Ok(())
}
