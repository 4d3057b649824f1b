//! Whether the store may still be used: shared by its writer, its readers and their snapshots.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Damage, Error};

/// Poisoned by the first failure, for good.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health(Arc<AtomicBool>);

impl Health {
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.0.load(Ordering::Acquire) { Err(Error::Poisoned) } else { Ok(()) }
    }

    pub(crate) fn poison(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Runs an access to the engine. Any failure poisons: what a failed access leaves behind is not known, and a copy that
    /// may be damaged must not be served as healthy.
    pub(crate) fn guard<T>(&self, access: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        self.check()?;
        let result = catch_panic(access).unwrap_or_else(|damage| Err(damage.into()));
        if result.is_err() {
            self.poison();
        }
        result
    }
}

/// Runs an access to the engine, which may panic on pages that rotted behind its back.
pub(crate) fn catch_panic<T>(access: impl FnOnce() -> T) -> Result<T, Damage> {
    catch_unwind(AssertUnwindSafe(access)).map_err(|panic| Damage::Engine { report: panic_message(panic.as_ref()) })
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the engine panicked: {}", text.unwrap_or("no message"))
}
