//! What several tests need: the program, streams, messages.
#![allow(dead_code, reason = "each test file is compiled with this module and uses a part of it")]

use std::time::Duration;

use anyhow::{Context as _, Result};
use async_nats::jetstream::{self, stream};
use freehold_sandbox::{NatsServerBinary, wait_until};

/// How long a cluster may take to make a stream.
const CREATED: Duration = Duration::from_secs(30);

/// The nats-server of all tests. They fail when there is none.
pub(crate) async fn binary() -> Result<NatsServerBinary> {
    Ok(NatsServerBinary::locate(&mut |_| {}).await?)
}

/// A client's JetStream.
pub(crate) async fn jetstream(url: &str) -> Result<jetstream::Context> {
    Ok(jetstream::new(async_nats::connect(url).await?))
}

/// A file stream on these subjects.
pub(crate) async fn create_stream(
    context: &jetstream::Context,
    name: &str,
    subject: &str,
    replicas: usize,
) -> Result<()> {
    let config = stream::Config {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        num_replicas: replicas,
        ..Default::default()
    };
    // A cluster that is complete may still lose its leader a moment later, and the request with it; asked again it is the same stream.
    let created = || async { context.create_stream(config.clone()).await.is_ok() };
    wait_until(&format!("stream {name} is created"), CREATED, created).await?;
    Ok(())
}

/// A mirror of another domain's stream, under the same name.
pub(crate) async fn create_mirror(context: &jetstream::Context, name: &str, domain: &str) -> Result<()> {
    let mirror = stream::Source {
        name: name.to_owned(),
        external: Some(stream::External { api_prefix: format!("$JS.{domain}.API"), delivery_prefix: None }),
        ..Default::default()
    };
    let config = stream::Config { name: name.to_owned(), mirror: Some(mirror), ..Default::default() };
    context.create_stream(config).await.with_context(|| format!("cannot create the mirror {name}"))?;
    Ok(())
}

/// Publishes one message and waits for the stream's answer.
pub(crate) async fn publish(context: &jetstream::Context, subject: &str) -> Result<u64> {
    let ack = context.publish(subject.to_owned(), "x".into()).await?.await?;
    Ok(ack.sequence)
}

/// How many messages the stream has.
pub(crate) async fn stored(context: &jetstream::Context, stream: &str) -> Result<u64> {
    Ok(context.get_stream(stream).await?.get_info().await?.state.messages)
}
