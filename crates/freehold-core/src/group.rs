//! Groups: the hash buckets of record ids that are processed exclusively.
//!
//! The hash is FNV-1a, 32 bits, of the id's subject token, modulo the group count. It is what nats-server's own
//! `partition()` subject mapping computes, so a subject mapping or a client in any language finds the same group.
//! Source: Fowler, Noll, Vo, <http://www.isthe.com/chongo/tech/comp/fnv/>. Golden vectors freeze it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{RecordId, SubjectToken};

/// The most groups that a kind may have.
pub const MAX_GROUP_COUNT: u16 = 1024;

/// One group of a kind, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupNumber(pub u16);

impl fmt::Display for GroupNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// How many groups a kind has: 1 to 1024, the same at every site and for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct GroupCount(u16);

/// A group count out of range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no group count: 1 to {MAX_GROUP_COUNT} groups are possible")]
pub struct GroupCountError(u16);

impl GroupCount {
    /// The count that a kind has unless told otherwise.
    pub const DEFAULT: Self = Self(64);

    /// Checks a count.
    pub fn new(count: u16) -> Result<Self, GroupCountError> {
        if (1..=MAX_GROUP_COUNT).contains(&count) { Ok(Self(count)) } else { Err(GroupCountError(count)) }
    }

    /// The count as a number.
    pub fn get(self) -> u16 {
        self.0
    }

    /// All groups, in order.
    pub fn groups(self) -> impl Iterator<Item = GroupNumber> {
        (0..self.0).map(GroupNumber)
    }

    /// The group of a record.
    pub fn group_of(self, id: &RecordId) -> GroupNumber {
        self.group_of_token(&id.token())
    }

    /// The group of a record whose token is known.
    pub fn group_of_token(self, token: &SubjectToken) -> GroupNumber {
        let bucket = fnv1a_32(token.as_str().as_bytes()) % u32::from(self.0);
        GroupNumber(u16::try_from(bucket).unwrap_or(0))
    }
}

impl TryFrom<u16> for GroupCount {
    type Error = GroupCountError;

    fn try_from(count: u16) -> Result<Self, GroupCountError> {
        Self::new(count)
    }
}

impl From<GroupCount> for u16 {
    fn from(count: GroupCount) -> u16 {
        count.0
    }
}

fn fnv1a_32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors from the algorithm's own page.
    #[test]
    fn fnv1a_matches_its_published_vectors() {
        assert_eq!(fnv1a_32(b""), 0x811c_9dc5);
        assert_eq!(fnv1a_32(b"a"), 0xe40c_292c);
        assert_eq!(fnv1a_32(b"foobar"), 0xbf9c_f968);
    }
}
