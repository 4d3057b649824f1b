//! `patch`: some fields of a record change.

use freehold::core::{CommandName, Decider, Decision, DecisionContext, Json, Refusal};
use serde_json::value::RawValue;

use crate::document::Document;
use crate::kind::command_name;
use crate::merge::merge;
use crate::refusal::{internal, not_found};
use crate::request;
use crate::schema::RecordSchema;
use crate::written::{Written, accepted};

/// Merges an object into a record (RFC 7396): a member that is `null` goes, an object is merged, all else is replaced,
/// arrays as a whole. A patch that is no object is refused: it would replace the record by what is no record.
#[derive(Debug, Clone)]
pub struct Patch {
    /// What the patched record must fit.
    pub schema: Option<RecordSchema>,
}

impl Patch {
    fn patched(record: &Json, patch: &Document) -> Result<Document, Refusal> {
        let merged = record.read::<Box<RawValue>>().and_then(|record| merge(&record, patch));
        merged.map_err(|error| internal(&error))
    }
}

impl Decider for Patch {
    fn name(&self) -> CommandName {
        command_name("patch")
    }

    fn validate(&self, body: &Json) -> Result<(), Refusal> {
        request::patch(body).map(|_| ())
    }

    fn decide(&self, body: &Json, record: Option<&Json>, context: &DecisionContext<'_>) -> Decision {
        let patch = match request::patch(body) {
            Ok(patch) => patch,
            Err(refusal) => return Decision::Refused(refusal),
        };
        let Some(record) = record else {
            return Decision::Refused(not_found(context));
        };
        let checked = Self::patched(record, &patch).and_then(|document| {
            self.schema.as_ref().map_or(Ok(()), |schema| schema.check(&document)).map(|()| document)
        });
        match checked {
            Ok(document) => accepted(Some(document), context),
            Err(refusal) => Decision::Refused(refusal),
        }
    }

    fn request_schema(&self) -> serde_json::Value {
        request::schema(Some("patch"))
    }

    fn reply_schema(&self) -> serde_json::Value {
        Written::json_schema()
    }
}
