//! JSON kept as the text that it came in: copies are byte-identical because nobody prints it again.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// `serde_json` passes raw text through such keys: read as a value, `{"$serde_json::private::RawValue":"5"}` is 5.
const RESERVED_KEY_PREFIX: &str = "$serde_json::private::";

/// A JSON value as text. Equal when the texts are equal.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    /// Checks that a text is JSON and keeps it.
    pub fn from_text(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(Self)
    }

    /// Prints a value.
    pub fn from_value<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(Self)
    }

    /// Keeps a borrowed raw value.
    pub fn from_raw(raw: &RawValue) -> Self {
        Self(raw.to_owned())
    }

    /// Reads the value as a type.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.0.get())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Whether it is an object. `serde` reads a struct from an array too, its items as the fields in their order: what must
    /// have named fields is checked by this first.
    pub fn is_object(&self) -> bool {
        self.as_str().starts_with('{')
    }

    /// Whether a key anywhere in it is one that `serde_json` gives a meaning of its own, so that a typed reader would see
    /// another value than everybody else.
    pub fn has_reserved_key(&self) -> bool {
        let text = self.as_str();
        if !text.contains(RESERVED_KEY_PREFIX) && !text.contains("\\u") {
            return false;
        }
        let mut rest = text;
        while let Some(start) = rest.find('"') {
            let string = &rest[start..];
            let end = string_end(string.as_bytes());
            rest = &string[end..];
            let is_key = rest.trim_start().starts_with(':');
            let key = || serde_json::from_str::<String>(&string[..end]);
            if is_key && key().is_ok_and(|key| key.starts_with(RESERVED_KEY_PREFIX)) {
                return true;
            }
        }
        false
    }
}

/// Where the string that the text begins with ends, its quotes included.
fn string_end(text: &[u8]) -> usize {
    let mut escaped = false;
    let closes = |byte: &u8| {
        let closes = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    };
    text[1..].iter().position(closes).map_or(text.len(), |end| end + 2)
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Json {}

impl fmt::Debug for Json {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_keys_are_found_wherever_and_however_they_are_written() {
        let has = |text: &str| Json::from_text(text.to_owned()).unwrap().has_reserved_key();
        for text in [
            r#"{"$serde_json::private::RawValue":"5"}"#,
            r#"{"a":[{"b":{"$serde_json::private::Number" : "5"}}]}"#,
            r#"{"a":"\\","\u0024serde_json::private::RawValue":1}"#,
            r#"{"a":"\"","$serde_json::private::RawValue":1}"#,
        ] {
            assert!(has(text), "{text}");
        }
        for text in [
            r#"{"a":"$serde_json::private::RawValue"}"#,
            r#"["$serde_json::private::RawValue","\u0041"]"#,
            r#"{"a":"\"$serde_json::private::RawValue\":"}"#,
            r#""$serde_json::private::""#,
            "{}",
        ] {
            assert!(!has(text), "{text}");
        }
    }
}
