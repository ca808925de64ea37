//! A histogram of times with a fixed size, for a program that never ends.

use std::time::Duration;

/// Each power of two has this many buckets, so a quantile is at most 1/16 too high.
const BUCKETS_PER_OCTAVE: u64 = 16;
/// The longest time that is distinguished, in microseconds: more than an hour.
const MAX_MICROS: u64 = u32::MAX as u64;
const BUCKETS: usize = bucket(MAX_MICROS) + 1;

/// How often each time was observed, in microseconds on a logarithmic scale. The maximum is exact.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    buckets: Box<[u64; BUCKETS]>,
    count: u64,
    max: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: Box::new([0; BUCKETS]),
            count: 0,
            max: Duration::ZERO,
        }
    }
}

impl Histogram {
    /// Counts a time.
    pub(super) fn observe(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(micros.min(MAX_MICROS))] += 1;
        self.count += 1;
        self.max = self.max.max(time);
    }

    /// How many times were counted.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The longest time; zero without any.
    pub(super) fn max(&self) -> Duration {
        self.max
    }

    /// The time that this percentage of all times does not exceed; zero without any.
    pub(super) fn percentile(&self, percent: u64) -> Duration {
        let rank = (self.count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_micros(upper_bound(index)).min(self.max);
            }
        }
        self.max
    }
}

const fn bucket(micros: u64) -> usize {
    let mut shift = 0;
    while micros >> shift >= 2 * BUCKETS_PER_OCTAVE {
        shift += 1;
    }
    (shift * BUCKETS_PER_OCTAVE + (micros >> shift)) as usize
}

/// The longest time in a bucket, in microseconds.
fn upper_bound(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket / BUCKETS_PER_OCTAVE).saturating_sub(1);
    ((bucket - shift * BUCKETS_PER_OCTAVE + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_within_a_sixteenth_of_its_buckets_bound() {
        let mut last = 0;
        for exponent in 0..32_u32 {
            for micros in [
                1_u64 << exponent,
                (3_u64 << exponent) / 2,
                (2 << exponent) - 1,
            ] {
                let index = bucket(micros);
                assert!(index < BUCKETS && index >= last, "{micros}");
                last = index;
                let bound = upper_bound(index);
                assert!(
                    micros <= bound && bound <= micros + micros / 16,
                    "{micros}: {bound}"
                );
            }
        }
        assert_eq!((bucket(0), upper_bound(0)), (0, 0));
    }

    #[test]
    fn percentiles_are_those_of_the_times() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(99), Duration::ZERO);
        for millis in 1..=100 {
            histogram.observe(Duration::from_millis(millis));
        }
        let is_near = |percent, millis: u64| {
            let shown = histogram.percentile(percent);
            let exact = Duration::from_millis(millis);
            shown >= exact && shown <= exact + exact / 16
        };
        assert!(is_near(50, 50) && is_near(99, 99), "{histogram:?}");
        assert_eq!(histogram.percentile(100), Duration::from_millis(100));
        assert_eq!(
            (histogram.count(), histogram.max()),
            (100, Duration::from_millis(100))
        );

        let mut long = Histogram::default();
        long.observe(Duration::MAX);
        assert_eq!(long.max(), Duration::MAX);
    }

    #[test]
    fn most_zeros_make_a_percentile_of_zero() {
        let mut histogram = Histogram::default();
        for _ in 0..99 {
            histogram.observe(Duration::ZERO);
        }
        histogram.observe(Duration::from_secs(1));
        assert_eq!(histogram.percentile(99), Duration::ZERO);
        assert_eq!(histogram.percentile(100), Duration::from_secs(1));
    }
}
