//! The rolling window: never more than `count` requests counted by the
//! upstream in any period, at any phase.
//!
//! A log of the times at which requests had certainly been counted. Those on
//! their way (see `guard`) occupy the window as well; how many there are is
//! passed in, since all windows of a lane share them. A bucket alone cannot
//! promise this: it lets up to `burst + count` through in one period.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use super::guard::Guard;

/// The log of one window. Times are durations since the lane's epoch.
#[derive(Debug)]
pub(super) struct Window {
    count: usize,
    period: Duration,
    /// Ascending; bounded by `count`, as what is older than the period is dropped.
    counted: VecDeque<Duration>,
}

impl Window {
    pub(super) fn new(count: NonZeroU32, period: Duration) -> Self {
        Self {
            count: count.get() as usize,
            period,
            counted: VecDeque::new(),
        }
    }

    /// A request had certainly been counted at `at`.
    ///
    /// Should the guard have shrunk, `at` can be before the last one; it is
    /// taken as that one's time, which keeps the log sorted and is never early.
    pub(super) fn counted(&mut self, at: Duration) {
        let last = self.counted.back().copied().unwrap_or_default();
        self.counted.push_back(at.max(last));
    }

    /// Drops what no window that contains `now` or a later time can hold.
    pub(super) fn forget(&mut self, now: Duration) {
        let gone = self.freed_by(now);
        self.counted.drain(..gone);
    }

    /// Requests that may start at `at`, now or later, if none starts before.
    pub(super) fn room(&self, at: Duration, guard: &Guard) -> usize {
        self.count
            .saturating_sub(self.counted.len() - self.freed_by(at) + guard.open())
    }

    /// When the next request can start: `now`, or the earliest later time.
    ///
    /// While the request whose place is needed has no answer this is a lower
    /// bound: the answer that comes this instant would free its place one period
    /// from now. Asked again then, it is exact.
    pub(super) fn ready_at(&self, now: Duration, guard: &Guard) -> Duration {
        let Some(over) = (self.counted.len() + guard.open()).checked_sub(self.count) else {
            return now;
        };
        // Its place is the one that the next request will take.
        let counted = match self.counted.get(over) {
            Some(at) => *at,
            None => {
                let start = guard.nth_open(over - self.counted.len()).unwrap_or(now);
                now.min(start + guard.span())
            }
        };
        (counted + self.period).max(now)
    }

    /// How many of the log have left every window that ends at `at`.
    fn freed_by(&self, at: Duration) -> usize {
        self.counted
            .partition_point(|counted| *counted + self.period <= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn window(count: u32) -> (Window, Guard) {
        let window = Window::new(NonZeroU32::new(count).unwrap(), ms(1000));
        (window, Guard::new(config::Guard::Fixed(ms(100))))
    }

    #[test]
    fn a_place_comes_back_one_period_after_the_request_was_counted() {
        let (mut window, guard) = window(2);
        window.counted(ms(5));
        window.counted(ms(9));
        assert_eq!(window.ready_at(ms(10), &guard), ms(1005));
        assert_eq!(window.ready_at(ms(1005), &guard), ms(1005));
        window.counted(ms(1006));
        assert_eq!(window.ready_at(ms(1006), &guard), ms(1009));
    }

    #[test]
    fn requests_on_their_way_hold_their_places() {
        let (window, mut guard) = window(2);
        guard.start(ms(0));
        guard.start(ms(0));
        assert_eq!(window.room(ms(1), &guard), 0);
        // At best the answer comes now.
        assert_eq!(window.ready_at(ms(1), &guard), ms(1001));
        // Without an answer it had certainly been counted at 100 ms.
        assert_eq!(window.ready_at(ms(600), &guard), ms(1100));
    }
}
