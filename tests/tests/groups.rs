//! The group of an id is what nats-server's own `partition()` computes: a subject mapping, or a client in any language, finds
//! the same one.

use std::time::Duration;

use anyhow::{Context as _, Result};
use freehold_core::{GroupCount, RecordId};
use freehold_sandbox::Sandbox;
use futures::StreamExt;

#[tokio::test]
async fn groups_are_the_servers_own_partitions() -> Result<()> {
    let mapping = r#"mappings = { "ask.*": "told.{{partition(64,1)}}.{{wildcard(1)}}" }"#;
    let sandbox = Sandbox::builder().site("ewr").extra_config(mapping).start().await?;
    let client = async_nats::connect(sandbox.site("ewr").url()).await?;
    let mut told = client.subscribe("told.>").await?;
    let long = "x".repeat(255);
    for text in ["EWR-20130101-UA1545", "a", "a.b", "*", ">", "with space", "new\nline", "✈", "ewr-1", &long] {
        let id: RecordId = text.parse()?;
        client.publish(format!("ask.{}", id.token()), "".into()).await?;
        let message = tokio::time::timeout(Duration::from_secs(5), told.next()).await?.context("the end")?;
        let group = GroupCount::DEFAULT.group_of(&id);
        assert_eq!(message.subject.as_str(), format!("told.{group}.{}", id.token()), "{text:?}");
    }
    Ok(())
}
