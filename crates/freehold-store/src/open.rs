//! Opening a file: what it is, whose it is, and whether it is whole.
//!
//! An existing file is verified from end to end ([`Builder::set_check_integrity_on_open`]): the engine serves flipped bits
//! as values and may panic on altered pages, and no checksum of ours notices a row that can no longer be found. That walk
//! also rebuilds what a crash has left open. So no commit uses the engine's quick repair: it would cost a second fsync at
//! each commit (only the last one's counts) to spare a walk that is made anyway.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use redb::{Builder, Database, ReadableDatabase as _, TableError};

use crate::error::{Damage, OpenError, is_damage};
use crate::health::catch_panic;
use crate::schema::{self, FORMAT_VERSION};
use crate::store::Options;

/// What every file of the engine starts with.
const ENGINE_MAGIC: &[u8; 9] = b"redb\x1A\x0A\xA9\x0D\x0A";

/// The most files that are set aside beside one store.
const MAX_SET_ASIDE_FILES: u32 = 10_000;

/// Opens the file, and says whether it was made just now.
pub(crate) fn open(options: &Options) -> Result<(Database, bool), OpenError> {
    let path = &options.path;
    match OpenOptions::new().write(true).create_new(true).open(path) {
        // The file is ours from its first moment on. A crash from here to the first commit leaves an empty or nameless
        // file, which is refused and set aside.
        Ok(_) => Ok((create(options)?, true)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok((open_existing(options)?, false)),
        Err(source) => Err(OpenError::Io { path: path.clone(), source }),
    }
}

/// See [`Store::set_aside`](crate::Store::set_aside).
pub(crate) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    for number in 1..=MAX_SET_ASIDE_FILES {
        let mut name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_owned();
        name.push(format!(".damaged-{number}"));
        let aside = path.with_file_name(name);
        if !aside.try_exists()? {
            fs::rename(path, &aside)?;
            sync_directory(path)?;
            return Ok(aside);
        }
    }
    Err(io::Error::new(ErrorKind::AlreadyExists, "too many damaged files are kept beside the store"))
}

fn create(options: &Options) -> Result<Database, OpenError> {
    let path = &options.path;
    let database = guarded(path, || builder(options).create(path).map_err(|error| engine_error(path, error)))?;
    guarded(path, || initialise(&database, options).map_err(|error| engine_error(path, error)))?;
    sync_directory(path).map_err(|source| OpenError::Io { path: path.clone(), source })?;
    Ok(database)
}

/// Makes all tables and says whose store it is, in one commit.
pub(crate) fn initialise(database: &Database, options: &Options) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for table in schema::TABLES {
        transaction.open_table(table.definition())?;
    }
    let meta = schema::encode_meta(FORMAT_VERSION, &options.site, &options.instance);
    transaction.open_table(schema::META.definition())?.insert(schema::META_KEY, meta.as_slice())?;
    transaction.commit()?;
    Ok(())
}

fn open_existing(options: &Options) -> Result<Database, OpenError> {
    let path = &options.path;
    check_header(path)?;
    let database = guarded(path, || builder(options).open(path).map_err(|error| engine_error(path, error)))?;
    check_meta(&database, options)?;
    Ok(database)
}

fn builder(options: &Options) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(options.cache_bytes).set_check_integrity_on_open(true);
    builder
}

/// What can be said before the engine looks at the file.
fn check_header(path: &Path) -> Result<(), OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(io)?;
    if !metadata.is_file() {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    // An administrator may write it all the same, but whoever made it read-only meant something by it.
    if metadata.permissions().readonly() {
        return Err(OpenError::ReadOnly { path: path.to_owned() });
    }
    if metadata.len() == 0 {
        return Err(OpenError::Empty { path: path.to_owned() });
    }
    let mut magic = Vec::with_capacity(ENGINE_MAGIC.len());
    File::open(path).and_then(|file| file.take(ENGINE_MAGIC.len() as u64).read_to_end(&mut magic)).map_err(io)?;
    if magic == ENGINE_MAGIC { Ok(()) } else { Err(OpenError::Foreign { path: path.to_owned() }) }
}

/// Whose store it is, and whether all tables are there.
pub(crate) fn check_meta(database: &Database, options: &Options) -> Result<(), OpenError> {
    let path = &options.path;
    let meta = guarded(path, || read_meta(database).map_err(|error| engine_error(path, error)))?;
    let meta = meta.ok_or_else(|| OpenError::Foreign { path: path.clone() })?;
    let meta = schema::decode_meta(&meta).map_err(|damage| OpenError::Damaged { path: path.clone(), damage })?;
    match meta.owner {
        None => Err(OpenError::OtherFormat { path: path.clone(), found: meta.format, expected: FORMAT_VERSION }),
        Some((site, instance)) if site != options.site || instance != options.instance => {
            Err(OpenError::OtherOwner { path: path.clone(), site, instance })
        }
        Some(_) => guarded(path, || check_tables(database).map_err(|error| engine_error(path, error))),
    }
}

fn read_meta(database: &Database) -> Result<Option<Vec<u8>>, redb::Error> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(schema::META.definition()) {
        Ok(table) => table,
        // Some other program's file.
        Err(TableError::Storage(error)) => return Err(error.into()),
        Err(_) => return Ok(None),
    };
    Ok(table.get(schema::META_KEY)?.map(|meta| meta.value().to_vec()))
}

fn check_tables(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_read()?;
    for table in schema::TABLES {
        transaction.open_table(table.definition())?;
    }
    Ok(())
}

fn engine_error(path: &Path, error: impl Into<redb::Error>) -> OpenError {
    let path = path.to_owned();
    match error.into() {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => OpenError::InUse { path },
        // The format's version is a byte that can rot too; no release of ours wrote an older one.
        error if is_damage(&error) || matches!(error, redb::Error::UpgradeRequired(_)) => {
            OpenError::Damaged { path, damage: Damage::Engine { report: error.to_string() } }
        }
        redb::Error::Io(source) => OpenError::Io { path, source },
        other => OpenError::Io { path, source: io::Error::other(other) },
    }
}

fn guarded<T>(path: &Path, access: impl FnOnce() -> Result<T, OpenError>) -> Result<T, OpenError> {
    catch_panic(access).unwrap_or_else(|damage| Err(OpenError::Damaged { path: path.to_owned(), damage }))
}

/// Makes a new or changed name in the file's directory durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}
