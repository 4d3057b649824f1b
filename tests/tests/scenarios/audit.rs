//! The audit that ends each scenario finds what must not be: whoever publishes without a claim, and a second decision.

use anyhow::{Result, ensure};
use async_nats::HeaderMap;
use freehold_sandbox::wait_until;
use freehold_tests::audit::read_stream;

use crate::crashes::COMMAND;
use crate::exclusive::delay_past_the_own_new_claim;
use crate::given::{Given, SITE, SOON, group_of};

#[tokio::test(flavor = "multi_thread")]
async fn planted_breaches_are_found() -> Result<()> {
    let given = Given::one_site().await?;
    let one = given.process("one").await?;
    let id = format!("{SITE}-1");
    given.add_is_answered(&id, COMMAND, 1).await?;
    one.process().kill().await?;
    given.log().await?.check()?;
    let claim = given.log().await?.decided_under(&id, COMMAND)?;
    let messages = read_stream(&given.site().url(), "FH_RECORDS_ewr", "fh.ewr.rec.>").await?;
    let (subject, payload) = (messages[0].subject.clone(), messages[0].payload.clone());
    // The claim is still the newest, so that the log takes the same update a second time.
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Expected-Last-Subject-Sequence", claim.to_string());
    headers
        .insert("Nats-Expected-Last-Subject-Sequence-Subject", format!("fh.ewr.ctl.claim.counter.{}", group_of(&id)?));
    given.context.publish_with_headers(subject.clone(), headers, payload.clone()).await?.await?;
    let twice = given.log().await?;
    twice.check_claims()?;
    found(twice.check_decisions(), "decided 2 times")?;
    found(twice.check(), "decided 2 times")?;
    given.context.publish(subject, payload).await?.await?;
    found(given.log().await?.check(), "names no claim")
}

/// What would happen in scenario 20 if the log did not look at claims: the delayed flush is stored, and the audit sees it.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_publish_without_its_fence_is_found() -> Result<()> {
    let given = Given::one_site().await?;
    let gate = given.gate().await?;
    let one = given.process_behind(&gate, "one").await?;
    gate.unfence_what_is_late();
    let (_, ids) = delay_past_the_own_new_claim(&given, &gate, &one).await?;
    let stored = || async { given.log().await.is_ok_and(|log| log.check_decisions().is_err()) };
    wait_until("the delayed flush is stored a second time", SOON, stored).await?;
    let log = given.log().await?;
    ensure!(log.decisions(&ids[0], COMMAND)?.len() == 2, "{:?}", log.decisions(&ids[0], COMMAND)?);
    found(log.check(), "names no claim")
}

fn found(checked: Result<()>, breach: &str) -> Result<()> {
    let error = checked.err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(error.contains(breach), "{breach:?} was not found: {error:?}");
    Ok(())
}
