//! What an instance counts and measures, through the `metrics` facade: whoever runs it may install any recorder. With
//! `metrics_address` in its configuration a service installs one itself that Prometheus can scrape.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use metrics::{
    Histogram, Label, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};

use freehold_core::{ErrorCode, InstanceName, KindDefinition, REHOME_COMMAND, SiteName};

use crate::copy::{Copy, HEALTHS};
use crate::read_requests::RESERVED_ENDPOINTS;
use crate::request_handler::Answer;

/// How often what an instance knows of its copy is told.
const INTERVAL: Duration = Duration::from_secs(1);

const REQUEST_SECONDS: &str = "freehold_request_seconds";
const REFUSALS: &str = "freehold_refusals_total";
const GROUPS_HELD: &str = "freehold_groups_held";
const COPY_POSITION: &str = "freehold_copy_position";
const COPY_AGE: &str = "freehold_copy_age_seconds";
const COPY_HEALTH: &str = "freehold_copy_health";
const ORIGIN_POSITION: &str = "freehold_origin_position";

/// Upper bounds of the buckets of request times, in seconds.
const BUCKETS: [f64; 14] = [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// Installs a recorder for the whole process, and answers scrapes at an address. Fails where the process has a recorder, or the address is
/// taken.
pub(crate) fn serve(address: SocketAddr) -> Result<(), BuildError> {
    PrometheusBuilder::new()
        .with_http_listener(address)
        .set_buckets_for_metric(Matcher::Full(REQUEST_SECONDS.to_owned()), &BUCKETS)?
        .install()?;
    describe_histogram!(REQUEST_SECONDS, Unit::Seconds, "From a request's arrival to its answer.");
    describe_counter!(REFUSALS, Unit::Count, "Requests that were not carried out, by the code of the error.");
    describe_gauge!(GROUPS_HELD, Unit::Count, "Groups that the instance decides for.");
    describe_gauge!(COPY_POSITION, Unit::Count, "The last message of an origin's log that the copy has applied.");
    describe_gauge!(
        COPY_AGE,
        Unit::Seconds,
        "How old the copy of another site's records is; NaN where it was never complete."
    );
    describe_gauge!(
        COPY_HEALTH,
        Unit::Count,
        "1 for how it is with the log of an origin, 0 for all else that it could be."
    );
    describe_gauge!(ORIGIN_POSITION, Unit::Count, "The last message of another site's log that was seen there.");
    Ok(())
}

/// The requests of an instance.
#[derive(Clone)]
pub(crate) struct RequestMetrics {
    labels: Vec<Label>,
    /// By kind and endpoint. Whatever else was asked for is in one of its own, so that callers cannot make as many as they like.
    seconds: Arc<HashMap<String, Histogram>>,
    unknown: Histogram,
}

impl RequestMetrics {
    pub(crate) fn new<'d>(
        site: &SiteName,
        instance: &InstanceName,
        definitions: impl Iterator<Item = &'d Arc<KindDefinition>>,
    ) -> Self {
        let labels = instance_labels(site, instance);
        let of = |kind: &str, request: &str| {
            let mut labels = labels.clone();
            labels.extend([Label::new("kind", kind.to_owned()), Label::new("request", request.to_owned())]);
            histogram!(REQUEST_SECONDS, labels)
        };
        let mut seconds = HashMap::new();
        for definition in definitions {
            let kind = definition.name.as_str();
            let commands = definition.commands.keys().map(|name| name.as_str());
            for request in commands.chain(RESERVED_ENDPOINTS).chain([REHOME_COMMAND]) {
                seconds.insert(format!("{kind}.{request}"), of(kind, request));
            }
        }
        let unknown = of("", "");
        Self { labels, seconds: Arc::new(seconds), unknown }
    }

    /// Notes an answered request.
    pub(crate) fn note(&self, subject: &str, answer: &Answer, took: Duration) {
        // Its last two tokens.
        let endpoint = subject.rmatch_indices('.').nth(1).map_or(subject, |(dot, _)| &subject[dot + 1..]);
        self.seconds.get(endpoint).unwrap_or(&self.unknown).record(took);
        if let Err(refusal) = &answer.result {
            self.note_refusal(refusal.code);
        }
    }

    /// Notes a request that was not carried out.
    pub(crate) fn note_refusal(&self, code: ErrorCode) {
        let mut labels = self.labels.clone();
        labels.push(Label::new("code", code.as_str()));
        counter!(REFUSALS, labels).increment(1);
    }
}

fn instance_labels(site: &SiteName, instance: &InstanceName) -> Vec<Label> {
    vec![Label::new("site", site.to_string()), Label::new("instance", instance.to_string())]
}

/// Tells again and again what an instance knows of its copy. Never returns.
pub(crate) async fn tell_copy(
    site: SiteName,
    instance: InstanceName,
    sites: Vec<SiteName>,
    copy: Copy,
    held: Arc<AtomicUsize>,
) {
    let labels = instance_labels(&site, &instance);
    let of_origin = |origin: &SiteName| {
        let mut labels = labels.clone();
        labels.push(Label::new("origin", origin.to_string()));
        labels
    };
    let groups_held = gauge!(GROUPS_HELD, labels.clone());
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        groups_held.set(as_number(held.load(Ordering::Relaxed) as u64));
        for origin in &sites {
            gauge!(COPY_POSITION, of_origin(origin)).set(as_number(copy.progress_of(origin).0));
            let health = copy.health_of(origin);
            for possible in HEALTHS {
                let mut labels = of_origin(origin);
                labels.push(Label::new("health", possible));
                gauge!(COPY_HEALTH, labels).set(f64::from(u8::from(possible == health)));
            }
            if let Some(watch) = copy.origins.get(origin) {
                let age = copy.age_of(origin).map_or(f64::NAN, |age| age.as_secs_f64());
                gauge!(COPY_AGE, of_origin(origin)).set(age);
                if let Some((position, _)) = watch.last_seen() {
                    gauge!(ORIGIN_POSITION, of_origin(origin)).set(as_number(position.0));
                }
            }
        }
    }
}

/// Metrics are floating-point numbers: exact up to 2^53.
#[allow(clippy::cast_precision_loss, reason = "no log is that long")]
fn as_number(count: u64) -> f64 {
    count as f64
}
