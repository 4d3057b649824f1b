//! JSON merge patch (RFC 7396) on texts.
//!
//! Not on parsed values: those would print a long number again with other digits, in a field that the patch never named.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use crate::document::Document;

/// The record that a patch makes of a record. Both were checked, so the recursion is bounded by their depth, and no key
/// occurs twice in the result.
pub(crate) fn merge(record: &RawValue, patch: &Document) -> Result<Document, serde_json::Error> {
    let patch: Members = serde_json::from_str(patch.as_str())?;
    let merged = merge_object(Some(record), patch)?;
    serde_json::to_string(&merged).map(Document::of_merge)
}

fn merge_object(target: Option<&RawValue>, patch: Members) -> Result<Members, serde_json::Error> {
    let target = match target {
        Some(object) if is_object(object) => serde_json::from_str(object.get())?,
        _ => Members::default(),
    };
    let mut merged = Members(Vec::with_capacity(target.0.len() + patch.0.len()));
    let mut changes: BTreeMap<&str, &RawValue> =
        patch.0.iter().map(|(key, value)| (key.as_str(), value.as_ref())).collect();
    for (key, value) in target.0 {
        let kept = match changes.remove(key.as_str()) {
            None => Some(value),
            Some(change) => merge_value(Some(&value), change)?,
        };
        merged.0.extend(kept.map(|value| (key, value)));
    }
    for (key, change) in &patch.0 {
        if changes.contains_key(key.as_str())
            && let Some(value) = merge_value(None, change)?
        {
            merged.0.push((key.clone(), value));
        }
    }
    Ok(merged)
}

/// What becomes of one member; nothing where it goes.
fn merge_value(target: Option<&RawValue>, change: &RawValue) -> Result<Option<Box<RawValue>>, serde_json::Error> {
    if change.get() == "null" {
        Ok(None)
    } else if is_object(change) {
        let merged = merge_object(target, serde_json::from_str(change.get())?)?;
        to_raw_value(&merged).map(Some)
    } else {
        Ok(Some(change.to_owned()))
    }
}

fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

/// An object's members in their order, values as they are written.
#[derive(Default)]
struct Members(Vec<(String, Box<RawValue>)>);

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn merged(record: &str, patch: &str) -> String {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let patch = Document::read(&raw(patch)).unwrap();
        merge(&raw(record), &patch).unwrap().as_str().to_owned()
    }

    #[test]
    fn the_examples_of_rfc_7396_whose_record_and_patch_are_objects() {
        let cases = [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ];
        for (record, patch, result) in cases {
            assert_eq!(merged(record, patch), result, "{record} + {patch}");
        }
    }

    #[test]
    fn order_and_digits_stay_and_new_keys_come_last() {
        let record = r#"{"z":1.00,"price":123456789012345678901.10,"a":{"y":1E2,"x":[1.0]},"m":5}"#;
        let patch = r#"{"new":{"b":null,"c":0.10},"m":null,"a":{"x":[2.50],"w":{}}}"#;
        let result = r#"{"z":1.00,"price":123456789012345678901.10,"a":{"y":1E2,"x":[2.50],"w":{}},"new":{"c":0.10}}"#;
        assert_eq!(merged(record, patch), result);
    }

    #[test]
    fn keys_are_compared_by_what_they_mean() {
        assert_eq!(merged(r#"{"\u0061":1}"#, r#"{"a":2}"#), r#"{"a":2}"#);
        assert_eq!(merged(r#"{"a\"\n":1}"#, r#"{"a\u0022\u000a":{"b":2}}"#), r#"{"a\"\n":{"b":2}}"#);
    }

    proptest! {
        #[test]
        fn it_agrees_with_another_implementation(record in object(), patch in object()) {
            let mut expected = record.clone();
            json_patch::merge(&mut expected, &patch);
            let result = merged(&record.to_string(), &patch.to_string());
            prop_assert_eq!(serde_json::from_str::<Value>(&result).unwrap(), expected);
        }
    }

    /// Objects of few keys, so that two of them meet often.
    fn object() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), (0..3).prop_map(Value::from), Just(serde_json::json!([null]))];
        let value = leaf.prop_recursive(3, 24, 3, members);
        members(value)
    }

    fn members(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
        prop::collection::btree_map("[abc]", value, 0..4).prop_map(|map| map.into_iter().collect())
    }
}
