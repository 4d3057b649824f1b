//! `delete`: a record goes.

use freehold::core::{CommandName, Decider, Decision, DecisionContext, Json, Refusal};

use crate::kind::command_name;
use crate::refusal::not_found;
use crate::request;
use crate::written::{Written, accepted};

/// Deletes a record. It can be created again, and its version goes on counting.
#[derive(Debug, Clone, Copy)]
pub struct Delete;

impl Decider for Delete {
    fn name(&self) -> CommandName {
        command_name("delete")
    }

    fn validate(&self, body: &Json) -> Result<(), Refusal> {
        request::empty(body)
    }

    fn decide(&self, body: &Json, record: Option<&Json>, context: &DecisionContext<'_>) -> Decision {
        if let Err(refusal) = request::empty(body) {
            return Decision::Refused(refusal);
        }
        match record {
            Some(_) => accepted(None, context),
            None => Decision::Refused(not_found(context)),
        }
    }

    fn request_schema(&self) -> serde_json::Value {
        request::schema(None)
    }

    fn reply_schema(&self) -> serde_json::Value {
        Written::json_schema()
    }
}
