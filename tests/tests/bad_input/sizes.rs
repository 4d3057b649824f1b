//! Scenario 60: payloads at, below and over what the server takes as one message. A change applies or is `too_large`, nothing
//! between, and whatever was stored can be read.

use anyhow::{Context as _, Result, ensure};
use freehold_sandbox::Sandbox;
use serde_json::json;

use crate::place::Place;

/// Small, so that the test is fast.
const MAX_PAYLOAD: usize = 65_536;

async fn small_server() -> Result<Place> {
    Place::start_with(Sandbox::builder().extra_config(format!("max_payload: {MAX_PAYLOAD}")), |_| {}).await
}

/// Creates a record of so many bytes; whether it fits. Either way it is what a reader finds.
async fn fits(place: &Place, id: &str, bytes: usize) -> Result<bool> {
    let record = json!({ "t": "x".repeat(bytes.saturating_sub(r#"{"t":""}"#.len())) });
    let body = json!({ "id": id, "record": record }).to_string();
    let answer = place.ask("thing.create", body).await.with_context(|| format!("{bytes} bytes"))?;
    let read = place.ask("thing.get", json!({ "id": id }).to_string()).await?;
    if answer.code().is_none() {
        ensure!(read.accepted()?["record"] == record, "{bytes} bytes were stored and are not read back");
        return Ok(true);
    }
    answer.refused("too_large", 413)?;
    read.refused("not_found", 404)?;
    Ok(false)
}

#[tokio::test(flavor = "multi_thread")]
async fn s60_a_record_fits_or_is_too_large_whatever_its_size() -> Result<()> {
    let place = small_server().await?;
    // The largest that fits, by halving; the request itself always fits.
    let (mut fitting, mut exceeding) = (MAX_PAYLOAD / 2, MAX_PAYLOAD - 64);
    ensure!(fits(&place, "ewr-first", fitting).await?);
    ensure!(!fits(&place, "ewr-over", exceeding).await?);
    while exceeding - fitting > 1 {
        let middle = (fitting + exceeding) / 2;
        let fit = fits(&place, &format!("ewr-{middle}"), middle).await?;
        *(if fit { &mut fitting } else { &mut exceeding }) = middle;
    }
    println!("the largest record at max_payload {MAX_PAYLOAD}: {fitting} bytes");
    ensure!(fitting >= MAX_PAYLOAD - 8_192, "more than 8 KiB are lost to the envelope: {fitting}");
    // Up to what no request can carry: each is answered.
    for bytes in
        [exceeding, exceeding + 1, MAX_PAYLOAD - 4_096, MAX_PAYLOAD - 512, MAX_PAYLOAD - 300, MAX_PAYLOAD - 150]
    {
        ensure!(!fits(&place, &format!("ewr-{bytes}-again"), bytes).await?, "{bytes}");
    }

    // The largest record with the longest id that takes the most room: stored in every reply, too.
    let id = "\u{1}".repeat(255);
    let room = fitting - 255 * 6 * 3;
    ensure!(fits(&place, &id, room).await?);
    let listed = place.told("thing.list", json!({ "prefix": id }).to_string()).await?;
    ensure!(listed["records"][0]["id"] == id, "the largest record is not listed");
    let history = place.told("thing.history", json!({ "id": id }).to_string()).await?;
    ensure!(history["versions"][0]["version"] == 1, "the largest record has no history");

    // A record that grows too large by a patch stays as it was, and says so again when asked again.
    let grow = json!({ "id": id, "patch": { "more": "y".repeat(10_000) } }).to_string();
    for _ in 0..2 {
        let headers = [("Freehold-Command-Id", "grow")];
        let answer = place.ask_with("thing.patch", &headers, grow.clone()).await?;
        answer.refused("too_large", 413)?;
        ensure!(answer.header("Freehold-Version") == Some("1"), "{answer:?}");
    }
    let kept = place.told("thing.get", json!({ "id": id }).to_string()).await?;
    ensure!(kept["version"] == 1 && kept["record"]["more"].is_null());
    ensure!(place.told("thing.patch", json!({ "id": id, "patch": { "t": "z" } }).to_string()).await?["version"] == 2);

    // Pages hold what fits into one message, and together everything.
    let (mut seen, mut cursor) = (0, json!(null));
    loop {
        let page = place.told("thing.list", json!({ "cursor": cursor }).to_string()).await?;
        seen += page["records"].as_array().map_or(0, Vec::len);
        cursor = page["cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    let jetstream = async_nats::jetstream::new(place.nats.clone());
    let stored = jetstream.get_stream("FH_RECORDS_ewr").await?.info_with_subjects("fh.ewr.rec.thing.>").await?;
    let stored = futures::TryStreamExt::try_collect::<Vec<_>>(stored).await?.len();
    ensure!(seen == stored, "{seen} of {stored} records were listed");
    place.goes_on().await?;
    place.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn s60_a_rule_that_makes_a_record_too_large_changes_nothing() -> Result<()> {
    let place = small_server().await?;
    place.told("counter.add", r#"{"id":"ewr-1","amount":1}"#).await?;
    for bytes in [MAX_PAYLOAD, MAX_PAYLOAD * 20] {
        let answer = place.ask("counter.inflate", json!({ "id": "ewr-1", "bytes": bytes }).to_string()).await?;
        answer.refused("too_large", 413)?;
    }
    let counter = place.told("counter.get", r#"{"id":"ewr-1"}"#).await?;
    ensure!(counter["version"] == 1 && counter["record"]["ballast"] == "", "{counter}");
    place.goes_on().await?;
    place.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn s60_what_the_server_itself_refuses_disturbs_nobody_else() -> Result<()> {
    let place = small_server().await?;
    let rude = async_nats::connect(place.sandbox.site("ewr").url()).await?;
    let body = json!({ "id": "ewr-1", "record": { "t": "x".repeat(MAX_PAYLOAD) } }).to_string();
    // The client library holds it back; a connection that does not is closed by the server.
    ensure!(rude.request("freehold.thing.create", body.clone().into()).await.is_err());
    let mut raw = crate::headers::RawConnection::open(place.sandbox.site("ewr").server().port()).await?;
    raw.send(format!("PUB freehold.thing.create {}\r\n{body}\r\n", body.len()).as_bytes()).await?;
    raw.closed_with("Maximum Payload").await?;
    place.ask("thing.get", r#"{"id":"ewr-1"}"#).await?.refused("not_found", 404)?;
    // A trace header that would push the command over the limit is part of what is too large.
    let long = "0".repeat(MAX_PAYLOAD - 100);
    let answer = place.ask_with("thing.create", &[("traceparent", &long)], r#"{"id":"ewr-1","record":{}}"#).await?;
    answer.refused("too_large", 413)?;
    ensure!(answer.header("Freehold-Command-Id").is_some(), "{answer:?}");
    place.goes_on().await?;
    place.stop().await
}
