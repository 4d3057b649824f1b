//! What an instance knows of another site's log beside the mirror at its own site: how far the origin is, and how old the
//! copy of it is.
//!
//! The server's word is not enough: a mirror's `lag` reads 0 during a cut, and a mirror can take more than a minute to notice
//! that the link is back. So each instance asks the origin itself, through its domain. An age is measured on this
//! instance's own clock: the copy is as old as the last moment at which it certainly had all that the origin had.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use freehold_core::{SiteName, StreamSequence};
use freehold_jetstream::{Connection, RecordsLog};

use crate::group_worker::describe;

/// How often the origin is asked how far it is.
pub(crate) const INTERVAL: Duration = Duration::from_millis(500);
/// A mirror that has taken this much between two sightings is being filled, faster than two could be served by the origin.
const FAST_MIRROR_MESSAGES: u64 = 5_000;
/// Sightings in a row in which a mirror may be late before the origin is read instead.
const LATE_SIGHTINGS: u32 = 2;
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Sightings that wait for the copy to reach them; in a longer backlog the age is that of the oldest.
const MAX_UNREACHED: usize = 1_024;

/// Where the origin and this site's mirror of it stood when they were asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sighting {
    /// The last message of the origin's log.
    pub(crate) origin: StreamSequence,
    /// The last message of the mirror.
    pub(crate) mirror: StreamSequence,
}

/// What is known of one origin.
pub(crate) struct OriginWatch {
    newest: watch::Sender<Option<Sighting>>,
    /// The mirror is known to have everything up to here.
    mirrored: AtomicU64,
    /// The origin has not answered the last question.
    silent: watch::Sender<bool>,
    seen_at: Mutex<Option<Instant>>,
    age: Mutex<Age>,
}

#[derive(Default)]
struct Age {
    /// The copy had all that the origin had then.
    complete_at: Option<Instant>,
    /// When the origin was asked, and what the copy must have applied to have been complete then.
    unreached: VecDeque<(Instant, StreamSequence)>,
}

impl OriginWatch {
    pub(crate) fn new() -> Self {
        Self {
            newest: watch::channel(None).0,
            mirrored: AtomicU64::new(0),
            silent: watch::channel(false).0,
            seen_at: Mutex::default(),
            age: Mutex::default(),
        }
    }

    /// Tells of each new sighting.
    pub(crate) fn sightings(&self) -> watch::Receiver<Option<Sighting>> {
        self.newest.subscribe()
    }

    /// The furthest that the origin was seen, and how long ago; nothing where it never was in this life of the instance.
    pub(crate) fn last_seen(&self) -> Option<(StreamSequence, Duration)> {
        let newest = (*self.newest.borrow())?;
        let at = self.seen_at.lock().unwrap_or_else(PoisonError::into_inner);
        at.map(|at| (newest.origin, at.elapsed()))
    }

    /// What the origin had when it was asked first in this life of the instance; nothing where it does not answer.
    pub(crate) async fn first_seen(&self) -> Option<StreamSequence> {
        let (mut newest, mut silent) = (self.newest.subscribe(), self.silent.subscribe());
        tokio::select! {
            biased;
            Ok(seen) = newest.wait_for(Option::is_some) => seen.map(|sighting| sighting.origin),
            _ = silent.wait_for(|silent| *silent) => None,
        }
    }

    /// Whether the origin does not answer. Never used for safety: only a caller that wants it is refused for it.
    pub(crate) fn is_silent(&self) -> bool {
        *self.silent.borrow()
    }

    /// The mirror is known to have everything up to here.
    pub(crate) fn mirrored(&self) -> StreamSequence {
        StreamSequence(self.mirrored.load(Ordering::Relaxed))
    }

    /// Notes what the mirror has.
    pub(crate) fn note_mirrored(&self, sequence: StreamSequence) {
        self.mirrored.fetch_max(sequence.0, Ordering::Relaxed);
    }

    /// How old the copy is, given how far it is; nothing where it was never seen complete in this life of the instance.
    pub(crate) fn age(&self, applied: StreamSequence) -> Option<Duration> {
        // Whole entries are put in and taken out: a panic elsewhere leaves nothing half-done.
        let mut age = self.age.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((asked, origin)) = age.unreached.front().copied() {
            if origin > applied {
                break;
            }
            age.complete_at = Some(asked);
            age.unreached.pop_front();
        }
        age.complete_at.map(|at| at.elapsed())
    }

    /// Asks again and again. Never returns.
    pub(crate) async fn run(self: Arc<Self>, connection: Connection, origin: SiteName) {
        let there = RecordsLog::new(connection.in_domain(&origin), origin.clone());
        let here = RecordsLog::new(connection, origin.clone());
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let asked = Instant::now();
            let both = async { tokio::try_join!(there.state(&origin), here.state(&origin)) };
            let answered = timeout(ANSWER_TIMEOUT, both).await;
            self.silent.send_replace(!matches!(answered, Ok(Ok(_))));
            match answered {
                Ok(Ok((there, here))) => self.saw(asked, Sighting { origin: there.last, mirror: here.last }),
                Ok(Err(error)) => tracing::debug!(%origin, error = describe(&error), "the origin does not answer"),
                Err(_) => tracing::debug!(%origin, "the origin does not answer"),
            }
        }
    }

    fn saw(&self, asked: Instant, sighting: Sighting) {
        *self.seen_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked);
        let mut age = self.age.lock().unwrap_or_else(PoisonError::into_inner);
        if age.unreached.len() < MAX_UNREACHED {
            age.unreached.push_back((asked, sighting.origin));
        }
        drop(age);
        self.note_mirrored(sighting.mirror);
        self.newest.send_replace(Some(sighting));
    }
}

/// Where a log is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// The stream at this site: the own log, or the mirror of another site's.
    Site,
    /// The origin's stream, through its domain.
    Origin,
    /// Another site's mirror, through that site's domain: the origin is lost, and that site has more of its log.
    Member(SiteName),
}

/// Chooses the source from one sighting to the next.
#[derive(Debug, Default)]
pub(crate) struct SourceChoice {
    before: Option<(Sighting, StreamSequence)>,
    /// Sightings in a row in which the mirror was late.
    late: u32,
}

impl SourceChoice {
    /// The source to read from now. A mirror is late when it lacks what the origin had a sighting ago and does not come closer fast;
    /// it is left when that was so more than once, since one that was made a moment ago begins to be filled. It has caught up when it has
    /// what was passed a sighting ago.
    pub(crate) fn next(&mut self, source: &Source, passed: StreamSequence, now: Sighting) -> Source {
        let Some((before, passed_before)) = self.before.replace((now, passed)) else { return source.clone() };
        let is_late = now.mirror < before.origin && now.mirror.0 < before.mirror.0 + FAST_MIRROR_MESSAGES;
        self.late = if is_late { self.late + 1 } else { 0 };
        let next = match source {
            Source::Site if self.late >= LATE_SIGHTINGS => Source::Origin,
            Source::Origin if now.mirror >= passed_before => Source::Site,
            _ => return source.clone(),
        };
        // What was seen before says nothing about the other source.
        *self = Self::default();
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(origin: u64, mirror: u64) -> Sighting {
        Sighting { origin: StreamSequence(origin), mirror: StreamSequence(mirror) }
    }

    #[test]
    fn a_late_mirror_is_left_and_taken_again_when_it_has_caught_up() {
        let mut choice = SourceChoice::default();
        let mut next = |source: Source, passed, sighting| choice.next(&source, StreamSequence(passed), sighting);
        assert_eq!(next(Source::Site, 10, seen(20, 10)), Source::Site, "it may be on its way");
        assert_eq!(next(Source::Site, 20, seen(30, 20)), Source::Site, "it was");
        assert_eq!(next(Source::Site, 20, seen(40, 20)), Source::Site, "it is late, once");
        assert_eq!(next(Source::Site, 20, seen(40, 20)), Source::Origin);
        assert_eq!(next(Source::Origin, 40, seen(50, 45)), Source::Origin, "no passage of the origin is known yet");
        assert_eq!(next(Source::Origin, 60, seen(60, 39)), Source::Origin);
        assert_eq!(next(Source::Origin, 70, seen(70, 62)), Source::Site, "it has what was passed a sighting ago");
        assert_eq!(next(Source::Site, 70, seen(100_000, 70)), Source::Site, "nothing is known of it any more");
        assert_eq!(next(Source::Site, 9_000, seen(100_000, 9_000)), Source::Site, "it is being filled");
        assert_eq!(next(Source::Site, 9_500, seen(100_000, 9_500)), Source::Site, "it pauses");
        assert_eq!(next(Source::Site, 9_500, seen(100_000, 9_600)), Source::Origin, "it stands still, nearly");
    }

    #[tokio::test(start_paused = true)]
    async fn a_copy_is_as_old_as_the_last_moment_at_which_it_was_complete() {
        let watch = OriginWatch::new();
        assert_eq!(watch.age(StreamSequence(5)), None);
        watch.saw(Instant::now(), seen(5, 5));
        tokio::time::advance(Duration::from_secs(1)).await;
        watch.saw(Instant::now(), seen(9, 5));
        assert_eq!(watch.age(StreamSequence(5)), Some(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(watch.age(StreamSequence(8)), Some(Duration::from_secs(4)));
        assert_eq!(watch.age(StreamSequence(9)), Some(Duration::from_secs(3)));
    }
}
