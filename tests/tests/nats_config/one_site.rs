//! `nats-config/one-site`.

use anyhow::{Result, ensure};
use async_nats::jetstream;
use freehold_tests::{counter, workload};
use serde_json::json;

use crate::deployment::{Deployment, SiteAt, contains};

const EWR: SiteAt = SiteAt { name: "ewr", ports: &[4222] };

#[tokio::test(flavor = "multi_thread")]
async fn one_site_decides_and_has_it_still_after_a_kill_of_its_server() -> Result<()> {
    let mut deployment = Deployment::start("one-site").await?;
    let service = deployment.instance(EWR, &[EWR]).await?;
    let client = deployment.client(EWR).await?;
    for number in 1..=20 {
        let body = json!({ "id": "ewr-1", "amount": 1, "client": "me", "number": number });
        let reply: counter::Total = workload::reply(&workload::send(&client, "add", &body, None).await?)?;
        ensure!(reply.total == number, "{reply:?}");
    }
    // What ../secure does not have: it shows that the search for it finds it where it is.
    let data = deployment.directory().join("data");
    ensure!(contains(&data, "\"last\":{\"me\":20}")?, "a record is not in the store, or not in the clear");
    let server = deployment.server("ewr.conf")?;
    server.kill().await?;
    server.restart().await?;
    let body = json!({ "id": "ewr-1", "amount": 1, "client": "me", "number": 21 });
    workload::reply::<counter::Total>(&workload::send(&client, "add", &body, None).await?)?;
    let counter = workload::read_at_least(&client, "ewr-1", 21).await?;
    ensure!(counter.total == 21 && counter.breaches.is_empty(), "{counter:?}");
    service.process().stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn its_jetstream_has_the_domain_and_the_limits_of_the_file() -> Result<()> {
    let mut deployment = Deployment::start("one-site").await?;
    let client = deployment.plain(EWR).await?;
    ensure!(client.server_info().max_payload == 1 << 20, "{:?}", client.server_info());
    let account = jetstream::new(client.clone()).query_account().await?;
    ensure!(account.domain.as_deref() == Some("ewr"), "{account:?}");
    let reserved = jetstream::stream::Config {
        name: "TOO_LARGE".to_owned(),
        max_bytes: 21 << 30,
        ..jetstream::stream::Config::default()
    };
    let refused = jetstream::new(client).create_stream(reserved).await;
    ensure!(refused.is_err(), "a stream may reserve more than max_file_store: {refused:?}");
    Ok(())
}
