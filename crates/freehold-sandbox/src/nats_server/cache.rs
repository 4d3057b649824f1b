//! The copy of nats-server that earlier calls have fetched.
//!
//! A file in the cache is used only with its pinned hash, which is computed anew each time: a torn or altered file is
//! replaced, never run. It gets its name by one rename, so that processes that race all end up with a whole file.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::pins::Pin;
use crate::file_lock;
use crate::poll::poll;

/// How long to let another process fetch; after that this one fetches too, which is wasteful and harmless.
const FETCH_LOCK_DEADLINE: Duration = Duration::from_secs(120);

/// The place of one platform's program in the cache.
#[derive(Debug)]
pub(super) struct Cache {
    directory: PathBuf,
    pin: &'static Pin,
}

/// What is at the place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cached {
    /// The pinned program.
    Good,
    /// Nothing.
    Missing,
    /// A file with another hash.
    Altered,
}

impl Cache {
    pub(super) fn new(root: &Path, pin: &'static Pin) -> Self {
        Self { directory: root.join(pin.directory_name()), pin }
    }

    /// Where the program is, or will be.
    pub(super) fn binary_path(&self) -> PathBuf {
        self.directory.join("nats-server")
    }

    /// Looks and computes the hash.
    pub(super) fn look(&self) -> io::Result<Cached> {
        match sha256(&self.binary_path()) {
            Ok(hash) if hash == self.pin.binary_sha256 => Ok(Cached::Good),
            Ok(_) => Ok(Cached::Altered),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Cached::Missing),
            Err(error) => Err(error),
        }
    }

    /// Waits for whoever is fetching now. `None` when they take too long or the file system knows no locks.
    pub(super) async fn lock_fetching(&self) -> io::Result<Option<File>> {
        std::fs::create_dir_all(&self.directory)?;
        let path = self.directory.join("lock");
        Ok(poll(FETCH_LOCK_DEADLINE, || {
            let lock = file_lock::try_lock(&path);
            async move { lock.map_or(Some(None), |lock| lock.map(Some)) }
        })
        .await
        .flatten())
    }

    /// A directory on the same file system, gone by itself.
    pub(super) fn temporary_directory(&self) -> io::Result<TempDir> {
        std::fs::create_dir_all(&self.directory)?;
        tempfile::Builder::new().prefix(".fetching-").tempdir_in(&self.directory)
    }

    /// Moves a fetched program to its place, if it is the pinned one.
    pub(super) fn install(&self, fetched: &Path) -> io::Result<()> {
        let hash = sha256(fetched)?;
        if hash != self.pin.binary_sha256 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the fetched program has SHA-256 {hash}, not the pinned {}", self.pin.binary_sha256),
            ));
        }
        std::fs::set_permissions(fetched, std::fs::Permissions::from_mode(0o755))?;
        std::fs::rename(fetched, self.binary_path())
    }
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        hasher.update(&buffer[..length]);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
