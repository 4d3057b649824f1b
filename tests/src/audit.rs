//! What a site's records log says, read from its first message to its last, and what must hold of every such log.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use async_nats::jetstream;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::push::OrderedConfig;
use freehold_core::subject::{RecordsSubject, RecordsTopic, commands_stream, records_stream};
use freehold_core::{
    Change, Claim, CommandId, GroupNumber, LogMessage, LogTime, LoggedCommand, RecordId, RecordsBody, StreamSequence,
    read_body,
};
use futures::StreamExt;

/// How long a log may take to be read.
const READ: Duration = Duration::from_secs(30);

/// A message of the records log.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its place.
    pub sequence: StreamSequence,
    /// Where it was published.
    pub subject: RecordsSubject,
    /// What it says.
    pub body: RecordsBody,
    /// The claim that its publisher held: what the log was told to expect.
    pub under: Option<StreamSequence>,
}

/// A site's records log.
#[derive(Debug, Clone, Default)]
pub struct RecordsLog {
    /// In the order of the log.
    pub entries: Vec<Entry>,
}

impl RecordsLog {
    /// Reads what the log keeps.
    pub async fn read(url: &str, site: &str) -> Result<Self> {
        Self::read_subjects(url, site, "", DeliverPolicy::All).await
    }

    /// Reads the claims only.
    pub async fn read_claims(url: &str, site: &str) -> Result<Self> {
        Self::read_subjects(url, site, &format!("fh.{site}.ctl.claim.>"), DeliverPolicy::All).await
    }

    /// Reads the newest claim of each group only.
    pub async fn read_newest_claims(url: &str, site: &str) -> Result<Self> {
        Self::read_subjects(url, site, &format!("fh.{site}.ctl.claim.>"), DeliverPolicy::LastPerSubject).await
    }

    async fn read_subjects(url: &str, site: &str, filter: &str, policy: DeliverPolicy) -> Result<Self> {
        let mut entries = Vec::new();
        for message in read_selected(url, &records_stream(&site.parse()?), filter, policy).await? {
            let sequence = StreamSequence(message.info().map_err(anyhow::Error::from_boxed)?.stream_sequence);
            // What sites tell each other of their copies belongs to no group and stands under no claim.
            if message.subject.starts_with(&format!("fh.{site}.ctl.copy.")) {
                continue;
            }
            let subject = RecordsSubject::parse(&message.subject)
                .with_context(|| format!("{} is no subject of a records log", message.subject))?;
            let under = message.headers.as_ref().and_then(|headers| {
                headers.get("Nats-Expected-Last-Subject-Sequence-Subject")?;
                headers.get("Nats-Expected-Last-Subject-Sequence")?.as_str().parse().ok().map(StreamSequence)
            });
            let payload = message.payload.clone();
            let body = read_body(&LogMessage { sequence, time: LogTime(0), subject: subject.clone(), payload })?;
            entries.push(Entry { sequence, subject, body, under });
        }
        Ok(Self { entries })
    }

    /// All claims of a group, oldest first.
    pub fn claims(&self, group: GroupNumber) -> Vec<(StreamSequence, &Claim)> {
        let of_group = self.entries.iter().filter(|entry| entry.subject.group == group);
        of_group
            .filter_map(|entry| match &entry.body {
                RecordsBody::Claim(claim) => Some((entry.sequence, claim)),
                _ => None,
            })
            .collect()
    }

    /// The instance that holds each claimed group.
    pub fn holders(&self) -> BTreeMap<u16, String> {
        let claim = |entry: &Entry| match &entry.body {
            RecordsBody::Claim(claim) => Some((entry.subject.group.0, claim.instance.to_string())),
            _ => None,
        };
        self.entries.iter().filter_map(claim).collect()
    }

    /// Claims in the log.
    pub fn claim_count(&self) -> usize {
        self.entries.iter().filter(|entry| matches!(entry.body, RecordsBody::Claim(_))).count()
    }

    /// The decisions of a command: what the log says of it without repeats that carry outcomes on.
    pub fn decisions(&self, id: &str, command_id: &str) -> Result<Vec<Change>> {
        let (id, command_id): (RecordId, CommandId) = (id.parse()?, CommandId::from_caller(command_id)?);
        let key = (id, command_id);
        Ok(self.all_decisions().remove(&key).unwrap_or_default())
    }

    /// The claim under which a command was decided.
    pub fn decided_under(&self, id: &str, command_id: &str) -> Result<StreamSequence> {
        let id: RecordId = id.parse()?;
        let decides = |entry: &&Entry| match &entry.body {
            RecordsBody::Update(update) => {
                update.id == id && update.changes.iter().any(|change| change.command_id.as_str() == command_id)
            }
            RecordsBody::Result(result) => result
                .changes
                .iter()
                .any(|change| change.id.as_ref() == Some(&id) && change.command_id.as_str() == command_id),
            _ => false,
        };
        let entry = self.entries.iter().find(decides);
        entry.and_then(|entry| entry.under).with_context(|| format!("{id}: {command_id} is not decided"))
    }

    /// Checks what must hold of every log: nothing of an older claim stands behind a newer one, no command is decided twice,
    /// and each record's updates follow one on the other. The history must be long enough that the log has kept all.
    pub fn check(&self) -> Result<()> {
        self.check_claims()?;
        self.check_decisions()?;
        self.check_versions()
    }

    /// No command is decided twice.
    pub fn check_decisions(&self) -> Result<()> {
        for ((id, command_id), changes) in self.all_decisions() {
            ensure!(changes.len() == 1, "{id}: {command_id} is decided {} times: {changes:?}", changes.len());
        }
        Ok(())
    }

    /// Nothing of an older claim stands behind a newer one.
    pub fn check_claims(&self) -> Result<()> {
        let mut newest: HashMap<GroupNumber, StreamSequence> = HashMap::new();
        for Entry { sequence, subject, body, under } in &self.entries {
            if matches!(body, RecordsBody::Claim(_)) {
                newest.insert(subject.group, *sequence);
                continue;
            }
            let claim = newest.get(&subject.group).copied();
            ensure!(under.is_some(), "{subject} at {sequence} names no claim");
            ensure!(*under == claim, "{subject} at {sequence} was published under {under:?}, but {claim:?} is newer");
            if let RecordsTopic::Result { claim: named, .. } = &subject.topic {
                ensure!(Some(*named) == claim, "{subject} at {sequence} stands behind claim {claim:?}");
            }
        }
        Ok(())
    }

    fn check_versions(&self) -> Result<()> {
        let mut newest = HashMap::new();
        for entry in &self.entries {
            let RecordsBody::Update(update) = &entry.body else { continue };
            let before = newest.insert(update.id.clone(), (update.version, update.hash));
            let (version, hash) = before.unzip();
            ensure!(update.previous == hash, "{} at {} does not follow {hash:?}", update.id, entry.sequence);
            let changing = update.changes.iter().filter(|change| change.outcome.version > version.unwrap_or_default());
            ensure!(
                changing.count() > 0 && Some(update.version) > version,
                "{} at {}: version {} behind {version:?}",
                update.id,
                entry.sequence,
                update.version
            );
        }
        Ok(())
    }

    fn all_decisions(&self) -> BTreeMap<(RecordId, CommandId), Vec<Change>> {
        let mut decisions: BTreeMap<(RecordId, CommandId), Vec<Change>> = BTreeMap::new();
        for entry in &self.entries {
            let (changes, carrying) = match &entry.body {
                RecordsBody::Update(update) => {
                    let whole = |change: &Change| Change { id: Some(update.id.clone()), ..change.clone() };
                    (update.changes.iter().map(whole).collect(), false)
                }
                RecordsBody::Result(result) => (result.changes.clone(), !result.carries.is_empty()),
                _ => (Vec::new(), false),
            };
            for change in changes {
                let Some(id) = change.id.clone() else { continue };
                let known = decisions.entry((id, change.command_id.clone())).or_default();
                if !(carrying && known.contains(&change)) {
                    known.push(change);
                }
            }
        }
        decisions
    }
}

/// The commands in a site's command log.
pub async fn commands(url: &str, site: &str) -> Result<Vec<LoggedCommand>> {
    let read = |message: jetstream::Message| {
        let sequence = StreamSequence(message.info().map_err(anyhow::Error::from_boxed)?.stream_sequence);
        Ok(LoggedCommand::read(sequence, LogTime(0), &message.payload))
    };
    read_stream(url, &commands_stream(&site.parse()?), "").await?.into_iter().map(read).collect()
}

/// The messages of a stream, from the first to the last; all of them where the filter is empty.
pub async fn read_stream(url: &str, stream: &str, filter: &str) -> Result<Vec<jetstream::Message>> {
    read_selected(url, stream, filter, DeliverPolicy::All).await
}

async fn read_selected(
    url: &str,
    stream: &str,
    filter: &str,
    deliver_policy: DeliverPolicy,
) -> Result<Vec<jetstream::Message>> {
    let client = async_nats::connect(url.split(',').collect::<Vec<_>>()).await?;
    let context = jetstream::new(client.clone());
    let mut stream = context.get_stream(stream).await?;
    let last = stream.info().await?.state.last_sequence;
    let (deliver_subject, filter_subject) = (client.new_inbox(), filter.to_owned());
    let options = OrderedConfig { deliver_subject, filter_subject, deliver_policy, ..OrderedConfig::default() };
    let consumer = stream.create_consumer(options).await?;
    let mut pending = consumer.cached_info().num_pending;
    let mut messages = consumer.messages().await?;
    let mut read = Vec::new();
    let reading = async {
        while pending > 0 {
            let Some(message) = messages.next().await else { bail!("the reader ended") };
            let message = message?;
            let info = message.info().map_err(anyhow::Error::from_boxed)?;
            pending = if info.stream_sequence >= last { 0 } else { info.pending };
            read.push(message);
        }
        Ok(())
    };
    tokio::time::timeout(READ, reading).await.context("the log was not read in time")??;
    Ok(read)
}
