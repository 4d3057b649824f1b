//! STATS is true: what clients sent is what the instances counted, to the number.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use futures::future::try_join_all;
use serde_json::{Value, json};

use crate::services::Services;

const INSTANCES: usize = 2;
/// Answers to discovery come within milliseconds; this is for a slow machine.
const PATIENCE: Duration = Duration::from_secs(20);
const IN_FLIGHT: usize = 32;

/// The STATS of all instances of a service.
async fn stats(nats: &async_nats::Client, service: &str, instances: usize) -> Result<Vec<Value>> {
    let inbox = nats.new_inbox();
    let mut answers = nats.subscribe(inbox.clone()).await?;
    nats.publish_with_reply(format!("$SRV.STATS.{service}"), inbox, "".into()).await?;
    let mut found = Vec::new();
    while found.len() < instances {
        let answer = tokio::time::timeout(PATIENCE, answers.next()).await.context("an instance does not answer")?;
        found.push(serde_json::from_slice(&answer.context("the connection is gone")?.payload)?);
    }
    Ok(found)
}

/// Requests, errors and nanoseconds of each endpoint, over all instances; only those that were asked.
fn sums(stats: &[Value]) -> Result<BTreeMap<String, (u64, u64, u64)>> {
    let mut sums: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
    for endpoint in stats.iter().flat_map(|instance| instance["endpoints"].as_array().into_iter().flatten()) {
        let number = |name: &str| endpoint[name].as_u64().with_context(|| format!("{name} of {endpoint}"));
        let (requests, errors, nanos) = (number("num_requests")?, number("num_errors")?, number("processing_time")?);
        ensure!(number("average_processing_time")? == nanos.checked_div(requests).unwrap_or(0), "{endpoint}");
        ensure!(endpoint["queue_group"] == "q" && endpoint["last_error"].is_string(), "{endpoint}");
        ensure!((errors == 0) == (endpoint["last_error"] == ""), "{endpoint}");
        let sum = sums.entry(endpoint["name"].as_str().context("a name")?.to_owned()).or_default();
        *sum = (sum.0 + requests, sum.1 + errors, sum.2 + nanos);
    }
    sums.retain(|_, (requests, _, _)| *requests > 0);
    Ok(sums)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_and_every_error_is_counted_once_over_all_instances() -> Result<()> {
    let services = Services::start(INSTANCES).await?;
    let nats = async_nats::connect(services.url()).await?;
    let mut requests = Vec::new();
    let mut add = |times: usize, endpoint: &'static str, body: &dyn Fn(usize) -> Value, good: bool| {
        requests.extend((0..times).map(|number| (endpoint, body(number).to_string(), good)));
    };
    add(120, "customer.create", &|number| json!({ "id": format!("ewr-{number}"), "record": {} }), true);
    add(31, "customer.create", &|number| json!({ "id": format!("ewr-bad-{number}"), "recrod": {} }), false);
    add(17, "customer.patch", &|number| json!({ "id": format!("ewr-none-{number}"), "patch": {} }), false);
    add(90, "customer.list", &|_| json!({ "limit": 3 }), true);
    add(23, "customer.list", &|_| json!({ "limit": 0 }), false);
    add(41, "customer.get", &|number| json!({ "id": format!("ewr-none-{number}") }), false);
    add(13, "customer.outcome", &|_| json!([]), false);
    add(7, "customer.history", &|_| json!({ "id": "ewr-none" }), false);
    // Counted nowhere: the kind has no such endpoint.
    add(11, "customer.rename", &|_| json!({}), false);
    add(19, "flight.cancel", &|number| json!({ "id": format!("EWR-20130101-UA{}", number + 1) }), false);
    let mut expected: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (endpoint, _, good) in &requests {
        let count = expected.entry(endpoint.replace('.', "-")).or_default();
        *count = (count.0 + 1, count.1 + u64::from(!good));
    }
    expected.remove("customer-rename").context("requests to an unknown command")?;

    let started = Instant::now();
    let ask = |(endpoint, body, good): (&'static str, String, bool)| {
        let nats = nats.clone();
        async move {
            let request = async_nats::Request::new().payload(body.clone().into()).timeout(Some(PATIENCE));
            let reply = nats.send_request(format!("freehold.{endpoint}"), request).await?;
            let error = reply.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error"));
            ensure!(error.is_none() == good, "{endpoint} {body}: {error:?}");
            anyhow::Ok(())
        }
    };
    let mut longest = Duration::ZERO;
    while !requests.is_empty() {
        let now = requests.split_off(requests.len().saturating_sub(IN_FLIGHT));
        let began = Instant::now();
        try_join_all(now.into_iter().map(ask)).await?;
        longest = longest.max(began.elapsed());
    }

    let records = stats(&nats, "records", INSTANCES).await?;
    let flights = stats(&nats, "flights", 1).await?;
    let found = sums(&[records.clone(), flights].concat())?;
    let counted: BTreeMap<_, _> = found.iter().map(|(name, sum)| (name.clone(), (sum.0, sum.1))).collect();
    ensure!(counted == expected, "counted {counted:?}, sent {expected:?}");
    for (name, (requests, _, nanos)) in &found {
        // No request took longer than the slowest round of requests, and none took no time at all.
        let most = u128::from(*requests) * longest.as_nanos();
        ensure!(*nanos > *requests && u128::from(*nanos) <= most, "{name}: {nanos} ns for {requests} in {longest:?}");
    }
    for instance in &records {
        let busy = instance["endpoints"].as_array().is_some_and(|it| it.iter().any(|it| it["num_requests"] != 0));
        ensure!(busy, "an instance got nothing: {instance}");
        ensure!(instance["data"]["members"]["customer"]["members"].as_array().map(Vec::len) == Some(INSTANCES));
        ensure!(instance["data"]["applied"]["ewr"].as_u64() > Some(0), "{instance}");
    }
    println!("{counted:?} in {:?}", started.elapsed());
    services.stop().await
}
