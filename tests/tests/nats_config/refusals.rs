//! What a server refuses, as its log tells.

use std::path::Path;

use anyhow::{Result, ensure};
use freehold_sandbox::wait_until;

use crate::deployment::SOON;

/// What JetStream is asked for to change what is stored, each for one stream.
pub(crate) const CHANGES: [&str; 8] = [
    "STREAM.CREATE",
    "STREAM.UPDATE",
    "STREAM.DELETE",
    "STREAM.PURGE",
    "STREAM.MSG.DELETE",
    "STREAM.SNAPSHOT",
    "STREAM.RESTORE",
    "CONSUMER.DELETE",
];

/// Requests to JetStream of some kinds, for each of some streams.
pub(crate) fn api(streams: &[&str], verbs: &[&str]) -> Vec<String> {
    let subject = |verb: &&str, stream: &str| format!("$JS.API.{verb}.{stream}{}", consumer(verb));
    streams.iter().flat_map(|stream| verbs.iter().map(move |verb| subject(verb, stream))).collect()
}

fn consumer(verb: &str) -> &'static str {
    if verb.starts_with("CONSUMER") { ".any" } else { "" }
}

/// What the server with this log has refused so far.
pub(crate) fn violations(log: &Path) -> Result<Vec<String>> {
    let log = std::fs::read_to_string(log)?;
    Ok(log.lines().filter(|line| line.contains("Violation")).map(str::to_owned).collect())
}

/// Publishes on subjects, and waits until the server with this log says of each one that it was refused.
pub(crate) async fn ensure_all_refused(client: &async_nats::Client, log: &Path, subjects: &[String]) -> Result<()> {
    for subject in subjects {
        client.publish_with_reply(subject.clone(), client.new_inbox(), "{}".into()).await?;
    }
    client.flush().await?;
    let missing = || {
        let violations = violations(log).unwrap_or_default();
        let refused = |subject: &&String| {
            let named = format!("Subject \"{subject}\"");
            violations.iter().any(|line| line.contains("Publish Violation") && line.contains(&named))
        };
        subjects.iter().filter(|subject| !refused(subject)).cloned().collect::<Vec<_>>()
    };
    let refused = wait_until("everything is refused", SOON, || async { missing().is_empty() }).await;
    ensure!(refused.is_ok(), "it may publish on {:?}", missing());
    Ok(())
}
