//! Whether copies are the same: asks instances for the digests of what they have.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use freehold::runtime::{DigestAnswer, DigestRequest};
use freehold::{Client, SendOptions};
use freehold_core::{GroupDigest, InstanceName, Nonce, SiteName, subject};
use freehold_sandbox::wait_until;

use crate::place::InstanceProcess;
use crate::workload;

/// How long appliers and mirrors may take to make all copies the same.
const CONVERGED: Duration = Duration::from_secs(60);

/// What an instance has: by origin, the digest of each group that is not empty.
pub type Content = BTreeMap<SiteName, BTreeMap<usize, GroupDigest>>;

/// An instance, and a client of its site.
pub type Asked<'a> = (&'a Client, &'a str, &'a InstanceProcess);

/// Waits until all of these instances have the same, and as many records as `records` says, if it does; gives what they have.
pub async fn wait_same(instances: &[Asked<'_>], records: impl Into<Option<u64>>) -> Result<Content> {
    let records = records.into();
    let same = || async {
        let contents = contents(instances).await.unwrap_or_default();
        contents.first().is_some_and(|first| records.is_none_or(|records| count(first) == records))
            && contents.windows(2).all(|pair| pair[0] == pair[1])
    };
    let converged = wait_until("all copies are the same and complete", CONVERGED, same).await;
    let mut contents = contents(instances).await?;
    converged.with_context(|| format!("{contents:?}"))?;
    contents.pop().context("there are no instances")
}

fn count(content: &Content) -> u64 {
    content.values().flat_map(BTreeMap::values).map(|digest| digest.records).sum()
}

async fn contents(instances: &[Asked<'_>]) -> Result<Vec<Content>> {
    let mut contents = Vec::new();
    for (client, site, instance) in instances {
        let nonce: Nonce = instance.ready()["nonce"].as_str().context("the instance has no nonce")?.parse()?;
        let name: InstanceName = instance.name.parse()?;
        let subject = subject::instance(&site.parse()?, &name, &nonce, "digest");
        let request = serde_json::to_vec(&DigestRequest { kind: workload::kind() })?;
        let answer = client.request_to(subject, request.into(), &SendOptions::default()).await?;
        let body = answer.result.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
        let answer: DigestAnswer = serde_json::from_slice(&body)?;
        let groups = |groups: Vec<GroupDigest>| {
            groups.into_iter().enumerate().filter(|(_, digest)| *digest != GroupDigest::default()).collect()
        };
        contents.push(answer.origins.into_iter().map(|origin| (origin.origin, groups(origin.groups))).collect());
    }
    Ok(contents)
}
