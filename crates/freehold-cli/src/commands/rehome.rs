//! `freehold rehome`: records move from one site to another, each by a command in its owner's log.
//!
//! The command id names the record's epoch, so that a run that was interrupted is gone on with by the same command.

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::json;

use freehold_core::{CommandId, Epoch, ErrorCode, KindName, REHOME_COMMAND, RecordId, SiteName, subject};
use freehold_jetstream::{Client, SendOptions};

use super::list::{PAGE_RECORDS, Page};
use crate::arguments::RehomeArguments;
use crate::context::Context;
use crate::failure::Verdict;
use crate::printer;

/// The request that moves the right to create records.
const REHOME_RIGHT: &str = "rehome-right";
/// The pause before a site that does not answer is asked again.
const RETRY_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
/// Records that are on the move at a time.
const MAX_MOVING: usize = 64;

#[derive(Debug, Deserialize)]
struct Owned {
    id: RecordId,
    owner: SiteName,
    epoch: Epoch,
}

pub(crate) async fn run(context: &Context, arguments: RehomeArguments) -> anyhow::Result<Verdict> {
    let RehomeArguments { kind, record, prefix, all, from, to, dry_run } = arguments;
    let prefix = if all { Some(String::new()) } else { prefix };
    if from == to {
        bail!("--from and --to are the same site");
    }
    let client = context.connect().await?;
    let options = SendOptions { timeout: context.timeout(), ..SendOptions::default() };
    if let Some(prefix) = prefix.as_ref().filter(|_| !dry_run) {
        // First the right to create more of them, so that none is left behind.
        let command_id = CommandId::from_caller(&ulid::Ulid::generate().to_string())?;
        let body = json!({ "prefix": prefix, "to": to }).to_string();
        let subject = subject::operator(&from, &kind, REHOME_RIGHT);
        ask_until_done(&client, subject, body, command_id, &options)
            .await
            .context("moving the right to create records")?;
    }
    let owned = match record {
        Some(id) => {
            let request = json!({ "id": id }).to_string();
            match context.ask(&client, &kind, "get", request, &options).await?.result {
                Ok(body) => vec![serde_json::from_slice::<Owned>(&body)?],
                Err(refusal) => return context.refused(&refusal),
            }
        }
        None => list(context, &client, &kind, prefix.unwrap_or_default(), &options).await?,
    };
    let found = owned.len();
    let moving: Vec<_> = owned.into_iter().filter(|record| record.owner == from).collect();
    let elsewhere = found - moving.len();
    if dry_run {
        for record in moving.iter().filter(|_| !context.json) {
            printer::line(record.id.as_str())?;
        }
        report(context, moving.len(), 0, elsewhere, true)?;
        return Ok(Verdict::Yes);
    }
    let style = ProgressStyle::with_template("moving {bar:30} {human_pos}/{human_len} records {per_sec} {eta}");
    let progress = ProgressBar::new(u64::try_from(moving.len()).unwrap_or(u64::MAX))
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut moves = stream::iter(moving.iter().map(|record| give(&client, &kind, record, &from, &to, &options)))
        .buffer_unordered(MAX_MOVING);
    let mut moved = 0;
    while let Some(was_moved) = moves.try_next().await? {
        moved += usize::from(was_moved);
        progress.inc(1);
    }
    progress.finish_and_clear();
    report(context, moving.len(), moved, elsewhere, false)?;
    Ok(Verdict::Yes)
}

/// All records with a prefix, in the order of their ids.
async fn list(
    context: &Context,
    client: &Client,
    kind: &KindName,
    prefix: String,
    options: &SendOptions,
) -> anyhow::Result<Vec<Owned>> {
    let mut found = Vec::new();
    let mut cursor = None;
    loop {
        let request = json!({ "prefix": prefix, "limit": PAGE_RECORDS, "cursor": cursor }).to_string();
        let body = match context.ask(client, kind, "list", request, options).await?.result {
            Ok(body) => body,
            Err(refusal) => bail!("{}: {}", refusal.code.as_str(), refusal.message),
        };
        let page: Page<'_> = serde_json::from_slice(&body)?;
        for record in page.records {
            found.push(serde_json::from_str(record.get())?);
        }
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(found);
        }
    }
}

/// Moves one record; tells whether it was still there to be moved.
async fn give(
    client: &Client,
    kind: &KindName,
    record: &Owned,
    from: &SiteName,
    to: &SiteName,
    options: &SendOptions,
) -> anyhow::Result<bool> {
    let command_id = CommandId::from_caller(&format!("rehome-{}-{to}", record.epoch))?;
    let body = json!({ "id": record.id, "to": to }).to_string();
    let subject = subject::operator(from, kind, REHOME_COMMAND);
    ask_until_done(client, subject, body, command_id, options).await.with_context(|| record.id.to_string())
}

/// Asks an operator's request again until it is answered for good; tells whether there was something to do it to.
async fn ask_until_done(
    client: &Client,
    subject: String,
    body: String,
    command_id: CommandId,
    options: &SendOptions,
) -> anyhow::Result<bool> {
    let options = SendOptions { command_id: Some(command_id), ..options.clone() };
    let body = Bytes::from(body);
    let deadline = tokio::time::Instant::now() + options.timeout;
    loop {
        let in_time = tokio::time::Instant::now() < deadline;
        match client.request_to(subject.clone(), body.clone(), &options).await.map(|answer| answer.result) {
            Ok(Ok(_)) => return Ok(true),
            Ok(Err(refusal)) => match refusal.code {
                ErrorCode::NotFound => return Ok(false),
                ErrorCode::Busy | ErrorCode::OutcomeUnknown if in_time => {}
                code => bail!("{}: {}", code.as_str(), refusal.message),
            },
            Err(_) if in_time => tokio::time::sleep(RETRY_PAUSE).await,
            Err(error) => return Err(error).context("the site does not answer"),
        }
    }
}

fn report(context: &Context, selected: usize, moved: usize, elsewhere: usize, dry_run: bool) -> anyhow::Result<()> {
    if context.json {
        printer::json(&json!({ "selected": selected, "moved": moved, "elsewhere": elsewhere, "dry_run": dry_run }))?;
    } else {
        let what = if dry_run { format!("{selected} would move") } else { format!("{moved} of {selected} moved") };
        printer::note(format!("{what}; {elsewhere} belong to other sites"));
    }
    Ok(())
}
