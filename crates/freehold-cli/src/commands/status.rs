//! `freehold status`: who is there, what it holds, and how far its copy is behind the streams.

use std::collections::BTreeMap;

use serde::Serialize;

use freehold_core::{InstanceName, KindName, SiteName, StreamSequence};
use freehold_jetstream::RecordsLog;

use crate::context::Context;
use crate::discovery::{Instance, InstanceStatus, discover};
use crate::failure::Verdict;
use crate::printer;

#[derive(Serialize)]
struct Report<'a> {
    instances: Vec<InstanceReport<'a>>,
    /// The last message of each site's records stream; nothing where it cannot be reached.
    streams: &'a BTreeMap<SiteName, Option<StreamSequence>>,
}

#[derive(Serialize)]
struct InstanceReport<'a> {
    site: &'a SiteName,
    instance: &'a InstanceName,
    nonce: &'a str,
    service: &'a str,
    kinds: &'a [KindName],
    #[serde(flatten)]
    status: &'a InstanceStatus,
}

pub(crate) async fn run(context: &Context) -> anyhow::Result<Verdict> {
    let client = context.connect().await?;
    let instances = discover(&client).await?;
    let mut streams = BTreeMap::new();
    for instance in &instances {
        for site in std::iter::once(&instance.site).chain(instance.status.applied.keys()) {
            if !streams.contains_key(site) {
                let log = RecordsLog::new(client.connection().in_domain(site), site.clone());
                streams.insert(site.clone(), log.state(site).await.ok().map(|state| state.last));
            }
        }
    }
    if context.json {
        let instances = instances.iter().map(report).collect();
        printer::json(&Report { instances, streams: &streams })?;
    } else {
        print(&instances, &streams)?;
    }
    if instances.is_empty() {
        printer::note(format!("no instance answers at {}: is one running?", context.url()));
        return Ok(Verdict::No);
    }
    Ok(Verdict::Yes)
}

fn report(instance: &Instance) -> InstanceReport<'_> {
    let Instance { site, name, nonce, service, kinds, status } = instance;
    InstanceReport { site, instance: name, nonce: nonce.as_str(), service, kinds, status }
}

fn print(instances: &[Instance], streams: &BTreeMap<SiteName, Option<StreamSequence>>) -> anyhow::Result<()> {
    let mut table = printer::table_of(&["site", "instance", "service", "kinds", "groups held", "applied", "members"]);
    for Instance { site, name, service, kinds, status, .. } in instances {
        let kinds: Vec<_> = kinds.iter().map(ToString::to_string).collect();
        let applied = status.applied.iter().map(|(origin, applied)| {
            let of = match streams.get(origin) {
                Some(Some(last)) => format!(" of {last}"),
                _ => " (its stream cannot be reached)".to_owned(),
            };
            let age = match status.age_ms.get(origin) {
                Some(Some(age)) => format!(", {age} ms old"),
                Some(None) => ", of unknown age".to_owned(),
                None => String::new(),
            };
            let health = status.health.get(origin).filter(|health| *health != "reading");
            let health = health.map(|health| format!(", {}", health.replace('_', " "))).unwrap_or_default();
            format!("{origin} {applied}{of}{age}{health}")
        });
        let members = status.members.iter().map(|(kind, list)| {
            let names: Vec<_> = list.members.iter().map(ToString::to_string).collect();
            format!("{kind}: {} (revision {})", names.join(" "), list.revision)
        });
        table.add_row([
            site.to_string(),
            name.to_string(),
            service.clone(),
            kinds.join("\n"),
            status.groups_held.to_string(),
            applied.collect::<Vec<_>>().join("\n"),
            members.collect::<Vec<_>>().join("\n"),
        ]);
    }
    printer::table(&table)?;
    Ok(())
}
