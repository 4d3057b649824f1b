//! `freehold provision --permissions`: what each role may publish and subscribe to, as nats-server takes it.
//!
//! The least that works, for the accounts of nats-config/secure: the service and the operator in the account that has the logs, callers
//! in one of their own.

use serde::Serialize;

use freehold_core::{SiteName, subject};

use crate::printer;

/// What one role may do at one site.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Role {
    role: &'static str,
    publish: Vec<String>,
    subscribe: Vec<String>,
}

/// The roles of a site that has copies of these sites' records.
pub(crate) fn roles(site: &SiteName, sites: &[SiteName]) -> Vec<Role> {
    let owned = |subjects: &[&str]| subjects.iter().map(|subject| (*subject).to_owned()).collect::<Vec<_>>();
    let others: Vec<_> = sites.iter().filter(|other| *other != site).collect();
    let (commands, records) = (subject::commands_stream(site), subject::records_stream(site));
    let members = format!("KV_{}", subject::members_bucket(site));
    let families = ["cmd", "rec", "res", "ctl", "dead"];
    let mut service: Vec<_> = families.iter().map(|family| format!("fh.{site}.{family}.>")).collect();
    service.extend([format!("$KV.{}.>", subject::members_bucket(site)), format!("fh.{site}.ins.>")]);
    service.extend(owned(&["_R_.>", "_INBOX.>", "$JS.API.INFO", "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.MSG.GET.*"]));
    service.push(format!("$JS.API.DIRECT.GET.{members}.>"));
    for stream in [&commands, &records] {
        service.push(format!("$JS.API.CONSUMER.CREATE.{stream}.>"));
    }
    for stream in [&commands, &records] {
        service.push(format!("$JS.API.CONSUMER.INFO.{stream}.*"));
    }
    service.push("$JS.FC.>".to_owned());
    service.extend([format!("$JS.API.CONSUMER.CREATE.{members}"), format!("$JS.API.CONSUMER.CREATE.{members}.>")]);
    service.extend([format!("$JS.API.CONSUMER.DELETE.{members}.*"), format!("$JS.API.STREAM.PURGE.{commands}")]);
    if !others.is_empty() {
        // What a takeover strands, and what a return sets aside.
        service.push(format!("fh.{site}.stranded.>"));
        service.push(format!("$JS.API.CONSUMER.CREATE.{}.>", subject::stranded_stream(site)));
    }
    for other in others {
        let stream = subject::records_stream(other);
        // Its mirror here is read, sealed, and made again; never its log there.
        for what in ["CONSUMER.CREATE", "CONSUMER.INFO"] {
            service.push(format!("$JS.API.{what}.{stream}.>"));
        }
        for what in ["UPDATE", "DELETE", "CREATE"] {
            service.push(format!("$JS.API.STREAM.{what}.{stream}"));
        }
        // Logs and mirrors there are read, through the other site's domain.
        service.push(format!("$JS.{other}.API.INFO"));
        for what in ["STREAM.INFO", "STREAM.MSG.GET"] {
            service.push(format!("$JS.{other}.API.{what}.FH_RECORDS_*"));
        }
        for what in ["CONSUMER.CREATE", "CONSUMER.INFO"] {
            service.push(format!("$JS.{other}.API.{what}.FH_RECORDS_*.>"));
        }
    }
    let operator =
        ["$JS.API.>".to_owned(), format!("fh.{site}.ins.>"), format!("fh.{site}.adm.>"), "$SRV.>".to_owned()];
    let takes = [format!("fh.{site}.ins.>"), format!("fh.{site}.adm.>")];
    let subscribe = owned(&["freehold.>", "$SRV.>"]).into_iter().chain(takes).chain(owned(&["_INBOX.>"])).collect();
    vec![
        Role { role: "service", publish: service, subscribe },
        Role { role: "operator", publish: operator.to_vec(), subscribe: owned(&["_INBOX.>"]) },
        Role { role: "caller", publish: owned(&["freehold.>", "$SRV.>"]), subscribe: owned(&["_INBOX.>"]) },
    ]
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

    /// The configuration that is tried role by role (tests/tests/nats_config) is what is printed.
    #[test]
    fn what_is_printed_is_what_the_secured_site_has() {
        let page = include_str!("../../../../nats-config/secure/ewr.conf");
        let users = page.split("nkey:").skip(1);
        let site: SiteName = "ewr".parse().unwrap();
        let quoted = |text: &str| {
            let quoted = text.lines().filter(|line| !line.trim_start().starts_with('#'));
            let quoted: Vec<_> = quoted.flat_map(|line| line.split('"').skip(1).step_by(2)).collect();
            quoted.into_iter().map(str::to_owned).collect::<BTreeSet<_>>()
        };
        for (role, user) in roles(&site, std::slice::from_ref(&site)).into_iter().zip(users) {
            let (publish, rest) = user.split_once("subscribe:").unwrap();
            let subscribe = rest.split_once(']').unwrap().0;
            assert_eq!(quoted(publish), role.publish.into_iter().collect(), "{}", role.role);
            assert_eq!(quoted(subscribe), role.subscribe.into_iter().collect(), "{}", role.role);
        }
    }
}
