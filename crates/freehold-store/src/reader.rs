//! The way to committed states.

use std::sync::Arc;

use redb::ReadableDatabase as _;

use crate::engine::Engine;
use crate::error::Error;
use crate::health::Health;
use crate::snapshot::Snapshot;

/// Takes snapshots. Cheap to clone; reads never wait for the writer.
#[derive(Debug, Clone)]
pub struct Reader {
    engine: Arc<Engine>,
    health: Health,
}

impl Reader {
    pub(crate) fn new(engine: Arc<Engine>, health: Health) -> Self {
        Self { engine, health }
    }

    #[cfg(test)]
    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    /// The newest committed state. The file cannot reuse pages that a snapshot may still read: do not keep it for long.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        let transaction = self.health.guard(|| self.engine.database()?.begin_read().map_err(Error::engine))?;
        Ok(Snapshot::new(transaction, self.health.clone()))
    }
}
