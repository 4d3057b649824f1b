//! Requests that do not say what they must: refused before anything is logged.

use anyhow::{Context as _, Result, bail, ensure};
use futures::future::join_all;
use serde_json::json;

use crate::place::Place;

/// A record of either kind, for commands that need one.
async fn seed(place: &Place) -> Result<()> {
    place.told("thing.create", r#"{"id":"ewr-1","record":{"n":1}}"#).await?;
    place.told("counter.add", r#"{"id":"ewr-1","amount":5}"#).await?;
    Ok(())
}

/// Both records as they are now, and how far the command log reaches.
async fn state(place: &Place) -> Result<(serde_json::Value, serde_json::Value, u64)> {
    let thing = place.told("thing.get", r#"{"id":"ewr-1"}"#).await?;
    let counter = place.told("counter.get", r#"{"id":"ewr-1"}"#).await?;
    Ok((thing, counter, place.last_sequence("COMMANDS").await?))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_invalid_and_reaches_no_log() -> Result<()> {
    let place = Place::start().await?;
    seed(&place).await?;
    let before = state(&place).await?;
    let too_long = format!(r#"{{"id":"{}","record":{{}}}}"#, "x".repeat(256));
    let long_field = format!(r#"{{"id":"ewr-1","record":{{}},"{}":1}}"#, "k".repeat(100_000));
    let deep = format!(r#"{{"id":"ewr-1","record":{}1{}}}"#, r#"{"a":"#.repeat(5_000), "}".repeat(5_000));
    let cases: &[(&str, &[u8], &str)] = &[
        ("thing.create", b"", "EOF"),
        ("thing.create", b"{", "EOF"),
        ("thing.create", br#"{"id":"ewr-1","record":{}"#, "EOF"),
        ("thing.create", br#"{"id":"ewr-1","record":{}} x"#, "trailing"),
        ("thing.create", br#"{"id":"ewr-1","record":{},}"#, "trailing"),
        ("thing.create", b"\xef\xbb\xbf{}", "expected value"),
        ("thing.create", b"{\"id\":\"\xff\",\"record\":{}}", "unicode"),
        ("thing.create", b"null", "a JSON object"),
        ("thing.create", b"5", "a JSON object"),
        ("thing.create", br#""ewr-1""#, "a JSON object"),
        ("thing.create", b"[]", "a JSON object"),
        ("thing.create", br#"[{"id":"ewr-1","record":{}}]"#, "a JSON object"),
        ("thing.create", br#"["ewr-1",{}]"#, "a JSON object"),
        ("thing.replace", br#"{"record":{}}"#, "\"id\" is missing"),
        ("thing.replace", br#"{"id":"","record":{}}"#, "empty"),
        ("thing.replace", br#"{"id":null,"record":{}}"#, "not a string"),
        ("thing.replace", br#"{"id":7,"record":{}}"#, "not a string"),
        ("thing.replace", br#"{"id":["ewr-1"],"record":{}}"#, "not a string"),
        ("thing.replace", br#"{"id":"\ud800","record":{}}"#, "not a string"),
        ("thing.replace", too_long.as_bytes(), "256 bytes"),
        ("thing.replace", br#"{"id":"ewr-2","id":"ewr-1","record":{}}"#, "occurs twice"),
        ("thing.replace", br#"{"id":"ewr-1","record":{},"record":{"n":2}}"#, "occurs twice"),
        ("thing.replace", br#"{"id":"ewr-1","record":{"a":1,"a":2}}"#, "occurs twice"),
        ("thing.replace", br#"{"id":"ewr-1","recrod":{}}"#, "recrod"),
        ("thing.replace", br#"{"id":"ewr-1","record":{},"Record":{}}"#, "Record"),
        ("thing.replace", long_field.as_bytes(), "unknown field"),
        ("thing.replace", deep.as_bytes(), "nested deeper"),
        ("thing.replace", br#"{"id":"ewr-1","record":[]}"#, "object"),
        ("thing.replace", br#"{"id":"ewr-1","record":null}"#, "object"),
        ("thing.replace", br#"{"id":"ewr-1","record":{"a":1e999}}"#, "out of range"),
        ("thing.replace", br#"{"id":"ewr-1","record":{"$serde_json::private::RawValue":"5"}}"#, "reserved"),
        ("thing.replace", br#"{"id":"ewr-1","$serde_json::private::RawValue":"{}"}"#, "unknown field"),
        ("thing.patch", br#"{"id":"ewr-1","patch":[]}"#, "object"),
        ("thing.patch", br#"{"id":"ewr-1","record":{}}"#, "record"),
        ("thing.delete", br#"{"id":"ewr-1","record":{}}"#, "record"),
        ("thing.delete", br#"{"id":"ewr-1","if_version":-1}"#, "if_version"),
        ("thing.delete", br#"{"id":"ewr-1","if_version":1.0}"#, "if_version"),
        ("thing.delete", br#"{"id":"ewr-1","if_version":"1"}"#, "if_version"),
        ("thing.delete", br#"{"id":"ewr-1","if_version":null}"#, "if_version"),
        ("thing.delete", br#"{"id":"ewr-1","if_version":18446744073709551616}"#, "if_version"),
        ("thing.rename", br#"{"id":"ewr-1"}"#, "create, delete, patch, replace"),
        ("thing.Create", br#"{"id":"ewr-1","record":{}}"#, "create, delete, patch, replace"),
        ("counter.add", br#"["ewr-1",5]"#, "a JSON object"),
        ("counter.add", br#"{"id":"ewr-1"}"#, "amount"),
        ("counter.add", br#"{"id":"ewr-1","amount":"5"}"#, "i64"),
        ("counter.add", br#"{"id":"ewr-1","amount":1.5}"#, "1.5"),
        ("counter.add", br#"{"id":"ewr-1","amount":null}"#, "null"),
        ("counter.add", br#"{"id":"ewr-1","amount":9223372036854775808}"#, "9223372036854775808"),
        ("counter.add", br#"{"id":"ewr-1","amount":5,"amuont":5}"#, "amuont"),
        ("counter.add", br#"{"id":"ewr-1","amount":{"$serde_json::private::RawValue":"5"}}"#, "reserved"),
        ("counter.add", br#"{"id":"ewr-1","amount":{"\u0024serde_json::private::Number":"5"}}"#, "reserved"),
        ("counter.add", br#"{"id":"Ewr-1","amount":5}"#, "no site"),
        ("counter.add", br#"{"id":"*","amount":5}"#, "no site"),
        ("counter.add", br#"{"amount":5}"#, "\"id\" is missing"),
        ("thing.get", b"", "id"),
        ("thing.get", b"{}", "id"),
        ("thing.get", b"null", "no JSON object"),
        ("thing.get", br#"["ewr-1"]"#, "no JSON object"),
        ("thing.get", br#" ["ewr-1",null,null]"#, "no JSON object"),
        ("thing.get", br#"{"id":""}"#, "empty"),
        ("thing.get", br#"{"id":1}"#, "string"),
        ("thing.get", br#"{"id":"ewr-1","id":"ewr-2"}"#, "duplicate"),
        ("thing.get", br#"{"id":"ewr-1","version":1}"#, "version"),
        ("thing.get", br#"{"id":"ewr-1","min_version":-1}"#, "-1"),
        ("thing.get", br#"{"id":"ewr-1","consistency":"owner"}"#, "consistency"),
        ("thing.list", br#"["ewr"]"#, "no JSON object"),
        ("thing.list", br#"{"limit":0}"#, "1 to 1000"),
        ("thing.list", br#"{"limit":1001}"#, "1 to 1000"),
        ("thing.list", br#"{"limit":-1}"#, "-1"),
        ("thing.list", br#"{"limit":"5"}"#, "string"),
        ("thing.list", br#"{"cursor":""}"#, "empty"),
        ("thing.list", br#"{"index":"name"}"#, "index"),
        ("thing.history", b"{}", "id"),
        ("thing.history", br#"["ewr-1"]"#, "no JSON object"),
        ("thing.outcome", b"{}", "command_id"),
        ("thing.outcome", br#"["x"]"#, "no JSON object"),
    ];
    for (endpoint, body, why) in cases {
        let said = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let answer = place.ask_with(endpoint, &[("Freehold-Command-Id", "bad")], body.to_vec()).await?;
        let is_change =
            !["rename", "Create", "get", "list", "history", "outcome"].iter().any(|it| endpoint.ends_with(it));
        ensure!(answer.header("Freehold-Command-Id") == is_change.then_some("bad"), "{endpoint} {said}: {answer:?}");
        ensure!(answer.header("Freehold-Version").is_none(), "{endpoint} {said}: nothing was decided: {answer:?}");
        let message = answer.refused("invalid", 400).with_context(|| format!("{endpoint} {said}"))?;
        ensure!(message.contains(why), "{endpoint} {said}: {message:?} does not say {why:?}");
    }
    ensure!(state(&place).await? == before, "a refusal changed something");
    place.goes_on().await?;
    place.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_nobody_serves_is_told_at_once_by_nats() -> Result<()> {
    let place = Place::start().await?;
    for subject in ["freehold.nothing.get", "freehold.thing", "freehold.thing.get.more"] {
        let error = place.nats.request(subject, "{}".into()).await.err().context("somebody answers")?;
        ensure!(error.kind() == async_nats::RequestErrorKind::NoResponders, "{subject}: {error:?}");
    }
    place.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_do_not_fit_are_invalid_and_reach_no_log() -> Result<()> {
    let place = Place::start().await?;
    seed(&place).await?;
    let before = state(&place).await?;
    let long = "x".repeat(129);
    let endless = "y".repeat(50_000);
    let cases: &[(&str, &str, &str)] = &[
        ("Freehold-Command-Id", "", "empty"),
        ("Freehold-Command-Id", " ", "empty"),
        ("Freehold-Command-Id", &long, "129 bytes"),
        ("Freehold-Command-Id", &endless, "50000 bytes"),
        ("Freehold-Command-Id", "a\u{1}b", "control character"),
        ("Freehold-Command-Id", "a\0b", "control character"),
        ("Freehold-Command-Id", "a\tb", "control character"),
        ("Freehold-Command-Id", "a\u{7f}", "control character"),
        ("Freehold-Command-Id", "a\u{85}b", "control character"),
        ("Freehold-Wait", "", "accepted, applied"),
        ("Freehold-Wait", "Applied", "accepted, applied"),
        ("Freehold-Wait", "applied, accepted", "accepted, applied"),
        ("Freehold-Wait", "sites=1", "0 other sites"),
        ("Freehold-Wait", "sites=0", "accepted, applied"),
        ("Freehold-Wait", "never", "accepted, applied"),
        ("Freehold-Wait", &endless, "yyy"),
    ];
    for (name, value, why) in cases {
        for (endpoint, body) in
            [("thing.replace", r#"{"id":"ewr-1","record":{}}"#), ("counter.add", r#"{"id":"ewr-1","amount":1}"#)]
        {
            let answer = place.ask_with(endpoint, &[(name, value)], body).await?;
            let message = answer.refused("invalid", 400).with_context(|| format!("{name}: {value:?}"))?;
            ensure!(message.contains(why), "{name}: {value:?}: {message:?} does not say {why:?}");
        }
    }
    ensure!(state(&place).await? == before, "a refusal changed something");
    // What is at the limit works, and comes back as it was sent.
    for id in ["x".repeat(128), "✈".repeat(42), "a b/c.*>%\"\\".to_owned()] {
        let headers = [("Freehold-Command-Id", id.as_str()), ("Freehold-Wait", "applied")];
        let answer = place.ask_with("counter.add", &headers, r#"{"id":"ewr-1","amount":1}"#).await?;
        ensure!(answer.header("Freehold-Command-Id") == Some(id.as_str()), "{answer:?}");
        answer.accepted()?;
        let found = place.told("counter.outcome", json!({ "command_id": id }).to_string()).await?;
        ensure!(found["status"] == "applied" && found["command_id"] == id, "{found}");
    }
    place.goes_on().await?;
    place.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_record_does_not_allow_is_refused_and_logged() -> Result<()> {
    let place = Place::start().await?;
    seed(&place).await?;
    let (thing, counter, _) = state(&place).await?;
    let cases = [
        (
            "thing.create",
            r#"{"id":"ewr-1","record":{}}"#,
            "rejected",
            422,
            json!({ "rejection": "already_exists", "reason": { "version": 1 } }),
        ),
        ("thing.replace", r#"{"id":"ewr-1","record":{},"if_version":2}"#, "conflict", 409, json!({ "version": 1 })),
        ("thing.delete", r#"{"id":"ewr-1","if_version":0}"#, "conflict", 409, json!({ "version": 1 })),
        ("thing.patch", r#"{"id":"ewr-none","patch":{}}"#, "not_found", 404, json!(null)),
        ("thing.delete", r#"{"id":"ewr-none","if_version":1}"#, "conflict", 409, json!({ "version": 0 })),
        (
            "counter.take",
            r#"{"id":"ewr-1","amount":6}"#,
            "rejected",
            422,
            json!({ "rejection": "not_enough", "reason": { "wanted": 6 } }),
        ),
        ("counter.add", r#"{"id":"jfk-1","amount":6}"#, "not_owner", 421, json!({ "owner": "jfk" })),
    ];
    for (number, (endpoint, body, code, error_number, details)) in cases.iter().enumerate() {
        let command_id = format!("case-{number}");
        let headers = [("Freehold-Command-Id", command_id.as_str())];
        // The answer is in the log: asked again, it is the same.
        for _ in 0..2 {
            let answer = place.ask_with(endpoint, &headers, *body).await?;
            answer.refused(code, *error_number).with_context(|| format!("{endpoint} {body}"))?;
            ensure!(answer.body.get("details").unwrap_or(&json!(null)) == details, "{endpoint} {body}: {answer:?}");
            ensure!(answer.header("Freehold-Command-Id") == Some(command_id.as_str()), "{answer:?}");
            ensure!(answer.header("Freehold-Version").is_some() && answer.header("Freehold-Owner") == Some("ewr"));
        }
        let kind = endpoint.split('.').next().context("a kind")?;
        let found = place.told(&format!("{kind}.outcome"), json!({ "command_id": command_id }).to_string()).await?;
        ensure!(found["error"]["code"] == *code, "{found}");
        ensure!(found["status"] == if *code == "rejected" { "rejected" } else { "refused" }, "{found}");
    }
    let after = state(&place).await?;
    ensure!((after.0, after.1) == (thing, counter), "a refusal changed a record");
    ensure!(after.2 == 2 + u64::try_from(cases.len())?, "a repeat was logged: {}", after.2);
    place.goes_on().await?;
    place.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_id_stands_for_one_command_of_its_record() -> Result<()> {
    let place = Place::start().await?;
    seed(&place).await?;
    let headers = [("Freehold-Command-Id", "mine")];
    let first = place.ask_with("thing.replace", &headers, r#"{"id":"ewr-1","record":{"n":2}}"#).await?;
    ensure!(first.accepted()?["version"] == 2);
    for (endpoint, body) in [
        ("thing.replace", r#"{"id":"ewr-1","record":{"n":3}}"#),
        ("thing.replace", r#"{"id":"ewr-1","record":{"n":2},"if_version":1}"#),
        ("thing.patch", r#"{"id":"ewr-1","patch":{"n":2}}"#),
        ("thing.delete", r#"{"id":"ewr-1"}"#),
    ] {
        let answer = place.ask_with(endpoint, &headers, body).await?;
        ensure!(answer.refused("conflict", 409)?.contains("another command"), "{answer:?}");
        ensure!(answer.header("Freehold-Version").is_none(), "nothing was decided: {answer:?}");
        let accepted = [headers[0], ("Freehold-Wait", "accepted")];
        place.ask_with(endpoint, &accepted, body).await?.refused("conflict", 409)?;
    }
    // The order of fields and the space between them are no content; another record is another command.
    let again = place.ask_with("thing.replace", &headers, r#" { "record" : {"n":2} , "id" : "ewr-1" } "#).await?;
    ensure!(again.accepted()?["version"] == 2);
    place.ask_with("thing.create", &headers, r#"{"id":"ewr-2","record":{}}"#).await?.accepted()?;
    let both = place.ask("thing.outcome", r#"{"command_id":"mine"}"#).await?;
    ensure!(both.refused("invalid", 400)?.contains("several records"), "{both:?}");
    let one = place.told("thing.outcome", r#"{"command_id":"mine","id":"ewr-2"}"#).await?;
    ensure!(one["name"] == "create" && one["reply"] == json!({ "id": "ewr-2", "version": 1 }), "{one}");
    let record = place.told("thing.get", r#"{"id":"ewr-1"}"#).await?;
    ensure!(record["version"] == 2 && record["record"] == json!({ "n": 2 }), "{record}");
    place.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_never_comes_is_busy_and_one_that_comes_is_read() -> Result<()> {
    let place = Place::start().await?;
    seed(&place).await?;
    let late = place.ask("thing.get", r#"{"id":"ewr-1","min_version":2,"timeout_ms":50}"#).await?;
    ensure!(late.refused("busy", 429)?.contains("version 1, not 2"), "{late:?}");
    let none = place.ask("thing.get", r#"{"id":"ewr-0","min_version":1,"timeout_ms":0}"#).await?;
    none.refused("busy", 429)?;
    place.ask("thing.get", r#"{"id":"ewr-0"}"#).await?.refused("not_found", 404)?;
    let (read, _) = tokio::try_join!(
        place.ask("thing.get", r#"{"id":"ewr-1","min_version":2,"timeout_ms":20000}"#),
        place.ask("thing.patch", r#"{"id":"ewr-1","patch":{"n":9}}"#),
    )?;
    ensure!(read.accepted()?["record"]["n"] == 9);
    place.told("thing.delete", r#"{"id":"ewr-1"}"#).await?;
    let gone = place.ask("thing.get", r#"{"id":"ewr-1","min_version":3}"#).await?;
    gone.refused("not_found", 404)?;
    ensure!(gone.header("Freehold-Version") == Some("3"), "a deleted record keeps its version: {gone:?}");
    place.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_waits_holds_up_none_that_came_with_it() -> Result<()> {
    let place = Place::start().await?;
    seed(&place).await?;
    let mut waits = Box::pin(place.ask("thing.get", r#"{"id":"ewr-1","min_version":2,"timeout_ms":20000}"#));
    let others = join_all((0..200).map(|_| place.ask("thing.get", r#"{"id":"ewr-1"}"#)));
    tokio::select! {
        biased;
        early = &mut waits => bail!("there is no version 2 yet: {early:?}"),
        others = others => for other in others {
            ensure!(other?.accepted()?["version"] == 1);
        }
    }
    place.told("thing.patch", r#"{"id":"ewr-1","patch":{"n":9}}"#).await?;
    ensure!(waits.await?.accepted()?["version"] == 2);
    place.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_never_sent_into_a_log() -> Result<()> {
    let place = Place::start().await?;
    seed(&place).await?;
    let (commands, letters) = (place.last_sequence("COMMANDS").await?, place.last_sequence("DEADLETTER").await?);
    let planted = ["fh.ewr.cmd.thing.0", "fh.ewr.rec.thing.0.planted", "fh.ewr.res.thing.0.1-0", "fh.ewr.dead.thing.0"];
    for reply in planted.iter().chain(&["$KV.FH_MEMBERS_ewr.planted", "freehold.thing.get"]) {
        for subject in ["freehold.thing.list", "freehold.thing.nothing", "$SRV.PING", "$SRV.INFO.bad-input"] {
            place.nats.publish_with_reply(subject, *reply, "{}".into()).await?;
        }
    }
    place.goes_on().await?;
    // The two commands that show that it goes on, and nothing else.
    ensure!(place.last_sequence("COMMANDS").await? == commands + 2, "an answer became a command");
    ensure!(place.last_sequence("DEADLETTER").await? == letters, "an answer became a dead letter");
    let records = async_nats::jetstream::new(place.nats.clone()).get_stream("FH_RECORDS_ewr").await?;
    for subject in &planted[1..3] {
        ensure!(records.get_last_raw_message_by_subject(subject).await.is_err(), "an answer is on {subject}");
    }
    place.stop().await
}
