//! `freehold stranded`: what a site had when it was taken over, and that does not count.

use anyhow::Context as _;
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::json;

use freehold_core::{CommandMessage, KindName, SiteName, Status, Stranded, StreamSequence};
use freehold_jetstream::{Client, SendOptions, StrandedLog};

use crate::arguments::StrandedArguments;
use crate::context::Context;
use crate::failure::Verdict;
use crate::printer;

/// One entry, as it is printed.
#[derive(Serialize)]
struct Line<'a> {
    kind: &'a KindName,
    #[serde(flatten)]
    entry: &'a Stranded,
}

pub(crate) async fn run(context: &Context, arguments: StrandedArguments) -> anyhow::Result<Verdict> {
    let StrandedArguments { site, resubmit, forget } = arguments;
    let client = context.connect().await?;
    let log = StrandedLog::new(client.connection().in_domain(&site), site.clone());
    let entries = log.entries().await.with_context(|| format!("site {site} at {}", context.url()))?;
    if resubmit {
        return send_again(context, &client, &site, &entries).await;
    }
    if context.json {
        for (_, kind, entry) in &entries {
            printer::json(&Line { kind, entry })?;
        }
    } else {
        let mut table = printer::table_of(&["what", "kind", "id", "command", "place", "outcome"]);
        for (_, kind, entry) in &entries {
            let (what, id, command, place, outcome) = columns(entry);
            table.add_row([what.to_owned(), kind.to_string(), id, command, place.to_string(), outcome]);
        }
        printer::table(&table)?;
        let count = |is: fn(&Stranded) -> bool| entries.iter().filter(|(_, _, entry)| is(entry)).count();
        let updates = count(|entry| matches!(entry, Stranded::Update { .. }));
        let outcomes = count(|entry| matches!(entry, Stranded::Outcome { .. }));
        let commands = count(|entry| matches!(entry, Stranded::Command { .. }));
        printer::note(format!("{updates} updates, {outcomes} outcomes and {commands} commands are stranded at {site}"));
    }
    if let Some((last, _, _)) = entries.last().filter(|_| forget) {
        log.forget(*last).await?;
        printer::note("all of it is forgotten");
    }
    Ok(Verdict::Yes)
}

fn columns(entry: &Stranded) -> (&'static str, String, String, StreamSequence, String) {
    match entry {
        Stranded::Update { sequence, update, .. } => {
            let commands: Vec<_> = update.changes.iter().map(|change| change.command_id.to_string()).collect();
            ("update", update.id.to_string(), commands.join(" "), *sequence, format!("version {}", update.version))
        }
        Stranded::Outcome { sequence, change, .. } => {
            let id = change.id.as_ref().map(ToString::to_string).unwrap_or_default();
            let outcome = match change.outcome.status {
                Status::Applied => "applied",
                Status::Rejected => "rejected",
                Status::Refused => "refused",
                Status::Dead => "dead",
                _ => "forwarded",
            };
            ("outcome", id, change.command_id.to_string(), *sequence, outcome.to_owned())
        }
        Stranded::Command { sequence, command, .. } => {
            ("command", command.id.to_string(), command.command_id.to_string(), *sequence, command.name.to_string())
        }
    }
}

/// Sends commands again, one after the other, under their own ids: one that was decided meanwhile is answered from that.
async fn send_again(
    context: &Context,
    client: &Client,
    site: &SiteName,
    entries: &[(StreamSequence, KindName, Stranded)],
) -> anyhow::Result<Verdict> {
    let commands: Vec<_> = entries
        .iter()
        .filter_map(|(_, kind, entry)| match entry {
            Stranded::Command { command, .. } => Some((kind, command.as_ref())),
            Stranded::Update { .. } | Stranded::Outcome { .. } => None,
        })
        .collect();
    let progress = ProgressBar::new(u64::try_from(commands.len()).unwrap_or(u64::MAX));
    let (mut applied, mut refused) = (0, 0);
    for (kind, command) in &commands {
        let CommandMessage { id, name, command_id, if_version, owner_down, body, .. } = command;
        let mut fields: serde_json::Map<String, serde_json::Value> = body.read().unwrap_or_default();
        fields.insert("id".to_owned(), json!(id));
        if let Some(version) = if_version {
            fields.insert("if_version".to_owned(), json!(version));
        }
        let (command_id, owner_down) = (Some(command_id.clone()), *owner_down);
        let options = SendOptions { command_id, owner_down, timeout: context.timeout(), ..SendOptions::default() };
        let body = serde_json::Value::Object(fields).to_string().into();
        let answer = client.request_until_answered(kind, name.as_str(), body, &options, context.timeout()).await;
        match answer.with_context(|| format!("sending {name} of {id} again"))?.result {
            Ok(_) => applied += 1,
            Err(refusal) => {
                refused += 1;
                progress.suspend(|| printer::note(format!("{id}: {}: {}", refusal.code.as_str(), refusal.message)));
            }
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    if context.json {
        printer::json(&json!({ "site": site, "sent": commands.len(), "applied": applied, "refused": refused }))?;
    } else {
        printer::note(format!("{} commands sent again: {applied} applied, {refused} refused", commands.len()));
    }
    Ok(if refused == 0 { Verdict::Yes } else { Verdict::No })
}
