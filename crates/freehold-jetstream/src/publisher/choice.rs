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
    /// Nothing until the way in use has shown what it does: its first acknowledgements come behind those of the other.
    period: Option<Period>,
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
    pub(super) fn new() -> Self {
        Self { way: Way::Alone, trial_against: None, left: FIRST_PATIENCE, patience: FIRST_PATIENCE, period: None }
    }

    pub(super) fn way(&self) -> Way {
        self.way
    }

    #[cfg(test)]
    pub(super) fn is_trial(&self) -> bool {
        self.trial_against.is_some()
    }

    /// Notes that messages were acknowledged, and which way they went; `backlog` were under way with them when they were sent.
    pub(super) fn acknowledged(&mut self, way: Way, messages: usize, backlog: usize, now: Instant) {
        if way != self.way {
            return;
        }
        let period = self.period.get_or_insert_with(|| Period::begin(now));
        let took = now.saturating_duration_since(period.begun);
        // What was acknowledged when the period began is not of it.
        if took > Duration::ZERO {
            period.messages += messages;
            period.in_backlog += if backlog < MIN_BACKLOG { 0 } else { messages };
            period.under_way += messages * backlog;
        }
        if took < PERIOD {
            return;
        }
        let period = std::mem::replace(period, Period::begin(now));
        // A period in which nothing was sent for long says nothing about the log.
        if 2 * period.in_backlog > period.messages && took < 2 * PERIOD {
            let may_gain = self.way == Way::Gathered || period.wait(took) >= MIN_WAIT;
            self.judge(period.messages as f64 / took.as_secs_f64(), may_gain);
        } else if self.trial_against.take().is_some() {
            // Nor is it a trial: there is one again when there is a backlog.
            self.turn();
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
                self.turn();
                self.patience = (4 * self.patience).min(MOST_PATIENCE);
                self.left = self.patience;
            }
            None if self.left > 0 => self.left -= 1,
            None if !may_gain => {}
            None => {
                self.trial_against = Some(rate);
                self.turn();
            }
        }
    }

    fn turn(&mut self) {
        self.way = self.way.other();
        self.period = None;
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
    use std::collections::VecDeque;

    use super::*;

    /// A log, and who publishes to it.
    struct Load {
        choice: Choice,
        now: Instant,
        /// Each ten messages.
        under_way: VecDeque<Way>,
    }

    impl Load {
        fn new() -> Self {
            Self { choice: Choice::new(), now: Instant::now(), under_way: VecDeque::new() }
        }

        /// Publishes for a time, with so many under way, in the order in which they were sent, at the rate that each way allows. Tells how many
        /// messages were acknowledged in each way.
        fn publish(&mut self, rates: impl Fn(Way) -> f64, backlog: usize, seconds: f64) -> (usize, usize) {
            let (mut alone, mut gathered) = (0, 0);
            let end = self.now + Duration::from_secs_f64(seconds);
            self.under_way.clear();
            self.under_way.resize((backlog / 10).max(1), self.choice.way());
            while self.now < end {
                let way = self.under_way.pop_front().unwrap();
                self.now += Duration::from_secs_f64(10.0 / rates(way));
                self.choice.acknowledged(way, 10, backlog, self.now);
                match way {
                    Way::Alone => alone += 10,
                    Way::Gathered => gathered += 10,
                }
                self.under_way.push_back(self.choice.way());
            }
            (alone, gathered)
        }
    }

    fn rates(alone: f64, gathered: f64) -> impl Fn(Way) -> f64 {
        move |way| if way == Way::Alone { alone } else { gathered }
    }

    #[test]
    fn the_faster_way_is_used_nearly_all_the_time() {
        let mut always = Load::new();
        let (alone, gathered) = always.publish(rates(4_700.0, 20_000.0), 200, 100.0);
        assert_eq!(always.choice.way(), Way::Gathered);
        assert!(gathered > 50 * alone, "{alone} {gathered}");

        let mut lazy = Load::new();
        let (alone, gathered) = lazy.publish(rates(10_000.0, 7_000.0), 200, 100.0);
        assert_eq!(lazy.choice.way(), Way::Alone);
        assert!(gathered > 0 && alone > 50 * gathered, "{alone} {gathered}");
    }

    #[test]
    fn what_becomes_faster_is_found() {
        let mut load = Load::new();
        load.publish(rates(10_000.0, 5_000.0), 200, 100.0);
        load.publish(rates(2_000.0, 8_000.0), 200, 100.0);
        assert_eq!(load.choice.way(), Way::Gathered);
    }

    #[test]
    fn a_log_that_takes_longer_than_a_period_is_judged_by_what_went_each_way() {
        let mut load = Load::new();
        load.publish(rates(400.0, 4_000.0), 200, 10.0);
        assert_eq!(load.choice.way(), Way::Gathered, "what waited was sent the other way");
        load.publish(rates(400.0, 300.0), 200, 30.0);
        assert_eq!(load.choice.way(), Way::Alone);
    }

    #[test]
    fn batches_that_gain_little_are_given_up() {
        let mut load = Load::new();
        load.publish(rates(2_000.0, 8_000.0), 200, 10.0);
        assert_eq!(load.choice.way(), Way::Gathered);
        load.publish(rates(10_000.0, 11_000.0), 200, 100.0);
        assert_eq!(load.choice.way(), Way::Alone);
    }

    #[test]
    fn a_trial_ends_with_the_backlog() {
        let mut load = Load::new();
        while !load.choice.is_trial() {
            load.publish(rates(4_700.0, 20_000.0), 200, 0.1);
        }
        assert_eq!(load.choice.way(), Way::Gathered);
        load.publish(rates(100.0, 100.0), 1, 2.0);
        assert_eq!(load.choice.way(), Way::Alone);
    }

    #[test]
    fn nothing_is_tried_where_acknowledgements_come_soon() {
        let mut load = Load::new();
        let (_, gathered) = load.publish(|_| 20_000.0, 200, 100.0);
        assert_eq!((load.choice.way(), gathered), (Way::Alone, 0));
    }

    #[test]
    fn without_a_backlog_nothing_is_tried() {
        let mut load = Load::new();
        let (_, gathered) = load.publish(|_| 100.0, MIN_BACKLOG - 1, 100.0);
        assert_eq!((load.choice.way(), gathered), (Way::Alone, 0));
    }
}
