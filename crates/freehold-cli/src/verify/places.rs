//! Asks instances about their copies, on their private subjects.

use anyhow::Context as _;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use freehold_core::{GroupDigest, GroupNumber, KindName, SiteName, StreamSequence, subject};
use freehold_jetstream::{Client, SendOptions};
use freehold_runtime::{DigestAnswer, DigestRequest, GroupRecordsAnswer, GroupRecordsRequest};

use super::compare::{RecordMap, Summary};
use crate::discovery::Instance;

/// What an instance answers: what was asked for, or why it cannot.
#[derive(Deserialize)]
#[serde(untagged)]
enum Reply<A> {
    Failed { error: String },
    Answered(A),
}

/// How far an instance has applied an origin's stream, and the digests of its copy there.
pub(super) async fn digests(
    client: &Client,
    instance: &Instance,
    kind: &KindName,
    origin: &SiteName,
) -> anyhow::Result<(StreamSequence, Vec<GroupDigest>)> {
    let answer: DigestAnswer = ask(client, instance, "digest", &DigestRequest { kind: kind.clone() }).await?;
    let found = answer.origins.into_iter().find(|digest| digest.origin == *origin);
    // An instance that has read nothing of an origin does not name it.
    Ok(found.map(|digest| (digest.applied, digest.groups)).unwrap_or_default())
}

/// The records of a group in an instance's copy.
pub(super) async fn records(
    client: &Client,
    instance: &Instance,
    kind: &KindName,
    origin: &SiteName,
    group: GroupNumber,
) -> anyhow::Result<RecordMap> {
    let mut records = RecordMap::new();
    let mut after = None;
    loop {
        let request = GroupRecordsRequest { kind: kind.clone(), origin: origin.clone(), group, after };
        let page: GroupRecordsAnswer = ask(client, instance, "records", &request).await?;
        let summaries = page.records.into_iter();
        records.extend(summaries.map(|record| (record.id, Summary { version: record.version, hash: record.hash })));
        after = page.resume_after;
        if after.is_none() {
            return Ok(records);
        }
    }
}

async fn ask<A: DeserializeOwned>(
    client: &Client,
    instance: &Instance,
    what: &str,
    request: &impl Serialize,
) -> anyhow::Result<A> {
    let Instance { site, name, nonce, .. } = instance;
    let subject = subject::instance(site, name, nonce, what);
    let body = Bytes::from(serde_json::to_vec(request)?);
    let answer = client.request_to(subject, body, &SendOptions::default()).await;
    let answer = answer.with_context(|| format!("instance {name} of {site} does not answer"))?;
    let body = answer.result.map_err(|refusal| anyhow::anyhow!(refusal.message))?;
    match serde_json::from_slice(&body).with_context(|| format!("instance {name} of {site}"))? {
        Reply::Answered(answer) => Ok(answer),
        Reply::Failed { error } => anyhow::bail!("instance {name} of {site} cannot read its copy: {error}"),
    }
}
