//! Comparing: pure functions over digests and records.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use freehold_core::{GroupDigest, GroupNumber, Hash, RecordId, RecordVersion, StreamSequence};

/// A record as places compare it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Summary {
    pub(super) version: RecordVersion,
    pub(super) hash: Hash,
}

/// Records of one group.
pub(super) type RecordMap = BTreeMap<RecordId, Summary>;

/// How a copy stands to its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has exactly what the stream has up to its position.
    Equal,
    /// These groups differ.
    Differs(Vec<GroupNumber>),
    /// It has not come far enough to be compared.
    Behind,
    /// It has applied more than the stream has: the stream has lost its tail.
    Ahead,
}

/// Compares a copy that has applied a stream up to `applied` with the stream, of which digests are known from `start` and
/// which ends at `end`.
pub(super) fn standing(
    applied: StreamSequence,
    found: &[GroupDigest],
    start: StreamSequence,
    end: StreamSequence,
    expected_at: impl FnOnce(StreamSequence) -> Vec<GroupDigest>,
) -> Standing {
    if applied < start {
        Standing::Behind
    } else if applied > end {
        Standing::Ahead
    } else {
        match differing_groups(&expected_at(applied), found) {
            groups if groups.is_empty() => Standing::Equal,
            groups => Standing::Differs(groups),
        }
    }
}

/// The groups whose digests differ. Groups behind the end of a list are empty.
pub(super) fn differing_groups(left: &[GroupDigest], right: &[GroupDigest]) -> Vec<GroupNumber> {
    let digest = |digests: &[GroupDigest], index: usize| digests.get(index).copied().unwrap_or_default();
    (0..left.len().max(right.len()))
        .filter(|index| digest(left, *index) != digest(right, *index))
        .filter_map(|index| u16::try_from(index).ok().map(GroupNumber))
        .collect()
}

/// A record that two places have differently; nothing where a place has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecordDifference {
    pub(super) id: RecordId,
    pub(super) expected: Option<Summary>,
    pub(super) found: Option<Summary>,
}

/// The records that differ, in the order of their ids.
pub(super) fn differing_records(expected: &RecordMap, found: &RecordMap) -> Vec<RecordDifference> {
    let ids: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let difference = |id: &RecordId| {
        let (expected, found) = (expected.get(id).copied(), found.get(id).copied());
        (expected != found).then(|| RecordDifference { id: id.clone(), expected, found })
    };
    ids.into_iter().filter_map(difference).collect()
}

/// Records in all groups.
pub(super) fn record_count(digests: &[GroupDigest]) -> u64 {
    digests.iter().map(|digest| digest.records).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(records: u64, sum: u128) -> GroupDigest {
        GroupDigest { records, sum: Hash(sum) }
    }

    fn summary(version: u64, hash: u128) -> Summary {
        Summary { version: RecordVersion(version), hash: Hash(hash) }
    }

    fn records(entries: &[(&str, u64, u128)]) -> RecordMap {
        entries.iter().map(|(id, version, hash)| (id.parse().unwrap(), summary(*version, *hash))).collect()
    }

    #[test]
    fn groups_differ_by_count_or_content_and_missing_ones_are_empty() {
        let check = |left: &[GroupDigest], right: &[GroupDigest], expected: &[u16]| {
            let expected: Vec<_> = expected.iter().copied().map(GroupNumber).collect();
            assert_eq!(differing_groups(left, right), expected);
            assert_eq!(differing_groups(right, left), expected);
        };
        check(&[], &[], &[]);
        check(&[digest(0, 0), digest(0, 0)], &[], &[]);
        check(&[digest(1, 7)], &[digest(1, 7), digest(0, 0)], &[]);
        check(&[digest(1, 7), digest(2, 9)], &[digest(1, 7)], &[1]);
        check(&[digest(1, 7), digest(2, 9)], &[digest(1, 8), digest(3, 9)], &[0, 1]);
    }

    #[test]
    fn a_copy_is_compared_at_its_own_position() {
        let check = |applied: u64, found: &[GroupDigest], expected: Standing| {
            let at = |position: StreamSequence| vec![digest(1, u128::from(position.0))];
            let standing = standing(StreamSequence(applied), found, StreamSequence(5), StreamSequence(9), at);
            assert_eq!(standing, expected, "at {applied}");
        };
        check(4, &[digest(1, 4)], Standing::Behind);
        check(5, &[digest(1, 5)], Standing::Equal);
        check(9, &[digest(1, 9)], Standing::Equal);
        check(9, &[digest(1, 5)], Standing::Differs(vec![GroupNumber(0)]));
        check(10, &[digest(1, 10)], Standing::Ahead);
    }

    #[test]
    fn records_differ_by_version_hash_or_absence() {
        let expected = records(&[("a", 1, 1), ("b", 2, 2), ("c", 3, 3), ("e", 5, 5)]);
        let found = records(&[("a", 1, 1), ("b", 1, 2), ("c", 3, 4), ("d", 4, 4)]);
        let differences = differing_records(&expected, &found);
        let ids: Vec<_> = differences.iter().map(|difference| difference.id.as_str()).collect();
        assert_eq!(ids, ["b", "c", "d", "e"]);
        assert_eq!(differences[2].expected, None);
        assert_eq!(differences[3].found, None);
        assert_eq!(differing_records(&expected, &expected), []);
    }
}
