//! Records that are there before anything is measured, put into the log as their owner would log them.
//!
//! What each was made by is not told: those who sent it were answered long ago. A service that runs reads them like all updates; nobody
//! may send commands meanwhile, since no claim fences them, and a holder's digest would tell of what it has not made.

use anyhow::Result;
use async_nats::jetstream;
use freehold_core::subject::{RecordsSubject, RecordsTopic};
use freehold_core::{
    BatchPlace, Epoch, GroupCount, Hash, Incarnation, Json, KindName, LogTime, RecordId, RecordVersion, SiteName,
    Update,
};
use freehold_jetstream::{Client, read_records_log_facts};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::place::{KIND, Place, SITE};

/// Publishes that wait for their acknowledgements.
const IN_FLIGHT: usize = 1_024;

/// Puts records into the log of [`SITE`].
pub(crate) struct Seed {
    context: jetstream::Context,
    log: Incarnation,
    groups: GroupCount,
    record: Json,
    site: SiteName,
    kind: KindName,
    now: LogTime,
}

impl Seed {
    pub(crate) async fn new(place: &Place, client: &Client, record: &str) -> Result<Self> {
        let site: SiteName = SITE.parse()?;
        let facts = read_records_log_facts(client.connection(), &site).await?;
        let context = jetstream::new(async_nats::connect(place.site().url()).await?);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
        Ok(Self {
            context,
            log: facts.incarnation,
            groups: place.groups()?,
            record: Json::from_text(record.to_owned())?,
            site,
            kind: KIND.parse()?,
            now: LogTime(u64::try_from(now)?),
        })
    }

    /// Makes records with these numbers; gives the log's last message. `progress` is told how many are made.
    pub(crate) async fn make(&self, numbers: std::ops::Range<u64>, progress: &mut dyn FnMut(u64)) -> Result<u64> {
        let made = stream::iter(numbers.clone()).map(|number| self.put(number)).buffer_unordered(IN_FLIGHT);
        let (_, last) = made
            .try_fold((0_u64, 0_u64), |(made, last), sequence| {
                if made.is_multiple_of(100_000) {
                    progress(made);
                }
                std::future::ready(Ok((made + 1, last.max(sequence))))
            })
            .await?;
        Ok(last)
    }

    /// Makes one record; gives its place in the log.
    pub(crate) async fn put(&self, number: u64) -> Result<u64> {
        let id: RecordId = record_id(number).parse()?;
        let topic = RecordsTopic::Update(id.token());
        let (site, kind, group) = (self.site.clone(), self.kind.clone(), self.groups.group_of(&id));
        let subject = RecordsSubject { site, kind, group, topic }.to_string();
        let mut update = Update {
            log: self.log.clone(),
            id,
            kind: self.kind.clone(),
            version: RecordVersion(1),
            owner: self.site.clone(),
            epoch: Epoch::default(),
            time_ms: self.now,
            record: Some(self.record.clone()),
            schema: 1,
            hash: Hash::default(),
            previous: None,
            batch: BatchPlace::ALONE,
            changes: Vec::new(),
            moved: Default::default(),
        };
        update.hash = update.content_hash();
        let stored = self.context.publish(subject, serde_json::to_vec(&update)?.into()).await?.await?;
        Ok(stored.sequence)
    }
}

/// The id of a record of [`SITE`].
pub(crate) fn record_id(number: u64) -> String {
    format!("{SITE}-{number}")
}
