//! Record ids and command ids, and how a record id becomes one subject token.
//!
//! A [`RecordId`] is any text of 1 to 255 bytes. Its [`SubjectToken`] is percent-encoding (RFC 3986) in which only
//! ASCII letters, digits, `-`, `_` and `~` stay as they are: injective, readable for plain ids, and safe as a token of
//! a NATS subject. Nothing else ever turns an id into a subject.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use smol_str::{SmolStr, SmolStrBuilder, format_smolstr};

use crate::group::GroupNumber;
use crate::name::SiteName;
use crate::number::{CommandLogIncarnation, StreamSequence};
use crate::text::parsed;

/// The longest record id in bytes of UTF-8.
pub const MAX_RECORD_ID_BYTES: usize = 255;
/// The longest command id that a caller may give, in bytes of UTF-8.
pub const MAX_COMMAND_ID_BYTES: usize = 128;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text has no characters.
    #[error("the id is empty")]
    Empty,
    /// The text has more bytes than an id may have.
    #[error("the id has {bytes} bytes, more than the {limit} that an id may have")]
    TooLong {
        /// Bytes in the text.
        bytes: usize,
        /// Bytes that it may have.
        limit: usize,
    },
    /// A command id holds a control character.
    #[error("the command id holds a control character")]
    ControlCharacter,
    /// A subject token is not what any id encodes to.
    #[error("{0:?} is not an encoded id")]
    NotEncoded(String),
}

/// Identifies one record within its kind: any UTF-8 text of 1 to 255 bytes, compared byte by byte (no Unicode
/// normalisation: look-alikes stay apart).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct RecordId(SmolStr);

impl RecordId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as one subject token.
    pub fn token(&self) -> SubjectToken {
        if self.0.bytes().all(is_plain) {
            return SubjectToken(self.0.clone());
        }
        let mut token = SmolStrBuilder::new();
        for byte in self.0.bytes() {
            if is_plain(byte) {
                token.push(char::from(byte));
            } else {
                token.push('%');
                token.push(char::from(HEX_DIGITS[usize::from(byte >> 4)]));
                token.push(char::from(HEX_DIGITS[usize::from(byte & 15)]));
            }
        }
        SubjectToken(token.finish())
    }

    /// The id under which a group keeps who may create the ids of a home site that start with a prefix. Callers cannot use such ids.
    pub fn of_home_right(group: GroupNumber, home: &SiteName, prefix: &str) -> Result<Self, IdError> {
        format!("{}{prefix}", home_rights_start(group, home)).parse()
    }

    /// Whether callers cannot use the id.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(HOME_RIGHT_START)
    }

    /// The right that the id stands for; nothing where it is a record's.
    pub fn home_right(&self) -> Option<HomeRight<'_>> {
        let mut parts = self.0.strip_prefix(HOME_RIGHT_START)?.splitn(3, '/');
        let group = GroupNumber(parts.next()?.parse().ok()?);
        Some(HomeRight { group, home: parts.next()?.parse().ok()?, prefix: parts.next()? })
    }

    /// The part before the first `-`, the whole id where there is none. Home rules by prefix read it.
    pub fn prefix(&self) -> &str {
        self.0.split('-').next().unwrap_or(&self.0)
    }
}

impl FromStr for RecordId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        check_length(text, MAX_RECORD_ID_BYTES)?;
        Ok(Self(text.into()))
    }
}

impl<'de> Deserialize<'de> for RecordId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.as_str())
    }
}

/// What the ids of home rights start with. Stored: append-only.
const HOME_RIGHT_START: &str = "\0home/";

/// What the ids of all rights of a group start with that a home site began with.
pub(crate) fn home_rights_start(group: GroupNumber, home: &SiteName) -> String {
    format!("{HOME_RIGHT_START}{group}/{home}/")
}

/// Of rights whose ids have a start, the one with the longest prefix of an id.
pub(crate) fn closest_right<'a>(rights: &'a [RecordId], start: &str, id: &str) -> Option<&'a RecordId> {
    let covers = |right: &&RecordId| id.starts_with(&right.as_str()[start.len()..]);
    rights.iter().filter(covers).max_by_key(|right| right.as_str().len())
}

/// The right to create ids, in one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeRight<'a> {
    /// The group.
    pub group: GroupNumber,
    /// The site that has it by the kind's home rule.
    pub home: SiteName,
    /// Of the ids of that site those that start with this.
    pub prefix: &'a str,
}

/// A record id as one token of a NATS subject.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubjectToken(SmolStr);

impl SubjectToken {
    /// The token as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id that encodes to this token; an error for every text that no id encodes to.
    pub fn decode(token: &str) -> Result<RecordId, IdError> {
        let not_encoded = || IdError::NotEncoded(token.to_owned());
        if token.bytes().all(is_plain) {
            return token.parse();
        }
        let mut bytes = Vec::with_capacity(token.len());
        let mut rest = token.bytes();
        while let Some(byte) = rest.next() {
            if is_plain(byte) {
                bytes.push(byte);
                continue;
            }
            let (high, low) = match (byte, rest.next(), rest.next()) {
                (b'%', Some(high), Some(low)) => (hex_value(high), hex_value(low)),
                _ => return Err(not_encoded()),
            };
            match (high, low) {
                // A plain byte has one spelling only, else two tokens would name one id.
                (Some(high), Some(low)) if !is_plain(high << 4 | low) => bytes.push(high << 4 | low),
                _ => return Err(not_encoded()),
            }
        }
        String::from_utf8(bytes).map_err(|_| not_encoded())?.parse()
    }
}

impl fmt::Display for SubjectToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Names one command of one record: the caller's idempotency key, or a minted ULID. 1 to 128 bytes from a caller;
/// the id of an emitted command is `<parent>/<n>` and may be longer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandId(SmolStr);

impl CommandId {
    /// Checks a command id that a caller gave.
    pub fn from_caller(text: &str) -> Result<Self, IdError> {
        check_length(text, MAX_COMMAND_ID_BYTES)?;
        if text.chars().any(char::is_control) {
            return Err(IdError::ControlCharacter);
        }
        Ok(Self(text.into()))
    }

    /// The id of the `index`th command that this command emits.
    pub fn emitted(&self, index: usize) -> Self {
        Self(format_smolstr!("{}/{index}", self.0))
    }

    /// The id under which a command that cannot be read is answered: its place in the log.
    pub fn of_unreadable(log: CommandLogIncarnation, sequence: StreamSequence) -> Self {
        Self(format_smolstr!("unreadable-{log}-{sequence}"))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for CommandId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.as_str())
    }
}

const HEX_DIGITS: &[u8; 16] = b"0123456789ABCDEF";

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~')
}

fn hex_value(digit: u8) -> Option<u8> {
    HEX_DIGITS.iter().position(|known| *known == digit).and_then(|value| u8::try_from(value).ok())
}

fn check_length(text: &str, limit: usize) -> Result<(), IdError> {
    match text.len() {
        0 => Err(IdError::Empty),
        bytes if bytes > limit => Err(IdError::TooLong { bytes, limit }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_ids_stay_readable() {
        let id: RecordId = "EWR-20130101-UA1545".parse().unwrap();
        assert_eq!(id.token().as_str(), "EWR-20130101-UA1545");
        assert_eq!(id.prefix(), "EWR");
    }

    #[test]
    fn s59_everything_that_means_something_to_a_subject_is_escaped() {
        let id: RecordId = "a.*> \n\0%✈".parse().unwrap();
        assert_eq!(id.token().as_str(), "a%2E%2A%3E%20%0A%00%25%E2%9C%88");
        assert!("".parse::<RecordId>().is_err());
        assert!("x".repeat(255).parse::<RecordId>().is_ok());
        assert!("x".repeat(256).parse::<RecordId>().is_err());
    }

    #[test]
    fn a_token_has_one_spelling() {
        for bad in ["%41", "%2e", "%2", "a.b", "%FF", ""] {
            assert!(SubjectToken::decode(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_id_survives_its_token(text in "\\PC{1,60}|[\\x00-\\x7f]{1,60}") {
            let id: RecordId = text.parse().unwrap();
            let token = id.token();
            prop_assert!(token.as_str().bytes().all(|byte| is_plain(byte) || byte == b'%'));
            prop_assert_eq!(SubjectToken::decode(token.as_str()).unwrap(), id);
        }

        #[test]
        fn whatever_decodes_encodes_back(token in "[%0-9A-Fa-z]{1,20}") {
            if let Ok(id) = SubjectToken::decode(&token) {
                prop_assert_eq!(id.token(), SubjectToken(token.into()));
            }
        }
    }
}
