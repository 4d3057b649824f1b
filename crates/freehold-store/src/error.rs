//! Why a store cannot be opened, and why an open one fails.

use std::io;
use std::path::PathBuf;

use freehold_core::{InstanceName, SiteName};

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file system refused.
    #[error("{path} cannot be opened")]
    Io {
        /// The store's file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// The file may not be written.
    #[error("{path} is read-only")]
    ReadOnly {
        /// The store's file.
        path: PathBuf,
    },
    /// Another process, or another part of this one, has the file open.
    #[error("{path} is in use")]
    InUse {
        /// The store's file.
        path: PathBuf,
    },
    /// The file has no content.
    #[error("{path} is empty")]
    Empty {
        /// The store's file.
        path: PathBuf,
    },
    /// The file is no store, or so damaged that it does not look like one.
    #[error("{path} is not a store")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file is a store, and torn, truncated or altered.
    #[error("{path} is damaged: {damage}")]
    Damaged {
        /// The store's file.
        path: PathBuf,
        /// What is wrong with it.
        damage: Damage,
    },
    /// The file was written in a format that this release does not read.
    #[error("{path} has format {found}, this release reads format {expected}")]
    OtherFormat {
        /// The store's file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The format of this release.
        expected: u64,
    },
    /// The file is the copy of another instance.
    #[error("{path} belongs to instance {instance} of site {site}")]
    OtherOwner {
        /// The store's file.
        path: PathBuf,
        /// The site that it belongs to.
        site: SiteName,
        /// The instance that it belongs to.
        instance: InstanceName,
    },
}

impl OpenError {
    /// Whether the remedy is to set the file aside and to rebuild it from the streams. Otherwise an operator is needed, or
    /// the other process that has the file.
    pub fn is_cured_by_rebuilding(&self) -> bool {
        match self {
            Self::Empty { .. } | Self::Foreign { .. } | Self::Damaged { .. } | Self::OtherFormat { .. } => true,
            Self::Io { .. } | Self::ReadOnly { .. } | Self::InUse { .. } | Self::OtherOwner { .. } => false,
        }
    }
}

/// What is wrong with the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// A value does not fit its checksum.
    #[error("a row of table {table} does not fit its checksum")]
    Checksum {
        /// The table.
        table: &'static str,
    },
    /// A key or a value that fits its checksum cannot be read.
    #[error("a row of table {table} cannot be read")]
    Unreadable {
        /// The table.
        table: &'static str,
    },
    /// The engine found its pages damaged.
    #[error("{report}")]
    Engine {
        /// What the engine said.
        report: String,
    },
}

/// Why an open store fails. After the first of these the store is poisoned: nothing is read or written until it is opened
/// again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is damaged: set it aside and rebuild.
    #[error("the store is damaged: {0}")]
    Corrupt(Damage),
    /// An earlier failure left the store in doubt.
    #[error("the store failed before and must be opened again")]
    Poisoned,
    /// The file could not be read or written.
    #[error("the store's file could not be read or written")]
    Storage(#[source] Box<redb::Error>),
    /// A commit failed: its changes may be on the disk or not.
    #[error("a commit to the store failed, its changes may be on the disk or not")]
    Commit(#[source] Box<redb::Error>),
}

impl Error {
    /// Tells damage from other failures of the engine.
    pub(crate) fn engine(error: impl Into<redb::Error>) -> Self {
        let error = error.into();
        if is_damage(&error) {
            Self::Corrupt(Damage::Engine { report: error.to_string() })
        } else {
            Self::Storage(Box::new(error))
        }
    }
}

/// Whether an error of the engine says that the file is damaged. All tables were there, and of their types, when the store
/// was opened.
pub(crate) fn is_damage(error: &redb::Error) -> bool {
    match error {
        redb::Error::Corrupted(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TableIsNotMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableDoesNotExist(_) => true,
        // The engine followed an altered page number behind the end of the file.
        redb::Error::Io(error) => matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof),
        _ => false,
    }
}

impl From<Damage> for Error {
    fn from(damage: Damage) -> Self {
        Self::Corrupt(damage)
    }
}
