//! The engine's handle, shared by the writer and the readers.

use std::panic::resume_unwind;

use redb::Database;

use crate::error::Error;
use crate::health::{Health, catch_panic};

/// An open database, closed when the last holder lets go.
///
/// The engine writes once more when it is closed, to note that it was closed in peace: then the next open takes pages that
/// do not fit their checksums for damage, and not for an interrupted commit to be rolled back. On pages that have rotted
/// meanwhile that last write can panic twice, which aborts the process. The engine leaves it out while a panic unwinds: so a
/// poisoned store is dropped in that state. Nothing is lost, every commit was durable.
#[derive(Debug)]
pub(crate) struct Engine {
    /// There until the drop.
    database: Option<Database>,
    health: Health,
}

impl Engine {
    pub(crate) fn new(database: Database, health: Health) -> Self {
        Self { database: Some(database), health }
    }

    pub(crate) fn database(&self) -> Result<&Database, Error> {
        self.database.as_ref().ok_or(Error::Poisoned)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let database = self.database.take();
        let poisoned = self.health.check().is_err();
        let closed = catch_panic(|| {
            let _database = database;
            if poisoned {
                // Unwinds without a message from the panic hook.
                resume_unwind(Box::new("closed without a last write"));
            }
        });
        if let (Err(damage), false) = (closed, poisoned) {
            tracing::warn!(%damage, "the store's file could not be closed in peace");
        }
    }
}
