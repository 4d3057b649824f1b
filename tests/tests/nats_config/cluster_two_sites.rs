//! `nats-config/cluster-two-sites`.

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream;
use freehold_sandbox::wait_until;
use freehold_tests::{copies, counter, workload};
use serde_json::json;

use crate::deployment::{Deployment, SOON, SiteAt};
use crate::peer;

const EWR: SiteAt = SiteAt { name: "ewr", ports: &[4222, 4232, 4242] };
const JFK: SiteAt = SiteAt { name: "jfk", ports: &[4252] };
const SITES: [SiteAt; 2] = [EWR, JFK];
/// Instances at ewr that the configuration has room for, each with so many batches open.
const INSTANCES: usize = 20;
const BATCHES: usize = 10;

async fn add(client: &freehold::Client, site: SiteAt, number: u64) -> Result<counter::Total> {
    let body = json!({ "id": format!("{}-1", site.name), "amount": 1, "client": "me", "number": number });
    workload::reply(&workload::send(client, "add", &body, None).await?).with_context(|| format!("at {}", site.name))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clustered_site_has_three_copies_and_goes_on_without_a_server() -> Result<()> {
    let mut deployment = Deployment::start("cluster-two-sites").await?;
    let ewr = deployment.instance(EWR, &SITES).await?;
    let jfk = deployment.instance(JFK, &SITES).await?;
    let (at_ewr, at_jfk) = (deployment.client(EWR).await?, deployment.client(JFK).await?);
    for number in 1..=10 {
        add(&at_ewr, EWR, number).await?;
        add(&at_jfk, JFK, number).await?;
    }
    let own = deployment.plain(EWR).await?;
    let jetstream = jetstream::new(own.clone());
    for name in ["FH_COMMANDS_ewr", "FH_RECORDS_ewr", "FH_DEADLETTER_ewr", "FH_RECORDS_jfk", "KV_FH_MEMBERS_ewr"] {
        let complete = || async {
            let Ok(stream) = jetstream.get_stream(name).await else { return false };
            let info = stream.cached_info();
            let members = info.cluster.as_ref().map(|cluster| cluster.replicas.iter().filter(|it| it.current).count());
            info.config.num_replicas == 3 && members == Some(2)
        };
        wait_until(&format!("{name} has three copies"), SOON, complete).await?;
    }

    // The site that is attacked, each of whose servers has a link of its own, and the other way round.
    let far = deployment.plain(JFK).await?;
    for (peer, owner, site) in [(&far, &own, "ewr"), (&own, &far, "jfk")] {
        let arrived = peer::forge(peer, owner, site).await?;
        ensure!(arrived.is_empty(), "{arrived:?} came in at {site}");
        let destroyed = peer::destroy(peer, site).await?;
        ensure!(destroyed.is_empty(), "{destroyed:?} were carried out at {site}");
        peer::ensure_nothing_stored(owner, site).await?;
    }

    deployment.server("ewr-2.conf")?.kill().await?;
    for number in 11..=20 {
        add(&at_ewr, EWR, number).await?;
    }
    deployment.server("ewr-2.conf")?.restart().await?;
    for (client, record, version) in [(&at_jfk, "ewr-1", 20), (&at_ewr, "jfk-1", 10)] {
        let counter = workload::read_at_least(client, record, version).await?;
        ensure!(counter.changes == version && counter.breaches.is_empty(), "{record}: {counter:?}");
    }
    copies::wait_same(&[(&at_jfk, "ewr", &ewr), (&at_jfk, "jfk", &jfk)], 2).await?;
    ewr.process().stop().await?;
    jfk.process().stop().await?;
    Ok(())
}

/// By default a stream takes 50, and refuses what five instances and one more would have open.
#[tokio::test(flavor = "multi_thread")]
async fn twenty_instances_have_their_batches_open_at_a_time() -> Result<()> {
    let mut deployment = Deployment::start("cluster-two-sites").await?;
    deployment.wait_linked(EWR, &[]).await?;
    let client = deployment.plain(EWR).await?;
    let config = jetstream::stream::Config {
        name: "BATCHES".to_owned(),
        subjects: vec!["batches".to_owned()],
        num_replicas: 3,
        allow_atomic_publish: true,
        ..jetstream::stream::Config::default()
    };
    jetstream::new(client.clone()).create_stream(config).await?;
    let open = |number: usize| {
        let client = &client;
        async move {
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("Nats-Batch-Id", format!("batch-{number}"));
            headers.insert("Nats-Batch-Sequence", "1");
            client.request_with_headers("batches", headers, "".into()).await.map(|answer| answer.payload)
        }
    };
    let most = INSTANCES * BATCHES;
    for (number, answer) in futures::future::join_all((0..most).map(open)).await.into_iter().enumerate() {
        let answer = answer?;
        ensure!(answer.is_empty(), "batch {number} of {most}: {}", String::from_utf8_lossy(&answer));
    }
    let one_more = open(most).await?;
    ensure!(!one_more.is_empty(), "the server has no such limit: this shows nothing");
    Ok(())
}

/// The servers of a site are configured alike, but for their names and ports.
#[test]
fn the_servers_of_the_cluster_differ_in_names_and_ports_only() -> Result<()> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../nats-config/cluster-two-sites");
    let settings = |number: u16| -> Result<Vec<String>> {
        let text = std::fs::read_to_string(folder.join(format!("ewr-{number}.conf")))?;
        let settings = text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
        let own = |line: &str| {
            let step = 10 * (number - 1);
            let line = line.replace(&format!("ewr-{number}"), "ewr-1");
            match line.contains("routes") {
                true => line,
                false => [4222, 6222, 8222]
                    .iter()
                    .fold(line, |line, port| line.replace(&(port + step).to_string(), &port.to_string())),
            }
        };
        Ok(settings.map(own).collect())
    };
    let first = settings(1)?;
    assert!(first.iter().any(|line| line.contains("routes")), "{first:?}");
    assert_eq!(settings(2)?, first);
    assert_eq!(settings(3)?, first);
    Ok(())
}
