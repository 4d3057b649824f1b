//! `freehold verify`: the proof that copies are equal.
//!
//! ```text
//!  for each kind and origin:   the origin's stream ──read once──▶ LogCopy: digests at every position
//!                                                                    │ compared at the position that the copy has
//!  for each live instance:     digests of its copy ◀──────────────── ┘
//!                              records of the groups that differ, one by one
//! ```
//!
//! Pure: `compare` and `log_copy`. A copy that moves on while it is asked is no difference: it answers with its position, and
//! the stream is read on to there.

mod compare;
mod log_copy;
mod log_reader;
mod places;
mod report;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use freehold_core::{GroupDigest, GroupNumber, KindName, SiteName, StreamSequence, Takeovers};
use freehold_jetstream::{Client, Members, SitesLog};

use crate::arguments::VerifyArguments;
use crate::context::Context;
use crate::discovery::{Instance, discover};
use crate::failure::{Verdict, one_line};
use compare::{RecordMap, Standing};
use log_reader::LogReader;
use report::{CopyReport, DifferenceReport, Report, StandingReport};

/// The pause before a copy that is behind is asked again.
const ASK_AGAIN_PAUSE: Duration = Duration::from_millis(100);
/// A group that differs is looked at this often at most, until two looks agree: traffic may change it in between.
const MAX_LOOKS: usize = 10;
/// The pause between such looks.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

pub(crate) async fn run(context: &Context, arguments: VerifyArguments) -> anyhow::Result<Verdict> {
    let client = context.connect().await?;
    let instances = discover(&client).await?;
    let choose = |given: &[SiteName]| if given.is_empty() { context.settings.sites.clone() } else { given.to_vec() };
    let mut sites = choose(&arguments.sites);
    if sites.is_empty() {
        sites = instances.iter().map(|instance| instance.site.clone()).collect();
        sites.sort();
        sites.dedup();
    }
    let mut kinds = arguments.kinds.clone();
    if kinds.is_empty() {
        kinds = instances.iter().flat_map(|instance| instance.kinds.clone()).collect();
        kinds.sort();
        kinds.dedup();
    }
    ensure!(
        !sites.is_empty() && !kinds.is_empty(),
        "no instance answers at {}: is one running? Or name --sites and --kind",
        context.url()
    );
    let instances: Vec<_> = instances.into_iter().filter(|instance| sites.contains(&instance.site)).collect();
    let progress = progress();
    let takeovers = takeovers(&client, &sites).await;
    let report = Report::default();
    let mut verification = Verification { client, arguments, instances, takeovers, progress: progress.clone(), report };
    verification.find_absent(&sites, &kinds).await;
    for kind in &kinds {
        for origin in &sites {
            verification.compare(kind, origin).await?;
        }
    }
    progress.finish_and_clear();
    let report = verification.report;
    if context.json {
        report.print_json()?
    } else {
        report.print()?
    }
    Ok(report.verdict())
}

/// One run.
struct Verification {
    client: Client,
    arguments: VerifyArguments,
    instances: Vec<Instance>,
    takeovers: Takeovers,
    progress: ProgressBar,
    report: Report,
}

/// What the logs of all sites that answer say of takeovers: what lies beyond a cut is in no copy.
async fn takeovers(client: &Client, sites: &[SiteName]) -> Takeovers {
    let mut takeovers = Takeovers::default();
    for site in sites {
        let log = SitesLog::new(client.connection().in_domain(site), site.clone());
        for message in log.takeovers(site).await.unwrap_or_default() {
            takeovers.note(message.takeover, message.sequence);
        }
    }
    takeovers
}

/// What a copy is compared with.
enum Reference {
    /// The origin's stream.
    Stream(Box<LogReader>),
    /// The stream cannot be read, so the copy that is furthest stands for it.
    Copy { instance: Box<Instance>, applied: StreamSequence, digests: Vec<GroupDigest> },
}

impl Verification {
    /// Notes what was asked for and does not answer: sites without an instance, instances by name, members of a list.
    async fn find_absent(&mut self, sites: &[SiteName], kinds: &[KindName]) {
        let mut absent = Vec::new();
        for kind in kinds {
            for site in sites {
                let serving = |instance: &&Instance| instance.site == *site && instance.kinds.contains(kind);
                let names: Vec<_> = self.instances.iter().filter(serving).map(|instance| &instance.name).collect();
                if names.is_empty() {
                    absent.push(format!("site {site}: no instance that serves {kind} answers"));
                    continue;
                }
                for member in members(&self.client, site, kind).await {
                    if !names.contains(&&member) {
                        absent.push(format!(
                            "instance {member} of {site}: it is on the member list of {kind} and does not answer"
                        ));
                    }
                }
            }
        }
        for name in &self.arguments.instances {
            if !self.instances.iter().any(|instance| instance.name == *name) {
                absent.push(format!("instance {name}: it does not answer"));
            }
        }
        self.report.unreachable.extend(absent);
    }

    /// Compares all copies of an origin's records with one reference.
    async fn compare(&mut self, kind: &KindName, origin: &SiteName) -> anyhow::Result<()> {
        self.progress.set_message(format!("reading {kind} of {origin}"));
        let mut waiting: Vec<_> =
            self.instances.iter().filter(|instance| instance.kinds.contains(kind)).cloned().collect();
        let takeovers = self.takeovers.clone();
        let opened = LogReader::open(self.client.connection(), origin, kind, takeovers, &self.progress).await;
        let mut reference = match opened {
            Ok(reader) => Reference::Stream(Box::new(reader)),
            Err(error) => {
                self.report.unreachable.push(format!("the records stream of {origin}: {}", one_line(&error)));
                match self.furthest(&waiting, kind, origin).await {
                    Some(reference) => reference,
                    None => return Ok(()),
                }
            }
        };
        let deadline = Instant::now() + Duration::from_secs(self.arguments.patience);
        loop {
            let last_try = Instant::now() >= deadline;
            let mut again = Vec::new();
            for instance in waiting {
                self.progress.set_message(format!("comparing {kind} of {origin} at {}", instance.name));
                let asked = places::digests(&self.client, &instance, kind, origin).await;
                let (applied, found) = match asked {
                    Ok(answer) => answer,
                    Err(error) if last_try => {
                        self.report.unreachable.push(one_line(&error));
                        continue;
                    }
                    Err(_) => {
                        again.push(instance);
                        continue;
                    }
                };
                let standing = self.standing(&mut reference, applied, &found).await?;
                if matches!(standing, Standing::Behind | Standing::Ahead) && !last_try {
                    again.push(instance);
                    continue;
                }
                let (standing, groups) = match standing {
                    Standing::Equal => (StandingReport::Equal, Vec::new()),
                    Standing::Differs(groups) => (StandingReport::Differs, groups),
                    Standing::Behind => (StandingReport::Behind, Vec::new()),
                    Standing::Ahead => (StandingReport::Ahead, Vec::new()),
                };
                self.find_differences(&mut reference, &instance, kind, origin, &groups).await?;
                self.report.copies.push(CopyReport {
                    kind: kind.clone(),
                    origin: origin.clone(),
                    site: instance.site.clone(),
                    instance: instance.name.clone(),
                    applied,
                    stream: reference.end(),
                    records: compare::record_count(&found),
                    standing,
                    groups,
                });
            }
            if again.is_empty() {
                break;
            }
            waiting = again;
            tokio::time::sleep(ASK_AGAIN_PAUSE).await;
        }
        if let Reference::Stream(reader) = &reference {
            let (anomalies, count) = reader.copy().anomalies();
            let room = self.arguments.limit.saturating_sub(self.report.anomalies.len());
            let text = anomalies.iter().take(room);
            let text = text.map(|(sequence, anomaly)| format!("{kind} of {origin}, message {sequence}: {anomaly}"));
            self.report.anomalies.extend(text);
            self.report.anomalies_total += count;
        }
        self.report.copies.sort_by(|left, right| {
            let key =
                |copy: &CopyReport| (copy.kind.clone(), copy.origin.clone(), copy.site.clone(), copy.instance.clone());
            key(left).cmp(&key(right))
        });
        Ok(())
    }

    /// The copy that has applied most of an origin's stream.
    async fn furthest(&self, instances: &[Instance], kind: &KindName, origin: &SiteName) -> Option<Reference> {
        let mut furthest: Option<(Instance, StreamSequence, Vec<GroupDigest>)> = None;
        for instance in instances {
            let Ok((applied, digests)) = places::digests(&self.client, instance, kind, origin).await else { continue };
            if furthest.as_ref().is_none_or(|(_, most, _)| applied > *most) {
                furthest = Some((instance.clone(), applied, digests));
            }
        }
        furthest.map(|(instance, applied, digests)| Reference::Copy { instance: Box::new(instance), applied, digests })
    }

    async fn standing(
        &self,
        reference: &mut Reference,
        applied: StreamSequence,
        found: &[GroupDigest],
    ) -> anyhow::Result<Standing> {
        Ok(match reference {
            Reference::Stream(reader) => {
                if applied > reader.end() {
                    reader.read_on(&self.progress).await?;
                }
                let copy = reader.copy();
                compare::standing(applied, found, copy.start(), reader.end(), |position| copy.digests_at(position))
            }
            Reference::Copy { applied: end, digests, .. } => {
                compare::standing(applied, found, *end, *end, |_| digests.clone())
            }
        })
    }

    /// Looks into groups that differ, record by record.
    async fn find_differences(
        &mut self,
        reference: &mut Reference,
        instance: &Instance,
        kind: &KindName,
        origin: &SiteName,
        groups: &[GroupNumber],
    ) -> anyhow::Result<()> {
        let mut found = BTreeMap::new();
        let mut unsettled = groups.to_vec();
        for look in 0..MAX_LOOKS {
            if unsettled.is_empty() {
                break;
            }
            if look > 0 {
                tokio::time::sleep(LOOK_PAUSE).await;
            }
            let mut changed = Vec::new();
            for (index, group) in (1..).zip(&unsettled) {
                let (name, all) = (&instance.name, unsettled.len());
                self.progress.set_message(format!("looking into group {index} of {all} at {name}"));
                let differences = self.look(reference, instance, kind, origin, *group).await?;
                if found.get(group) != Some(&differences) {
                    found.insert(*group, differences);
                    changed.push(*group);
                }
            }
            unsettled = changed;
        }
        for (group, found) in found {
            let differences: Vec<_> = match found.as_slice() {
                [] => vec![(None, None, None)],
                found => found.iter().map(|it| (Some(it.id.clone()), it.expected, it.found)).collect(),
            };
            self.report.differences_total += differences.len();
            let room = self.arguments.limit.saturating_sub(self.report.differences.len());
            let report = |(id, expected, found)| DifferenceReport {
                kind: kind.clone(),
                origin: origin.clone(),
                group,
                id,
                reference: reference.place(origin),
                expected,
                place: format!("{} at {}", instance.name, instance.site),
                found,
            };
            self.report.differences.extend(differences.into_iter().take(room).map(report));
        }
        Ok(())
    }

    async fn look(
        &self,
        reference: &mut Reference,
        instance: &Instance,
        kind: &KindName,
        origin: &SiteName,
        group: GroupNumber,
    ) -> anyhow::Result<Vec<compare::RecordDifference>> {
        let found = places::records(&self.client, instance, kind, origin, group).await?;
        let expected = match reference {
            Reference::Stream(reader) => {
                reader.read_on(&self.progress).await?;
                reader.copy().records_of(&[group]).remove(&group).unwrap_or_else(RecordMap::new)
            }
            Reference::Copy { instance, .. } => places::records(&self.client, instance, kind, origin, group).await?,
        };
        Ok(compare::differing_records(&expected, &found))
    }
}

impl Reference {
    fn end(&self) -> Option<StreamSequence> {
        match self {
            Self::Stream(reader) => Some(reader.end()),
            Self::Copy { .. } => None,
        }
    }

    fn place(&self, origin: &SiteName) -> String {
        match self {
            Self::Stream(_) => format!("the stream of {origin}"),
            Self::Copy { instance, .. } => format!("{} at {}", instance.name, instance.site),
        }
    }
}

/// The names on a member list. A list that cannot be read names nobody: a site that is gone is noticed by its stream.
async fn members(client: &Client, site: &SiteName, kind: &KindName) -> Vec<freehold_core::InstanceName> {
    let read = async { Members::open(&client.connection().in_domain(site), site).await?.read(kind).await };
    match read.await {
        Ok(entry) => {
            entry.list.map(|list| list.members).unwrap_or_default().into_iter().map(|member| member.instance).collect()
        }
        Err(error) => {
            tracing::debug!(%site, error = one_line(&error.into()), "the member list cannot be read");
            Vec::new()
        }
    }
}

fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {wide_msg} {human_pos}/{human_len} messages {bar:20} {eta}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
