//! The NATS micro protocol (ADR-32): discovery, statistics, and requests with errors in headers.
//!
//! Not async-nats' own `service` module: an error there has no body and an unknown name no answer, while Freehold's contract
//! has a JSON body for both (docs/adr/0005-own-micro-protocol.md).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use async_nats::{HeaderMap, HeaderName, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::SelectAll;
use serde::Serialize;

use freehold_core::{ErrorCode, Refusal};

use crate::arrivals::arrived;
use crate::connection::Connection;
use crate::error::ApiError;

const ERROR_HEADER: &str = "Nats-Service-Error";
const ERROR_CODE_HEADER: &str = "Nats-Service-Error-Code";
/// Nothing is answered there: a caller could have the answer stored in a log, or passed on as a request, by naming it as the
/// place for it.
const RESERVED_FOR_US: [&str; 3] = ["fh.", "freehold.", "$"];
/// Requests that are handed over together.
const CHUNK_REQUESTS: usize = 64;
/// The queue group that the protocol gives to endpoints by default.
const QUEUE_GROUP: &str = "q";

/// One endpoint as clients discover it.
#[derive(Debug, Clone, Serialize)]
pub struct EndpointInfo {
    /// Its name, unique within the service.
    pub name: String,
    /// Where requests go.
    pub subject: String,
    /// Facts about it, such as the schemas of request and reply.
    pub metadata: HashMap<String, String>,
}

/// A service and its endpoints.
pub struct MicroOptions {
    /// The service's name.
    pub name: String,
    /// This instance's id, unique among all instances.
    pub id: String,
    /// The service's version (semver).
    pub version: String,
    /// What the service is.
    pub description: String,
    /// Facts about this instance.
    pub metadata: HashMap<String, String>,
    /// The endpoints.
    pub endpoints: Vec<EndpointInfo>,
    /// Subjects to take requests from; together they cover those of the endpoints.
    pub subscriptions: Vec<String>,
    /// What the service says about itself in its statistics.
    pub status: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
}

/// A running service: answers discovery by itself and hands requests over.
pub struct Micro {
    requests: SelectAll<Subscriber>,
    shared: Arc<Shared>,
    discovery: tokio::task::JoinHandle<()>,
}

struct Shared {
    client: async_nats::Client,
    options: MicroOptions,
    statistics: Vec<Statistics>,
    by_subject: HashMap<String, usize>,
    started: String,
}

#[derive(Default)]
struct Statistics {
    requests: AtomicU64,
    errors: AtomicU64,
    processing_nanos: AtomicU64,
    last_error: Mutex<String>,
}

impl Micro {
    /// Subscribes and starts to answer discovery. `started` is when the service started, in RFC 3339.
    pub async fn start(connection: &Connection, options: MicroOptions, started: String) -> Result<Self, ApiError> {
        let client = connection.client.clone();
        let failed = |error: async_nats::SubscribeError| ApiError::new("subscribing to requests", error);
        let mut requests = SelectAll::new();
        for subject in &options.subscriptions {
            requests.push(client.queue_subscribe(subject.clone(), QUEUE_GROUP.to_owned()).await.map_err(failed)?);
        }
        let mut discovery = SelectAll::new();
        for verb in ["PING", "INFO", "STATS"] {
            let name = &options.name;
            for subject in
                [format!("$SRV.{verb}"), format!("$SRV.{verb}.{name}"), format!("$SRV.{verb}.{name}.{}", options.id)]
            {
                discovery.push(client.subscribe(subject).await.map_err(failed)?);
            }
        }
        // Flushing only sends: an answer to what was sent behind the subscriptions says that the server has them.
        let answered = connection.jetstream.query_account().await;
        answered.map_err(|error| ApiError::new("subscribing to requests", error))?;
        let by_subject =
            (0..).zip(&options.endpoints).map(|(index, endpoint)| (endpoint.subject.clone(), index)).collect();
        let statistics = options.endpoints.iter().map(|_| Statistics::default()).collect();
        let shared = Arc::new(Shared { client, options, statistics, by_subject, started });
        let answering = Arc::clone(&shared);
        let discovery = tokio::spawn(async move {
            while let Some(message) = discovery.next().await {
                answering.answer_discovery(message).await;
            }
        });
        Ok(Self { requests, shared, discovery })
    }

    /// The requests that have arrived, at least one and at most 64; nothing when the subscriptions have ended. May be dropped at any time.
    pub async fn next(&mut self) -> Option<Vec<Request>> {
        let messages = arrived(&mut self.requests, CHUNK_REQUESTS).await?;
        let received = Instant::now();
        let request = |message: async_nats::Message| {
            let endpoint = self.shared.by_subject.get(message.subject.as_str()).copied();
            if let Some(endpoint) = endpoint {
                self.shared.statistics[endpoint].requests.fetch_add(1, Ordering::Relaxed);
            }
            Request { shared: Arc::clone(&self.shared), endpoint, message, received }
        };
        Some(messages.into_iter().map(request).collect())
    }

    /// Takes no more requests; those that have arrived are still handed over by [`Micro::next`], until it returns nothing.
    pub async fn drain(&mut self) {
        self.discovery.abort();
        for subscriber in self.requests.iter_mut() {
            if let Err(error) = subscriber.drain().await {
                tracing::debug!(%error, "the subscription was gone already");
            }
        }
    }
}

impl Drop for Micro {
    fn drop(&mut self) {
        self.discovery.abort();
    }
}

impl Shared {
    async fn answer_discovery(&self, message: async_nats::Message) {
        let Some(reply) = inbox(message.reply) else { return };
        let verb = message.subject.as_str().split('.').nth(1).unwrap_or_default().to_owned();
        let answer = match verb.as_str() {
            "PING" => self.identity("ping_response"),
            "INFO" => self.info(),
            _ => self.stats(),
        };
        if let Err(error) = self.client.publish(reply, answer.to_string().into()).await {
            tracing::warn!(%error, "a discovery answer could not be sent");
        }
    }

    fn identity(&self, answer: &str) -> serde_json::Value {
        let MicroOptions { name, id, version, metadata, .. } = &self.options;
        serde_json::json!({
            "type": format!("io.nats.micro.v1.{answer}"),
            "name": name, "id": id, "version": version, "metadata": metadata,
        })
    }

    fn info(&self) -> serde_json::Value {
        let mut answer = self.identity("info_response");
        answer["description"] = self.options.description.clone().into();
        answer["endpoints"] = self.endpoints(|_, _| {});
        answer
    }

    fn stats(&self) -> serde_json::Value {
        let mut answer = self.identity("stats_response");
        answer["started"] = self.started.clone().into();
        answer["endpoints"] = self.endpoints(|index, endpoint| {
            let Statistics { requests, errors, processing_nanos, last_error } = &self.statistics[index];
            let (requests, nanos) = (requests.load(Ordering::Relaxed), processing_nanos.load(Ordering::Relaxed));
            endpoint["num_requests"] = requests.into();
            endpoint["num_errors"] = errors.load(Ordering::Relaxed).into();
            endpoint["processing_time"] = nanos.into();
            endpoint["average_processing_time"] = nanos.checked_div(requests).unwrap_or(0).into();
            endpoint["last_error"] = lock(last_error).clone().into();
        });
        answer["data"] = (self.options.status)();
        answer
    }

    fn endpoints(&self, add: impl Fn(usize, &mut serde_json::Value)) -> serde_json::Value {
        let endpoint = |(index, endpoint): (usize, &EndpointInfo)| {
            let mut entry = serde_json::json!({
                "name": endpoint.name, "subject": endpoint.subject, "queue_group": QUEUE_GROUP,
                "metadata": endpoint.metadata,
            });
            add(index, &mut entry);
            entry
        };
        (0..).zip(&self.options.endpoints).map(endpoint).collect()
    }
}

/// A request to answer.
pub struct Request {
    shared: Arc<Shared>,
    endpoint: Option<usize>,
    message: async_nats::Message,
    received: Instant,
}

/// Headers of a reply.
pub type ReplyHeaders = Vec<(&'static str, String)>;

/// What a request is answered with.
#[derive(Debug)]
pub struct Reply {
    /// Its body, JSON.
    pub body: Bytes,
    /// Its headers.
    pub headers: ReplyHeaders,
    /// Where it is an error: the number and the stable code for the protocol's error headers.
    pub error: Option<(u16, &'static str)>,
}

/// Bytes around the headers of a message, and around each of them.
const HEADERS_FRAME_BYTES: usize = "NATS/1.0\r\n\r\n".len();
const HEADER_FRAME_BYTES: usize = ": \r\n".len();

impl Reply {
    /// An error.
    pub fn refuse(refusal: &Refusal, headers: ReplyHeaders) -> Self {
        let error = Some((refusal.code.service_error_code(), refusal.code.as_str()));
        Self { body: serde_json::to_vec(refusal).unwrap_or_default().into(), headers, error }
    }

    /// What the server counts against its `max_payload`.
    fn wire_bytes(&self) -> usize {
        let header = |name: &str, value: &str| name.len() + value.len() + HEADER_FRAME_BYTES;
        let own = self.headers.iter().map(|(name, value)| header(name, value)).sum::<usize>();
        let error = self
            .error
            .map_or(0, |(number, code)| header(ERROR_HEADER, code) + header(ERROR_CODE_HEADER, &number.to_string()));
        HEADERS_FRAME_BYTES + own + error + self.body.len()
    }
}

impl Request {
    /// Where the request came in.
    pub fn subject(&self) -> &str {
        self.message.subject.as_str()
    }

    /// The body.
    pub fn payload(&self) -> &Bytes {
        &self.message.payload
    }

    /// A header's first value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.message.headers.as_ref()?.get(name).map(async_nats::HeaderValue::as_str)
    }

    /// Answers and counts. An answer that exceeds what the server takes is replaced by one that says so: the caller would
    /// wait for it in vain.
    pub async fn respond(self, mut reply: Reply) {
        let limit = self.shared.client.max_payload();
        if reply.wire_bytes() > limit {
            let text = format!("the answer exceeds the {limit} bytes that one message can hold");
            reply = Reply::refuse(&Refusal::new(ErrorCode::TooLarge, text), reply.headers);
        }
        if let Some(statistics) = self.endpoint.map(|endpoint| &self.shared.statistics[endpoint]) {
            let nanos = u64::try_from(self.received.elapsed().as_nanos()).unwrap_or(u64::MAX);
            statistics.processing_nanos.fetch_add(nanos, Ordering::Relaxed);
            if let Some((number, code)) = reply.error {
                statistics.errors.fetch_add(1, Ordering::Relaxed);
                *lock(&statistics.last_error) = format!("{number}:{code}");
            }
        }
        let Some(inbox) = inbox(self.message.reply) else { return };
        let mut headers = HeaderMap::new();
        for (name, value) in reply.headers {
            headers.insert(HeaderName::from_static(name), value);
        }
        if let Some((number, code)) = reply.error {
            headers.insert(ERROR_HEADER, code);
            headers.insert(ERROR_CODE_HEADER, number.to_string());
        }
        if let Err(error) = self.shared.client.publish_with_headers(inbox, headers, reply.body).await {
            tracing::warn!(%error, "a reply could not be sent: the caller will ask again");
        }
    }
}

/// Where an answer goes; nothing where no answer may go.
fn inbox(reply: Option<async_nats::Subject>) -> Option<async_nats::Subject> {
    reply.filter(|reply| {
        let reserved = RESERVED_FOR_US.iter().any(|prefix| reply.as_str().starts_with(prefix));
        if reserved {
            tracing::warn!(%reply, "a request names a subject of the service's own for its answer: it gets none");
        }
        !reserved
    })
}

/// The text is replaced as a whole, so that a panic elsewhere cannot have left it half-written.
fn lock(text: &Mutex<String>) -> std::sync::MutexGuard<'_, String> {
    text.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
