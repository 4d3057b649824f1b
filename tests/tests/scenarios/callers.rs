//! What callers meet: 13 and 14. One that is gone has its command applied all the same; one whose command may be lost is never
//! told that all is well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use freehold::{Answer, Client, ConnectOptions};
use freehold_core::ErrorCode;
use freehold_sandbox::wait_until;
use freehold_tests::gate::{Gate, Toward, Verdict};
use freehold_tests::workload;
use serde_json::json;

use crate::crashes::COMMAND;
use crate::given::{Given, SITE, SOON};

/// A caller loses its connection as soon as the request has left, another one when its answer is about to come.
#[tokio::test(flavor = "multi_thread")]
async fn s13_the_caller_is_gone() -> Result<()> {
    let given = Given::one_site().await?;
    let _one = given.process("one").await?;
    for (number, at_the_answer) in [false, true].into_iter().enumerate() {
        let gate = given.gate().await?;
        let caller = Client::connect(&ConnectOptions::to(gate.url()), "caller").await?;
        let asked = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&asked);
        gate.rule(move |frame| {
            seen.fetch_or(frame.subject == "freehold.counter.add", Ordering::Relaxed);
            if frame.toward == Toward::Instance { Verdict::Stall } else { Verdict::Pass }
        });
        let id = format!("{SITE}-{number}");
        let asking = {
            let body = json!({ "id": id, "amount": 1, "slow_ms": 300 });
            tokio::spawn(async move { workload::send_once(&caller, "add", &body, COMMAND, SOON).await })
        };
        match at_the_answer {
            true => gate.caught(1).await.map(drop)?,
            false => wait_until("the request is sent", SOON, || async { asked.load(Ordering::Relaxed) }).await?,
        }
        asking.abort();
        drop(gate);
        let applied = || async { workload::read(&given.client, &id).await.is_ok_and(|counter| counter.total == 1) };
        wait_until("the command is applied without its caller", SOON, applied).await?;
        let again = given.tell(&id, "add", COMMAND, &json!({ "amount": 1, "slow_ms": 300 })).await?;
        ensure!(again.version.map(|version| version.0) == Some(1), "{again:?}");
    }
    given.log().await?.check()
}

/// The command log does not get one command, and takes another without being heard.
#[tokio::test(flavor = "multi_thread")]
async fn s14_the_server_is_unreachable_at_publish() -> Result<()> {
    let given = Given::one_site().await?;
    let gate = given.gate().await?;
    let _one = given.process_behind(&gate, "one").await?;
    let (lost, unheard) = (format!("{SITE}-lost"), format!("{SITE}-unheard"));
    given.add_is_answered(&lost, "before", 1).await?;
    let named = format!("\"id\":\"{lost}\"");
    gate.rule(move |frame| {
        let publish = frame.toward == Toward::Server && frame.subject.starts_with("fh.ewr.cmd.");
        let answer = frame.toward == Toward::Instance && frame.contains(r#""stream":"FH_COMMANDS_ewr""#);
        if answer || publish && frame.contains(&named) { Verdict::Lose } else { Verdict::Pass }
    });
    let body = json!({ "amount": 1 });
    let (first, second) =
        tokio::join!(given.ask(&lost, "add", COMMAND, &body), given.ask(&unheard, "add", COMMAND, &body));
    is_unknown(&first?)?;
    is_unknown(&second?)?;
    gate.lift();
    ensure!(!given.is_logged(&lost, COMMAND).await?, "the lost command is logged");
    ensure!(given.is_logged(&unheard, COMMAND).await?, "the other command is not logged");
    given.add_is_answered(&lost, COMMAND, 2).await?;
    given.add_is_answered(&unheard, COMMAND, 1).await?;
    given.log().await?.check()
}

/// One server of three is left: it answers its clients, and nothing can be stored.
#[tokio::test(flavor = "multi_thread")]
async fn s14_the_cluster_has_no_quorum_at_publish() -> Result<()> {
    let given = Given::one_cluster().await?;
    let mut config = given.config("one")?;
    let servers = given.site().servers();
    config.nats = ConnectOptions::to(servers[0].url());
    let _one = given.process_of(&config).await?;
    // Behind a gate a client does not learn of the other servers.
    let gate = Gate::open(&servers[0].url()).await?;
    let client = Client::connect(&ConnectOptions::to(gate.url()), "caller").await?;
    let id = format!("{SITE}-1");
    given.add_is_answered(&id, "before", 1).await?;
    for server in &servers[1..] {
        server.kill().await?;
    }
    let body = json!({ "id": id, "amount": 1 });
    match workload::send_once(&client, "add", &body, COMMAND, SOON).await {
        Ok(answer) => is_unknown(&answer)?,
        Err(error) => println!("no answer: {error:#}"),
    }
    for server in &servers[1..] {
        server.restart().await?;
    }
    given.site().wait_complete().await?;
    given.add_is_answered(&id, COMMAND, 2).await.context("once there is a quorum again")?;
    given.add_is_answered(&id, "behind", 3).await?;
    let log = given.log().await?;
    ensure!(log.decisions(&id, COMMAND)?.len() == 1);
    log.check()
}

/// Neither success nor a business answer: the caller knows that it does not know, or that nothing was kept.
fn is_unknown(answer: &Answer) -> Result<()> {
    let unknown = answer
        .result
        .as_ref()
        .is_err_and(|refusal| matches!(refusal.code, ErrorCode::OutcomeUnknown | ErrorCode::Busy));
    ensure!(unknown, "{answer:?}");
    Ok(())
}
