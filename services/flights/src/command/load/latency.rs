//! How long things took, in memory that does not grow with their number.

use std::time::Duration;

use serde::Serialize;

/// Steps within a power of two: a quantile is at most one step, about 3 %, too high.
const STEPS: u64 = 32;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Enough for all of `u64`.
const BUCKETS: usize = ((64 - STEP_BITS as usize) + 1) * STEPS as usize;

/// A histogram of microseconds with buckets of about 3 %.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    buckets: Vec<u64>,
    count: u64,
    highest: Duration,
}

/// What a histogram tells.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Quantiles {
    /// Half of all took no longer.
    pub(crate) p50_ms: f64,
    /// 99 of 100 took no longer.
    pub(crate) p99_ms: f64,
    /// None took longer.
    pub(crate) max_ms: f64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, highest: Duration::ZERO }
    }
}

impl Latencies {
    /// Adds one.
    pub(crate) fn add(&mut self, latency: Duration) {
        let microseconds = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(microseconds)] += 1;
        self.count += 1;
        self.highest = self.highest.max(latency);
    }

    /// The quantiles; nothing where there is nothing.
    pub(crate) fn quantiles(&self) -> Option<Quantiles> {
        let highest = milliseconds(self.highest);
        let at = |share| (self.quantile(share) as f64 / 1_000.0).min(highest);
        (self.count > 0).then(|| Quantiles { p50_ms: at(0.5), p99_ms: at(0.99), max_ms: highest })
    }

    fn quantile(&self, share: f64) -> u64 {
        let rank = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.buckets.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.map_or(0, upper_bound)
    }
}

/// A duration as a number of milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// Values below `STEPS` have a bucket each; every power of two above has `STEPS` buckets.
fn bucket_of(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let exponent = value.ilog2() - STEP_BITS;
    let step = (value >> exponent) - STEPS;
    ((u64::from(exponent) + 1) * STEPS + step) as usize
}

/// The highest value of a bucket.
fn upper_bound(bucket: usize) -> u64 {
    let (exponent, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    if exponent == 0 {
        return step;
    }
    let next = u128::from(STEPS + step + 1) << (exponent - 1);
    u64::try_from(next - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_of_a_known_series() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantiles(), None);
        for millisecond in 1..=1_000 {
            latencies.add(Duration::from_millis(millisecond));
        }
        let quantiles = latencies.quantiles().unwrap();
        assert!((500.0..=516.0).contains(&quantiles.p50_ms), "{quantiles:?}");
        assert!((990.0..=1_000.0).contains(&quantiles.p99_ms), "{quantiles:?}");
        assert_eq!(quantiles.max_ms, 1_000.0);
    }

    proptest! {
        #[test]
        fn a_value_lies_in_its_bucket_and_the_bucket_is_narrow(value in any::<u64>()) {
            let bucket = bucket_of(value);
            prop_assert!(bucket < BUCKETS);
            let upper = upper_bound(bucket);
            prop_assert!(upper >= value);
            prop_assert!(upper - value <= value / STEPS);
            prop_assert!(bucket == 0 || upper_bound(bucket - 1) < value);
        }
    }
}
