//! The codes of aviation that flights are made of. Checked once, where they enter, and carried as types from then on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is not {what}: {rule}")]
pub struct CodeError {
    what: &'static str,
    rule: &'static str,
}

/// Declares one checked code. A macro and not a generic, so that an airport is never passed where a carrier is meant.
macro_rules! code_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $pattern:literal, $lengths:expr, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The code as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = CodeError;

            fn from_str(text: &str) -> Result<Self, CodeError> {
                let allowed: fn(u8) -> bool = $allowed;
                if $lengths.contains(&text.len()) && text.bytes().all(allowed) {
                    Ok(Self(text.into()))
                } else {
                    Err(CodeError { what: $what, rule: $rule })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = CodeError;

            fn try_from(text: String) -> Result<Self, CodeError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(code: $name) -> String {
                code.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

code_type!(
    /// An airport by its IATA code, such as `EWR`.
    Airport,
    "an airport",
    "three letters A-Z",
    "^[A-Z]{3}$",
    (3..=3),
    |byte| byte.is_ascii_uppercase()
);

code_type!(
    /// A carrier by its IATA code, such as `UA` or `9E`. Its length is fixed, so that it ends in a flight's id where
    /// the flight number begins.
    Carrier,
    "a carrier",
    "two of A-Z and 0-9",
    "^[A-Z0-9]{2}$",
    (2..=2),
    |byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()
);

code_type!(
    /// An aircraft by its registration, such as `N14228`.
    TailNumber,
    "a tail number",
    "2 to 10 of A-Z, 0-9 and -",
    "^[A-Z0-9-]{2,10}$",
    (2..=10),
    |byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'-'
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_strict() {
        for good in ["EWR", "JFK"] {
            assert_eq!(good.parse::<Airport>().unwrap().as_str(), good);
        }
        for bad in ["", "EW", "EWRX", "ewr", "E R", "E1R", "ÉW"] {
            assert!(bad.parse::<Airport>().is_err(), "{bad:?}");
            assert!(serde_json::from_value::<Airport>(bad.into()).is_err(), "{bad:?}");
        }
        for (text, good) in [("UA", true), ("9E", true), ("U", false), ("UAL", false), ("ua", false), ("U*", false)] {
            assert_eq!(text.parse::<Carrier>().is_ok(), good, "{text:?}");
        }
        for (text, good) in [("N14228", true), ("D-AIHX", true), ("N", false), ("N1 2", false), ("n1", false)] {
            assert_eq!(text.parse::<TailNumber>().is_ok(), good, "{text:?}");
        }
    }
}
