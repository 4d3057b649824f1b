//! Scenario 50: a damaged file is noticed. Whatever is served is right.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use freehold_core::{CopyRead as _, RecordId, RecordState, SiteName};
use freehold_store::{Error, OpenError, Reader, Store, Writer};

use crate::given::{command, id, kind, open, options, outcome, put, site};

const RECORDS: u64 = 400;
/// Round `n` runs with this seed plus `n`.
const SEED: u64 = 0x5eed_0050;

/// A store that was closed in peace.
fn given_store(directory: &Path) -> Expected {
    given_open_store(directory).0
}

/// Two commits, the second of which changed half of the records.
fn given_open_store(directory: &Path) -> (Expected, Writer) {
    let (mut writer, _) = open(directory).into_parts();
    let mut expected = Expected::default();
    for commit in 0..2 {
        let numbers =
            (1..=RECORDS).map(|number| commit * RECORDS + number).filter(|number| commit == 0 || number % 2 == 0);
        writer
            .transact(|tables| {
                numbers.clone().try_for_each(|number| put(tables, &record_id(number), number, Some(TEXT)))
            })
            .unwrap();
        let mut records = expected.commits.last().cloned().unwrap_or_default();
        records.extend(numbers.map(|number| (record_id(number), crate::given::state(number, Some(TEXT)))));
        expected.commits.push(records);
    }
    (expected, writer)
}

/// Long enough that most of the file is values.
const TEXT: &str = "the quick brown fox jumps over the lazy dog, the quick brown fox jumps over the lazy dog";

fn record_id(number: u64) -> RecordId {
    id(&format!("A-{:04}", number % RECORDS))
}

/// The records after each commit.
#[derive(Default)]
struct Expected {
    commits: Vec<BTreeMap<RecordId, RecordState>>,
}

impl Expected {
    /// Everything must be as it was after one of the commits: tells which.
    fn check_whole(&self, reader: &Reader) -> Result<u64, Error> {
        let snapshot = reader.snapshot()?;
        let commit = (snapshot.applied(&site())?.0 - 1) / RECORDS;
        let records = &self.commits[usize::try_from(commit).unwrap()];
        for (id, state) in records {
            assert_eq!(snapshot.record(&kind(), id)?.as_ref(), Some(state));
            let number = state.sequence.0;
            let found = snapshot.outcome(&kind(), Some(id), &command(&format!("c{number}")))?;
            assert_eq!(found, Some(outcome(id, &format!("c{number}"), number)));
        }
        let listed = snapshot.list(&kind(), "", None, 1_000)?;
        assert!(listed.items.into_iter().eq(records.clone()));
        let digests = snapshot.digests(&site(), &kind())?;
        assert_eq!(digests.iter().map(|digest| digest.records).sum::<u64>(), RECORDS);
        let sum = records.values().fold(0_u128, |sum, state| sum.wrapping_add(state.hash.0));
        assert_eq!(digests.iter().fold(0_u128, |sum, digest| sum.wrapping_add(digest.sum.0)), sum);
        Ok(commit)
    }

    /// Whatever value is served must be right; it ends at the first refusal.
    fn check_served(&self, reader: &Reader) -> Result<(), Error> {
        let snapshot = reader.snapshot()?;
        let records = &self.commits[1];
        for (id, state) in records {
            if let Some(served) = snapshot.record(&kind(), id)? {
                assert_eq!(served, *state);
            }
            let number = state.sequence.0;
            if let Some(served) = snapshot.outcome(&kind(), Some(id), &command(&format!("c{number}")))? {
                assert_eq!(served, outcome(id, &format!("c{number}"), number));
            }
        }
        for (id, state) in snapshot.list(&kind(), "", None, 1_000)?.items {
            assert_eq!(Some(&state), records.get(&id));
        }
        Ok(())
    }
}

/// xorshift64*: the failure of a seed can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % limit
    }
}

fn flip(path: &Path, offset: u64, bit: u64) {
    let byte = fs::read(path).unwrap()[usize::try_from(offset).unwrap()] ^ (1 << bit);
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(&[byte]).unwrap();
}

fn fresh_copy(original: &Path, name: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::Builder::new().prefix(name).tempdir().unwrap();
    let path = options(directory.path()).path;
    fs::copy(original, &path).unwrap();
    (directory, path)
}

#[test]
fn s50_a_bit_flipped_while_the_store_was_closed_is_noticed_or_without_effect() {
    let given = tempfile::tempdir().unwrap();
    let expected = given_store(given.path());
    let (refused, commits) = flip_and_open(&expected, &options(given.path()).path);
    assert!(refused > 60, "most of the file is in use, {refused} were noticed");
    assert!(commits.into_iter().eq([1]), "nothing is rolled back");
}

/// After a crash the engine cannot tell a damaged last commit from an interrupted one, and rolls it back: the copy is behind
/// the log then, by one commit at most, and whole.
#[test]
fn s50_a_bit_flipped_after_a_crash_is_noticed_or_costs_one_commit() {
    let given = tempfile::tempdir().unwrap();
    let (expected, writer) = given_open_store(given.path());
    let crashed = given.path().join("crashed.redb");
    fs::copy(options(given.path()).path, &crashed).unwrap();
    drop(writer);
    let (refused, commits) = flip_and_open(&expected, &crashed);
    assert!(refused > 0);
    assert!(commits.into_iter().eq([0, 1]), "some are rolled back");
}

/// Opens copies of a file with one bit flipped in each: how many were refused, and which commits were found.
fn flip_and_open(expected: &Expected, original: &Path) -> (u32, BTreeSet<u64>) {
    let length = fs::metadata(original).unwrap().len();
    let (mut refused, mut commits) = (0, BTreeSet::new());
    for seed in SEED..SEED + 300 {
        let mut random = Random(seed);
        let (offset, bit) = (random.below(length), random.below(8));
        let (directory, path) = fresh_copy(original, "flip");
        flip(&path, offset, bit);
        let context = format!("seed {seed:#x} offset {offset} bit {bit}");
        match Store::open(&options(directory.path())) {
            Ok(store) => {
                let commit = expected.check_whole(&store.reader());
                commits.insert(commit.unwrap_or_else(|error| panic!("{context}: refused late: {error}")));
            }
            Err(OpenError::Damaged { .. } | OpenError::Foreign { .. } | OpenError::OtherFormat { .. }) => refused += 1,
            Err(error) => panic!("{context}: {error:?}"),
        }
    }
    (refused, commits)
}

/// The engine serves altered pages of a file that it has open, and may panic on them: our checksums are what stands between
/// them and the reader.
#[test]
fn s50_a_bit_flipped_under_an_open_store_never_serves_a_wrong_value() {
    let given = tempfile::tempdir().unwrap();
    let expected = given_store(given.path());
    let original = options(given.path()).path;
    let length = fs::metadata(&original).unwrap().len();
    let mut refused = 0;
    for seed in SEED..SEED + 300 {
        let mut random = Random(seed);
        let (directory, path) = fresh_copy(&original, "rot");
        let mut options = options(directory.path());
        options.cache_bytes = 0;
        let (writer, reader) = Store::open(&options).unwrap().into_parts();
        for _ in 0..3 {
            flip(&path, random.below(length), random.below(8));
        }
        match expected.check_served(&reader) {
            // Closing writes once more, to pages that may have rotted unnoticed: what the engine does then is its own.
            Ok(()) => std::mem::forget((writer, reader)),
            Err(error) => {
                assert!(matches!(error, Error::Corrupt(_)), "seed {seed:#x}: {error:?}");
                assert!(matches!(reader.snapshot(), Err(Error::Poisoned)), "nothing is served from then on");
                refused += 1;
            }
        }
    }
    assert!(refused > 100, "most of the file is in use, {refused} of 300 were noticed");
}

#[test]
fn s50_a_truncated_file_is_noticed() {
    let given = tempfile::tempdir().unwrap();
    let expected = given_store(given.path());
    let original = options(given.path()).path;
    let length = fs::metadata(&original).unwrap().len();
    let mut random = Random(SEED);
    let lengths = [1, 9, 320, 4_096, length / 2, length - 4_096, length - 1];
    for length in lengths.into_iter().chain((0..40).map(|_| 1 + random.below(length - 1))) {
        let (directory, path) = fresh_copy(&original, "cut");
        OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
        match Store::open(&options(directory.path())) {
            Ok(store) => {
                expected.check_whole(&store.reader()).unwrap();
            }
            Err(OpenError::Damaged { .. } | OpenError::Foreign { .. }) => {}
            Err(error) => panic!("seed {SEED:x} length {length}: {error:?}"),
        }
    }
}

/// A torn write: a page of the file is that of an earlier time, or nothing.
#[test]
fn s50_a_torn_file_is_noticed_or_without_effect() {
    const PAGE_BYTES: usize = 4_096;
    let given = tempfile::tempdir().unwrap();
    let expected = given_store(given.path());
    let original = options(given.path()).path;
    let content = fs::read(&original).unwrap();
    for page in 0..content.len() / PAGE_BYTES {
        let (directory, path) = fresh_copy(&original, "torn");
        let mut torn = content.clone();
        torn[page * PAGE_BYTES..(page + 1) * PAGE_BYTES].fill(0);
        fs::write(&path, torn).unwrap();
        match Store::open(&options(directory.path())) {
            Ok(store) => {
                expected.check_whole(&store.reader()).unwrap();
            }
            Err(OpenError::Damaged { .. } | OpenError::Foreign { .. }) => {}
            Err(error) => panic!("page {page}: {error:?}"),
        }
    }
}

#[test]
fn s50_a_damaged_store_is_set_aside_and_made_afresh() {
    let directory = tempfile::tempdir().unwrap();
    given_store(directory.path());
    let options = options(directory.path());
    OpenOptions::new().write(true).open(&options.path).unwrap().set_len(5_000).unwrap();
    let error = Store::open(&options).unwrap_err();
    assert!(error.is_cured_by_rebuilding(), "{error:?}");

    Store::set_aside(&options.path).unwrap();
    let store = Store::open(&options).unwrap();
    assert!(store.is_fresh());
    let origins: Vec<(SiteName, _)> = store.reader().snapshot().unwrap().origins().unwrap();
    assert!(origins.is_empty());
}
