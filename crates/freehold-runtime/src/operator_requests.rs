//! What operators ask of a site as a whole: to give the right to create ids away.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use freehold_core::{
    CommandId, CommandMessage, Decider as _, ErrorCode, GroupNumber, Json, KindDefinition, Outcome, RecordId, Refusal,
    Rehome, RehomeCommand, SiteName, Status, home_right_owner,
};
use freehold_jetstream::Request;

use crate::request_handler::{
    Answer, COMMAND_ID_HEADER, RequestHandler, invalid_command_id, mint_command_id, unreadable_copy,
};

/// The request that moves the right to create ids.
pub(crate) const REHOME_RIGHT: &str = "rehome-right";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RehomeRight {
    prefix: String,
    to: SiteName,
}

/// Gives the right to create ids that start with a prefix away, in every group in which this site has it. Asked again, it goes on
/// with what is left.
pub(crate) async fn rehome_right(
    handler: &RequestHandler,
    definition: &KindDefinition,
    request: &Request,
) -> Result<Answer, Refusal> {
    let deadline = Instant::now() + handler.decide_timeout;
    let invalid = |why: String| Refusal::new(ErrorCode::Invalid, why);
    let asked: Result<RehomeRight, _> = serde_json::from_slice(request.payload());
    let RehomeRight { prefix, to } = asked.map_err(|error| invalid(format!("the request cannot be read: {error}")))?;
    let command_id = match request.header(COMMAND_ID_HEADER) {
        Some(text) => CommandId::from_caller(text).map_err(|error| invalid_command_id(&error))?,
        None => mint_command_id()?,
    };
    let rights = rights_of(handler, definition, &prefix)?;
    let body = Json::from_value(&Rehome { to }).map_err(|error| invalid(error.to_string()))?;
    let moves = rights.into_iter().map(|(group, id)| {
        let command = CommandMessage {
            kind: definition.name.clone(),
            id,
            name: RehomeCommand.name(),
            command_id: command_id.clone(),
            if_version: None,
            owner_down: None,
            body: body.clone(),
        };
        move_right(handler, group, command, deadline)
    });
    let moved = try_join_all(moves).await?.len();
    let reply = BTreeMap::from([("rights", moved)]);
    let reply = serde_json::to_vec(&reply).map_err(|error| Refusal::new(ErrorCode::Internal, error.to_string()))?;
    Ok(Answer { result: Ok(reply.into()), headers: vec![(COMMAND_ID_HEADER, command_id.to_string())] })
}

/// The rights that this site has over ids with a prefix, whichever site they began at.
fn rights_of(
    handler: &RequestHandler,
    definition: &KindDefinition,
    prefix: &str,
) -> Result<Vec<(GroupNumber, RecordId)>, Refusal> {
    let snapshot = handler.copy.reader.snapshot().map_err(|error| unreadable_copy(&error))?;
    let mut rights = Vec::new();
    for home in handler.copy.progress.keys() {
        for group in definition.settings.groups.groups() {
            let owner = home_right_owner(&snapshot, &definition.name, group, home, prefix);
            if owner.map_err(|error| unreadable_copy(&error))? == handler.site {
                let id = RecordId::of_home_right(group, home, prefix);
                let id = id.map_err(|error| Refusal::new(ErrorCode::Invalid, format!("\"prefix\": {error}")))?;
                rights.push((group, id));
            }
        }
    }
    Ok(rights)
}

async fn move_right(
    handler: &RequestHandler,
    group: GroupNumber,
    command: CommandMessage,
    deadline: Instant,
) -> Result<(), Refusal> {
    let CommandMessage { kind, id, command_id, .. } = &command;
    let mut waiter = handler.copy.waiters.outcome(kind, id, command_id);
    let outcome = match handler.known_outcome(kind, id, command_id)? {
        Some(outcome) => outcome,
        None => {
            let appended = handler.commands.append(group, &command, None).await;
            appended.map_err(|error| handler.append_refusal(&error, command_id))?;
            let late = || Refusal::new(ErrorCode::OutcomeUnknown, "not every group has moved yet: send it again");
            timeout_at(deadline, waiter.wait()).await.map_err(|_| late())?
        }
    };
    match outcome.change.outcome {
        Outcome { status: Status::Applied, .. } => Ok(()),
        Outcome { error, .. } => Err(error.unwrap_or_else(|| Refusal::new(ErrorCode::Internal, "no reason is known"))),
    }
}
