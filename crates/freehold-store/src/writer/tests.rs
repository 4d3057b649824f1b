//! What the writer and the readers do when the disk fails, at every one of its operations in turn.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use freehold_core::{CopyRead as _, CopyWrite as _, LogTime, SiteName, StreamSequence};
use redb::{Builder, StorageBackend};

use crate::error::Error;
use crate::open;
use crate::store::{Options, Store};

/// A disk in memory that fails from its nth write or sync on, and loses at a power cut what was not synced.
#[derive(Debug, Clone, Default)]
struct FaultyDisk(Arc<DiskState>);

#[derive(Debug, Default)]
struct DiskState {
    content: Mutex<Vec<u8>>,
    synced: Mutex<Vec<u8>>,
    /// Operations that still succeed, where the disk is to fail.
    left: AtomicU64,
    failing: AtomicBool,
    operations: AtomicU64,
}

impl FaultyDisk {
    fn fail_after(&self, operations: u64) {
        self.0.left.store(operations, Ordering::SeqCst);
        self.0.failing.store(true, Ordering::SeqCst);
    }

    fn operations(&self) -> u64 {
        self.0.operations.load(Ordering::SeqCst)
    }

    /// The disk as a process finds it that starts after the failure: whole again, with everything that was written, or after
    /// a power cut with what was synced.
    fn after_restart(&self, power_cut: bool) -> Self {
        let content = if power_cut { &self.0.synced } else { &self.0.content }.lock().unwrap().clone();
        Self(Arc::new(DiskState {
            synced: Mutex::new(content.clone()),
            content: Mutex::new(content),
            ..DiskState::default()
        }))
    }

    fn operate(&self) -> io::Result<()> {
        self.0.operations.fetch_add(1, Ordering::SeqCst);
        let failing = self.0.failing.load(Ordering::SeqCst);
        let took = self.0.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if failing && took.is_err() { Err(io::Error::other("injected")) } else { Ok(()) }
    }
}

impl StorageBackend for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.content.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let content = self.0.content.lock().unwrap();
        let offset = usize::try_from(offset).unwrap();
        let bytes = content.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.operate()?;
        self.0.content.lock().unwrap().resize(usize::try_from(length).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.operate()?;
        let content = self.0.content.lock().unwrap().clone();
        *self.0.synced.lock().unwrap() = content;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.operate()?;
        let mut content = self.0.content.lock().unwrap();
        let offset = usize::try_from(offset).unwrap();
        let target = content.get_mut(offset..offset + data.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        target.copy_from_slice(data);
        Ok(())
    }
}

fn site() -> SiteName {
    "ewr".parse().unwrap()
}

fn options() -> Options {
    Options::new("in-memory", site(), "a".parse().unwrap())
}

fn create(disk: &FaultyDisk) -> Store {
    let database = Builder::new().create_with_backend(disk.clone()).unwrap();
    open::initialise(&database, &options()).unwrap();
    Store::of_database(database, true)
}

fn reopen(disk: &FaultyDisk) -> Store {
    let database = Builder::new().set_check_integrity_on_open(true).create_with_backend(disk.clone()).unwrap();
    open::check_meta(&database, &options()).unwrap();
    Store::of_database(database, false)
}

fn apply(store: &mut Store, sequence: u64) -> Result<(), Error> {
    store.writer.transact(|tables| tables.put_applied(&site(), StreamSequence(sequence), LogTime(sequence)))
}

fn applied(store: &Store) -> Result<StreamSequence, Error> {
    store.reader.snapshot()?.applied(&site())
}

/// The disk fails at each operation of a commit in turn. Story: after a failed commit the engine's change may be on the disk
/// or not, and only a reopening can tell; writing on would build on what may not be there.
#[test]
fn after_a_failed_commit_nothing_is_written_or_served_until_the_store_is_reopened() {
    let operations = {
        let disk = FaultyDisk::default();
        let mut store = create(&disk);
        apply(&mut store, 1).unwrap();
        let before = disk.operations();
        apply(&mut store, 2).unwrap();
        disk.operations() - before
    };
    assert!(operations > 1, "a commit writes and syncs");

    for failing in 0..operations {
        let disk = FaultyDisk::default();
        let mut store = create(&disk);
        apply(&mut store, 1).unwrap();
        let snapshot = store.reader.snapshot().unwrap();
        disk.fail_after(failing);
        let error = apply(&mut store, 2).unwrap_err();
        assert!(matches!(error, Error::Commit(_)), "operation {failing}: {error:?}");

        assert!(matches!(apply(&mut store, 3), Err(Error::Poisoned)));
        assert!(matches!(applied(&store), Err(Error::Poisoned)));
        assert!(matches!(snapshot.applied(&site()), Err(Error::Poisoned)), "older snapshots too");
        drop((snapshot, store));

        for power_cut in [false, true] {
            let mut store = reopen(&disk.after_restart(power_cut));
            let found = applied(&store).unwrap();
            assert!([StreamSequence(1), StreamSequence(2)].contains(&found), "operation {failing}: {found}");
            apply(&mut store, found.0 + 1).unwrap();
            assert_eq!(applied(&store).unwrap(), found.next());
        }
    }
}

#[test]
fn what_was_committed_survives_a_power_cut() {
    let disk = FaultyDisk::default();
    let mut store = create(&disk);
    for sequence in 1..=20 {
        apply(&mut store, sequence).unwrap();
        assert_eq!(applied(&reopen(&disk.after_restart(true))).unwrap(), StreamSequence(sequence));
    }
}

#[test]
fn an_error_of_the_store_that_the_work_passes_over_is_not_committed() {
    let disk = FaultyDisk::default();
    let mut store = create(&disk);
    apply(&mut store, 1).unwrap();
    let passed_over = store.writer.transact(|tables| {
        tables.put_applied(&site(), StreamSequence(2), LogTime(2))?;
        store.reader.health().poison();
        let _ = tables.record(&"flight".parse().unwrap(), &"A-1".parse().unwrap());
        Ok::<_, Error>(())
    });
    assert!(matches!(passed_over, Err(Error::Poisoned)));
    drop(store);
    assert_eq!(applied(&reopen(&disk.after_restart(false))).unwrap(), StreamSequence(1));
}
