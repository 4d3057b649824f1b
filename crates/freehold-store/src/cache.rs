//! Rows that nearly every log message changes. They stay with the writer from one transaction to the next, and each is
//! written once in a transaction, however many messages changed it.

use std::collections::HashMap;

use freehold_core::{GroupDigest, GroupState, LogTime, SiteName, StreamSequence, Takeovers};

use crate::schema::OriginState;

/// What the writer remembers. Lost with a transaction that fails, and then read again.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    pub(crate) groups: CachedRows<GroupState>,
    pub(crate) digests: CachedRows<Vec<GroupDigest>>,
    pub(crate) origins: CachedRows<OriginState>,
    /// Nothing where they were not read yet.
    pub(crate) takeovers: Option<Takeovers>,
    /// How far the walk through each origin's messages has come.
    pub(crate) expiry: HashMap<SiteName, ExpiryWalk>,
}

/// A walk through an origin's old messages, oldest first, over many transactions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExpiryWalk {
    /// It goes on behind this message.
    pub(crate) behind: StreamSequence,
    /// What was old when it started at the head.
    pub(crate) started: LogTime,
    /// Whether it passed outcomes that could not be dropped, so that it has to start again.
    pub(crate) kept: bool,
    /// Whether it has come to messages that are not old.
    pub(crate) at_end: bool,
}

impl ExpiryWalk {
    pub(crate) fn from_head(started: LogTime) -> Self {
        Self { behind: StreamSequence(0), started, kept: false, at_end: false }
    }

    /// Starts again at the head where that is due: never before the end was reached, else many kept outcomes at the head
    /// would hide what is behind them.
    pub(crate) fn restart_if_due(&mut self, now: LogTime, revisit_ms: u64) {
        if self.kept && self.at_end && now.ms_since(self.started) >= revisit_ms {
            *self = Self::from_head(now);
        }
    }
}

/// Rows of one table by their keys. Bounded by what is stored: a row for each group, kind or origin.
#[derive(Debug)]
pub(crate) struct CachedRows<T> {
    rows: HashMap<Vec<u8>, CachedRow<T>>,
    changed: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct CachedRow<T> {
    value: T,
    changed: bool,
}

impl<T> Default for CachedRows<T> {
    fn default() -> Self {
        Self { rows: HashMap::new(), changed: Vec::new() }
    }
}

impl<T> CachedRows<T> {
    pub(crate) fn get(&self, key: &[u8]) -> Option<&T> {
        self.rows.get(key).map(|row| &row.value)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.rows.keys()
    }

    /// Replaces a row.
    pub(crate) fn put(&mut self, key: &[u8], value: T) {
        match self.rows.get_mut(key) {
            Some(row) => {
                row.value = value;
                if !row.changed {
                    row.changed = true;
                    self.changed.push(key.to_vec());
                }
            }
            None => {
                self.rows.insert(key.to_vec(), CachedRow { value, changed: true });
                self.changed.push(key.to_vec());
            }
        }
    }

    /// Changes a row, read by `load` where it is not known yet.
    pub(crate) fn change<E>(
        &mut self,
        key: &[u8],
        load: impl FnOnce() -> Result<T, E>,
        change: impl FnOnce(&mut T),
    ) -> Result<(), E> {
        match self.rows.get_mut(key) {
            Some(row) => {
                change(&mut row.value);
                if !row.changed {
                    row.changed = true;
                    self.changed.push(key.to_vec());
                }
            }
            None => {
                let mut value = load()?;
                change(&mut value);
                self.put(key, value);
            }
        }
        Ok(())
    }

    /// Hands out each changed row once.
    pub(crate) fn take_changed<E>(&mut self, mut write: impl FnMut(&[u8], &T) -> Result<(), E>) -> Result<(), E> {
        for key in self.changed.drain(..) {
            if let Some(row) = self.rows.get_mut(&key) {
                write(&key, &row.value)?;
                row.changed = false;
            }
        }
        Ok(())
    }
}
