//! The shortest way through everything: one server, one instance, one command, one answer.

use anyhow::Result;
use freehold_tests::{counter, place, workload};

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_answered_and_read_back() -> Result<()> {
    let sandbox = place::one_site().await?;
    let site = sandbox.site("ewr");
    let data = tempfile::tempdir()?;
    let service = place::start(place::config(site, "one", data.path())?, counter::definition()).await?;
    let client = place::client(site).await?;
    for number in 1..=10_i64 {
        let body = serde_json::json!({ "id": "ewr-1", "amount": 2, "client": "me", "number": number });
        let answer = workload::send(&client, "add", &body, None).await?;
        let reply: counter::Total = workload::reply(&answer)?;
        assert_eq!((reply.total, reply.changes), (2 * number, number.unsigned_abs()));
        assert_eq!(answer.version.map(|version| version.0), Some(number.unsigned_abs()));
    }
    let counter = workload::read(&client, "ewr-1").await?;
    assert_eq!((counter.total, counter.breaches), (20, vec![]));
    service.stop().await;
    Ok(())
}
