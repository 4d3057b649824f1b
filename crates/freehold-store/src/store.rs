//! A store: one file, one writer, any number of readers.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use freehold_core::{InstanceName, SiteName};
use redb::Database;

use crate::engine::Engine;
use crate::error::OpenError;
use crate::health::Health;
use crate::open;
use crate::reader::Reader;
use crate::writer::Writer;

/// What the engine caches unless told otherwise, in bytes: an instance with a million records stays below 150 MB.
pub const DEFAULT_CACHE_BYTES: usize = 56 * 1024 * 1024;

/// Which store to open.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// The file. Its directory must exist.
    pub path: PathBuf,
    /// The site of the instance.
    pub site: SiteName,
    /// The instance whose copy this is.
    pub instance: InstanceName,
    /// What the engine may cache, in bytes.
    pub cache_bytes: usize,
}

impl Options {
    /// Options with the default cache.
    pub fn new(path: impl Into<PathBuf>, site: SiteName, instance: InstanceName) -> Self {
        Self { path: path.into(), site, instance, cache_bytes: DEFAULT_CACHE_BYTES }
    }
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    pub(crate) writer: Writer,
    pub(crate) reader: Reader,
    fresh: bool,
}

impl Store {
    /// Opens a store, and makes a fresh one where there is no file. An existing file is read and verified from end to end
    /// first, at the speed of the disk: reckon with a second a gigabyte.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let (database, fresh) = open::open(options)?;
        Ok(Self::of_database(database, fresh))
    }

    /// Renames a file that cannot be used to `<name>.damaged-<n>`, so that a fresh store can take its place; gives the new
    /// path. Nothing may have the file open.
    pub fn set_aside(path: impl AsRef<Path>) -> io::Result<PathBuf> {
        open::set_aside(path.as_ref())
    }

    /// Whether this store was made just now: everything is to be read from the streams.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// A reader; more are clones of it.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// The writer and a reader. The file is closed when both and all snapshots are dropped.
    pub fn into_parts(self) -> (Writer, Reader) {
        (self.writer, self.reader)
    }

    pub(crate) fn of_database(database: Database, fresh: bool) -> Self {
        let health = Health::default();
        let engine = Arc::new(Engine::new(database, health.clone()));
        let writer = Writer::new(Arc::clone(&engine), health.clone());
        Self { writer, reader: Reader::new(engine, health), fresh }
    }
}
