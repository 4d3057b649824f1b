//! What a load has done so far: shared between the tasks that send and those who show it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::latency::Latencies;
use super::loader::Ended;
use super::report::LoadFigures;

/// Failures that are kept in full; the others are counted.
const MAX_KEPT_FAILURES: usize = 10;

/// Counts of a load.
#[derive(Debug)]
pub(crate) struct Meter {
    started: Instant,
    commands: watch::Sender<u64>,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    flights: u64,
    done_before: u64,
    retried: u64,
    failed: u64,
    failures: Vec<String>,
    latencies: Latencies,
    last_answer: Option<Instant>,
}

impl Default for Meter {
    fn default() -> Self {
        Self { started: Instant::now(), commands: watch::Sender::new(0), counts: Mutex::default() }
    }
}

impl Meter {
    /// A command was answered, in this many tries; `done_before` where the record was past it.
    pub(crate) fn answered(&self, latency: Duration, tries: u64, done_before: bool) {
        let mut counts = self.counts();
        counts.latencies.add(latency);
        counts.retried += tries.saturating_sub(1);
        counts.done_before += u64::from(done_before);
        counts.last_answer = Some(Instant::now());
        drop(counts);
        self.commands.send_modify(|commands| *commands += 1);
    }

    /// A command was refused, or nobody answered in time.
    pub(crate) fn failed(&self, failure: String) {
        let mut counts = self.counts();
        counts.failed += 1;
        if counts.failures.len() < MAX_KEPT_FAILURES {
            counts.failures.push(failure);
        }
    }

    /// All commands of a flight were answered.
    pub(crate) fn flight_done(&self) {
        self.counts().flights += 1;
    }

    /// Commands that were answered.
    pub(crate) fn commands(&self) -> u64 {
        *self.commands.borrow()
    }

    /// Waits until this many commands were answered.
    pub(crate) async fn wait_for(&self, commands: u64) {
        // The sender lives in this very value.
        let _ = self.commands.subscribe().wait_for(|answered| *answered >= commands).await;
    }

    /// When the newest answer came.
    pub(crate) fn last_answer(&self) -> Instant {
        self.counts().last_answer.unwrap_or(self.started)
    }

    /// The figures, from the start to the newest answer.
    pub(crate) fn figures(&self, ended: Ended) -> LoadFigures {
        let seconds = self.last_answer().duration_since(self.started).as_secs_f64();
        let commands = self.commands();
        let counts = self.counts();
        LoadFigures {
            complete: ended == Ended::AtTheEnd,
            flights: counts.flights,
            commands,
            done_before: counts.done_before,
            retried: counts.retried,
            failed: counts.failed,
            failures: counts.failures.clone(),
            seconds,
            commands_per_second: if seconds > 0.0 { commands as f64 / seconds } else { 0.0 },
            latency: counts.latencies.quantiles(),
        }
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
