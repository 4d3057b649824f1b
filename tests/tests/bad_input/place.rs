//! A site with one instance that serves two kinds, and a caller: `thing` (any JSON, every id belongs here) and `counter`
//! (typed, ids belong to their prefix).

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_nats::HeaderMap;
use bytes::Bytes;
use freehold::{RunningService, Service, ServiceConfig};
use freehold_core::{GroupCount, HomeRule, KindDefinition, MAX_REFUSAL_MESSAGE_BYTES};
use freehold_sandbox::{Sandbox, SandboxBuilder, Site};
use freehold_tests::counter;
use serde_json::Value;
use tempfile::TempDir;

/// How long a caller waits for an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Few groups start faster.
pub(crate) const GROUPS: u16 = 4;

pub(crate) struct Place {
    service: Option<RunningService>,
    pub(crate) nats: async_nats::Client,
    pub(crate) sandbox: Sandbox,
    _data: TempDir,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

/// The kinds of every place.
pub(crate) fn kinds(groups: u16) -> Result<[KindDefinition; 2]> {
    let mut thing = records::kind_definition("thing".parse()?, HomeRule::Site("ewr".parse()?), None);
    let mut counter = counter::definition();
    thing.settings.groups = GroupCount::new(groups)?;
    counter.settings.groups = GroupCount::new(groups)?;
    Ok([thing, counter])
}

/// The configuration of the one instance.
pub(crate) fn config(site: &Site, data: &TempDir) -> Result<ServiceConfig> {
    Ok(ServiceConfig::new(site.name().parse()?, "one".parse()?, &site.url(), data.path()))
}

/// A service with the kinds.
pub(crate) fn service(config: ServiceConfig, groups: u16) -> Result<Service> {
    let [thing, counter] = kinds(groups)?;
    Ok(Service::builder("bad-input", config).kind(thing).kind(counter).build()?)
}

impl Place {
    pub(crate) async fn start() -> Result<Self> {
        Self::start_with(Sandbox::builder(), |_| {}).await
    }

    pub(crate) async fn start_with(sandbox: SandboxBuilder, change: impl FnOnce(&mut ServiceConfig)) -> Result<Self> {
        let sandbox = sandbox.site("ewr").start().await?;
        let data = tempfile::tempdir()?;
        let mut config = config(sandbox.site("ewr"), &data)?;
        change(&mut config);
        let service = service(config, GROUPS)?.start().await?;
        let nats = async_nats::connect(sandbox.site("ewr").url()).await?;
        Ok(Self { service: Some(service), nats, sandbox, _data: data })
    }

    pub(crate) async fn ask(&self, endpoint: &str, body: impl Into<Bytes>) -> Result<Answer> {
        self.ask_with(endpoint, &[], body).await
    }

    pub(crate) async fn ask_with(
        &self,
        endpoint: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, *value);
        }
        let request = async_nats::Request::new().headers(map).payload(body.into()).timeout(Some(PATIENCE));
        let reply = self.nats.send_request(format!("freehold.{endpoint}"), request).await;
        let reply = reply.with_context(|| format!("{endpoint} {headers:?}"))?;
        let body = serde_json::from_slice(&reply.payload).context("every answer is JSON")?;
        Ok(Answer { headers: reply.headers.unwrap_or_default(), body })
    }

    /// Asks and expects an answer without an error.
    pub(crate) async fn told(&self, endpoint: &str, body: impl Into<Bytes>) -> Result<Value> {
        self.ask(endpoint, body).await?.accepted()
    }

    /// The last sequence of a stream, `COMMANDS`, `RECORDS` or `DEADLETTER`.
    pub(crate) async fn last_sequence(&self, stream: &str) -> Result<u64> {
        let jetstream = async_nats::jetstream::new(self.nats.clone());
        let mut stream = jetstream.get_stream(format!("FH_{stream}_ewr")).await?;
        Ok(stream.info().await?.state.last_sequence)
    }

    /// The service goes on: a new record is created and counted up, and both are read back.
    pub(crate) async fn goes_on(&self) -> Result<()> {
        let id = format!("ewr-after-{}", ulid::Ulid::generate());
        let body = serde_json::json!({ "id": id, "record": { "a": 1 } }).to_string();
        ensure!(self.told("thing.create", body).await?["version"] == 1);
        ensure!(self.told("thing.get", format!("{{\"id\":\"{id}\"}}")).await?["record"]["a"] == 1);
        ensure!(self.told("counter.add", format!("{{\"id\":\"{id}\",\"amount\":3}}")).await?["total"] == 3);
        Ok(())
    }

    /// The service, for who stops it or lets it run by itself.
    pub(crate) fn take_service(&mut self) -> Result<RunningService> {
        self.service.take().context("the service was taken")
    }

    pub(crate) async fn stop(mut self) -> Result<()> {
        self.take_service()?.stop().await;
        Ok(self.sandbox.stop().await?)
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(async_nats::HeaderValue::as_str)
    }

    pub(crate) fn code(&self) -> Option<&str> {
        self.header("Nats-Service-Error")
    }

    pub(crate) fn accepted(self) -> Result<Value> {
        ensure!(self.code().is_none(), "{self:?}");
        Ok(self.body)
    }

    /// Checks the form of an error and its code; gives its message.
    pub(crate) fn refused(&self, code: &str, number: u16) -> Result<&str> {
        ensure!(self.code() == Some(code), "expected {code}: {self:?}");
        ensure!(self.header("Nats-Service-Error-Code") == Some(number.to_string().as_str()), "{self:?}");
        ensure!(self.body["code"] == code, "{self:?}");
        let message = self.body["message"].as_str().context("a message")?;
        ensure!(!message.is_empty() && message.len() <= MAX_REFUSAL_MESSAGE_BYTES, "{} bytes", message.len());
        Ok(message)
    }
}
