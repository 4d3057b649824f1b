//! Waiting for a named condition with a deadline: the only place in this crate that sleeps.

use std::future::Future;
use std::time::{Duration, Instant};

/// How long to rest between two looks at a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A condition did not come true in time.
#[derive(Debug, Clone, thiserror::Error)]
#[error("waited {waited:?} for {condition}, in vain")]
pub struct DeadlinePassed {
    /// What was waited for.
    pub condition: String,
    /// How long it was waited for.
    pub waited: Duration,
}

/// Waits until `check` says true, looking every few milliseconds.
///
/// # Errors
/// When the condition is still false after `deadline`.
pub async fn wait_until<F, C>(condition: &str, deadline: Duration, mut check: F) -> Result<(), DeadlinePassed>
where
    F: FnMut() -> C,
    C: Future<Output = bool>,
{
    poll(deadline, || {
        let checked = check();
        async move { checked.await.then_some(()) }
    })
    .await
    .ok_or_else(|| DeadlinePassed { condition: condition.to_owned(), waited: deadline })
}

/// Looks until `check` finds something; `None` when it has not after `deadline`. Looks at least once.
pub(crate) async fn poll<T, F, C>(deadline: Duration, mut check: F) -> Option<T>
where
    F: FnMut() -> C,
    C: Future<Output = Option<T>>,
{
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = check().await {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The same for places that cannot await, such as `Drop`.
pub(crate) fn poll_blocking<T>(deadline: Duration, mut check: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = check() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}
