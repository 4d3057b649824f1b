//! `freehold doctor`: a running deployment against what Freehold needs, and how to mend what is not as it should be.
//!
//! Only looks: it changes nothing, and asks what any operator may ask.

mod access;
mod servers;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use freehold_core::{SiteName, subject};
use freehold_jetstream::{Client, Inspection, MINIMUM_SERVER_VERSION, StreamFacts, inspect};

use self::access::look_at_access;
use self::servers::look_at_servers;
use crate::arguments::DoctorArguments;
use crate::context::Context;
use crate::discovery::{Instance, discover};
use crate::failure::{Verdict, one_line};
use crate::printer;

/// A clock that is off by more than this makes times hard to read. Nothing rests on it.
const CLOCK_TOLERANCE_MS: i64 = 1_000;
/// A copy that is older than this is late.
const LATE_COPY_MS: u64 = 10_000;
/// A log or a disk that is fuller than this, in percent, is worth a look.
const NEARLY_FULL_PERCENT: u64 = 80;
/// A record with its outcomes must fit into a message.
const LEAST_PAYLOAD_BYTES: usize = 64 << 10;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Weight {
    /// As it should be.
    Fine,
    /// It works, and somebody should look at it.
    Look,
    /// It does not work, or loses what it should not.
    Mend,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    weight: Weight,
    site: String,
    what: String,
    found: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mend: String,
}

#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, weight: Weight, site: &str, what: &str, found: impl Into<String>, mend: &str) {
        let (site, what, mend) = (site.to_owned(), what.to_owned(), mend.to_owned());
        self.0.push(Finding { weight, site, what, found: found.into(), mend });
    }

    /// Fine where it holds, else as bad as is said.
    fn check(&mut self, holds: bool, bad: Weight, site: &str, what: &str, found: impl Into<String>, mend: &str) {
        let (weight, mend) = if holds { (Weight::Fine, "") } else { (bad, mend) };
        self.add(weight, site, what, found, mend);
    }
}

pub(crate) async fn run(context: &Context, arguments: DoctorArguments) -> anyhow::Result<Verdict> {
    let client = context.connect().await?;
    let instances = discover(&client).await?;
    let mut sites = if arguments.sites.is_empty() { context.settings.sites.clone() } else { arguments.sites };
    if sites.is_empty() {
        sites = instances.iter().flat_map(|instance| instance.status.applied.keys().cloned()).collect();
    }
    sites.sort();
    sites.dedup();
    let mut findings = Findings::default();
    let payload = client.connection().max_payload_bytes();
    findings.check(
        payload >= LEAST_PAYLOAD_BYTES,
        Weight::Look,
        "",
        "max_payload",
        format!("{payload} bytes"),
        "a record with its outcomes must fit into one message: raise max_payload at every server",
    );
    if sites.is_empty() {
        findings.add(Weight::Mend, "", "sites", "no instance answers", "start one, or name --sites");
    }
    let mut inspections = BTreeMap::new();
    for site in &sites {
        if let Some(inspection) = look_at_site(&client, site, &sites, &mut findings).await {
            inspections.insert(site.clone(), inspection);
        }
        look_at_instances(site, &sites, &instances, &mut findings);
    }
    look_between_sites(&inspections, &mut findings);
    look_at_servers(&arguments.monitoring, &mut findings).await;
    let site = arguments.site.or_else(|| context.settings.site.clone()).or_else(|| sites.first().cloned());
    if let Some(site) = site {
        look_at_access(&client, &site, &sites, arguments.role, &mut findings).await;
    }
    report(context, &findings.0)
}

async fn look_at_site(
    client: &Client,
    site: &SiteName,
    sites: &[SiteName],
    findings: &mut Findings,
) -> Option<Inspection> {
    let name = site.as_str();
    let inspection = match inspect(client.connection(), site, sites).await {
        Ok(inspection) => inspection,
        Err(error) => {
            let found = one_line(&error.into());
            let mend = "is its server up, is its link, is its JetStream domain the site's name, may this user ask it?";
            findings.add(Weight::Mend, name, "JetStream", found, mend);
            return None;
        }
    };
    let domain = inspection.domain.clone().unwrap_or_default();
    let mend = "set jetstream.domain to the site's name";
    findings.check(domain == name, Weight::Mend, name, "domain", domain, mend);
    if let Some(percent) = percent(inspection.stored_bytes, inspection.max_stored_bytes) {
        let mend = "give JetStream more room: publishers get no answer where a disk is full";
        findings.check(percent < NEARLY_FULL_PERCENT, Weight::Look, name, "disk", format!("{percent} % full"), mend);
    }
    if let Some(ahead) = inspection.clock_ahead_ms {
        let found = format!("{ahead} ms ahead of this machine's");
        let mend = "set the clock (NTP). Nothing rests on it, but the times in replies and logs are its";
        findings.check(ahead.abs() <= CLOCK_TOLERANCE_MS, Weight::Look, name, "clock", found, mend);
    }
    let mut versions = BTreeSet::new();
    for (stream, facts) in &inspection.streams {
        let Some(facts) = facts else {
            findings.add(Weight::Mend, name, stream, "missing", "freehold provision");
            continue;
        };
        versions.extend(facts.server_version.clone());
        look_at_stream(site, sites, stream, facts, findings);
    }
    if let Some(oldest) = versions.iter().min_by_key(|version| numbers(version)) {
        let (major, minor, patch) = MINIMUM_SERVER_VERSION;
        let mend = format!("streams were made by an older nats-server than {major}.{minor}.{patch}: upgrade it");
        findings.check(numbers(oldest) >= MINIMUM_SERVER_VERSION, Weight::Mend, name, "nats-server", oldest, &mend);
    }
    Some(inspection)
}

fn look_at_stream(site: &SiteName, sites: &[SiteName], stream: &str, facts: &StreamFacts, findings: &mut Findings) {
    let name = site.as_str();
    let (replicas, current) = facts.replicas;
    if replicas > 1 {
        let found = format!("{current} of {replicas} copies are current");
        findings.check(current >= replicas, Weight::Look, name, stream, found, "is a server of the cluster down?");
    }
    if stream == subject::commands_stream(site) || stream == subject::dead_letter_stream(site) {
        let mend = "requests are refused (busy) where it is full: are groups held, is anything purged?";
        if let Some(percent) = percent(facts.bytes, facts.max_bytes) {
            findings.check(
                percent < NEARLY_FULL_PERCENT,
                Weight::Look,
                name,
                stream,
                format!("{percent} % full"),
                mend,
            );
        }
    }
    if stream == subject::dead_letter_stream(site) || stream == subject::stranded_stream(site) {
        let mend = "somebody must judge what is in it: freehold stranded, or the dead letters";
        findings.check(facts.messages == 0, Weight::Look, name, stream, format!("{} messages", facts.messages), mend);
    }
    let Some(origin) = sites.iter().find(|origin| stream == subject::records_stream(origin)) else { return };
    let mend = "it may drop what a copy needs: freehold provision, or make it anew";
    findings.check(
        facts.keeps_what_it_has && facts.allows_ttl && facts.history >= 8,
        Weight::Mend,
        name,
        stream,
        format!("keeps {} updates of a record", facts.history),
        mend,
    );
    if origin == site {
        let mend = "freehold provision";
        findings.check(
            facts.allows_batches && !facts.is_mirror,
            Weight::Mend,
            name,
            stream,
            "the site's own log",
            mend,
        );
    } else if facts.is_sealed {
        let mend = "the site was taken for lost: freehold takeover goes on, or that site must come back";
        findings.add(Weight::Look, name, stream, format!("sealed at {}", facts.last), mend);
    } else {
        let mend = "it is not what it should be: was it made by somebody else?";
        findings.check(facts.is_mirror, Weight::Mend, name, stream, format!("a mirror, at {}", facts.last), mend);
    }
}

fn look_at_instances(site: &SiteName, sites: &[SiteName], instances: &[Instance], findings: &mut Findings) {
    let name = site.as_str();
    let here: Vec<_> = instances.iter().filter(|instance| instance.site == *site).collect();
    let mend = match here.len() {
        0 => "nothing is decided here: start an instance",
        _ => "a second instance takes over in a fraction of a second where one dies",
    };
    let weight = if here.is_empty() { Weight::Mend } else { Weight::Look };
    findings.check(here.len() > 1, weight, name, "instances", here.len().to_string(), mend);
    for instance in here {
        let what = format!("instance {}", instance.name);
        let absent: Vec<_> = sites.iter().filter(|it| !instance.status.applied.contains_key(*it)).collect();
        if let Some(absent) = absent.first() {
            findings.add(Weight::Mend, name, &what, format!("has no copy of {absent}"), "name every site in `sites`");
        }
        for (origin, age) in &instance.status.age_ms {
            let found = age.map_or("never complete".to_owned(), |age| format!("{age} ms old"));
            let is_young = age.is_some_and(|age| age <= LATE_COPY_MS);
            let mend = "is the link down, or the other site? Its records are read as they were then";
            findings.check(is_young, Weight::Look, name, &format!("{what}: copy of {origin}"), found, mend);
        }
    }
}

/// What must be the same everywhere, and how far mirrors are.
fn look_between_sites(inspections: &BTreeMap<SiteName, Inspection>, findings: &mut Findings) {
    let own = |site: &SiteName, inspection: &Inspection| {
        inspection.streams.get(&subject::records_stream(site)).cloned().flatten()
    };
    let logs: BTreeMap<_, _> =
        inspections.iter().filter_map(|(site, inspection)| Some((site, own(site, inspection)?))).collect();
    let Some((first, reference)) = logs.iter().next() else { return };
    for (site, log) in logs.iter().skip(1) {
        let same = log.shared == reference.shared && log.history == reference.history;
        let found = if same { format!("as at {first}") } else { format!("not as at {first}: {:?}", log.shared) };
        let mend = "groups, home rules, history and W of a kind are the same at every site, and for good";
        findings.check(same, Weight::Mend, site.as_str(), "kinds", found, mend);
    }
    for (site, inspection) in inspections {
        for (origin, log) in logs.iter().filter(|(origin, _)| **origin != site) {
            let mirror = inspection.streams.get(&subject::records_stream(origin)).cloned().flatten();
            let Some(mirror) = mirror.filter(|mirror| !mirror.is_sealed) else { continue };
            let behind = log.last.0.saturating_sub(mirror.last.0);
            let found = format!("{behind} messages behind");
            let mend = "a mirror may take more than a minute after a cut; where it stays so, look at the link and at `freehold verify`";
            findings.check(behind < 1_000, Weight::Look, site.as_str(), &format!("mirror of {origin}"), found, mend);
        }
    }
}

fn percent(used: u64, limit: Option<u64>) -> Option<u64> {
    limit.filter(|limit| *limit > 0).map(|limit| used.saturating_mul(100) / limit)
}

fn numbers(version: &str) -> (u64, u64, u64) {
    let mut numbers = version.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next())
}

fn report(context: &Context, findings: &[Finding]) -> anyhow::Result<Verdict> {
    let worst = findings.iter().map(|finding| finding.weight).max().unwrap_or(Weight::Fine);
    if context.json {
        printer::json(&serde_json::json!({ "worst": worst, "findings": findings }))?;
    } else {
        let mut table = printer::table_of(&["", "site", "what", "found", "what to do"]);
        for Finding { weight, site, what, found, mend } in findings {
            let mark = match weight {
                Weight::Fine => "fine",
                Weight::Look => "look",
                Weight::Mend => "MEND",
            };
            table.add_row([mark, site, what, found, mend]);
        }
        printer::table(&table)?;
        let count = |weight| findings.iter().filter(|finding| finding.weight == weight).count();
        let (mend, look) = (count(Weight::Mend), count(Weight::Look));
        printer::note(format!("{mend} to mend, {look} to look at, {} fine", count(Weight::Fine)));
    }
    Ok(if worst == Weight::Mend { Verdict::No } else { Verdict::Yes })
}
