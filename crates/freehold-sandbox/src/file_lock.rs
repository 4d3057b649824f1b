//! Advisory locks between processes: on a data directory, a picked port, the download of a binary.
//!
//! The lock belongs to the open file, so it ends with the last process that holds the file open: nothing stale is
//! left behind by a kill -9.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

/// Takes the lock at `path`, or answers `None` when somebody else has it.
///
/// # Errors
/// When the file cannot be opened or locked for another reason.
pub(crate) fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
