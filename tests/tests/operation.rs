//! What an operator meets: a command log that fills up while decisions emit commands, a stop without a server, a records
//! log that was replaced behind an instance's back, and a service with another home rule.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use freehold::{Client, SendOptions};
use freehold_core::{CommandId, ErrorCode, HomeRule};
use freehold_sandbox::wait_until;
use freehold_tests::{counter, place, workload};
use futures::StreamExt;
use serde_json::json;

const SOON: Duration = Duration::from_secs(60);
/// So small that the commands of the test fill it many times.
const SMALL_LOG_BYTES: i64 = 128 * 1024;
const PASSED_ON: usize = 1_500;
const IN_FLIGHT: usize = 128;
const TARGETS: usize = 20;

/// Each command is refused while the log is full, and emits another command when it is decided. Emitted commands have room
/// although requests press on, so that the groups go on, and nothing is lost or done twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_command_log_refuses_requests_and_still_takes_what_decisions_emit() -> Result<()> {
    let sandbox = place::one_site().await?;
    let site = sandbox.site("ewr");
    let data = tempfile::tempdir()?;
    let mut config = place::config(site, "one", data.path())?;
    config.max_command_log_bytes = SMALL_LOG_BYTES;
    config.audit_window_ms = 0;
    let service = place::start(config, counter::definition()).await?;
    let client = place::client(site).await?;
    let refused: Vec<usize> = futures::stream::iter(0..PASSED_ON)
        .map(|number| pass_on(client.clone(), number))
        .buffer_unordered(IN_FLIGHT)
        .collect::<Vec<Result<usize>>>()
        .await
        .into_iter()
        .collect::<Result<_>>()?;
    ensure!(refused.iter().sum::<usize>() > 0, "the log was never full: the test shows nothing");
    let mut expected = BTreeMap::new();
    for number in 0..PASSED_ON {
        *expected.entry(target(number)).or_insert(0_u64) += 1;
    }
    for (record, changes) in expected {
        let all = || async { workload::read(&client, &record).await.is_ok_and(|counter| counter.changes >= changes) };
        wait_until("every emitted command is decided", SOON, all).await?;
        let counter = workload::read(&client, &record).await?;
        ensure!(counter.changes == changes, "{record}: {} changes for {changes} commands", counter.changes);
    }
    service.stop().await;
    Ok(())
}

fn target(number: usize) -> String {
    format!("ewr-target-{}", number % TARGETS)
}

/// Sends until the log takes it; tells how often it was full.
async fn pass_on(client: Client, number: usize) -> Result<usize> {
    let body = json!({ "id": format!("ewr-source-{number}"), "amount": 1, "to": target(number) }).to_string();
    let options = SendOptions {
        command_id: Some(CommandId::from_caller(&format!("pass-{number}"))?),
        wait: Some("accepted".to_owned()),
        owner_down: None,
        timeout: Duration::from_secs(10),
    };
    let deadline = Instant::now() + SOON;
    let mut refused = 0;
    loop {
        ensure!(Instant::now() < deadline, "command {number} was refused {refused} times and never taken");
        let answer = client.request(&workload::kind(), "pass-on", body.clone().into(), &options).await;
        match answer.with_context(|| format!("command {number}"))?.result {
            Ok(_) => return Ok(refused),
            Err(refusal) if refusal.code == ErrorCode::Busy => refused += 1,
            Err(refusal) => anyhow::bail!("command {number}: {refusal:?}"),
        }
    }
}

/// Nothing can be handed over without a server; who stops the service must not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_without_a_server_is_quick() -> Result<()> {
    let sandbox = place::one_site().await?;
    let site = sandbox.site("ewr");
    let data = tempfile::tempdir()?;
    let service = place::start(place::config(site, "one", data.path())?, counter::definition()).await?;
    let client = place::client(site).await?;
    workload::send(&client, "add", &json!({ "id": "ewr-1", "amount": 1 }), None).await?;
    site.server().kill().await?;
    let gone = || async { !client.connection().is_connected() };
    wait_until("the server is gone", SOON, gone).await?;
    let started = Instant::now();
    service.stop().await;
    ensure!(started.elapsed() < Duration::from_secs(6), "the stop took {:?}", started.elapsed());
    Ok(())
}

/// A stream of the same name and length is not the log that was applied: nothing of it may be taken for a continuation.
#[tokio::test(flavor = "multi_thread")]
async fn a_records_log_that_was_replaced_is_noticed_although_it_is_longer() -> Result<()> {
    let sandbox = place::one_site().await?;
    let site = sandbox.site("ewr");
    let (data, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let config = place::config(site, "one", data.path())?;
    let service = place::start(config.clone(), counter::definition()).await?;
    let client = place::client(site).await?;
    let add = json!({ "id": "ewr-1", "amount": 1 });
    workload::send(&client, "add", &add, None).await?;
    service.stop().await;

    let jetstream = async_nats::jetstream::new(async_nats::connect(place::urls(site)).await?);
    for stream in ["FH_RECORDS_ewr", "FH_COMMANDS_ewr"] {
        jetstream.delete_stream(stream).await?;
    }
    let stranger = place::start(place::config(site, "two", other.path())?, counter::definition()).await?;
    for _ in 0..300 {
        workload::send(&client, "add", &json!({ "id": "ewr-2", "amount": 1 }), None).await?;
    }
    stranger.stop().await;

    let started = tokio::time::timeout(Duration::from_secs(3), place::start(config, counter::definition())).await;
    ensure!(!matches!(started, Ok(Ok(_))), "the instance serves a log that is not the one in its copy");
    Ok(())
}

/// Two home rules for one kind would let two sites create the same id.
#[tokio::test(flavor = "multi_thread")]
async fn another_home_rule_is_refused_at_the_start() -> Result<()> {
    let sandbox = place::one_site().await?;
    let site = sandbox.site("ewr");
    let data = tempfile::tempdir()?;
    let config = place::config(site, "one", data.path())?;
    place::start(config.clone(), counter::definition()).await?.stop().await;
    let mut definition = counter::definition();
    definition.home = HomeRule::Site("jfk".parse()?);
    let error = place::start(config, definition).await.err().context("it started with another home rule")?;
    let text = format!("{error:#}");
    for part in ["kind counter exists at ewr", "prefix", "site jfk"] {
        ensure!(text.contains(part), "{part:?} is not in {text:?}");
    }
    Ok(())
}
