//! Scenario 59: ids of every sort. They work as they are, stay apart, and no subject ever holds them raw.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use freehold_core::{RecordId, SubjectToken};
use futures::TryStreamExt;
use serde_json::json;

use crate::place::Place;

fn ids() -> Vec<String> {
    let mut ids: Vec<String> = [
        ".",
        "..",
        "a.b",
        "*",
        ">",
        "a.*.>",
        "fh.ewr.rec.thing.0.x",
        "$JS.API.>",
        " ",
        "a b",
        " a",
        "a ",
        "\n",
        "a\r\nPUB x 1\r\n",
        "\t",
        "\0",
        "a\0b",
        "\u{1b}[31m",
        "\u{7f}",
        "%",
        "%2E",
        "%00",
        "/",
        "\\",
        "\"",
        "'",
        "{}",
        "null",
        "-",
        "_",
        "~",
        "ewr-1",
        "jfk-1",
        // One letter, three spellings: composed, decomposed, and a Cyrillic look-alike.
        "\u{e9}",
        "e\u{301}",
        "a",
        "\u{430}",
        "A",
        "✈",
        "👩‍👩‍👧",
        "\u{202e}abc",
        "\u{feff}",
        "\u{200b}",
        "日本語",
        "\u{10ffff}",
    ]
    .map(str::to_owned)
    .into();
    ids.extend(["x".repeat(255), "\u{1}".repeat(255), format!("{}a", "é".repeat(127)), ".".repeat(255)]);
    ids
}

/// All subjects of a stream.
async fn subjects(place: &Place, stream: &str) -> Result<BTreeSet<String>> {
    let jetstream = async_nats::jetstream::new(place.nats.clone());
    let stream = jetstream.get_stream(format!("FH_{stream}_ewr")).await?;
    let subjects: Vec<(String, usize)> = stream.info_with_subjects(">").await?.try_collect().await?;
    Ok(subjects.into_iter().map(|(subject, _)| subject).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn s59_ids_of_every_sort_work_and_never_reach_a_subject_raw() -> Result<()> {
    let place = Place::start().await?;
    let ids = ids();
    for (number, id) in ids.iter().enumerate() {
        let body = json!({ "id": id, "record": { "number": number } }).to_string();
        let written = place.told("thing.create", body).await.with_context(|| format!("{id:?}"))?;
        ensure!(written == json!({ "id": id, "version": 1 }), "{id:?}: {written}");
    }
    for (number, id) in ids.iter().enumerate() {
        let record = place.told("thing.get", json!({ "id": id }).to_string()).await?;
        ensure!(record["id"] == *id && record["record"]["number"] == number, "{id:?}: {record}");
        let history = place.told("thing.history", json!({ "id": id }).to_string()).await?;
        ensure!(history["versions"].as_array().map(Vec::len) == Some(1), "{id:?}: {history}");
        let listed = place.told("thing.list", json!({ "prefix": id, "limit": 1 }).to_string()).await?;
        ensure!(listed["records"][0]["id"] == *id, "{id:?} is the first of those that begin with it: {listed}");
    }

    // Page by page: every id once, in the order of its bytes.
    let (mut seen, mut cursor) = (Vec::new(), json!(null));
    loop {
        let page = place.told("thing.list", json!({ "limit": 7, "cursor": cursor }).to_string()).await?;
        let records = page["records"].as_array().context("records")?;
        seen.extend(records.iter().filter_map(|record| record["id"].as_str()).map(str::to_owned));
        cursor = page["cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    let mut sorted = ids.clone();
    sorted.sort();
    ensure!(seen == sorted, "{seen:?}");

    // One subject an id, made of safe characters only, from which the id can be read back.
    let updates: Vec<_> = subjects(&place, "RECORDS").await?.into_iter().filter(|it| it.contains(".rec.")).collect();
    let mut read_back = BTreeSet::new();
    for subject in &updates {
        let token = subject.rsplit('.').next().unwrap_or_default();
        ensure!(subject.split('.').count() == 6 && subject.starts_with("fh.ewr.rec.thing."), "{subject:?}");
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_~%".contains(&byte);
        ensure!(token.bytes().all(safe), "{subject:?}");
        read_back.insert(SubjectToken::decode(token)?.as_str().to_owned());
    }
    ensure!(read_back == ids.iter().cloned().collect() && updates.len() == ids.len(), "{read_back:?}");
    let commands = subjects(&place, "COMMANDS").await?;
    let plain = |subject: &String| subject.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
    ensure!(commands.iter().all(plain), "{commands:?}");

    for id in &ids {
        let deleted = place.told("thing.delete", json!({ "id": id, "if_version": 1 }).to_string()).await?;
        ensure!(deleted["version"] == 2, "{id:?}: {deleted}");
    }
    ensure!(place.told("thing.list", "").await? == json!({ "records": [], "cursor": null }));
    place.goes_on().await?;
    place.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn s59_ids_that_are_empty_or_too_long_are_refused_everywhere() -> Result<()> {
    let place = Place::start().await?;
    let before = place.last_sequence("COMMANDS").await?;
    for id in [String::new(), "x".repeat(256), "é".repeat(128), "\0".repeat(256), "x".repeat(100_000)] {
        ensure!(id.parse::<RecordId>().is_err());
        for (endpoint, body) in [
            ("thing.create", json!({ "id": id, "record": {} })),
            ("thing.delete", json!({ "id": id })),
            ("thing.get", json!({ "id": id })),
            ("thing.history", json!({ "id": id })),
            ("thing.list", json!({ "cursor": id })),
            ("thing.outcome", json!({ "id": id, "command_id": "x" })),
        ] {
            place.ask(endpoint, body.to_string()).await?.refused("invalid", 400).context(endpoint)?;
        }
    }
    ensure!(place.last_sequence("COMMANDS").await? == before, "a refused id reached the log");
    place.goes_on().await?;
    place.stop().await
}
