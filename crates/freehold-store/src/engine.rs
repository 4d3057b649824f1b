//! The engine's handle, shared by the writer and the readers.

use std::panic::resume_unwind;

use redb::Database;

use crate::error::Error;
use crate::health::catch_panic;

/// An open database, closed when the last holder lets go.
///
/// Every close is like a crash. The engine would write once more, to spare the next open its walk through the file; ours is
/// made anyway. And where pages have rotted meanwhile, that last write can panic twice and so abort the process. The engine
/// leaves it out while a panic unwinds, so the drop happens in that state. Nothing is lost: every commit was durable.
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
        let database = self.0.take();
        // Always unwinds, without a panic hook's message; there is nobody left to tell.
        let _ = catch_panic(|| -> () {
            let _database = database;
            resume_unwind(Box::new("closing"));
        });
    }
}
