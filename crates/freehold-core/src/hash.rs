//! Hashes that are stored and compared between sites: SHA-256 (FIPS 180-4) cut to its first 16 bytes, in hex.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A 128-bit hash, written as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash(pub u128);

/// A text that is not a hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a hash of 32 hex digits")]
pub struct HashError(String);

impl Hash {
    /// Hashes parts with their lengths, so that no two lists of parts run together.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hasher.update(part);
        }
        let digest = hasher.finalize();
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        Self(u128::from_be_bytes(first))
    }
}

impl TryFrom<String> for Hash {
    type Error = HashError;

    fn try_from(text: String) -> Result<Self, HashError> {
        let digits = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match u128::from_str_radix(&text, 16) {
            Ok(hash) if digits => Ok(Self(hash)),
            _ => Err(HashError(text)),
        }
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> String {
        hash.to_string()
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

/// The content of one group's copy: how many records (tombstones count) and the wrapping sum of their content hashes,
/// so that it can be kept up to date record by record, in any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GroupDigest {
    /// Records in the group, deleted ones included.
    pub records: u64,
    /// Wrapping sum of the records' content hashes.
    pub sum: Hash,
}

impl GroupDigest {
    /// Accounts for a record whose content hash changed from `before` (nothing where it is new) to `after`.
    pub fn replace(&mut self, before: Option<Hash>, after: Hash) {
        match before {
            Some(before) => self.sum.0 = self.sum.0.wrapping_sub(before.0),
            None => self.records += 1,
        }
        self.sum.0 = self.sum.0.wrapping_add(after.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(Hash::of([b"ab".as_slice(), b"c"]), Hash::of([b"a".as_slice(), b"bc"]));
    }

    #[test]
    fn a_digest_does_not_depend_on_the_order() {
        let (one, two, three) = (Hash::of([b"1".as_slice()]), Hash::of([b"2".as_slice()]), Hash::of([b"3".as_slice()]));
        let (mut left, mut right) = (GroupDigest::default(), GroupDigest::default());
        left.replace(None, one);
        left.replace(None, two);
        left.replace(Some(one), three);
        right.replace(None, two);
        right.replace(None, three);
        assert_eq!(left, right);
    }

    #[test]
    fn the_text_form_is_strict() {
        let hash = Hash::of([]);
        assert_eq!(Hash::try_from(hash.to_string()).unwrap(), hash);
        assert!(Hash::try_from("+0000000000000000000000000000001".to_owned()).is_err());
        assert!(Hash::try_from("AB".to_owned()).is_err());
    }
}
