//! `create`: a record comes into being.

use freehold::core::{CommandName, Decider, Decision, DecisionContext, Json, RecordVersion, Refusal, rejected};
use freehold::prelude::Rejection;
use serde::Serialize;

use crate::kind::command_name;
use crate::request;
use crate::schema::RecordSchema;
use crate::written::{Written, accepted};

/// Creates a record. Mints its id where the request has none.
#[derive(Debug, Clone)]
pub struct Create {
    /// What the record must fit.
    pub schema: Option<RecordSchema>,
}

/// The record exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("the record exists already, in version {version}")]
pub struct AlreadyExists {
    /// The version that it has.
    pub version: RecordVersion,
}

impl Rejection for AlreadyExists {
    fn code(&self) -> &'static str {
        "already_exists"
    }
}

impl Decider for Create {
    fn name(&self) -> CommandName {
        command_name("create")
    }

    fn validate(&self, body: &Json) -> Result<(), Refusal> {
        request::record(body).map(|_| ())
    }

    fn decide(&self, body: &Json, record: Option<&Json>, context: &DecisionContext<'_>) -> Decision {
        let document = match request::record(body) {
            Ok(document) => document,
            Err(refusal) => return Decision::Refused(refusal),
        };
        if record.is_some() {
            return Decision::Refused(rejected(&AlreadyExists { version: context.version }));
        }
        match self.schema.as_ref().map_or(Ok(()), |schema| schema.check(&document)) {
            Ok(()) => accepted(Some(document), context),
            Err(refusal) => Decision::Refused(refusal),
        }
    }

    fn mints_id(&self) -> bool {
        true
    }

    fn request_schema(&self) -> serde_json::Value {
        request::schema(Some("record"))
    }

    fn reply_schema(&self) -> serde_json::Value {
        Written::json_schema()
    }
}
