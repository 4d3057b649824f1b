//! Who is there: instances find themselves by answering the micro protocol's `$SRV.STATS`, at every site that is linked.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use freehold_core::{InstanceName, KindName, Nonce, SiteName, StreamSequence};
use freehold_jetstream::{Client, SendOptions};

/// How long answers are collected. Discovery has no end by itself: who has not answered by then counts as gone.
const DISCOVERY_TIME: Duration = Duration::from_millis(800);

/// One life of an instance, and what it says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) site: SiteName,
    pub(crate) name: InstanceName,
    pub(crate) nonce: Nonce,
    pub(crate) service: String,
    pub(crate) kinds: Vec<KindName>,
    pub(crate) status: InstanceStatus,
}

/// An instance's own part of its statistics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InstanceStatus {
    /// Groups that it holds, over all kinds.
    pub(crate) groups_held: usize,
    /// How far it has applied each origin's log.
    pub(crate) applied: BTreeMap<SiteName, StreamSequence>,
    /// How old its copy of each other site is; nothing where it was never seen complete.
    #[serde(default)]
    pub(crate) age_ms: BTreeMap<SiteName, Option<u64>>,
    /// How it is with the log of each origin, in a word: `opening`, `reading`, `lost_tail`, `sealed` or `taken_over`.
    #[serde(default)]
    pub(crate) health: BTreeMap<SiteName, String>,
    /// The member list of each kind as it knows it.
    pub(crate) members: BTreeMap<KindName, KindMembers>,
}

/// A member list in short.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KindMembers {
    pub(crate) revision: u64,
    pub(crate) members: Vec<InstanceName>,
}

/// An answer of the micro protocol, as far as it concerns us.
#[derive(Deserialize)]
struct Statistics {
    name: String,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    #[serde(default)]
    data: serde_json::Value,
}

/// Every instance that answers, by site and name.
pub(crate) async fn discover(client: &Client) -> anyhow::Result<Vec<Instance>> {
    let answers = client.ask_all("$SRV.STATS", DISCOVERY_TIME).await?;
    let mut instances: Vec<_> = answers.iter().filter_map(|answer| read(answer)).collect();
    instances
        .sort_by(|left, right| (&left.site, &left.name, &left.nonce).cmp(&(&right.site, &right.name, &right.nonce)));
    Ok(instances)
}

/// What one life of an instance says.
pub(crate) async fn status_of(client: &Client, service: &str, nonce: &Nonce) -> anyhow::Result<InstanceStatus> {
    let options = SendOptions { timeout: DISCOVERY_TIME, ..SendOptions::default() };
    let answer = client.request_to(format!("$SRV.STATS.{service}.{nonce}"), bytes::Bytes::new(), &options).await?;
    let body = answer.result.map_err(|refusal| anyhow::anyhow!(refusal.message))?;
    Ok(read(&body).context("the answer is not a Freehold instance's")?.status)
}

/// Reads an answer; nothing where it is another service's.
fn read(answer: &[u8]) -> Option<Instance> {
    let Statistics { name: service, metadata, data } = serde_json::from_slice(answer).ok()?;
    let fact = |key: &str| metadata.get(key).map(String::as_str);
    Some(Instance {
        site: fact("freehold-site")?.parse().ok()?,
        name: fact("freehold-instance")?.parse().ok()?,
        nonce: fact("freehold-nonce")?.parse().ok()?,
        service,
        kinds: fact("freehold-kinds")?.split(',').filter_map(|kind| kind.parse().ok()).collect(),
        status: serde_json::from_value(data).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_read_and_other_services_are_passed_over() {
        let answer = serde_json::json!({
            "type": "io.nats.micro.v1.stats_response", "name": "records", "id": "01J",
            "metadata": { "freehold-site": "ewr", "freehold-instance": "ewr-1", "freehold-nonce": "01J", "freehold-kinds": "customer,order" },
            "data": { "groups_held": 64, "applied": { "ewr": 7 }, "members": { "customer": { "revision": 3, "members": ["ewr-1"] } } },
        });
        let instance = read(answer.to_string().as_bytes()).unwrap();
        assert_eq!(instance.kinds.len(), 2);
        assert_eq!(instance.status.groups_held, 64);
        assert_eq!(instance.status.applied.values().next(), Some(&StreamSequence(7)));
        assert_eq!(read(br#"{"name":"other","id":"1","metadata":{}}"#), None);
        assert_eq!(read(b"no json"), None);
    }
}
