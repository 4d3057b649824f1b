//! `freehold list`: records page by page, printed as they come, never more than a page in memory.

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use freehold_jetstream::SendOptions;

use super::get::RecordView;
use crate::arguments::ListArguments;
use crate::context::Context;
use crate::failure::Verdict;
use crate::printer;

/// Records that are asked for at once; a service gives no more.
pub(super) const PAGE_RECORDS: u64 = 1_000;

#[derive(Deserialize)]
pub(super) struct Page<'a> {
    #[serde(borrow)]
    pub(super) records: Vec<&'a RawValue>,
    pub(super) cursor: Option<String>,
}

pub(crate) async fn run(context: &Context, arguments: ListArguments) -> anyhow::Result<Verdict> {
    let ListArguments { kind, prefix, limit, all, cursor } = arguments;
    let client = context.connect().await?;
    let options = SendOptions { timeout: context.timeout(), ..SendOptions::default() };
    let mut left = if all { u64::MAX } else { limit };
    let mut cursor = cursor.map(|id| id.to_string());
    loop {
        let request = json!({ "prefix": prefix, "limit": left.min(PAGE_RECORDS), "cursor": cursor });
        let answer = context.ask(&client, &kind, "list", request.to_string(), &options).await?;
        let body = match answer.result {
            Ok(body) => body,
            Err(refusal) => return context.refused(&refusal),
        };
        let page: Page<'_> = serde_json::from_slice(&body)?;
        for record in &page.records {
            print(context, record)?;
        }
        left = left.saturating_sub(u64::try_from(page.records.len()).unwrap_or(u64::MAX));
        cursor = page.cursor;
        match &cursor {
            None => return Ok(Verdict::Yes),
            Some(cursor) if left == 0 => {
                if !context.json {
                    printer::note(format!("There may be more: --all, a greater --limit, or --cursor {cursor:?}"));
                }
                return Ok(Verdict::Yes);
            }
            Some(_) => {}
        }
    }
}

fn print(context: &Context, record: &RawValue) -> anyhow::Result<()> {
    if context.json {
        printer::line(record.get())?;
    } else {
        let RecordView { id, version, owner, updated_at, record } = serde_json::from_str(record.get())?;
        printer::line(format!("{id}\tversion {version}\t{owner}\t{updated_at}\t{}", record.get()))?;
    }
    Ok(())
}
