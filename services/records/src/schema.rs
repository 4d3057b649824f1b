//! The JSON Schema that a kind's records must fit.

use std::fmt;
use std::sync::Arc;

use freehold::core::{ErrorCode, Refusal};
use jsonschema::Validator;
use serde::Serialize;
use serde_json::Value;

use crate::document::Document;
use crate::refusal::shortened;

/// The most violations that a refusal lists.
pub const MAX_VIOLATIONS: usize = 16;

/// A text or value that is no JSON Schema.
#[derive(Debug, thiserror::Error)]
#[error("the JSON Schema cannot be used: {0}")]
pub struct SchemaError(String);

/// A JSON Schema, compiled once. Records are checked where a command is decided, as a whole and after a patch.
///
/// A decision is a pure function, so the schema must be the same wherever the kind is served: two instances with different
/// schemas would decide the same command differently, depending on which of them holds its group. Change it at all instances of all
/// sites; outcomes that are in the log stay as they are, and so do records that do not fit a new schema, until their next
/// `replace` or `patch`, which must make them fit. References to other documents are refused when the schema is compiled:
/// nothing is fetched, then or later.
#[derive(Clone)]
pub struct RecordSchema {
    source: Arc<Value>,
    validator: Arc<Validator>,
}

impl RecordSchema {
    /// Compiles a schema. The draft is the one that its `$schema` names, else 2020-12.
    pub fn compile(source: Value) -> Result<Self, SchemaError> {
        match jsonschema::validator_for(&source) {
            Ok(validator) => Ok(Self { source: Arc::new(source), validator: Arc::new(validator) }),
            Err(error) => Err(SchemaError(shortened(&error.to_string()))),
        }
    }

    /// The schema as it was given.
    pub fn source(&self) -> &Value {
        &self.source
    }

    /// Checks a record. A refusal lists where it does not fit and never repeats its values.
    pub(crate) fn check(&self, document: &Document) -> Result<(), Refusal> {
        let record: Value = match serde_json::from_str(document.as_str()) {
            Ok(record) => record,
            Err(error) => {
                return Err(Refusal::new(ErrorCode::Internal, format!("a checked record is no JSON: {error}")));
            }
        };
        let mut errors = self.validator.iter_errors(&record);
        let violations: Vec<_> = errors
            .by_ref()
            .take(MAX_VIOLATIONS)
            .map(|error| Violation {
                path: shortened(error.instance_path().as_str()),
                rule: shortened(error.schema_path().as_str()),
                message: shortened(&error.masked_with("the value").to_string()),
            })
            .collect();
        let Some(first) = violations.first() else {
            return Ok(());
        };
        let place = if first.path.is_empty() { "the record" } else { &first.path };
        let message = format!("the record does not fit the kind's JSON Schema: {place}: {}", first.message);
        let more = errors.next().is_some();
        Err(Refusal::new(ErrorCode::Invalid, message).with_details(&Violations { violations, more }))
    }
}

impl fmt::Debug for RecordSchema {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("RecordSchema").field(&self.source).finish()
    }
}

#[derive(Serialize)]
struct Violations {
    violations: Vec<Violation>,
    /// Whether there are more than are listed.
    more: bool,
}

#[derive(Serialize)]
struct Violation {
    /// JSON Pointer into the record; empty for the record itself.
    path: String,
    /// JSON Pointer into the schema.
    rule: String,
    message: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use serde_json::value::RawValue;

    use super::*;

    fn check(schema: Value, record: &str) -> Result<(), Refusal> {
        let document = Document::read(&RawValue::from_string(record.to_owned()).unwrap()).unwrap();
        RecordSchema::compile(schema).unwrap().check(&document)
    }

    fn details(refusal: Refusal) -> Value {
        assert_eq!(refusal.code, ErrorCode::Invalid);
        refusal.details.unwrap().read().unwrap()
    }

    #[test]
    fn a_refusal_says_where_and_which_rule_but_not_the_value() {
        let schema = json!({
            "type": "object",
            "properties": { "age": { "type": "integer", "minimum": 0 } },
            "required": ["name"],
        });
        assert_eq!(check(schema.clone(), r#"{"name":"x","age":5}"#), Ok(()));
        let refusal = check(schema, r#"{"age":"secret"}"#).unwrap_err();
        assert!(!refusal.message.contains("secret"), "{refusal:?}");
        let expected = json!({
            "violations": [
                { "path": "", "rule": "/required", "message": "\"name\" is a required property" },
                { "path": "/age", "rule": "/properties/age/type", "message": "the value is not of type \"integer\"" },
            ],
            "more": false,
        });
        assert_eq!(details(refusal), expected);
    }

    /// The validator keeps maps with random seeds: were their order to show, two instances would decide differently.
    #[test]
    fn instances_that_compile_the_same_schema_refuse_in_the_same_words() {
        let names: Vec<_> = (0..20).map(|index| format!("n{index}")).collect();
        let properties: Value = names.iter().map(|name| (name.clone(), json!({ "type": "string" }))).collect();
        let schema = json!({
            "properties": properties,
            "patternProperties": { "^n1": { "maxLength": 1 }, "^n": { "minLength": 5 } },
            "required": ["x", "y", "z"],
            "dependentRequired": { "n1": ["p"], "n2": ["q"] },
            "oneOf": [
                { "properties": { "kind": { "const": "a" }, "a": { "type": "string" } }, "required": ["kind", "a"] },
                { "properties": { "kind": { "const": "b" }, "b": { "type": "string" } }, "required": ["kind", "b"] },
            ],
            "unevaluatedProperties": false,
        });
        for record in [
            r#"{"n1":"1234","n2":2,"n3":3,"u":1,"v":2,"w":3,"kind":"c"}"#,
            r#"{"n1":1,"n2":"123456","n10":"123","u":1,"v":2,"w":3,"kind":"b","a":5}"#,
            r#"{"x":1,"y":2,"z":3,"kind":"a","a":"","u":1,"v":2,"w":3,"t":4}"#,
        ] {
            let first = check(schema.clone(), record).unwrap_err();
            for _ in 0..50 {
                assert_eq!(check(schema.clone(), record).unwrap_err(), first);
            }
        }
    }

    #[test]
    fn the_list_of_violations_is_bounded_in_number_and_length() {
        let schema = json!({ "additionalProperties": { "type": "string" } });
        let record = |count: usize| {
            let members: Vec<_> = (0..count).map(|index| format!("\"{index}{}\":1", "k".repeat(10_000))).collect();
            format!("{{{}}}", members.join(","))
        };
        for (count, more) in [(MAX_VIOLATIONS, false), (MAX_VIOLATIONS + 1, true), (100, true)] {
            let refusal = check(schema.clone(), &record(count)).unwrap_err();
            assert!(serde_json::to_string(&refusal).unwrap().len() < 20_000);
            let details = details(refusal);
            assert_eq!(details["violations"].as_array().unwrap().len(), MAX_VIOLATIONS);
            assert_eq!(details["more"], more);
        }
    }

    #[test]
    fn what_is_no_schema_is_refused_when_the_service_starts() {
        for bad in [
            json!(5),
            json!({ "type": "objekt" }),
            json!({ "pattern": "(" }),
            json!({ "$ref": "#/nowhere" }),
            json!({ "$ref": "https://example.com/other.json" }),
            json!({ "$ref": "file:///etc/passwd" }),
        ] {
            assert!(RecordSchema::compile(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_schema_that_never_ends_does_not_take_the_instance_down() {
        let nested = format!("{}1{}", "{\"a\":".repeat(64), "}".repeat(64));
        let recursive = json!({ "additionalProperties": { "anyOf": [{ "$ref": "#" }, { "type": "integer" }] } });
        assert_eq!(check(recursive, &nested), Ok(()));
        // Each of these refers to itself without going deeper into the record.
        for endless in [json!({ "$ref": "#" }), json!({ "allOf": [{ "$ref": "#" }] })] {
            if let Ok(schema) = RecordSchema::compile(endless) {
                let document = Document::read(&RawValue::from_string("{}".to_owned()).unwrap()).unwrap();
                let _ = schema.check(&document);
            }
        }
    }

    #[test]
    fn an_expression_that_backtracks_is_bounded() {
        let schema = json!({ "properties": { "a": { "pattern": "^(a+)+$(?!b)" } } });
        let record = format!("{{\"a\":\"{}!\"}}", "a".repeat(5_000));
        assert!(check(schema, &record).is_err());
    }
}
