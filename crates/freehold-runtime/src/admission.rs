//! Admission: how much requests may put into the command log.
//!
//! A holder moves its position only when the commands that its decisions emit are in the log, too, and nothing is purged that
//! lies above the position. Requests could fill the log so that no emitted command fits, and then nothing would
//! ever be purged again. Therefore a share of the log is kept free of requests: they are refused (`busy`) before it is
//! reached. How full the log is comes from the server, a few times a second; in between each instance spends its part of
//! what was left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use freehold_jetstream::{CommandLog, CommandLogRoom};

use crate::group_worker::describe;
use crate::membership::MemberLists;

/// One part in this many of the command log is kept for commands that decisions emit.
const EMITTED_SHARE: i64 = 4;
/// With less than one part in this many left, the server is asked again although no request has come.
const NEARLY_FULL: i64 = 64;
/// How often the server is asked how full the log is, while requests come.
const INTERVAL: Duration = Duration::from_millis(250);
/// What a command takes in the log beside its fields: subject, headers, ids and the log's own.
const COMMAND_OVERHEAD_BYTES: usize = 512;

/// Shared by the request handlers of an instance.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Bytes that may still be put into the log before the server is asked again.
    left: AtomicI64,
    /// Bytes that are on their way into the log.
    under_way: AtomicI64,
    asked: AtomicBool,
}

/// A command on its way into the log. Drop it once the log has answered.
pub(crate) struct Admitted<'a> {
    admission: &'a Admission,
    bytes: i64,
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.admission.under_way.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Admission {
    /// Starts with what the log has room for now.
    pub(crate) fn new(room: CommandLogRoom, instances: usize) -> Self {
        let admission = Self { left: AtomicI64::new(0), under_way: AtomicI64::new(0), asked: AtomicBool::new(false) };
        admission.refresh(room, instances);
        admission
    }

    /// Lets a command of so many bytes pass, or not.
    pub(crate) fn admit(&self, bytes: usize) -> Option<Admitted<'_>> {
        let bytes = i64::try_from(bytes + COMMAND_OVERHEAD_BYTES).unwrap_or(i64::MAX);
        self.asked.store(true, Ordering::Relaxed);
        let spend = |left: i64| (left >= bytes).then(|| left - bytes);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).ok()?;
        self.under_way.fetch_add(bytes, Ordering::Relaxed);
        Some(Admitted { admission: self, bytes })
    }

    /// Keeps up with the log, while there is anything to keep up with. Never returns.
    pub(crate) async fn run(self: Arc<Self>, commands: CommandLog, lists: MemberLists) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            if !self.asked.swap(false, Ordering::Relaxed) {
                continue;
            }
            match commands.room().await {
                Ok(room) => self.refresh(room, lists.most_members()),
                Err(error) => {
                    self.asked.store(true, Ordering::Relaxed);
                    tracing::debug!(error = describe(&error), "how full the command log is, is not known");
                }
            }
        }
    }

    fn refresh(&self, room: CommandLogRoom, instances: usize) {
        let Some(limit) = room.limit else {
            self.left.store(i64::MAX, Ordering::Relaxed);
            return;
        };
        let for_requests = limit - limit / EMITTED_SHARE;
        let share = (for_requests - room.used).max(0) / i64::try_from(instances.max(1)).unwrap_or(i64::MAX);
        let left = (share - self.under_way.load(Ordering::Relaxed)).max(0);
        self.left.store(left, Ordering::Relaxed);
        // Once there is room again, the next request must not be the one that finds out.
        self.asked.fetch_or(left < limit / NEARLY_FULL, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMAND: i64 = 1_000 + COMMAND_OVERHEAD_BYTES as i64;

    fn admitted(admission: &Admission) -> usize {
        let admitted: Vec<_> = std::iter::from_fn(|| admission.admit(1_000)).take(1_000).collect();
        admitted.len()
    }

    #[test]
    fn requests_leave_the_share_of_emitted_commands_free() {
        let admission = Admission::new(CommandLogRoom { used: 0, limit: Some(40 * COMMAND) }, 1);
        assert_eq!(admitted(&admission), 30);
        admission.refresh(CommandLogRoom { used: 30 * COMMAND, limit: Some(40 * COMMAND) }, 1);
        assert_eq!(admitted(&admission), 0);
        admission.refresh(CommandLogRoom { used: 10 * COMMAND, limit: Some(40 * COMMAND) }, 2);
        assert_eq!(admitted(&admission), 10, "half of what is left, with two instances");
    }

    #[test]
    fn what_is_under_way_counts_although_the_log_does_not_show_it_yet() {
        let admission = Admission::new(CommandLogRoom { used: 0, limit: Some(40 * COMMAND) }, 1);
        let under_way: Vec<_> = (0..20).filter_map(|_| admission.admit(1_000)).collect();
        admission.refresh(CommandLogRoom { used: 0, limit: Some(40 * COMMAND) }, 1);
        assert_eq!(admitted(&admission), 10);
        drop(under_way);
        admission.refresh(CommandLogRoom { used: 20 * COMMAND, limit: Some(40 * COMMAND) }, 1);
        assert_eq!(admitted(&admission), 10);
    }

    #[test]
    fn a_log_without_a_limit_takes_everything() {
        let admission = Admission::new(CommandLogRoom { used: 1 << 40, limit: None }, 1);
        assert_eq!(admitted(&admission), 1_000);
    }
}
