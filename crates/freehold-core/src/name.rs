//! Names of sites, kinds, commands and instances: single subject tokens that need no escaping.
//!
//! A name is checked once, where it enters, and carried as a type from then on. It never holds a character
//! that means something to a NATS subject, a file system or a shell.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use smol_str::SmolStr;

use crate::text::parsed;

/// The longest name in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}: {rule}")]
pub struct NameError {
    what: &'static str,
    rule: &'static str,
    text: String,
}

/// Declares one checked name type. A macro and not a generic, so that each name is a type of its own in messages
/// and documentation.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(SmolStr);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let allowed: fn(usize, u8) -> bool = $allowed;
                let fits = !text.is_empty() && text.len() <= MAX_NAME_BYTES;
                if fits && text.bytes().enumerate().all(|(index, byte)| allowed(index, byte)) {
                    Ok(Self(text.into()))
                } else {
                    Err(NameError { what: $what, rule: $rule, text: text.to_owned() })
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                parsed(deserializer)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{:?}", self.as_str())
            }
        }
    };
}

name_type!(
    /// A site: a place with its own NATS servers and JetStream domain. It holds no `-`, so that the part of an id
    /// before its first `-` can name the record's home.
    SiteName,
    "site name",
    "1 to 64 of a-z, 0-9 and _, starting with a letter",
    |index, byte| byte.is_ascii_lowercase() || (index > 0 && (byte.is_ascii_digit() || byte == b'_'))
);

name_type!(
    /// A kind of record, such as `flight`.
    KindName,
    "kind name",
    "1 to 64 of a-z, 0-9, _ and -, starting with a letter",
    |index, byte| byte.is_ascii_lowercase()
        || (index > 0 && (byte.is_ascii_digit() || byte == b'_' || byte == b'-'))
);

name_type!(
    /// A command of a kind, such as `depart`.
    CommandName,
    "command name",
    "1 to 64 of a-z, 0-9, _ and -, starting with a letter",
    |index, byte| byte.is_ascii_lowercase()
        || (index > 0 && (byte.is_ascii_digit() || byte == b'_' || byte == b'-'))
);

name_type!(
    /// An instance of a service, unique within its site.
    InstanceName,
    "instance name",
    "1 to 64 of A-Z, a-z, 0-9, _ and -",
    |_, byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
);

name_type!(
    /// One life of an instance's process: two processes never share a nonce, whatever their names.
    Nonce,
    "nonce",
    "1 to 64 of A-Z, a-z and 0-9",
    |_, byte| byte.is_ascii_alphanumeric()
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_no_subject_characters() {
        for bad in ["", "a.b", "a*", ">", "a b", "A", "1a", "a\n", "é", &"a".repeat(65)] {
            assert!(bad.parse::<KindName>().is_err(), "{bad:?}");
            assert!(bad.parse::<SiteName>().is_err(), "{bad:?}");
        }
        assert!("a-b".parse::<KindName>().is_ok());
        assert!("a-b".parse::<SiteName>().is_err(), "a site's name ends at the first - of an id");
        assert!(serde_json::from_str::<SiteName>("\"a.b\"").is_err());
    }
}
