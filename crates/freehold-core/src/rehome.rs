//! Giving a record to another site: the one command that every kind has.
//!
//! It stands in the group's log like any other, so that what precedes it is decided here and what follows is forwarded. The
//! update that it makes names the new owner under the next epoch: whoever has read it knows who decides from then on.
//!
//! The right to create ids moves in the same way: each group keeps it like a record, under an id that no caller can use.

use serde::{Deserialize, Serialize};

use crate::decision::{Decider, Decision, DecisionContext, RecordChange};
use crate::json::Json;
use crate::name::{CommandName, SiteName};
use crate::outcome::{ErrorCode, Refusal};

/// The command's name; no kind can have a command of its own with it.
pub const REHOME_COMMAND: &str = "rehome";

/// The command's fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rehome {
    /// The site that is to own the record.
    pub to: SiteName,
}

/// The reply to the command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehomed {
    /// The site that owns the record now.
    pub owner: SiteName,
}

/// The command's rule.
#[derive(Debug, Clone, Copy, Default)]
pub struct RehomeCommand;

fn read(body: &Json) -> Result<Rehome, Refusal> {
    let invalid = |why: &dyn std::fmt::Display| {
        Refusal::new(ErrorCode::Invalid, format!("the request's fields do not fit the command: {why}"))
    };
    if !body.is_object() {
        return Err(invalid(&"they must be a JSON object"));
    }
    body.read().map_err(|error| invalid(&error))
}

impl Decider for RehomeCommand {
    fn name(&self) -> CommandName {
        REHOME_COMMAND.parse().unwrap_or_else(|error| panic!("a fixed name: {error}"))
    }

    fn validate(&self, body: &Json) -> Result<(), Refusal> {
        read(body).map(|_| ())
    }

    fn decide(&self, body: &Json, _: Option<&Json>, context: &DecisionContext<'_>) -> Decision {
        let Rehome { to } = match read(body) {
            Ok(fields) => fields,
            Err(refusal) => return Decision::Refused(refusal),
        };
        if context.version.0 == 0 && !context.id.is_reserved() {
            let text = format!("there is no record {:?}", context.id.as_str());
            return Decision::Refused(Refusal::new(ErrorCode::NotFound, text));
        }
        match Json::from_value(&Rehomed { owner: to.clone() }) {
            Ok(reply) => Decision::Accepted { change: RecordChange::Moves(to), reply, emits: Vec::new() },
            Err(error) => Decision::Refused(Refusal::new(ErrorCode::Internal, error.to_string())),
        }
    }

    fn request_schema(&self) -> serde_json::Value {
        serde_json::json!({ "type": "object", "properties": { "to": { "type": "string" } }, "required": ["to"] })
    }

    fn reply_schema(&self) -> serde_json::Value {
        serde_json::json!({ "type": "object", "properties": { "owner": { "type": "string" } } })
    }
}
