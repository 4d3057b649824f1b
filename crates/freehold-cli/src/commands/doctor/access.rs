//! Whether whoever asks may do what his role needs.

use freehold_core::SiteName;
use freehold_jetstream::{Client, Permission, USER_INFO};

use crate::arguments::RoleName;
use crate::commands::permissions::roles;

use super::{Findings, Weight};

/// Compares what the server says of this user with what a role at a site needs.
pub(super) async fn look_at_access(
    client: &Client,
    site: &SiteName,
    sites: &[SiteName],
    role: RoleName,
    findings: &mut Findings,
) {
    let name = site.as_str();
    let what = format!("permissions of {}", role.as_str());
    let access = match client.connection().access().await {
        Ok(access) => access,
        Err(_) => {
            let mend = format!("let the user publish {USER_INFO}, or compare with `freehold provision --permissions`");
            findings.add(Weight::Look, name, &what, "the server does not say", &mend);
            return;
        }
    };
    let Some(needed) = roles(site, sites).into_iter().find(|known| known.role == role.as_str()) else { return };
    if access.publish.is_none() && access.subscribe.is_none() {
        let mend = "whoever reaches the server can do everything: see nats-config/secure";
        findings.add(Weight::Look, name, &what, "no limits", mend);
        return;
    }
    let missing = |needed: &[String], granted: Option<&Permission>, verb: &str| {
        let refused = |subject: &&String| granted.is_some_and(|granted| !granted.covers(subject));
        needed.iter().filter(refused).map(|subject| format!("{verb} {subject}")).collect::<Vec<_>>()
    };
    let mut refused = missing(&needed.publish, access.publish.as_ref(), "publish");
    refused.extend(missing(&needed.subscribe, access.subscribe.as_ref(), "subscribe"));
    let found =
        if refused.is_empty() { "all that it needs".to_owned() } else { format!("may not {}", refused.join(", ")) };
    let mend = format!("freehold provision --site {site} --permissions");
    findings.check(refused.is_empty(), Weight::Mend, name, &what, found, &mend);
}
