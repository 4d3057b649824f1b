//! `replace`: a record becomes another one.

use freehold::core::{CommandName, Decider, Decision, DecisionContext, Json, Refusal};

use crate::kind::command_name;
use crate::refusal::not_found;
use crate::request;
use crate::schema::RecordSchema;
use crate::written::{Written, accepted};

/// Replaces a record as a whole.
#[derive(Debug, Clone)]
pub struct Replace {
    /// What the record must fit.
    pub schema: Option<RecordSchema>,
}

impl Decider for Replace {
    fn name(&self) -> CommandName {
        command_name("replace")
    }

    fn validate(&self, body: &Json) -> Result<(), Refusal> {
        request::record(body).map(|_| ())
    }

    fn decide(&self, body: &Json, record: Option<&Json>, context: &DecisionContext<'_>) -> Decision {
        let document = match request::record(body) {
            Ok(document) => document,
            Err(refusal) => return Decision::Refused(refusal),
        };
        if record.is_none() {
            return Decision::Refused(not_found(context));
        }
        match self.schema.as_ref().map_or(Ok(()), |schema| schema.check(&document)) {
            Ok(()) => accepted(Some(document), context),
            Err(refusal) => Decision::Refused(refusal),
        }
    }

    fn request_schema(&self) -> serde_json::Value {
        request::schema(Some("record"))
    }

    fn reply_schema(&self) -> serde_json::Value {
        Written::json_schema()
    }
}
