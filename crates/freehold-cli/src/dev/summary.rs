//! What `freehold dev` says when all is ready: one line for programs, or a table and what to try next.

use std::collections::BTreeMap;

use serde::Serialize;

use super::deployment::Deployment;
use crate::printer;

/// The line for programs. Stable: fields are only ever added.
#[derive(Debug, Serialize)]
pub(super) struct Ready<'a> {
    hub: Option<Hub>,
    sites: BTreeMap<&'a str, Site<'a>>,
}

#[derive(Debug, Serialize)]
struct Hub {
    pid: u32,
    port: u16,
}

#[derive(Debug, Serialize)]
struct Site<'a> {
    url: &'a str,
    server_pid: u32,
    instances: Vec<Instance<'a>>,
}

#[derive(Debug, Serialize)]
struct Instance<'a> {
    id: &'a str,
    pid: u32,
}

/// The line for programs.
pub(super) fn ready(deployment: &Deployment) -> Ready<'_> {
    let sites = deployment.sites.iter().map(|site| {
        // The sandbox was built from the same names.
        let server_pid = deployment.sandbox.find_site(site.name.as_str()).map_or(0, |site| site.server().pid());
        let processes = site.instances.iter().map(super::instances::Instance::process);
        let instances = processes.map(|process| Instance { id: process.name(), pid: process.pid() }).collect();
        (site.name.as_str(), Site { url: &site.url, server_pid, instances })
    });
    let hub = deployment.hub().map(|server| Hub { pid: server.pid(), port: server.port() });
    Ready { hub, sites: sites.collect() }
}

/// The table and the hints.
pub(super) fn print(deployment: &Deployment) -> anyhow::Result<()> {
    let ready = ready(deployment);
    let mut table = printer::table_of(&["site", "server", "process", "instances (process)"]);
    if let Some(Hub { pid, port }) = ready.hub {
        table.add_row(["(hub)", &format!("nats://127.0.0.1:{port}"), &pid.to_string(), ""]);
    }
    for (name, Site { url, server_pid, instances }) in &ready.sites {
        let instances: Vec<_> = instances.iter().map(|Instance { id, pid }| format!("{id} ({pid})")).collect();
        table.add_row([*name, *url, &server_pid.to_string(), &instances.join("\n")]);
    }
    printer::table(&table)?;
    let (Some(first), Some(last)) = (deployment.sites.first(), deployment.sites.last()) else { return Ok(()) };
    let Some(kind) = deployment.kinds.first() else { return Ok(()) };
    let (home, url, far) = (&first.name, &first.url, &last.url);
    let sites: Vec<_> = deployment.sites.iter().map(|site| site.name.as_str()).collect();
    let sites = sites.join(",");
    printer::line(format!(
        "
Try in another terminal:
  freehold --url {url} send {kind} create {home}-1 --body '{{\"record\":{{\"name\":\"Ada\"}}}}'
  freehold --url {far} get {kind} {home}-1
  freehold --url {url} status
  freehold --url {url} verify --sites {sites} --kind {kind}
  nats --server {url} request freehold.{kind}.get '{{\"id\":\"{home}-1\"}}'

Everything is in {}. Ctrl-C ends it; the same command goes on with it.",
        deployment.data.display()
    ))?;
    Ok(())
}
