//! A client of Freehold services. Any NATS client is a full one (docs/wire.md); this one is only nicer.

use std::time::Duration;

use async_nats::{HeaderMap, RequestErrorKind};
use bytes::Bytes;
use futures::StreamExt;

use freehold_core::{CommandId, KindName, OwnerDown, RecordVersion, Refusal, SiteName};

use crate::connection::{ConnectError, ConnectOptions, Connection};
use crate::error::ApiError;

/// The pause before a command is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A client on one connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    connection: Connection,
}

/// How a command is sent.
#[derive(Debug, Clone)]
pub struct SendOptions {
    /// The idempotency key; the service mints one where there is none.
    pub command_id: Option<CommandId>,
    /// `accepted`, `applied` or `sites=N`; the service's default where nothing is said.
    pub wait: Option<String>,
    /// What to do where another site owns the record and cannot be reached; the command is kept where nothing is said.
    pub owner_down: Option<OwnerDown>,
    /// How long to wait for an answer.
    pub timeout: Duration,
}

impl Default for SendOptions {
    fn default() -> Self {
        Self { command_id: None, wait: None, owner_down: None, timeout: Duration::from_secs(10) }
    }
}

/// What a service answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The body of the reply, or why there is none.
    pub result: Result<Bytes, Refusal>,
    /// `Freehold-Version`.
    pub version: Option<RecordVersion>,
    /// `Freehold-Owner`.
    pub owner: Option<SiteName>,
    /// `Freehold-Command-Id`.
    pub command_id: Option<CommandId>,
}

impl Client {
    /// Connects.
    pub async fn connect(options: &ConnectOptions, name: &str) -> Result<Self, ConnectError> {
        Ok(Self { connection: Connection::open(options, name).await? })
    }

    /// A client on a connection that is there.
    pub fn on(connection: Connection) -> Self {
        Self { connection }
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Sends one request to `freehold.<kind>.<endpoint>`: a command, or a read such as `get`. An error means that there was
    /// no answer: a command may have been taken or not.
    pub async fn request(
        &self,
        kind: &KindName,
        endpoint: &str,
        body: Bytes,
        options: &SendOptions,
    ) -> Result<Answer, ApiError> {
        self.request_to(format!("freehold.{kind}.{endpoint}"), body, options).await
    }

    /// Sends a command again and again, under one command id, until it is answered or the time is over. Only `busy`,
    /// `outcome_unknown` and silence are worth another try.
    pub async fn request_until_answered(
        &self,
        kind: &KindName,
        endpoint: &str,
        body: Bytes,
        options: &SendOptions,
        patience: Duration,
    ) -> Result<Answer, ApiError> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let answer = self.request(kind, endpoint, body.clone(), options).await;
            let again = match &answer {
                Ok(answer) => answer.result.as_ref().is_err_and(|refusal| {
                    use freehold_core::ErrorCode::{Busy, OutcomeUnknown};
                    matches!(refusal.code, Busy | OutcomeUnknown)
                }),
                Err(_) => true,
            };
            if !again || options.command_id.is_none() || tokio::time::Instant::now() >= deadline {
                return answer;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Sends one request to a subject.
    pub async fn request_to(&self, subject: String, body: Bytes, options: &SendOptions) -> Result<Answer, ApiError> {
        let mut headers = HeaderMap::new();
        if let Some(command_id) = &options.command_id {
            headers.insert("Freehold-Command-Id", command_id.as_str());
        }
        if let Some(wait) = &options.wait {
            headers.insert("Freehold-Wait", wait.as_str());
        }
        if let Some(owner_down) = options.owner_down {
            headers.insert("Freehold-Owner-Down", owner_down.as_str());
        }
        let request = async_nats::Request::new().headers(headers).payload(body).timeout(Some(options.timeout));
        let reply = self.connection.client.send_request(subject.clone(), request).await;
        let reply = reply.map_err(|error| {
            let what = match error.kind() {
                RequestErrorKind::NoResponders => format!("no service answers on {subject}: the request"),
                _ => format!("the request on {subject}"),
            };
            ApiError::new(what, error)
        })?;
        let header = |name: &str| reply.headers.as_ref()?.get(name).map(|value| value.as_str().to_owned());
        let failed = header("Nats-Service-Error-Code").is_some();
        let result = if failed {
            let refusal = serde_json::from_slice::<Refusal>(&reply.payload);
            Err(refusal.map_err(|error| ApiError::new(format!("reading the answer on {subject}"), error))?)
        } else {
            Ok(reply.payload.clone())
        };
        Ok(Answer {
            result,
            version: header("Freehold-Version").and_then(|text| text.parse().ok()).map(RecordVersion),
            owner: header("Freehold-Owner").and_then(|text| text.parse().ok()),
            command_id: header("Freehold-Command-Id").and_then(|text| CommandId::from_caller(&text).ok()),
        })
    }

    /// Asks everybody on a subject and collects the answers that come within a time.
    pub async fn ask_all(&self, subject: &str, time: Duration) -> Result<Vec<Bytes>, ApiError> {
        let failed =
            |error: Box<dyn std::error::Error + Send + Sync>| ApiError::new(format!("asking {subject}"), error);
        let client = &self.connection.client;
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| failed(error.into()))?;
        let asked = client.publish_with_reply(subject.to_owned(), inbox, Bytes::new()).await;
        asked.map_err(|error| failed(error.into()))?;
        let deadline = tokio::time::Instant::now() + time;
        let mut collected = Vec::new();
        while let Ok(Some(answer)) = tokio::time::timeout_at(deadline, answers.next()).await {
            if answer.status.is_none() {
                collected.push(answer.payload);
            }
        }
        Ok(collected)
    }
}
