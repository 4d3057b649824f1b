//! Each command in each situation: what becomes of the record, or which refusal.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use freehold::core::{
    Decision, DecisionContext, ErrorCode, HomeRule, Json, KindDefinition, LogTime, RecordChange, RecordVersion, Refusal,
};
use freehold::prelude::CommandId;
use records::{RecordSchema, kind_definition};
use serde_json::{Value, json};

const RECORD: &str = r#"{"name":"Ann","age":5}"#;

fn plain() -> KindDefinition {
    kind_definition("customer".parse().unwrap(), HomeRule::Prefix, None)
}

fn with_schema() -> KindDefinition {
    let schema = json!({
        "type": "object",
        "properties": { "name": { "type": "string" }, "age": { "type": "integer", "minimum": 0 } },
        "required": ["name"],
    });
    kind_definition("customer".parse().unwrap(), HomeRule::Prefix, Some(RecordSchema::compile(schema).unwrap()))
}

fn decide(kind: &KindDefinition, command: &str, body: &str, record: Option<&str>) -> Decision {
    let (id, site) = ("ewr-1".parse().unwrap(), "ewr".parse().unwrap());
    let command_id = CommandId::from_caller("test").unwrap();
    let context = DecisionContext::new(&id, &command_id, LogTime(0), RecordVersion(7), &site);
    let json = |text: &str| Json::from_text(text.to_owned()).unwrap();
    kind.commands[&command.parse().unwrap()].decide(&json(body), record.map(json).as_ref(), &context)
}

#[track_caller]
fn check(kind: &KindDefinition, command: &str, body: &str, record: Option<&str>, expected: Option<&str>) {
    match decide(kind, command, body, record) {
        Decision::Accepted { change, reply, emits } => {
            let becomes = match change {
                RecordChange::Becomes(record) => Some(record.as_str().to_owned()),
                RecordChange::Deleted => None,
                RecordChange::Unchanged | RecordChange::Moves(_) => panic!("{command} {body}: no version was made"),
            };
            assert_eq!(becomes.as_deref(), expected, "{command} {body}");
            assert_eq!(reply.as_str(), r#"{"id":"ewr-1","version":8}"#);
            assert!(emits.is_empty());
        }
        Decision::Refused(refusal) => panic!("{command} {body}: {refusal:?}"),
    }
}

fn refusal(kind: &KindDefinition, command: &str, body: &str, record: Option<&str>) -> Refusal {
    match decide(kind, command, body, record) {
        Decision::Refused(refusal) => refusal,
        accepted @ Decision::Accepted { .. } => panic!("{command} {body}: {accepted:?}"),
    }
}

#[test]
fn what_each_command_makes_of_a_record() {
    for kind in [plain(), with_schema()] {
        check(&kind, "create", r#"{"record": {"name": "Bob"}}"#, None, Some(r#"{"name":"Bob"}"#));
        check(&kind, "replace", r#"{"record":{"name":"Bob"}}"#, Some(RECORD), Some(r#"{"name":"Bob"}"#));
        check(&kind, "replace", &format!(r#"{{"record":{RECORD}}}"#), Some(RECORD), Some(RECORD));
        check(&kind, "patch", r#"{"patch":{"age":6}}"#, Some(RECORD), Some(r#"{"name":"Ann","age":6}"#));
        check(&kind, "patch", r#"{"patch":{"age":null}}"#, Some(RECORD), Some(r#"{"name":"Ann"}"#));
        check(&kind, "patch", r#"{"patch":{}}"#, Some(RECORD), Some(RECORD));
        check(&kind, "delete", "{}", Some(RECORD), None);
    }
}

#[test]
fn a_record_is_created_once() {
    let refusal = refusal(&plain(), "create", r#"{"record":{}}"#, Some(RECORD));
    assert_eq!(refusal.code, ErrorCode::Rejected);
    assert_eq!(refusal.details.unwrap().as_str(), r#"{"rejection":"already_exists","reason":{"version":7}}"#);
}

#[test]
fn what_is_not_there_is_not_changed() {
    for (command, body) in [("replace", r#"{"record":{}}"#), ("patch", r#"{"patch":{}}"#), ("delete", "{}")] {
        let refusal = refusal(&with_schema(), command, body, None);
        assert_eq!(refusal.code, ErrorCode::NotFound, "{command}");
        assert!(refusal.message.contains("ewr-1"));
    }
}

#[test]
fn requests_that_do_not_fit_are_refused_before_and_behind_the_log() {
    let kind = plain();
    let deep = format!(r#"{{"record":{}1{}}}"#, r#"{"a":"#.repeat(5_000), "}".repeat(5_000));
    let cases = [
        ("create", "{}"),
        ("create", "null"),
        ("create", "[{}]"),
        ("create", r#"{"record":null}"#),
        ("create", r#"{"record":[]}"#),
        ("create", r#"{"record":"x"}"#),
        ("create", r#"{"record":{},"recrod":{}}"#),
        ("create", r#"{"record":{},"record":{}}"#),
        ("create", r#"{"record":{"a":1,"a":2}}"#),
        ("create", r#"{"record":{"a":1e999}}"#),
        ("create", r#"{"patch":{}}"#),
        ("create", &deep),
        ("replace", r#"{"record":5}"#),
        ("replace", r#"{"record":{"a":{"b":1,"b":1}}}"#),
        ("replace", r#"{"record":{},"patch":{}}"#),
        ("replace", &deep),
        ("patch", "{}"),
        ("patch", "[{}]"),
        ("patch", r#"{"patch":null}"#),
        ("patch", r#"{"patch":[]}"#),
        ("patch", r#"{"patch":{"a":1,"a":null}}"#),
        ("patch", r#"{"record":{}}"#),
        ("patch", &deep.replace("record", "patch")),
        ("delete", "[]"),
        ("delete", r#"{"record":{}}"#),
        ("delete", r#"{"force":true}"#),
    ];
    for (command, body) in cases {
        let decider = &kind.commands[&command.parse().unwrap()];
        let before = decider.validate(&Json::from_text(body.to_owned()).unwrap()).unwrap_err();
        assert_eq!(before.code, ErrorCode::Invalid, "{command} {body}");
        for record in [None, Some(RECORD)] {
            assert_eq!(refusal(&kind, command, body, record), before, "{command} {body}");
        }
    }
}

#[test]
fn a_refusal_does_not_grow_with_the_request() {
    let long = "k".repeat(100_000);
    for body in [
        format!(r#"{{"record":{{}},"{long}":1}}"#),
        format!(r#"{{"record":{{"{long}":1,"{long}":2}}}}"#),
        format!(r#"{{"record":"{long}"}}"#),
    ] {
        let refusal = refusal(&plain(), "create", &body, None);
        assert!(serde_json::to_string(&refusal).unwrap().len() < 2_000);
    }
}

#[test]
fn the_schema_holds_for_every_way_to_make_a_record() {
    let kind = with_schema();
    let cases = [
        ("create", r#"{"record":{"age":5}}"#, None, "/required"),
        ("create", r#"{"record":{"name":"x","age":-1}}"#, None, "/properties/age/minimum"),
        ("replace", r#"{"record":{"name":1}}"#, Some(RECORD), "/properties/name/type"),
        ("patch", r#"{"patch":{"name":null}}"#, Some(RECORD), "/required"),
        ("patch", r#"{"patch":{"age":"old"}}"#, Some(RECORD), "/properties/age/type"),
        // A record from before the schema: the patch must make the whole record fit.
        ("patch", r#"{"patch":{"age":1}}"#, Some("{}"), "/required"),
    ];
    for (command, body, record, rule) in cases {
        let refusal = refusal(&kind, command, body, record);
        assert_eq!(refusal.code, ErrorCode::Invalid, "{command} {body}");
        let details: Value = refusal.details.unwrap().read().unwrap();
        assert_eq!(details["violations"][0]["rule"], rule, "{command} {body}");
    }
    check(&kind, "patch", r#"{"patch":{"name":"x"}}"#, Some("{}"), Some(r#"{"name":"x"}"#));
    check(&kind, "delete", "{}", Some(r#"{"age":-1}"#), None);
}

#[test]
fn a_patch_beside_a_long_number_leaves_its_digits() {
    let record = r#"{"balance":123456789012345678901234.10,"note":"x"}"#;
    let patched = r#"{"balance":123456789012345678901234.10,"note":"y"}"#;
    check(&plain(), "patch", r#"{"patch":{"note":"y"}}"#, Some(record), Some(patched));
}

#[test]
fn the_kind_tells_what_it_takes() {
    let kind = with_schema();
    assert_eq!(kind.record_schema["required"], json!(["name"]));
    assert_eq!(plain().record_schema, json!({ "type": "object" }));
    let names: Vec<_> = kind.commands.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["create", "delete", "patch", "replace"]);
    for (name, decider) in &kind.commands {
        assert_eq!(decider.mints_id(), name.as_str() == "create", "{name}");
        for schema in [decider.request_schema(), decider.reply_schema()] {
            assert!(RecordSchema::compile(schema).is_ok(), "{name}");
        }
    }
}
