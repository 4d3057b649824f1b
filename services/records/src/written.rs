//! What the caller of an accepted command gets.

use freehold::core::{Decision, DecisionContext, Json, RecordChange, RecordVersion};
use serde::{Deserialize, Serialize};

use crate::document::Document;
use crate::refusal::internal;

/// The reply of all four commands: which record, and its version behind the command. The id is news to who let it be minted, the
/// version is what the next `if_version` needs. The record itself is not repeated: replies are kept in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The record's id.
    pub id: String,
    /// The record's version behind the command.
    pub version: RecordVersion,
}

impl Written {
    /// JSON Schema of the reply.
    pub(crate) fn json_schema() -> serde_json::Value {
        serde_json::json!({
            "type": "object",
            "properties": {
                "id": { "type": "string", "description": "The record's id." },
                "version": { "type": "integer", "minimum": 1, "description": "The record's version behind the command." },
            },
            "required": ["id", "version"],
            "additionalProperties": false,
        })
    }
}

/// The record becomes this document, or is deleted where there is none; one version further.
pub(crate) fn accepted(document: Option<Document>, context: &DecisionContext<'_>) -> Decision {
    let change = match document.map(Document::into_json) {
        None => RecordChange::Deleted,
        Some(Ok(record)) => RecordChange::Becomes(record),
        Some(Err(error)) => return Decision::Refused(internal(&error)),
    };
    let written = Written { id: context.id.to_string(), version: context.version.next() };
    match Json::from_value(&written) {
        Ok(reply) => Decision::Accepted { change, reply, emits: Vec::new() },
        Err(error) => Decision::Refused(internal(&error)),
    }
}
