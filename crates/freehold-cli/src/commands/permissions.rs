//! `freehold provision --permissions`: what each role may publish and subscribe to, as nats-server takes it.
//!
//! The least that works, for the accounts of nats-config/secure and secure-two-sites: the service and the operator in the account that
//! has the logs, callers in one of their own, and the links of other sites in one without JetStream.

use serde::Serialize;

use freehold_core::{SiteName, subject};
use freehold_jetstream::USER_INFO;

use crate::printer;

/// What one role may do at one site.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Role {
    pub(crate) role: String,
    /// What it must be able to publish.
    pub(crate) publish: Vec<String>,
    /// What it must be able to subscribe to.
    pub(crate) subscribe: Vec<String>,
}

/// The roles of a site that has copies of these sites' records.
pub(crate) fn roles(site: &SiteName, sites: &[SiteName]) -> Vec<Role> {
    let owned = |subjects: &[&str]| subjects.iter().map(|subject| (*subject).to_owned()).collect::<Vec<_>>();
    let others: Vec<_> = sites.iter().filter(|other| *other != site).collect();
    let takes = [format!("fh.{site}.ins.>"), format!("fh.{site}.adm.>")];
    let mut answers = owned(&["freehold.>", "$SRV.>"]);
    answers.extend(takes.clone());
    answers.push("_INBOX.>".to_owned());
    let mut operator = owned(&["$JS.API.>", "$SRV.>", USER_INFO]);
    operator.extend(takes);
    for other in &others {
        operator.extend(seals(other, sites));
        operator.extend(reads(other, sites));
    }
    let inbox = owned(&["_INBOX.>"]);
    let mut roles = vec![
        Role { role: "service".to_owned(), publish: service(site, sites, &others), subscribe: answers },
        Role { role: "operator".to_owned(), publish: operator, subscribe: inbox.clone() },
        Role { role: "caller".to_owned(), publish: owned(&["freehold.>", "$SRV.>"]), subscribe: inbox },
    ];
    roles.extend(others.into_iter().map(|other| link(other, sites)));
    roles
}

/// What an instance publishes.
fn service(site: &SiteName, sites: &[SiteName], others: &[&SiteName]) -> Vec<String> {
    let (commands, records) = (subject::commands_stream(site), subject::records_stream(site));
    let members = format!("KV_{}", subject::members_bucket(site));
    let families = ["cmd", "rec", "res", "ctl", "dead"];
    let mut publish: Vec<_> = families.iter().map(|family| format!("fh.{site}.{family}.>")).collect();
    publish.extend([format!("$KV.{}.>", subject::members_bucket(site)), format!("fh.{site}.ins.>")]);
    let asked = [
        "_R_.>",
        "_INBOX.>",
        "$JS.API.INFO",
        "$JS.API.STREAM.INFO.*",
        "$JS.API.STREAM.MSG.GET.*",
        "$JS.FC.>",
        USER_INFO,
    ];
    publish.extend(asked.map(str::to_owned));
    publish.extend([format!("$JS.API.DIRECT.GET.{members}.>"), format!("$JS.API.DIRECT.GET.{records}")]);
    for stream in [&commands, &records] {
        publish.push(format!("$JS.API.CONSUMER.CREATE.{stream}.>"));
        publish.push(format!("$JS.API.CONSUMER.INFO.{stream}.*"));
    }
    publish.extend([format!("$JS.API.CONSUMER.CREATE.{members}"), format!("$JS.API.CONSUMER.CREATE.{members}.>")]);
    publish.extend([format!("$JS.API.CONSUMER.DELETE.{members}.*"), format!("$JS.API.STREAM.PURGE.{commands}")]);
    if !others.is_empty() {
        // What a return sets aside.
        publish.push(format!("fh.{site}.stranded.>"));
        publish.push(format!("$JS.API.CONSUMER.CREATE.{}.>", subject::stranded_stream(site)));
    }
    for other in others {
        let stream = subject::records_stream(other);
        // Its mirror here is read, sealed, and made again; never its log there.
        publish.push(format!("$JS.API.DIRECT.GET.{stream}"));
        publish.push(format!("$JS.API.CONSUMER.CREATE.{stream}.>"));
        publish.push(format!("$JS.API.CONSUMER.INFO.{stream}.*"));
        for what in ["UPDATE", "DELETE", "CREATE"] {
            publish.push(format!("$JS.API.STREAM.{what}.{stream}"));
        }
        publish.extend(reads(other, sites));
        publish.push(format!("$JS.{other}.API.CONSUMER.RESET.{stream}.{}", subject::mirror_consumer(site)));
    }
    publish
}

/// What is asked of another site's JetStream, to read its log and its mirrors.
fn reads(other: &SiteName, sites: &[SiteName]) -> Vec<String> {
    let streams = sites.iter().map(subject::records_stream);
    let asked = |stream: String| {
        ["STREAM.INFO", "STREAM.MSG.GET", "DIRECT.GET"].map(|what| format!("$JS.{other}.API.{what}.{stream}"))
    };
    streams.flat_map(asked).collect()
}

/// What an operator asks of another site who takes over a third one.
fn seals(other: &SiteName, sites: &[SiteName]) -> Vec<String> {
    let asked: &[_] = if sites.len() > 2 { &["loss", "seal"] } else { &[] };
    asked.iter().map(|what| format!("fh.{other}.adm.*.{what}")).collect()
}

/// What may come from another site over its link, into the account where links end, and go to it. Through that link the site also
/// reaches those that are linked here.
fn link(from: &SiteName, sites: &[SiteName]) -> Role {
    let (mut publish, mut subscribe) = (vec!["_R_.>".to_owned()], vec!["_R_.>".to_owned()]);
    let takes = |site: &SiteName| {
        let records = subject::records_stream(site);
        let mut subjects = vec![format!("JS.{site}.API.>"), format!("$JS.FC.{records}.>")];
        subjects.extend(seals(site, sites));
        subjects
    };
    subscribe.extend(takes(from));
    for other in sites.iter().filter(|other| *other != from) {
        publish.extend(takes(other));
        publish.push(subject::mirror_delivery(from, other));
        subscribe.push(subject::mirror_delivery(other, from));
    }
    Role { role: format!("link of {from}"), publish, subscribe }
}

/// Prints them as nats-server's configuration takes them.
pub(crate) fn print(site: &SiteName, roles: &[Role]) -> std::io::Result<()> {
    for Role { role, publish, subscribe } in roles {
        let list =
            |subjects: &[String]| subjects.iter().map(|subject| format!("\n    {subject:?}")).collect::<String>();
        printer::line(format!("# {role} at {site}"))?;
        printer::line(format!(
            "permissions {{\n  publish: [{}\n  ]\n  subscribe: [{}\n  ]\n}}",
            list(publish),
            list(subscribe)
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What a configuration lists for its users, in the order in which they stand there.
    fn listed(page: &str) -> Vec<[BTreeSet<String>; 2]> {
        let quoted = |text: &str| {
            let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
            lines.flat_map(|line| line.split('"').skip(1).step_by(2)).map(str::to_owned).collect()
        };
        let user = |user: &str| {
            let (publish, rest) = user.split_once("subscribe:")?;
            let (_, publish) = publish.split_once("publish:")?;
            Some([quoted(publish), quoted(rest.split_once(']')?.0)])
        };
        page.split("nkey: $").skip(1).filter_map(user).collect()
    }

    fn printed(site: &str, sites: &[&str]) -> Vec<[BTreeSet<String>; 2]> {
        let sites: Vec<_> = sites.iter().map(|site| site.parse().unwrap()).collect();
        let sets = |role: Role| [role.publish, role.subscribe].map(|subjects| subjects.into_iter().collect());
        roles(&site.parse().unwrap(), &sites).into_iter().map(sets).collect()
    }

    /// The configurations that are tried role by role (tests/tests/nats_config) are what is printed.
    #[test]
    fn what_is_printed_is_what_the_secured_sites_have() {
        assert_eq!(listed(include_str!("../../../../nats-config/secure/ewr.conf")), printed("ewr", &["ewr"]));
        let two = ["ewr", "jfk"];
        assert_eq!(listed(include_str!("../../../../nats-config/secure-two-sites/ewr.conf")), printed("ewr", &two));
        // It opens the link, and takes none.
        let jfk = listed(include_str!("../../../../nats-config/secure-two-sites/jfk.conf"));
        assert_eq!(jfk, printed("jfk", &two)[..jfk.len()]);
        assert_eq!(jfk.len(), 3);
    }
}
