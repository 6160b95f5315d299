//! The ways third-party APIs count, one meter each: sliding log, fixed window, sliding counter, bucket, calls in progress. Pure: the
//! time is given, in nanoseconds of the upstream's own clock, never decreasing. Asking and charging are two steps, so that several
//! meters can decide as one: what one of them refuses is charged to none.
//!
//! A refused request is not counted by any of them.

use std::collections::VecDeque;

use crate::clock;
use crate::pace::Pace;

/// One count and its limit.
#[derive(Debug)]
pub(crate) enum Meter {
    /// At most so many in any window of the period.
    Log(Log),
    /// At most so many in each period of the clock.
    Fixed(Windows),
    /// The cheap stand-in for a log, as Cloudflare counts: the windows of the clock, and an estimate of the last period's
    /// requests, `previous * (1 - elapsed / period) + current`. Refused when the estimate without the request in
    /// question has reached the limit already.
    Counter(Windows),
    /// Credit is earned at the rate up to a size and each request takes a whole one: a token bucket, full at first. A leaky
    /// bucket without a queue, empty at first, of that depth is the same thing seen from the other side: each request adds
    /// one, what would overflow is refused. With a depth of 1 it demands exact spacing (GCRA without tolerance).
    Bucket(Bucket),
    /// At most so many in progress.
    Slots(Slots),
}

/// The instants of the requests that still count.
#[derive(Debug)]
pub(crate) struct Log {
    limit: usize,
    period: u64,
    counted: VecDeque<u64>,
}

/// The counts of the current window of the clock and of the one before.
#[derive(Debug)]
pub(crate) struct Windows {
    limit: u64,
    period: u64,
    /// Number of the current window.
    window: u64,
    current: u64,
    previous: u64,
}

/// Whole-number credit: a nanosecond earns `rate`, a request costs `price`.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: u64,
    price: u64,
    full: u64,
    credit: u64,
    /// When credit was last added up.
    updated: u64,
}

/// Requests in progress.
#[derive(Debug)]
pub(crate) struct Slots {
    limit: u32,
    busy: u32,
}

impl Meter {
    /// A sliding log.
    pub(crate) fn log(pace: Pace) -> Self {
        Self::Log(Log {
            limit: pace.count as usize,
            period: clock::nanos(pace.period),
            counted: VecDeque::new(),
        })
    }

    /// A fixed window.
    pub(crate) fn fixed(pace: Pace) -> Self {
        Self::Fixed(Windows::new(pace))
    }

    /// A sliding counter.
    pub(crate) fn counter(pace: Pace) -> Self {
        Self::Counter(Windows::new(pace))
    }

    /// A token bucket, or a leaky one, of the pace's burst.
    pub(crate) fn bucket(pace: Pace) -> Self {
        let price = clock::nanos(pace.period);
        let full = price.saturating_mul(u64::from(pace.burst()));
        Self::Bucket(Bucket {
            rate: u64::from(pace.count),
            price,
            full,
            credit: full,
            updated: 0,
        })
    }

    /// A limit on requests in progress.
    pub(crate) fn slots(limit: u32) -> Self {
        Self::Slots(Slots { limit, busy: 0 })
    }

    /// Whether a request at `now` is within the limit.
    pub(crate) fn admits(&mut self, now: u64) -> bool {
        match self {
            Self::Log(log) => log.admits(now),
            Self::Fixed(windows) => {
                windows.roll(now);
                windows.current < windows.limit
            }
            Self::Counter(windows) => {
                windows.roll(now);
                windows.estimate(now) < windows.limit * windows.period
            }
            Self::Bucket(bucket) => bucket.admits(now),
            Self::Slots(slots) => slots.busy < slots.limit,
        }
    }

    /// Counts a request that was admitted at `now`.
    pub(crate) fn charge(&mut self, now: u64) {
        match self {
            Self::Log(log) => log.counted.push_back(now),
            Self::Fixed(windows) | Self::Counter(windows) => windows.current += 1,
            Self::Bucket(bucket) => bucket.credit -= bucket.price,
            Self::Slots(slots) => slots.busy += 1,
        }
    }

    /// A request that was charged has been answered.
    pub(crate) fn answered(&mut self) {
        if let Self::Slots(slots) = self {
            slots.busy = slots.busy.saturating_sub(1);
        }
    }
}

impl Log {
    fn admits(&mut self, now: u64) -> bool {
        while self
            .counted
            .front()
            .is_some_and(|counted| now - counted >= self.period)
        {
            self.counted.pop_front();
        }
        self.counted.len() < self.limit
    }
}

impl Windows {
    fn new(pace: Pace) -> Self {
        Self {
            limit: u64::from(pace.count),
            period: clock::nanos(pace.period),
            window: 0,
            current: 0,
            previous: 0,
        }
    }

    fn roll(&mut self, now: u64) {
        let window = now / self.period;
        if window == self.window {
            return;
        }
        let adjacent = window == self.window + 1;
        self.previous = if adjacent { self.current } else { 0 };
        self.current = 0;
        self.window = window;
    }

    /// The estimate times the period, so that it stays a whole number.
    fn estimate(&self, now: u64) -> u64 {
        let left = self.period - now % self.period;
        self.previous * left + self.current * self.period
    }
}

impl Bucket {
    fn admits(&mut self, now: u64) -> bool {
        let earned = (now - self.updated).saturating_mul(self.rate);
        self.credit = self.credit.saturating_add(earned).min(self.full);
        self.updated = now;
        self.credit >= self.price
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn accepted(mut meter: Meter, arrivals: &[u64]) -> Vec<bool> {
        let mut judge = |ms: &u64| {
            let admitted = meter.admits(ms * MS);
            if admitted {
                meter.charge(ms * MS);
            }
            admitted
        };
        arrivals.iter().map(&mut judge).collect()
    }

    #[test]
    fn a_sliding_log_counts_any_window() {
        assert_eq!(
            accepted(
                Meter::log(Pace::window(2, 1)),
                &[900, 950, 1000, 1899, 1900, 1901]
            ),
            [true, true, false, false, true, false]
        );
    }

    #[test]
    fn a_fixed_window_forgets_at_its_border() {
        assert_eq!(
            accepted(
                Meter::fixed(Pace::window(2, 1)),
                &[900, 950, 999, 1000, 1001, 1002]
            ),
            [true, true, false, true, true, false]
        );
    }

    #[test]
    fn a_sliding_counter_weighs_the_window_before_by_its_overlap() {
        // Four in the first window: at 1250 ms three of them still count, with the one at 1001 ms that is four.
        let counter = || Meter::counter(Pace::window(4, 1));
        assert_eq!(
            accepted(
                counter(),
                &[0, 1, 2, 3, 4, 1000, 1001, 1250, 1251, 1252, 1500]
            ),
            [
                true, true, true, true, false, false, true, false, true, false, false
            ]
        );
        // The estimate is at the limit exactly when even requests fall on the border, and below it when they fall beside it.
        assert_eq!(
            accepted(counter(), &[0, 250, 500, 750, 1000]),
            [true, true, true, true, false]
        );
        assert_eq!(
            accepted(counter(), &[1, 251, 501, 751, 1001, 1251, 1501, 1751, 2001]),
            [true; 9]
        );
        // A window without requests between: nothing is left of the first.
        assert_eq!(
            accepted(counter(), &[0, 1, 2, 3, 2000, 2001, 2002, 2003, 2004]),
            [true, true, true, true, true, true, true, true, false]
        );
    }

    #[test]
    fn a_token_bucket_is_full_at_first_and_saves_no_more_than_its_size() {
        assert_eq!(
            accepted(
                Meter::bucket(Pace::bucket(10, 3)),
                &[0, 0, 0, 0, 99, 100, 101, 9000, 9000, 9000, 9000]
            ),
            [
                true, true, true, false, false, true, false, true, true, true, false
            ]
        );
    }

    #[test]
    fn a_leaky_bucket_of_depth_one_demands_exact_spacing() {
        assert_eq!(
            accepted(
                Meter::bucket(Pace::even(10)),
                &[0, 99, 100, 199, 200, 350, 449, 450]
            ),
            [true, false, true, false, true, true, false, true]
        );
        // 3/s has no whole number of nanoseconds between requests: a third of one too few is too few.
        let mut meter = Meter::bucket(Pace::even(3));
        for lap in 0..1000 {
            let now = lap * 333_333_334;
            assert!(meter.admits(now), "{now}");
            meter.charge(now);
            assert!(!meter.admits(now + 333_333_333), "{now}");
        }
    }

    #[test]
    fn slots_come_back_with_each_answer() {
        let mut meter = Meter::slots(1);
        assert!(meter.admits(0));
        meter.charge(0);
        assert!(!meter.admits(1));
        meter.answered();
        assert!(meter.admits(2));
    }
}
