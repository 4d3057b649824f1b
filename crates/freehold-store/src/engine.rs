//! The engine's handle, shared by the writer and the readers.

use redb::Database;

use crate::error::Error;
use crate::health::catch_panic;

/// An open database. Closed when the last holder lets go: the engine then writes to the file once more, and may panic where
/// the file has rotted meanwhile. Nobody is left who could be told, and the next open verifies the file.
#[derive(Debug)]
pub(crate) struct Engine(Option<Database>);

impl Engine {
    pub(crate) fn new(database: Database) -> Self {
        Self(Some(database))
    }

    /// The database, which is there until the drop.
    pub(crate) fn database(&self) -> Result<&Database, Error> {
        self.0.as_ref().ok_or(Error::Poisoned)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Err(damage) = catch_panic(|| drop(self.0.take())) {
            tracing::warn!(%damage, "the store's file could not be closed properly");
        }
    }
}
