//! Commands that cannot be processed: 12. Each is decided in the end, with a dead letter, and its group goes on.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use freehold::Answer;
use freehold_core::{ErrorCode, Status};
use freehold_sandbox::wait_until;
use freehold_tests::workload;
use serde_json::json;

use crate::crashes::COMMAND;
use crate::given::{Given, SOON, group_of, records_of_one_group};

/// The deaths that a command may cause: five attempts, and tries that nobody has logged. Two before the holder suspects
/// anything, and one after the command in front of it had its outcome, which ends the suspicion.
const MOST_DEATHS: usize = 8;

/// What nobody can read, and a command that nobody knows, stand in the log between two others.
#[tokio::test(flavor = "multi_thread")]
async fn s12_poison_that_cannot_be_read() -> Result<()> {
    let given = Given::one_site().await?;
    let mut one = given.process("one").await?;
    let ids = records_of_one_group("poison", 2)?;
    given.add_is_answered(&ids[0], "before", 1).await?;
    let subject = format!("fh.ewr.cmd.counter.{}", group_of(&ids[0])?);
    given.context.publish(subject, "{\"no\": command".into()).await?.await?;
    given.append(&ids[0], "nonsense", COMMAND, &json!({})).await?;
    given.append(&ids[0], "add", "wrong-fields", &json!({ "amount": "much" })).await?;
    for round in 0..2 {
        given.add_is_answered(&ids[0], &format!("behind-{round}"), 2 + round).await?;
        given.add_is_answered(&ids[1], &format!("behind-{round}"), 1 + round).await?;
        one.process().kill().await?;
        one.restart().await?;
    }
    let log = given.log().await?;
    for command_id in [COMMAND, "wrong-fields"] {
        let decisions = log.decisions(&ids[0], command_id)?;
        let refused = decisions.iter().all(|change| change.outcome.status == Status::Refused);
        ensure!(decisions.len() == 1 && refused, "{command_id}: {decisions:?}");
    }
    let letters = given.dead_letters().await?;
    ensure!(letters.len() == 1 && letters[0].to_string().contains("cannot be read"), "{letters:?}");
    log.check()
}

#[tokio::test(flavor = "multi_thread")]
async fn s12_poison_that_panics() -> Result<()> {
    let given = Given::one_site().await?;
    let mut one = given.process("one").await?;
    let ids = records_of_one_group("poison", 2)?;
    given.add_is_answered(&ids[0], "before", 1).await?;
    let poison = json!({ "how": "panic" });
    let first = given.tell(&ids[0], "poison", COMMAND, &poison).await?;
    is_internal(&first)?;
    for round in 0..2 {
        given.add_is_answered(&ids[0], &format!("behind-{round}"), 2 + round).await?;
        given.add_is_answered(&ids[1], &format!("behind-{round}"), 1 + round).await?;
        ensure!(given.tell(&ids[0], "poison", COMMAND, &poison).await?.result == first.result);
        one.process().kill().await?;
        one.restart().await?;
    }
    is_dead(&given, &ids[0]).await
}

/// The process ends at once, each time, until the attempts that the log has counted are too many.
#[tokio::test(flavor = "multi_thread")]
async fn s12_poison_that_aborts_the_process() -> Result<()> {
    let given = Given::one_site().await?;
    let mut one = given.process("one").await?;
    let ids = records_of_one_group("poison", 3)?;
    given.add_is_answered(&ids[0], "before", 1).await?;
    let poison = json!({ "how": "abort" });
    // In the same flush as commands of others, in front of it and behind it.
    given.append(&ids[0], "add", "busy", &json!({ "amount": 0, "slow_ms": 700 })).await?;
    given.append(&ids[1], "add", "in-front", &json!({ "amount": 1 })).await?;
    given.append(&ids[0], "poison", COMMAND, &poison).await?;
    given.append(&ids[2], "add", "behind", &json!({ "amount": 1 })).await?;
    let mut deaths = 0;
    let mut answering = Box::pin(given.tell(&ids[0], "poison", COMMAND, &poison));
    let answer = loop {
        tokio::select! {
            answer = &mut answering => break answer?,
            died = one.process().wait_exit(Duration::from_secs(60)) => {
                died?;
                deaths += 1;
                // It may die again before it says that it is ready: that counts as well, the next time round.
                if let Err(error) = one.restart().await
                    && one.process().is_running()
                {
                    bail!(error);
                }
            }
        }
    };
    is_internal(&answer)?;
    ensure!((2..=MOST_DEATHS).contains(&deaths), "the process died {deaths} times");
    println!("the process died {deaths} times");
    given.add_is_answered(&ids[1], "in-front", 1).await?;
    given.add_is_answered(&ids[2], "behind", 1).await?;
    for id in &ids[1..] {
        given.add_is_answered(id, "another", 2).await?;
    }
    is_dead(&given, &ids[0]).await
}

fn is_internal(answer: &Answer) -> Result<()> {
    let internal = answer.result.as_ref().is_err_and(|refusal| refusal.code == ErrorCode::Internal);
    ensure!(internal, "{answer:?}");
    Ok(())
}

/// The log has one outcome of the poison, and there is a dead letter.
async fn is_dead(given: &Given, id: &str) -> Result<()> {
    let log = given.log().await?;
    let decisions = log.decisions(id, COMMAND)?;
    let status = decisions.iter().map(|change| change.outcome.status).collect::<Vec<_>>();
    ensure!(status == [Status::Dead], "{decisions:?}");
    let told = || async { given.dead_letters().await.is_ok_and(|letters| !letters.is_empty()) };
    wait_until("there is a dead letter", SOON, told).await?;
    let letters = given.dead_letters().await?;
    let letter = letters.first().context("no dead letter")?.to_string();
    ensure!(letters.len() == 1 && letter.contains(COMMAND), "{letters:?}");
    ensure!(workload::read(&given.client, id).await?.breaches.is_empty());
    log.check()
}
