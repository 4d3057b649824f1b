//! What somebody published straight into the command log: decided, set aside as a dead letter, and the group goes on.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use freehold_core::{GroupCount, RecordId};
use freehold_sandbox::wait_until;
use serde_json::{Value, json};

use crate::place::{GROUPS, Place};

const PATIENCE: Duration = Duration::from_secs(20);
const ID: &str = "ewr-1";

fn group_of(id: &str) -> Result<u16> {
    let id: RecordId = id.parse()?;
    Ok(GroupCount::new(GROUPS)?.group_of(&id).0)
}

/// Publishes into the log of the group of [`ID`]; gives the place that the message got.
async fn publish(place: &Place, payload: impl Into<bytes::Bytes>) -> Result<u64> {
    let jetstream = async_nats::jetstream::new(place.nats.clone());
    let subject = format!("fh.ewr.cmd.counter.{}", group_of(ID)?);
    Ok(jetstream.publish(subject, payload.into()).await?.await?.sequence)
}

/// Waits for the outcome of a command.
async fn outcome(place: &Place, command_id: &str) -> Result<Value> {
    let body = json!({ "command_id": command_id }).to_string();
    let known = || async { place.ask("counter.outcome", body.clone()).await.is_ok_and(|it| it.code().is_none()) };
    wait_until(&format!("the outcome of {command_id}"), PATIENCE, known).await?;
    place.told("counter.outcome", body.clone()).await
}

async fn dead_letters(place: &Place) -> Result<Vec<Value>> {
    let jetstream = async_nats::jetstream::new(place.nats.clone());
    let stream = jetstream.get_stream("FH_DEADLETTER_ewr").await?;
    let mut letters = Vec::new();
    for sequence in 1..=place.last_sequence("DEADLETTER").await? {
        letters.push(serde_json::from_slice(&stream.get_raw_message(sequence).await?.payload)?);
    }
    Ok(letters)
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_cannot_be_read_are_dead_letters_and_the_group_goes_on() -> Result<()> {
    let place = Place::start().await?;
    let other = (0..).map(|number| format!("ewr-{number}")).find(|id| group_of(id).ok() != group_of(ID).ok());
    let good = |change: &dyn Fn(&mut Value)| {
        let mut command = json!({ "kind": "counter", "id": ID, "name": "add", "command_id": "planted", "body": { "amount": 1_000_000 } });
        change(&mut command);
        command.to_string().into_bytes()
    };
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), "no JSON object"),
        (b"\0\xff\xfe garbage \r\n".to_vec(), "no JSON object"),
        (b"{".to_vec(), "EOF"),
        (b"null".to_vec(), "no JSON object"),
        (b"[]".to_vec(), "no JSON object"),
        (br#"["counter","ewr-1","add","planted",null,{"amount":1000000}]"#.to_vec(), "no JSON object"),
        (b"{}".to_vec(), "missing field"),
        (good(&|it| it["kind"] = json!("thing")), "for kind thing"),
        (good(&|it| it["kind"] = json!("A.*")), "kind name"),
        (good(&|it| it["id"] = json!(other)), "belongs to group"),
        (good(&|it| it["id"] = json!("")), "empty"),
        (good(&|it| it["id"] = json!("x".repeat(256))), "256 bytes"),
        (good(&|it| it["id"] = json!(7)), "string"),
        (good(&|it| it["name"] = json!("add it")), "command name"),
        (good(&|it| it["command_id"] = json!("y".repeat(2_000))), "2000 bytes"),
        (good(&|it| it["if_version"] = json!(-1)), "-1"),
        (good(&|it| drop(it.as_object_mut().and_then(|it| it.remove("body")))), "body"),
        (vec![b'z'; 100_000], "no JSON object"),
    ];
    let add = || place.told("counter.add", format!(r#"{{"id":"{ID}","amount":1}}"#));
    ensure!(add().await?["total"] == 1);
    for (number, (payload, why)) in cases.iter().enumerate() {
        let said = String::from_utf8_lossy(&payload[..payload.len().min(80)]).into_owned();
        let sequence = publish(&place, payload.clone()).await?;
        let found = outcome(&place, &format!("unreadable-0-{sequence}")).await.context(said.clone())?;
        ensure!(found["status"] == "dead" && found["error"]["code"] == "invalid", "{said}: {found}");
        ensure!(found["error"]["message"].as_str().is_some_and(|text| text.contains(why)), "{said}: {found}");
        // A command of the same group behind it is decided.
        ensure!(
            add().await?["total"] == number + 2,
            "{said}: the group does not go on, or the planted command counted"
        );
    }
    let letters = dead_letters(&place).await?;
    ensure!(letters.len() == cases.len(), "{} dead letters for {} commands", letters.len(), cases.len());
    for letter in &letters {
        ensure!(letter["kind"] == "counter" && letter["change"]["outcome"]["status"] == "dead", "{letter}");
    }
    let wrong_group = letters.iter().find(|it| it["command"]["id"] == json!(other));
    ensure!(wrong_group.is_some_and(|letter| letter["command"]["name"] == "add"), "a letter lacks its command");
    place.goes_on().await?;
    place.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_commands_that_can_be_read_are_refused_by_the_rule() -> Result<()> {
    let place = Place::start().await?;
    place.told("counter.add", format!(r#"{{"id":"{ID}","amount":1}}"#)).await?;
    let bodies = [
        json!(5),
        json!(null),
        json!([1]),
        json!({ "amount": "1" }),
        json!({}),
        json!({ "amount": { "$serde_json::private::RawValue": "1" } }),
    ];
    for (number, body) in bodies.iter().enumerate() {
        let command_id = format!("planted-{number}");
        let command = json!({ "kind": "counter", "id": ID, "name": "add", "command_id": command_id, "body": body });
        publish(&place, command.to_string()).await?;
        let found = outcome(&place, &command_id).await?;
        ensure!(found["status"] == "refused" && found["error"]["code"] == "invalid", "{body}: {found}");
    }
    let unknown = json!({ "kind": "counter", "id": ID, "name": "vanish", "command_id": "unknown", "body": {} });
    publish(&place, unknown.to_string()).await?;
    let found = outcome(&place, "unknown").await?;
    ensure!(found["status"] == "refused" && found["error"]["code"] == "invalid", "{found}");
    // A planted command that is well made is a command like any other, whatever its fields are called beside those it has.
    let well = json!({ "kind": "counter", "id": ID, "name": "add", "command_id": "well", "body": { "amount": 2 }, "newer": 1 });
    publish(&place, well.to_string()).await?;
    ensure!(outcome(&place, "well").await?["reply"]["total"] == 3);
    // Where no group and no kind is, nobody listens and nobody minds.
    let jetstream = async_nats::jetstream::new(place.nats.clone());
    for subject in ["fh.ewr.cmd.counter.99", "fh.ewr.cmd.nothing.0", "fh.ewr.cmd.counter.x"] {
        jetstream.publish(subject, "x".into()).await?.await?;
    }
    ensure!(place.last_sequence("DEADLETTER").await? == 0);
    let counter = place.told("counter.get", format!(r#"{{"id":"{ID}"}}"#)).await?;
    ensure!(counter["version"] == 2 && counter["record"]["total"] == 3, "{counter}");
    place.goes_on().await?;
    place.stop().await
}
