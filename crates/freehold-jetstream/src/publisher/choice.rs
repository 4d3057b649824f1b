//! Which way of publishing is the faster one: found by trying both, while there is a backlog.

use std::time::{Duration, Instant};

/// A way is judged over this time.
const PERIOD: Duration = Duration::from_millis(250);
/// The other way is tried after so many periods at first; four times as many each time that it was not better, up to the most.
const FIRST_PATIENCE: u32 = 4;
const MOST_PATIENCE: u32 = 256;
/// With fewer publishes under way there is nothing to gain: they are acknowledged as they come.
const MIN_BACKLOG: usize = 16;
/// Batches are not tried where acknowledgements take less than this: one batch takes half of it.
const MIN_WAIT: Duration = Duration::from_millis(15);
/// Batches must be better by this factor, whichever way is tried: where they pay they are twice as fast, and a machine that others work on
/// changes by less from one period to the next.
const WORTH_IT: f64 = 1.4;

/// How messages are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Each one by itself.
    Alone,
    /// What there is, in batches.
    Gathered,
}

impl Way {
    fn other(self) -> Self {
        match self {
            Self::Alone => Self::Gathered,
            Self::Gathered => Self::Alone,
        }
    }
}

/// The way that is in use, and what is known of both.
#[derive(Debug)]
pub(super) struct Choice {
    way: Way,
    /// The rate of the other way when this one took its turn as a trial.
    trial_against: Option<f64>,
    /// Periods until the other way is tried.
    left: u32,
    patience: u32,
    period: Period,
}

/// What was acknowledged since a time, and how much of it had company.
#[derive(Debug)]
struct Period {
    begun: Instant,
    messages: usize,
    in_backlog: usize,
    /// How many were under way with each, in total.
    under_way: usize,
}

impl Period {
    fn begin(begun: Instant) -> Self {
        Self { begun, messages: 0, in_backlog: 0, under_way: 0 }
    }

    /// How long an acknowledgement took, on average (Little's law).
    fn wait(&self, took: Duration) -> Duration {
        let under_way = self.under_way as f64 / self.messages.max(1) as f64;
        took.mul_f64(under_way / self.messages.max(1) as f64)
    }
}

impl Choice {
    pub(super) fn new(now: Instant) -> Self {
        let period = Period::begin(now);
        Self { way: Way::Alone, trial_against: None, left: FIRST_PATIENCE, patience: FIRST_PATIENCE, period }
    }

    pub(super) fn way(&self) -> Way {
        self.way
    }

    /// Notes that messages were acknowledged; `backlog` were under way with them when they were sent.
    pub(super) fn acknowledged(&mut self, messages: usize, backlog: usize, now: Instant) {
        self.period.messages += messages;
        self.period.in_backlog += if backlog < MIN_BACKLOG { 0 } else { messages };
        self.period.under_way += messages * backlog;
        let took = now.saturating_duration_since(self.period.begun);
        if took < PERIOD {
            return;
        }
        let period = std::mem::replace(&mut self.period, Period::begin(now));
        // A period in which nothing was sent for long says nothing about the log.
        if 2 * period.in_backlog > period.messages && took < 2 * PERIOD {
            let may_gain = self.way == Way::Gathered || period.wait(took) >= MIN_WAIT;
            self.judge(period.messages as f64 / took.as_secs_f64(), may_gain);
        }
    }

    fn judge(&mut self, rate: f64, may_gain: bool) {
        match self.trial_against.take() {
            Some(other) if self.is_better(rate, other) => {
                tracing::info!(way = ?self.way, rate, before = other, "messages are published in another way");
                self.patience = FIRST_PATIENCE;
                self.left = FIRST_PATIENCE;
            }
            Some(_) => {
                self.way = self.way.other();
                self.patience = (4 * self.patience).min(MOST_PATIENCE);
                self.left = self.patience;
            }
            None if self.left > 0 => self.left -= 1,
            None if !may_gain => {}
            None => {
                self.trial_against = Some(rate);
                self.way = self.way.other();
            }
        }
    }

    /// Whether the way in use is the better one, by its rate and the other's.
    fn is_better(&self, rate: f64, other: f64) -> bool {
        match self.way {
            Way::Gathered => rate >= other * WORTH_IT,
            Way::Alone => rate * WORTH_IT > other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Publishes at the rate that each way allows, and tells how many messages were acknowledged in each way.
    fn publish(choice: &mut Choice, rates: impl Fn(Way) -> f64, backlog: usize, time: Duration) -> (usize, usize) {
        let (mut alone, mut gathered) = (0, 0);
        let mut now = choice.period.begun;
        let end = now + time;
        while now < end {
            let way = choice.way();
            now += Duration::from_secs_f64(10.0 / rates(way));
            choice.acknowledged(10, backlog, now);
            match way {
                Way::Alone => alone += 10,
                Way::Gathered => gathered += 10,
            }
        }
        (alone, gathered)
    }

    #[test]
    fn the_faster_way_is_used_nearly_all_the_time() {
        let mut choice = Choice::new(Instant::now());
        let always = |way| if way == Way::Alone { 4_700.0 } else { 20_000.0 };
        let (alone, gathered) = publish(&mut choice, always, 200, Duration::from_secs(100));
        assert_eq!(choice.way(), Way::Gathered);
        assert!(gathered > 50 * alone, "{alone} {gathered}");

        let mut choice = Choice::new(Instant::now());
        let lazy = |way| if way == Way::Alone { 10_000.0 } else { 7_000.0 };
        let (alone, gathered) = publish(&mut choice, lazy, 200, Duration::from_secs(100));
        assert_eq!(choice.way(), Way::Alone);
        assert!(alone > 50 * gathered, "{alone} {gathered}");
    }

    #[test]
    fn what_becomes_faster_is_found() {
        let mut choice = Choice::new(Instant::now());
        publish(&mut choice, |way| if way == Way::Alone { 20_000.0 } else { 5_000.0 }, 200, Duration::from_secs(100));
        publish(&mut choice, |way| if way == Way::Alone { 2_000.0 } else { 8_000.0 }, 200, Duration::from_secs(100));
        assert_eq!(choice.way(), Way::Gathered);
    }

    #[test]
    fn batches_that_gain_little_are_given_up() {
        let mut choice = Choice::new(Instant::now());
        publish(&mut choice, |way| if way == Way::Alone { 2_000.0 } else { 8_000.0 }, 200, Duration::from_secs(10));
        assert_eq!(choice.way(), Way::Gathered);
        publish(&mut choice, |way| if way == Way::Alone { 10_000.0 } else { 11_000.0 }, 200, Duration::from_secs(100));
        assert_eq!(choice.way(), Way::Alone);
    }

    #[test]
    fn nothing_is_tried_where_acknowledgements_come_soon() {
        let mut choice = Choice::new(Instant::now());
        let (_, gathered) = publish(&mut choice, |_| 20_000.0, 200, Duration::from_secs(100));
        assert_eq!((choice.way(), gathered), (Way::Alone, 0));
    }

    #[test]
    fn without_a_backlog_nothing_is_tried() {
        let mut choice = Choice::new(Instant::now());
        let (_, gathered) = publish(&mut choice, |_| 1_000.0, MIN_BACKLOG - 1, Duration::from_secs(100));
        assert_eq!((choice.way(), gathered), (Way::Alone, 0));
    }
}
