//! The one that writes.

use std::sync::Arc;

use redb::WriteTransaction;

use crate::cache::Cache;
use crate::engine::Engine;
use crate::error::Error;
use crate::health::Health;
use crate::transaction::Transaction;

#[cfg(test)]
mod tests;

/// Writes to the store. There is exactly one, and every call blocks until the disk has answered: it belongs to a thread of
/// its own.
#[derive(Debug)]
pub struct Writer {
    engine: Arc<Engine>,
    health: Health,
    cache: Cache,
}

impl Writer {
    pub(crate) fn new(engine: Arc<Engine>, health: Health) -> Self {
        Self { engine, health, cache: Cache::default() }
    }

    /// Runs one transaction and makes it durable: one fsync, however many messages were applied in it. An error of `work`
    /// aborts it and leaves the store as it was; an error of the store poisons it.
    ///
    /// A closure and no `begin` and `commit`, so that tables are opened once for all of it and none is open at the commit.
    pub fn transact<T, E: From<Error>>(
        &mut self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let health = self.health.clone();
        let transaction = health.guard(|| self.engine.database()?.begin_write().map_err(Error::engine))?;
        match self.fill(&transaction, work) {
            Ok((value, cache)) => {
                health.guard(|| transaction.commit().map_err(|error| Error::Commit(Box::new(error.into()))))?;
                self.cache = cache;
                Ok(value)
            }
            Err(error) => {
                // The first error counts; a failing abort poisons.
                let _ = health.guard(|| transaction.abort().map_err(Error::engine));
                Err(error)
            }
        }
    }

    fn fill<T, E: From<Error>>(
        &mut self,
        transaction: &WriteTransaction,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<(T, Cache), E> {
        // Whatever ends this early leaves an empty cache behind, which is never wrong.
        let cache = std::mem::take(&mut self.cache);
        let health = self.health.clone();
        let mut tables = health.guard(|| Transaction::open(transaction, cache, health.clone()))?;
        let value = work(&mut tables)?;
        // An error of the store that `work` passed over must not be committed: the guard refuses after it.
        let cache = health.guard(|| tables.finish())?;
        Ok((value, cache))
    }
}
