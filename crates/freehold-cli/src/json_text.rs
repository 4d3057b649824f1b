//! JSON texts as they are: indented for people, and with fields put in, without a number or a string being printed anew.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde_json::value::RawValue;

use freehold_core::{RecordId, RecordVersion};

/// Indents a JSON text. Numbers and strings stay as they are spelled.
pub(crate) fn indented(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let mut characters = text.chars().peekable();
    let new_line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(character) = characters.next() {
        if in_string {
            out.push(character);
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
            continue;
        }
        match character {
            '"' => {
                in_string = true;
                out.push(character);
            }
            '{' | '[' => {
                out.push(character);
                while characters.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                if let Some(end) = characters.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    new_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(character);
            }
            ',' => {
                out.push(character);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            space if space.is_ascii_whitespace() => {}
            other => out.push(other),
        }
    }
    out
}

/// The request of a command: its fields, with `id` and `if_version` put in front.
pub(crate) fn request(
    fields: &str,
    id: Option<&RecordId>,
    if_version: Option<RecordVersion>,
) -> anyhow::Result<String> {
    let parsed: BTreeMap<String, &RawValue> =
        serde_json::from_str(fields).context("the body is not a JSON object; give one with --body")?;
    for (name, given) in [("id", id.is_some()), ("if_version", if_version.is_some())] {
        anyhow::ensure!(!given || !parsed.contains_key(name), "{name:?} stands in the body and on the command line");
    }
    let mut members = Vec::new();
    if let Some(id) = id {
        members.push(format!("\"id\":{}", serde_json::to_string(id)?));
    }
    if let Some(version) = if_version {
        members.push(format!("\"if_version\":{version}"));
    }
    // What stands between the braces goes through as it is, so that the service sees repeated keys and odd numbers, too.
    let inner = fields.trim().trim_start_matches('{').trim_end();
    let inner = inner.strip_suffix('}').unwrap_or(inner).trim();
    if !inner.is_empty() {
        members.push(inner.to_owned());
    }
    Ok(format!("{{{}}}", members.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_indented_and_stay_as_they_are_spelled() {
        let text = r#"{"a":1.50,"b":[],"c": [1,{"d":"x,{\"\\"}],"e":{ }}"#;
        let expected = "{\n  \"a\": 1.50,\n  \"b\": [],\n  \"c\": [\n    1,\n    {\n      \"d\": \"x,{\\\"\\\\\"\n    }\n  ],\n  \"e\": {}\n}";
        assert_eq!(indented(text), expected);
    }

    #[test]
    fn id_and_version_are_put_in_front_of_the_fields() {
        let id: RecordId = "e\"1".parse().unwrap();
        let check = |fields: &str, id: Option<&RecordId>, version: Option<u64>, expected: &str| {
            assert_eq!(request(fields, id, version.map(RecordVersion)).unwrap(), expected);
        };
        check("{}", None, None, "{}");
        check(
            " { \"record\" : {\"a\":{}} } ",
            Some(&id),
            Some(3),
            r#"{"id":"e\"1","if_version":3,"record" : {"a":{}}}"#,
        );
        check(r#"{"a":12345678901234567890.10}"#, None, None, r#"{"a":12345678901234567890.10}"#);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["", "1", "[]", "{", "{\"a\":1}}", "null"] {
            assert!(request(text, None, None).is_err(), "{text:?}");
        }
        let id: RecordId = "a".parse().unwrap();
        let error = request(r#"{"id":"b"}"#, Some(&id), None).unwrap_err();
        assert!(error.to_string().contains("command line"), "{error}");
    }
}
