//! The JSON Schemas of `$SRV.INFO` say what the endpoints do: a request fits its schema exactly where it is not `invalid`, and every
//! answer fits its schema.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::services::Services;

/// Request and reply of each endpoint, by subject.
type Schemas = BTreeMap<String, (Validator, Validator)>;

async fn schemas(nats: &async_nats::Client, service: &str) -> Result<Schemas> {
    let info = nats.request(format!("$SRV.INFO.{service}"), "".into()).await?;
    let info: Value = serde_json::from_slice(&info.payload)?;
    let mut schemas = Schemas::new();
    for endpoint in info["endpoints"].as_array().context("endpoints")? {
        let compile = |name: &str| {
            let text = endpoint["metadata"][name].as_str().with_context(|| format!("{name} of {endpoint}"))?;
            let schema = serde_json::from_str(text)?;
            jsonschema::validator_for(&schema).with_context(|| format!("{}: {text}", endpoint["name"]))
        };
        let subject = endpoint["subject"].as_str().context("a subject")?.to_owned();
        schemas.insert(subject, (compile("request-schema")?, compile("reply-schema")?));
    }
    Ok(schemas)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schemas_of_discovery_are_those_of_the_endpoints() -> Result<()> {
    let services = Services::start(1).await?;
    let nats = async_nats::connect(services.url()).await?;
    let mut schemas_of = schemas(&nats, "records").await?;
    schemas_of.extend(schemas(&nats, "flights").await?);
    ensure!(schemas_of.len() == 16, "two kinds with four commands and four reads each: {:?}", schemas_of.keys());
    let flight = "EWR-20130101-UA1545";
    let planned = json!({
        "id": flight, "destination": "IAH", "departure": "2013-01-01T05:15", "arrival": "2013-01-01T08:19",
        "distance_miles": 1400, "tail_number": null,
    });
    let with = |body: &Value, name: &str, value: Value| {
        let mut body = body.clone();
        body[name] = value;
        body
    };
    let cases = vec![
        ("customer.create", json!({ "id": "ewr-1", "record": { "a": [1, null] } }), true),
        ("customer.create", json!({ "record": {} }), true),
        ("customer.create", json!({ "id": "ewr-2" }), false),
        ("customer.create", json!({ "id": "", "record": {} }), false),
        ("customer.create", json!({ "id": "x".repeat(256), "record": {} }), false),
        ("customer.create", json!({ "id": "ewr-2", "record": [] }), false),
        ("customer.replace", json!({ "id": "ewr-1", "record": { "b": 1 }, "if_version": 1 }), true),
        ("customer.replace", json!({ "id": "ewr-1", "record": {}, "if_version": -1 }), false),
        ("customer.replace", json!({ "id": "ewr-1", "record": {}, "if_version": null }), false),
        ("customer.replace", json!({ "record": {} }), false),
        ("customer.replace", json!({ "id": "ewr-1", "record": {}, "more": 1 }), false),
        ("customer.patch", json!({ "id": "ewr-1", "patch": { "b": null } }), true),
        ("customer.patch", json!({ "id": "ewr-1", "patch": null }), false),
        ("customer.get", json!({ "id": "ewr-1" }), true),
        ("customer.get", json!({ "id": "ewr-1", "min_version": 3, "timeout_ms": 9 }), true),
        ("customer.get", json!({ "id": "ewr-1", "min_version": null, "timeout_ms": null }), true),
        ("customer.get", json!({ "id": "ewr-1", "min_version": "3" }), false),
        ("customer.list", json!({}), true),
        ("customer.list", json!({ "prefix": "ewr", "limit": 1000, "cursor": "ewr-" }), true),
        ("customer.list", json!({ "limit": null, "cursor": null }), true),
        ("customer.list", json!({ "prefix": null }), false),
        ("customer.list", json!({ "limit": 0 }), false),
        ("customer.list", json!({ "limit": 1001 }), false),
        ("customer.list", json!({ "cursor": "" }), false),
        ("customer.delete", json!({ "id": "ewr-1" }), true),
        ("customer.delete", json!({ "id": "ewr-1", "record": {} }), false),
        ("customer.history", json!({ "id": "ewr-1" }), true),
        ("customer.history", json!({ "id": "ewr-1", "limit": 1 }), false),
        ("customer.outcome", json!({ "command_id": "schema-0" }), true),
        ("customer.outcome", json!({ "command_id": "schema-0", "id": null }), true),
        ("customer.outcome", json!({ "command_id": "schema-0", "id": "ewr-1" }), true),
        ("customer.outcome", json!({ "id": "ewr-1" }), false),
        ("customer.get", json!([]), false),
        ("customer.delete", json!(null), false),
        ("flight.schedule", with(&planned, "distance_miles", json!(-1)), false),
        ("flight.schedule", with(&planned, "destination", json!("iah")), false),
        ("flight.schedule", with(&planned, "tail_number", json!("?")), false),
        ("flight.schedule", with(&planned, "origin", json!("EWR")), false),
        ("flight.schedule", planned.clone(), true),
        ("flight.depart", json!({ "id": flight, "at": "05:17" }), false),
        ("flight.depart", json!({ "id": flight, "at": "2013-01-01T05:17" }), true),
        ("flight.arrive", json!({ "id": flight, "at": "2013-01-01T08:30", "air_minutes": "227" }), false),
        ("flight.arrive", json!({ "id": flight, "at": "2013-01-01T08:30", "air_minutes": 227 }), true),
        ("flight.cancel", json!({ "id": flight, "reason": "snow" }), false),
        ("flight.cancel", json!({ "id": flight }), true),
        ("flight.get", json!({ "id": flight }), true),
        ("flight.list", json!({ "prefix": "EWR" }), true),
        ("flight.history", json!({ "id": flight }), true),
        ("flight.outcome", json!({ "command_id": "schema-38" }), true),
    ];
    let mut answered = BTreeMap::<&str, usize>::new();
    for (number, (endpoint, body, fits)) in cases.iter().enumerate() {
        let subject = format!("freehold.{endpoint}");
        let (request_schema, reply_schema) = schemas_of.get(&subject).context(subject.clone())?;
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Freehold-Command-Id", format!("schema-{number}"));
        let reply = nats.request_with_headers(subject, headers, body.to_string().into()).await?;
        let error = reply.headers.as_ref().and_then(|it| it.get("Nats-Service-Error")).map(ToString::to_string);
        let answer: Value = serde_json::from_slice(&reply.payload)?;
        ensure!((error.as_deref() != Some("invalid")) == *fits, "{endpoint} {body}: {answer}");
        ensure!(request_schema.is_valid(body) == *fits, "the schema of {endpoint} judges {body} differently");
        if error.is_none() {
            let wrong: Vec<_> = reply_schema.iter_errors(&answer).map(|error| error.to_string()).collect();
            ensure!(wrong.is_empty(), "{endpoint} {body}: {answer}: {wrong:?}");
            *answered.entry(endpoint).or_default() += 1;
        }
    }
    // `cancel` of a flight that left is rejected; everything else was answered at least once.
    ensure!(answered.len() == schemas_of.len() - 1, "{answered:?}");
    services.stop().await
}
