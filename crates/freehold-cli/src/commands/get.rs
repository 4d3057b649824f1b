//! `freehold get`: a record from the copy of the instance that answers.

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use freehold_jetstream::SendOptions;

use crate::arguments::GetArguments;
use crate::context::Context;
use crate::failure::Verdict;
use crate::{json_text, printer};

/// A record as services show it. Its own text is never read, so that nothing of it is lost.
#[derive(Debug, Deserialize)]
pub(super) struct RecordView<'a> {
    pub(super) id: String,
    pub(super) version: u64,
    pub(super) owner: String,
    pub(super) updated_at: String,
    #[serde(borrow)]
    pub(super) record: &'a RawValue,
}

pub(crate) async fn run(context: &Context, arguments: GetArguments) -> anyhow::Result<Verdict> {
    let GetArguments { kind, id, min_version } = arguments;
    let client = context.connect().await?;
    let mut request = json!({ "id": id });
    if let Some(version) = min_version {
        request["min_version"] = json!(version);
    }
    let options = SendOptions { timeout: context.timeout(), ..SendOptions::default() };
    let answer = context.ask(&client, &kind, "get", request.to_string(), &options).await?;
    let body = match answer.result {
        Ok(body) => body,
        Err(refusal) => return context.refused(&refusal),
    };
    let text = std::str::from_utf8(&body)?;
    if context.json {
        printer::line(text)?;
    } else {
        let RecordView { id, version, owner, updated_at, record } = serde_json::from_str(text)?;
        printer::line(format!("{kind} {id}  version {version}, owned by {owner}, {updated_at}"))?;
        printer::line(json_text::indented(record.get()))?;
    }
    Ok(Verdict::Yes)
}
