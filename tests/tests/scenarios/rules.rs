//! A rolling upgrade: 17. The old release accepts what the new one rejects; the log decides what holds, whichever comes first.

use anyhow::{Result, ensure};
use freehold_tests::counter::Total;
use freehold_tests::gate::Gate;
use freehold_tests::place::InstanceProcess;
use freehold_tests::workload;
use serde_json::{Value, json};

use crate::crashes::{Before, COMMAND, crash};
use crate::given::{Given, SITE, rejection};

async fn old_release(given: &Given, gate: &Gate) -> Result<InstanceProcess> {
    given.process_behind(gate, "old").await
}

async fn new_release(given: &Given) -> Result<InstanceProcess> {
    given.process_with_rules(&given.config("new")?, "strict").await
}

/// More than the new release lets anybody take.
fn much() -> Value {
    json!({ "amount": 11 })
}

async fn is_accepted(given: &Given, id: &str, command_id: &str, total: i64) -> Result<()> {
    let answer = given.tell(id, "take", command_id, &much()).await?;
    ensure!(workload::reply::<Total>(&answer)?.total == total, "{id}: {command_id}: {answer:?}");
    Ok(())
}

async fn is_rejected(given: &Given, id: &str, command_id: &str) -> Result<()> {
    rejection(&given.tell(id, "take", command_id, &much()).await?).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn s17_old_rules_accept_what_new_rules_reject() -> Result<()> {
    let given = Given::one_site().await?;
    let gate = given.gate().await?;
    let mut old = old_release(&given, &gate).await?;
    let ids: Vec<String> = (0..4).map(|number| format!("{SITE}-{number}")).collect();
    for id in &ids {
        given.tell(id, "add", "created", &json!({ "amount": 100 })).await?;
    }
    is_accepted(&given, &ids[0], COMMAND, 89).await?;
    // The old release dies before it knows that the log has its decision: the decision holds.
    crash(&given, &gate, &old, Before::LogAnswers, (&ids[1], "take", &much())).await?;
    let mut new = new_release(&given).await?;
    is_accepted(&given, &ids[0], COMMAND, 89).await?;
    is_accepted(&given, &ids[1], COMMAND, 89).await?;
    is_rejected(&given, &ids[2], COMMAND).await?;
    new.process().kill().await?;
    old.restart().await?;
    is_rejected(&given, &ids[2], COMMAND).await?;
    is_accepted(&given, &ids[2], "another", 89).await?;
    // The old release dies before the log has its decision: the new one decides.
    crash(&given, &gate, &old, Before::DecisionIsLogged, (&ids[3], "take", &much())).await?;
    new.restart().await?;
    is_rejected(&given, &ids[3], COMMAND).await?;
    new.process().kill().await?;
    old.restart().await?;
    is_rejected(&given, &ids[3], COMMAND).await?;
    is_accepted(&given, &ids[0], COMMAND, 89).await?;
    given.log().await?.check()
}

/// Both releases run side by side, and the group goes from one to the other while the command is being decided.
#[tokio::test(flavor = "multi_thread")]
async fn s17_old_and_new_rules_side_by_side() -> Result<()> {
    let given = Given::one_site().await?;
    let gate = given.gate().await?;
    let _old = old_release(&given, &gate).await?;
    let _new = new_release(&given).await?;
    let mut seen = [0, 0];
    for round in 0..6 {
        let holder = if round % 2 == 0 { "old" } else { "new" };
        given.assign(move |_| holder).await?;
        let id = format!("{SITE}-{round}");
        given.wait_held(holder, &[crate::given::group_of(&id)?]).await?;
        given.tell(&id, "add", "created", &json!({ "amount": 100 })).await?;
        let first = given.tell(&id, "take", COMMAND, &much()).await?;
        seen[usize::from(first.result.is_err())] += 1;
        let other = if round % 2 == 0 { "new" } else { "old" };
        given.assign(move |_| other).await?;
        given.wait_held(other, &[crate::given::group_of(&id)?]).await?;
        for _ in 0..2 {
            let again = given.tell(&id, "take", COMMAND, &much()).await?;
            ensure!(again.result == first.result, "{id}: first {first:?}, then {again:?}");
        }
    }
    ensure!(seen == [3, 3], "accepted and rejected: {seen:?}");
    given.log().await?.check()
}
