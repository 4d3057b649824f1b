//! Whether the copies of all instances are the same, and hold as many flights as the data has.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use flights::data::Tally;
use freehold::SendOptions;
use freehold::core::{GroupDigest, subject};
use freehold::prelude::SiteName;
use freehold::runtime::{DigestAnswer, DigestRequest};
use futures::future::join_all;
use tokio::time::Instant;

use super::instance::Instance;
use crate::command::load::{Sites, flight_kind};

/// How often the instances are asked.
const ASK_INTERVAL: Duration = Duration::from_millis(10);
/// How long one answer may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks instances for the digests of their copies.
pub(super) struct Copies<'a> {
    pub(super) clients: &'a Sites,
    pub(super) tally: &'a Tally,
}

/// What one instance has, by origin and group. Empty groups at the end are left out.
type Content = BTreeMap<SiteName, Vec<GroupDigest>>;

impl Copies<'_> {
    /// Asks until all of these instances have the same content and it is complete; the time since `since`, or nothing
    /// where that was not so before the deadline.
    pub(super) async fn wait_identical(
        &self,
        instances: &[&Instance],
        since: Instant,
        deadline: Duration,
    ) -> anyhow::Result<Option<Duration>> {
        let expected = self.tally.flights.iter().map(|(site, flights)| (site.clone(), *flights)).collect();
        let until = Instant::now() + deadline;
        loop {
            let contents = join_all(instances.iter().map(|instance| self.content(instance))).await;
            let asked = since.elapsed();
            let identical = match contents.into_iter().collect::<anyhow::Result<Vec<Content>>>() {
                Ok(contents) => {
                    are_identical(&contents) && contents.first().is_some_and(|one| records(one) == expected)
                }
                // One that was killed meanwhile has no answer: it is asked again, or the deadline says so.
                Err(error) => {
                    tracing::debug!(error = format!("{error:#}"), "an instance did not answer");
                    false
                }
            };
            if identical {
                return Ok(Some(asked));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            tokio::time::sleep(ASK_INTERVAL).await;
        }
    }

    async fn content(&self, instance: &Instance) -> anyhow::Result<Content> {
        let (site, member) = (instance.site(), instance.member().context("it does not run")?);
        let client = self.clients.client(site).with_context(|| format!("site {site} is not known"))?;
        let subject = subject::instance(site, &member.instance, &member.nonce, "digest");
        let request = Bytes::from(serde_json::to_vec(&DigestRequest { kind: flight_kind() })?);
        let options = SendOptions { timeout: ASK_TIMEOUT, ..SendOptions::default() };
        let answer = client.request_to(subject, request, &options).await?;
        let body = answer.result.map_err(|refusal| anyhow::anyhow!(refusal.message))?;
        let answer: DigestAnswer = serde_json::from_slice(&body).with_context(|| instance.name().to_owned())?;
        Ok(content(answer))
    }
}

fn content(answer: DigestAnswer) -> Content {
    let trimmed = |mut groups: Vec<GroupDigest>| {
        while groups.last().is_some_and(|last| *last == GroupDigest::default()) {
            groups.pop();
        }
        groups
    };
    answer.origins.into_iter().map(|origin| (origin.origin, trimmed(origin.groups))).collect()
}

fn are_identical(contents: &[Content]) -> bool {
    contents.windows(2).all(|pair| pair[0] == pair[1])
}

fn records(content: &Content) -> BTreeMap<SiteName, u64> {
    content.iter().map(|(origin, groups)| (origin.clone(), groups.iter().map(|group| group.records).sum())).collect()
}

#[cfg(test)]
mod tests {
    use freehold::core::{Hash, StreamSequence};
    use freehold::runtime::OriginDigest;

    use super::*;

    fn one_origin(applied: u64, groups: &[(u64, u8)]) -> Content {
        let groups =
            groups.iter().map(|(records, sum)| GroupDigest { records: *records, sum: Hash::of([[*sum].as_slice()]) });
        let origin = OriginDigest {
            origin: "ewr".parse().unwrap(),
            applied: StreamSequence(applied),
            groups: groups.chain([GroupDigest::default()]).collect(),
        };
        content(DigestAnswer { origins: vec![origin] })
    }

    #[test]
    fn contents_are_compared_and_not_how_far_a_log_was_read() {
        let one = one_origin(7, &[(1, 1), (2, 2)]);
        assert!(are_identical(&[one.clone(), one_origin(9, &[(1, 1), (2, 2)])]));
        assert!(!are_identical(&[one.clone(), one_origin(7, &[(1, 1), (2, 3)])]));
        assert!(!are_identical(&[one.clone(), Content::new()]));
        assert_eq!(records(&one).into_values().sum::<u64>(), 3);
    }
}
