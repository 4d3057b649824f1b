//! A log that keeps few updates of a record: 21 and 23. A copy that has missed versions knows all outcomes all the same.

use std::time::Duration;

use anyhow::{Result, ensure};
use freehold::ServiceConfig;
use freehold_core::RecordsBody;
use freehold_tests::workload::{self, Workload};
use futures::StreamExt;
use serde_json::json;

use crate::exclusive::progress;
use crate::given::{ASK_AGAIN, Given, SITE};

/// Updates of a record that the log keeps: the least that it may.
const HISTORY: u64 = 8;
/// Far more changes than that.
const CHANGES: u64 = 60;

/// Half of the requests reach the paused instance, which does not answer.
const PAUSED_ANSWER: Duration = Duration::from_millis(60);

fn short_history(given: &Given, name: &str) -> Result<ServiceConfig> {
    let mut config = given.config(name)?;
    config.history = HISTORY;
    Ok(config)
}

/// How many updates of a record the log has, and from which version on.
async fn kept(given: &Given, id: &str) -> Result<Vec<u64>> {
    let log = given.log().await?;
    let version = |body: &RecordsBody| match body {
        RecordsBody::Update(update) if update.id.as_str() == id => Some(update.version.0),
        _ => None,
    };
    Ok(log.entries.iter().filter_map(|entry| version(&entry.body)).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn s21_a_copy_that_skipped_versions_becomes_holder_and_answers_old_retries() -> Result<()> {
    let mut given = Given::one_site().await?;
    given.ask_again = PAUSED_ANSWER;
    let id = format!("{SITE}-hot");
    let one = given.process_of(&short_history(&given, "one")?).await?;
    let mut two = given.process_of(&short_history(&given, "two")?).await?;
    given.add_is_answered(&id, "c1", 1).await?;
    two.process().pause().await?;
    for change in 2..=CHANGES {
        given.add_is_answered(&id, &format!("c{change}"), change).await?;
    }
    let versions = kept(&given, &id).await?;
    ensure!(versions.len() as u64 <= HISTORY, "the log keeps {versions:?}");
    one.process().kill().await?;
    two.process().resume()?;
    // The second time the copy is built anew from what the log still has.
    for round in 0..2 {
        for change in (1..=CHANGES).rev() {
            given.add_is_answered(&id, &format!("c{change}"), change).await?;
        }
        given.add_is_answered(&id, &format!("new-{round}"), CHANGES + 1 + round).await?;
        two.process().kill().await?;
        std::fs::remove_file(given.directory().join(format!("{SITE}-two.redb")))?;
        two.restart().await?;
    }
    ensure!(workload::read(&given.client, &id).await?.total == i64::try_from(CHANGES + 2)?);
    given.log().await?.check_decisions()
}

/// Hot records under load: each instance becomes holder again and again with a copy that has just come back.
#[tokio::test(flavor = "multi_thread")]
async fn s21_hot_records_with_a_short_history_outlive_kills_under_load() -> Result<()> {
    let given = Given::one_site().await?;
    let mut instances = Vec::new();
    for name in ["one", "two"] {
        instances.push(given.process_of(&short_history(&given, name)?).await?);
    }
    let (clients, records) = (12, 2);
    let workload = Workload::start_asking_again(&given.client, SITE, clients, records, ASK_AGAIN);
    for kill in 0..6 {
        progress(&workload, 150).await?;
        let victim = &mut instances[kill % 2];
        victim.process().kill().await?;
        if kill >= 4 {
            std::fs::remove_file(given.directory().join(format!("{SITE}-{}.redb", victim.name)))?;
        }
        victim.restart().await?;
    }
    let sent = workload.finish(&given.client, SITE).await?;
    // Everything that was ever answered is known: the records stay as they are.
    let mut before = Vec::new();
    for record in 0..records {
        before.push(workload::read(&given.client, &format!("{SITE}-{record}")).await?);
    }
    let mut repeats = Vec::new();
    for (record, counter) in before.iter().enumerate() {
        for (client, last) in &counter.last {
            for number in 1..=*last {
                let body = json!({ "amount": 1, "client": client, "number": number });
                repeats.push((format!("{SITE}-{record}"), format!("{client}-{number}"), body));
            }
        }
    }
    ensure!(repeats.len() as u64 == sent, "{} commands to repeat of {sent}", repeats.len());
    let repeated =
        futures::stream::iter(&repeats).map(|(id, command_id, body)| given.tell(id, "add", command_id, body));
    let answers: Vec<_> = repeated.buffer_unordered(32).collect().await;
    for answer in answers {
        let answer = answer?;
        ensure!(answer.result.is_ok(), "{answer:?}");
    }
    for (record, counter) in before.iter().enumerate() {
        let after = workload::read(&given.client, &format!("{SITE}-{record}")).await?;
        ensure!(after == *counter, "{counter:?} became {after:?}");
    }
    println!("{sent} commands on {records} records");
    given.log().await?.check_decisions()
}

/// Deleted and created again until the log has forgotten the first lives; in the end the tombstone is the newest update.
#[tokio::test(flavor = "multi_thread")]
async fn s23_deleted_and_created_again_beyond_the_history_limit() -> Result<()> {
    let mut given = Given::one_site().await?;
    given.ask_again = PAUSED_ANSWER;
    let id = format!("{SITE}-phoenix");
    let one = given.process_of(&short_history(&given, "one")?).await?;
    let mut two = given.process_of(&short_history(&given, "two")?).await?;
    given.add_is_answered(&id, "add-0", 1).await?;
    two.process().pause().await?;
    for life in 1..=HISTORY + 2 {
        clear(&given, &id, life - 1).await?;
        revive(&given, &id, life).await?;
    }
    clear(&given, &id, HISTORY + 2).await?;
    let versions = kept(&given, &id).await?;
    let newest = 2 * (HISTORY + 3);
    ensure!(versions.len() as u64 <= HISTORY && versions.last() == Some(&newest), "the log keeps {versions:?}");
    one.process().kill().await?;
    two.process().resume()?;
    for round in 0..2 {
        // Every life's commands have the answers of that life.
        for life in 1..=HISTORY + 2 {
            revive(&given, &id, life).await?;
            clear(&given, &id, life).await?;
        }
        ensure!(workload::read(&given.client, &id).await.is_err(), "the record is not deleted");
        two.process().kill().await?;
        if round == 0 {
            std::fs::remove_file(given.directory().join(format!("{SITE}-two.redb")))?;
        }
        two.restart().await?;
    }
    let answer = given.tell(&id, "add", "after-all", &json!({ "amount": 7 })).await?;
    ensure!(answer.version.map(|version| version.0) == Some(newest + 1), "{answer:?}");
    let counter = workload::read(&given.client, &id).await?;
    ensure!((counter.total, counter.changes) == (7, 1), "{counter:?}");
    given.log().await?.check_decisions()
}

async fn revive(given: &Given, id: &str, life: u64) -> Result<()> {
    let answer = given.tell(id, "add", &format!("add-{life}"), &json!({ "amount": 1 })).await?;
    ensure!(answer.version.map(|version| version.0) == Some(2 * life + 1), "life {life}: {answer:?}");
    Ok(())
}

async fn clear(given: &Given, id: &str, life: u64) -> Result<()> {
    let answer = given.tell(id, "clear", &format!("clear-{life}"), &json!({})).await?;
    ensure!(answer.result.is_ok(), "life {life}: {answer:?}");
    ensure!(answer.version.map(|version| version.0) == Some(2 * life + 2), "life {life}: {answer:?}");
    Ok(())
}
