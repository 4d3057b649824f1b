//! `freehold send`: one command, under a command id, so that asking again is always safe.

use std::io::Read as _;

use anyhow::Context as _;

use freehold_core::{CommandId, ErrorCode};
use freehold_jetstream::{ApiError, SendOptions};

use crate::arguments::SendArguments;
use crate::context::Context;
use crate::failure::Verdict;
use crate::{json_text, printer};

pub(crate) async fn run(context: &Context, arguments: SendArguments) -> anyhow::Result<Verdict> {
    let SendArguments { kind, command, id, body, command_id, wait, if_version, owner_down } = arguments;
    let request = json_text::request(&read_body(&body)?, id.as_ref(), if_version)?;
    let command_id = match command_id {
        Some(command_id) => command_id,
        None => CommandId::from_caller(&ulid::Ulid::generate().to_string()).context("making a command id")?,
    };
    let client = context.connect().await?;
    let options = SendOptions { command_id: Some(command_id.clone()), wait, owner_down, timeout: context.timeout() };
    let again = || {
        printer::note(format!("It may have been applied or not: send it again with --command-id {command_id}"));
    };
    let answer = match context.ask(&client, &kind, command.as_str(), request, &options).await {
        Ok(answer) => answer,
        Err(error) => {
            if error.is::<ApiError>() {
                again();
            }
            return Err(error);
        }
    };
    let body = match answer.result {
        Ok(body) => body,
        Err(refusal) => {
            let verdict = context.refused(&refusal)?;
            if refusal.code == ErrorCode::OutcomeUnknown {
                again();
            }
            return Ok(verdict);
        }
    };
    let text = std::str::from_utf8(&body)?;
    printer::line(if context.json { text.to_owned() } else { json_text::indented(text) })?;
    Ok(Verdict::Yes)
}

/// The command's fields: the text itself, a file's, or stdin's.
fn read_body(argument: &str) -> anyhow::Result<String> {
    match argument.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("the body cannot be read from {path}")),
        None if argument == "-" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("the body cannot be read from stdin")?;
            Ok(text)
        }
        None => Ok(argument.to_owned()),
    }
}
