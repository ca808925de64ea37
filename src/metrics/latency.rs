//! How long something takes, as a histogram.

use std::time::Duration;

use super::Counter;

/// The upper bounds of the buckets. The last bucket has none.
pub const BOUNDS: [Duration; 19] = [
    Duration::from_micros(10),
    Duration::from_micros(25),
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

const BUCKETS: usize = BOUNDS.len() + 1;

/// A histogram of times, each in one bucket.
#[derive(Debug, Default)]
pub struct Latency {
    buckets: [Counter; BUCKETS],
    nanos: Counter,
}

impl Latency {
    /// Counts something that took this time.
    pub fn observe(&self, took: Duration) {
        // From the front, because most of what is frequent is quick.
        let bucket = BOUNDS.iter().position(|bound| took <= *bound);
        self.buckets[bucket.unwrap_or(BOUNDS.len())].count();
        self.nanos
            .add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// The sum of histograms.
#[derive(Clone, Debug, Default)]
pub struct LatencySum {
    buckets: [u64; BUCKETS],
    nanos: u64,
}

impl LatencySum {
    /// Adds a histogram.
    pub fn add(&mut self, latency: &Latency) {
        for (sum, bucket) in self.buckets.iter_mut().zip(&latency.buckets) {
            *sum += bucket.get();
        }
        self.nanos += latency.nanos.get();
    }

    /// The sum of several histograms.
    pub fn of<'l>(latencies: impl IntoIterator<Item = &'l Latency>) -> Self {
        let mut sum = Self::default();
        for latency in latencies {
            sum.add(latency);
        }
        sum
    }

    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The sum of all times, in seconds.
    pub fn seconds(&self) -> f64 {
        Duration::from_nanos(self.nanos).as_secs_f64()
    }

    /// The number of times in each bucket, with its bound in seconds. The bound of the last is infinite.
    pub fn buckets(&self) -> [(f64, u64); BUCKETS] {
        std::array::from_fn(|index| {
            let bound = BOUNDS
                .get(index)
                .map_or(f64::INFINITY, Duration::as_secs_f64);
            (bound, self.buckets[index])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let latency = Latency::default();
        for micros in [0, 10, 11, 1_000, 10_000_000, 10_000_001] {
            latency.observe(Duration::from_micros(micros));
        }
        let sum = LatencySum::of([&latency]);
        let filled: Vec<_> = sum
            .buckets()
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .collect();
        let expected = [
            (0.000_01, 2),
            (0.000_025, 1),
            (0.001, 1),
            (10.0, 1),
            (f64::INFINITY, 1),
        ];
        assert_eq!(filled, expected);
        assert_eq!(sum.count(), 6);
        assert!(
            (sum.seconds() - 20.001_022).abs() < 1e-9,
            "{}",
            sum.seconds()
        );
    }

    #[test]
    fn the_bounds_grow() {
        assert!(BOUNDS.is_sorted());
    }
}
