//! `freehold history`: the versions of a record that the log still has.

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use freehold_jetstream::SendOptions;

use crate::arguments::HistoryArguments;
use crate::context::Context;
use crate::failure::Verdict;
use crate::printer;

#[derive(Deserialize)]
struct History<'a> {
    #[serde(borrow)]
    versions: Vec<Version<'a>>,
}

#[derive(Deserialize)]
struct Version<'a> {
    version: u64,
    updated_at: String,
    #[serde(borrow)]
    record: &'a RawValue,
    commands: Vec<Command>,
}

#[derive(Deserialize)]
struct Command {
    command_id: String,
    name: Option<String>,
    status: String,
}

pub(crate) async fn run(context: &Context, arguments: HistoryArguments) -> anyhow::Result<Verdict> {
    let HistoryArguments { kind, id } = arguments;
    let client = context.connect().await?;
    let options = SendOptions { timeout: context.timeout(), ..SendOptions::default() };
    let answer = context.ask(&client, &kind, "history", json!({ "id": id }).to_string(), &options).await?;
    let body = match answer.result {
        Ok(body) => body,
        Err(refusal) => return context.refused(&refusal),
    };
    let text = std::str::from_utf8(&body)?;
    if context.json {
        printer::line(text)?;
        return Ok(Verdict::Yes);
    }
    let history: History<'_> = serde_json::from_str(text)?;
    let mut table = printer::table_of(&["version", "time", "commands", "record"]);
    for Version { version, updated_at, record, commands } in &history.versions {
        let command = |Command { command_id, name, status }: &Command| {
            format!("{} {command_id} ({status})", name.as_deref().unwrap_or("?"))
        };
        let commands: Vec<_> = commands.iter().map(command).collect();
        let record = if record.get() == "null" { "(deleted)" } else { record.get() };
        table.add_row([&version.to_string(), updated_at, &commands.join("\n"), record]);
    }
    printer::table(&table)?;
    Ok(Verdict::Yes)
}
