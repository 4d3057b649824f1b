//! The bytes of a row: fields one after another, and a checksum over key and value behind them.
//!
//! Numbers are little-endian base-128 varints, texts have their length before them, options a byte. Stored: append-only.

use std::str::FromStr;

use freehold_core::{Hash, Json};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::error::Damage;
use crate::schema::TableName;

/// Bytes of checksum behind each value.
pub(crate) const CHECKSUM_BYTES: usize = 8;

/// A value that its checksum vouches for, or its key, does not have the fields that it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Writes the fields of a row.
#[derive(Debug, Default)]
pub(crate) struct Encoder(Vec<u8>);

impl Encoder {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(crate) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    /// A number as its distance from one that lies near, in either direction.
    pub(crate) fn number_near(&mut self, number: u64, near: u64) {
        let distance = number.wrapping_sub(near) as i64;
        self.number(((distance << 1) ^ (distance >> 63)) as u64);
    }

    pub(crate) fn count(&mut self, count: usize) {
        self.number(u64::try_from(count).unwrap_or(u64::MAX));
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.count(text.len());
        self.raw(text.as_bytes());
    }

    pub(crate) fn hash(&mut self, hash: Hash) {
        self.raw(&hash.0.to_be_bytes());
    }

    pub(crate) fn optional_text(&mut self, text: Option<&str>) {
        self.byte(u8::from(text.is_some()));
        if let Some(text) = text {
            self.text(text);
        }
    }

    /// The bytes without a checksum: for keys.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The bytes with the checksum that binds them to their table and key.
    pub(crate) fn seal(mut self, table: &TableName, key: &[u8]) -> Vec<u8> {
        let checksum = checksum(table, key, &self.0);
        self.raw(&checksum.to_le_bytes());
        self.0
    }
}

/// Reads the fields of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    /// Checks a value against its table and key. Every read goes through here.
    pub(crate) fn unseal(table: &TableName, key: &[u8], sealed: &'a [u8]) -> Result<Self, Damage> {
        let (value, expected) =
            sealed.split_last_chunk::<CHECKSUM_BYTES>().ok_or(Damage::Checksum { table: table.name })?;
        if checksum(table, key, value) == u64::from_le_bytes(*expected) {
            Ok(Self(value))
        } else {
            Err(Damage::Checksum { table: table.name })
        }
    }

    pub(crate) fn raw(&mut self, bytes: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    /// Whether all fields are read.
    pub(crate) fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let digit = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && digit > 1 {
                return Err(Malformed);
            }
            number |= digit << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    pub(crate) fn number_near(&mut self, near: u64) -> Result<u64, Malformed> {
        let coded = self.number()?;
        let distance = (coded >> 1) ^ (coded & 1).wrapping_neg();
        Ok(near.wrapping_add(distance))
    }

    pub(crate) fn number_as<T: TryFrom<u64>>(&mut self) -> Result<T, Malformed> {
        T::try_from(self.number()?).map_err(|_| Malformed)
    }

    /// How many entries follow, each of at least a byte: a count that cannot be true reserves no memory.
    pub(crate) fn count(&mut self) -> Result<usize, Malformed> {
        let count = self.number_as::<usize>()?;
        if count <= self.0.len() { Ok(count) } else { Err(Malformed) }
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        let bytes = self.number_as::<usize>()?;
        std::str::from_utf8(self.raw(bytes)?).map_err(|_| Malformed)
    }

    pub(crate) fn parsed<T: FromStr>(&mut self) -> Result<T, Malformed> {
        self.text()?.parse().map_err(|_| Malformed)
    }

    pub(crate) fn json(&mut self) -> Result<Json, Malformed> {
        Json::from_text(self.text()?.to_owned()).map_err(|_| Malformed)
    }

    pub(crate) fn hash(&mut self) -> Result<Hash, Malformed> {
        let bytes = self.raw(16)?.try_into().map_err(|_| Malformed)?;
        Ok(Hash(u128::from_be_bytes(bytes)))
    }

    /// A value behind the byte that says whether there is one.
    pub(crate) fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(Malformed),
        }
    }
}

/// Bound to table and key, so that a value found in another place does not pass either.
fn checksum(table: &TableName, key: &[u8], value: &[u8]) -> u64 {
    xxh3_64_with_seed(value, xxh3_64_with_seed(key, table.number))
}
