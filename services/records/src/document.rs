//! A record's text, checked: what every reader of JSON reads alike.

use std::collections::BTreeSet;
use std::fmt;

use freehold::core::Json;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// How many objects and arrays of a record may stand in one another, the record included. Below the limits of common
/// readers (128 in `serde_json`), with room for the messages around a record.
pub const MAX_DEPTH: usize = 64;

/// `serde_json` passes raw text through such keys: read as a value, `{"$serde_json::private::RawValue":"5"}` is 5. A record
/// with one would pass a schema that it does not fit.
const RESERVED_KEY_PREFIX: &str = "$serde_json::private::";

/// The text of a JSON object in which no key occurs twice, no number leaves the range of a double and nothing is nested
/// deeper than [`MAX_DEPTH`], without white space between its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document(String);

impl Document {
    /// Checks a value.
    pub fn read(raw: &RawValue) -> Result<Self, serde_json::Error> {
        if !raw.get().starts_with('{') {
            return Err(serde_json::Error::custom("it must be a JSON object"));
        }
        let mut deserializer = serde_json::Deserializer::from_str(raw.get());
        Checked { depth: 1 }.deserialize(&mut deserializer)?;
        Ok(Self(compact(raw.get())))
    }

    /// Takes a text that was made of documents and needs no check.
    pub(crate) fn of_merge(text: String) -> Self {
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text as the toolkit's JSON.
    pub fn into_json(self) -> Result<Json, serde_json::Error> {
        Json::from_text(self.0)
    }
}

/// Walks through a value that starts at this depth and keeps nothing of it.
#[derive(Clone, Copy)]
struct Checked {
    depth: usize,
}

impl Checked {
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth > MAX_DEPTH {
            return Err(E::custom(format_args!("its values are nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Checked {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        while items.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        let mut keys = BTreeSet::new();
        while let Some(key) = members.next_key::<String>()? {
            if key.starts_with(RESERVED_KEY_PREFIX) {
                return Err(A::Error::custom(format_args!(
                    "keys that start with {RESERVED_KEY_PREFIX:?} are reserved"
                )));
            }
            members.next_value_seed(inner)?;
            if let Some(twice) = keys.replace(key) {
                return Err(A::Error::custom(format_args!("the key {twice:?} occurs twice in one object")));
            }
        }
        Ok(())
    }
}

/// Drops the white space between the values of a JSON text.
fn compact(text: &str) -> String {
    let mut compact = String::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    for character in text.chars() {
        if in_string {
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
        } else if matches!(character, ' ' | '\t' | '\n' | '\r') {
            continue;
        } else {
            in_string = character == '"';
        }
        compact.push(character);
    }
    compact
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn read(text: &str) -> Result<String, String> {
        let raw: Box<RawValue> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        Document::read(&raw).map(|document| document.0).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_kept_and_how() {
        let cases = [
            ("{}", "{}"),
            (" { \"b\" : [ 1 , 2 ] ,\r\n\t\"a\" : null } ", r#"{"b":[1,2],"a":null}"#),
            (r#"{"a b":" \" { } \\","c": "\\\" "}"#, r#"{"a b":" \" { } \\","c":"\\\" "}"#),
            (r#"{"e":"\u00e9é\ud83d\udeeb"}"#, r#"{"e":"\u00e9é\ud83d\udeeb"}"#),
            (
                r#"{"n":[12345678901234567890.10, 123456789012345678901234567890, -0.0, 1E2, 1e-999]}"#,
                r#"{"n":[12345678901234567890.10,123456789012345678901234567890,-0.0,1E2,1e-999]}"#,
            ),
            (r#"{"a":{"x":1},"b":{"x":1}}"#, r#"{"a":{"x":1},"b":{"x":1}}"#),
        ];
        for (text, kept) in cases {
            assert_eq!(read(text).as_deref(), Ok(kept), "{text}");
        }
    }

    #[test]
    fn what_is_refused_and_why() {
        let cases = [
            ("null", "must be a JSON object"),
            ("5", "must be a JSON object"),
            ("[{}]", "must be a JSON object"),
            (r#""{}""#, "must be a JSON object"),
            (r#"{"a":1,"a":1}"#, r#"the key "a" occurs twice"#),
            (r#"{"x":[{"a":1,"b":2,"\u0061":3}]}"#, r#"the key "a" occurs twice"#),
            (r#"{"$serde_json::private::RawValue":"{\"name\":\"x\"}"}"#, "are reserved"),
            (r#"{"a":[{"$serde_json::private::Number":"5"}]}"#, "are reserved"),
            (r#"{"a":1e999}"#, "out of range"),
            (r#"{"a":"\ud800"}"#, "hex escape"),
            (r#"{"\ud800\u0041":1}"#, "surrogate"),
            (r#"{"a":01}"#, "invalid number"),
            (r#"{"a":NaN}"#, "expected value"),
            (r#"{"a":1,}"#, "key must be a string"),
            (r#"{"a":"#, "EOF"),
        ];
        for (text, why) in cases {
            let error = read(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn nesting_has_a_limit_that_no_text_can_crash() {
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(read(&nested(MAX_DEPTH)).is_ok());
        for levels in [MAX_DEPTH + 1, 127, 128, 129, 1_000_000] {
            assert!(read(&nested(levels)).expect_err("too deep").contains("nested deeper"), "{levels}");
        }
        let objects = format!("{}1{}", "{\"a\":".repeat(MAX_DEPTH + 1), "}".repeat(MAX_DEPTH + 1));
        assert!(read(&objects).is_err());
    }

    proptest! {
        #[test]
        fn white_space_is_all_that_is_lost(value in any_object()) {
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(read(&pretty).unwrap(), serde_json::to_string(&value).unwrap());
        }

        #[test]
        fn no_text_panics(text in "\\{[\\[\\]{}\",:\\\\u0-9a-e. \\-]{0,40}\\}") {
            let known = serde_json::from_str::<Value>(&text);
            if let Ok(kept) = read(&text) {
                prop_assert_eq!(serde_json::from_str::<Value>(&kept).unwrap(), known.unwrap());
            }
        }
    }

    fn any_object() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(Value::Null), any::<i64>().prop_map(Value::from), "\\PC{0,8}".prop_map(Value::from)];
        let value = leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c\" \\\\]{0,3}", inner, 0..4).prop_map(|map| map.into_iter().collect()),
            ]
        });
        prop::collection::btree_map("[a-c]{1,2}", value, 0..4).prop_map(|map| map.into_iter().collect())
    }
}
