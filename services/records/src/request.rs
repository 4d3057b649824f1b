//! What the commands read of a request.

use freehold::core::{Json, Refusal};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Error as _};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::document::Document;
use crate::refusal::invalid;

/// The record of `create` and `replace`.
pub(crate) fn record(body: &Json) -> Result<Document, Refusal> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Request {
        record: Box<RawValue>,
    }
    read::<Request>(body).and_then(|request| Document::read(&request.record)).map_err(|error| invalid(&error))
}

/// The patch of `patch`.
pub(crate) fn patch(body: &Json) -> Result<Document, Refusal> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Request {
        patch: Box<RawValue>,
    }
    read::<Request>(body).and_then(|request| Document::read(&request.patch)).map_err(|error| invalid(&error))
}

/// The nothing of `delete`.
pub(crate) fn empty(body: &Json) -> Result<(), Refusal> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Request {}
    read::<Request>(body).map(|Request {}| ()).map_err(|error| invalid(&error))
}

/// JSON Schema of a request with one object or with nothing. The kind's own schema is published as the record's; inside another
/// schema its references would point elsewhere.
pub(crate) fn schema(field: Option<&str>) -> Value {
    match field {
        Some(field) => json!({
            "type": "object",
            "properties": { field: { "type": "object" } },
            "required": [field],
            "additionalProperties": false,
        }),
        None => json!({ "type": "object", "additionalProperties": false }),
    }
}

/// Reads an object. `serde` alone would take an array too, its items as the fields in their order.
fn read<T: DeserializeOwned>(body: &Json) -> Result<T, serde_json::Error> {
    if !body.as_str().starts_with('{') {
        return Err(serde_json::Error::custom("they must be a JSON object"));
    }
    body.read()
}
