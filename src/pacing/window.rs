//! The rolling window: never more than `count` counted by the upstream in any
//! period, at any phase.
//!
//! A log of what had certainly been counted, and when. What is still on its way
//! (see `guard`) occupies the window as well. A bucket alone cannot promise
//! this: it lets up to `burst + count` through in one period.
//!
//! The log is bounded however large the count is: what was counted within one
//! slot, a fixed fraction of the period, is one entry with the slot's latest
//! time. Its places come back a slot late at most, never early.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

/// A request that waits for a place of one on its way asks so many times in a
/// period at most, or in the time that a token takes to come back.
pub(super) const ASKS: u32 = 8;

/// The log of one window. Times are durations since the lane's epoch.
#[derive(Debug)]
pub(super) struct Window {
    count: NonZeroU32,
    period: Duration,
    /// In nanoseconds; the period over [`Window::new`]'s `slots`.
    slot: u64,
    /// Ascending; what is older than the period is dropped.
    counted: VecDeque<Entry>,
    /// The total of what was dropped last.
    dropped: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    at: Duration,
    /// The costs of this one and of all that were ever before it. So where a cost
    /// ends in the log is found without adding up, and nothing overflows.
    total: u64,
}

impl Window {
    /// A log of about `slots` entries at most.
    pub(super) fn new(count: NonZeroU32, period: Duration, slots: u32) -> Self {
        Self {
            count,
            period,
            slot: nanos(period / slots).max(1),
            counted: VecDeque::new(),
            dropped: 0,
        }
    }

    /// `cost` had certainly been counted at `at`.
    ///
    /// Should `at` be before the last one, it is taken as that one's time, which
    /// keeps the log sorted and is never early.
    pub(super) fn counted(&mut self, at: Duration, cost: NonZeroU32) {
        let (merges, slot) = (self.merges(), self.slot);
        let same = |one: Duration, other: Duration| {
            one == other || merges && nanos(one) / slot == nanos(other) / slot
        };
        let total = self.total().saturating_add(u64::from(cost.get()));
        let at = self.counted.back().map_or(at, |last| at.max(last.at));
        let entry = Entry { at, total };
        match self.counted.back_mut().filter(|last| same(at, last.at)) {
            Some(last) => *last = entry,
            None => self.counted.push_back(entry),
        }
    }

    /// Drops what no window that contains `now` or a later time can hold.
    pub(super) fn forget(&mut self, now: Duration) {
        while let Some(first) = self.counted.front() {
            if first.at + self.period > now {
                return;
            }
            self.dropped = first.total;
            self.counted.pop_front();
        }
    }

    /// What may start at `at`, now or later, if nothing starts before and `open`
    /// is on its way.
    pub(super) fn room(&self, at: Duration, open: u32) -> u32 {
        let freed = self
            .counted
            .partition_point(|entry| entry.at + self.period <= at);
        let last = freed.checked_sub(1).and_then(|last| self.counted.get(last));
        let spent = self.total() - last.map_or(self.dropped, |last| last.total);
        let taken = spent.saturating_add(u64::from(open));
        let taken = u32::try_from(taken).unwrap_or(u32::MAX);
        self.count.get().saturating_sub(taken)
    }

    /// When `cost` can start: `now`, or a later time. `open` is on its way, and
    /// none of it will have been counted before `first`, or now.
    ///
    /// While the place that is needed belongs to a request on its way this is a
    /// lower bound: the place comes back one period after that at the earliest.
    /// To be asked again then, but not all the time.
    pub(super) fn ready_at(
        &self,
        now: Duration,
        cost: u32,
        open: u32,
        first: Duration,
    ) -> Duration {
        let at_best = (now.min(first) + self.period).max(now + self.period / ASKS);
        self.regains(now, cost, open, at_best)
    }

    /// Whether the place of a request counted at `at` comes back sooner than who asks
    /// `now` was told at best, see [`Self::ready_at`].
    pub(super) fn comes_back_early(&self, at: Duration, now: Duration) -> bool {
        at + self.period <= now + self.period / ASKS
    }

    /// When `cost` can start at the latest, if `open` is on its way and all of it will
    /// have been counted at `last`.
    pub(super) fn surely_ready_at(
        &self,
        now: Duration,
        cost: u32,
        open: u32,
        last: Duration,
    ) -> Duration {
        self.regains(now, cost, open, last + self.period)
    }

    /// When `cost` has the places that it needs while `open` is on its way: that of one
    /// of these comes back at `later`.
    fn regains(&self, now: Duration, cost: u32, open: u32, later: Duration) -> Duration {
        let wanted = u64::from(cost.min(self.count.get())) + u64::from(open);
        let wanted = self.total().saturating_add(wanted);
        // So much of all that was ever counted must have left the window.
        let old = wanted.saturating_sub(u64::from(self.count.get()));
        if old <= self.dropped {
            return now;
        }
        let holds = self.counted.partition_point(|entry| entry.total < old);
        let counted = self.counted.get(holds);
        counted.map_or(later, |entry| (entry.at + self.period).max(now))
    }

    /// About when the `nth` cost from now can start, the first being 1, if all
    /// before it start as soon as they can: `now` or later, and not too late.
    pub(super) fn nth_ready_at(&self, now: Duration, nth: u64, open: u32) -> Duration {
        let count = u64::from(self.count.get());
        let before = nth.saturating_sub(1);
        // One as far from the next of these as the window is large goes a period
        // before it.
        let [periods, rest] = [before / count, before % count + 1];
        let [periods, rest] = [periods, rest].map(|of| u32::try_from(of).unwrap_or(u32::MAX));
        let ready = self.ready_at(now, rest, open, now);
        ready.saturating_add(self.period.saturating_mul(periods))
    }

    /// The most that may be counted in one period.
    pub(super) fn count(&self) -> NonZeroU32 {
        self.count
    }

    /// How long a place is taken after it was counted.
    pub(super) fn period(&self) -> Duration {
        self.period
    }

    /// How much later than it was counted something stands in the log at most.
    pub(super) fn late(&self) -> Duration {
        Duration::from_nanos(if self.merges() { self.slot } else { 0 })
    }

    /// Whether a slot is one entry: few entries are kept exactly.
    fn merges(&self) -> bool {
        u64::from(self.count.get()) > nanos(self.period) / self.slot
    }

    /// What is in the log, and since when.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Duration, NonZeroU32)> + '_ {
        let entries = self.counted.iter();
        let costs = entries.scan(self.dropped, |before, entry| {
            let cost = entry.total - std::mem::replace(before, entry.total);
            // So much is more than any window holds.
            Some((entry.at, u32::try_from(cost).unwrap_or(u32::MAX)))
        });
        costs.filter_map(|(at, cost)| Some((at, NonZeroU32::new(cost)?)))
    }

    /// All that was ever counted.
    fn total(&self) -> u64 {
        self.counted.back().map_or(self.dropped, |last| last.total)
    }

    /// The time after which nothing is left in the log.
    pub(super) fn empty_at(&self) -> Duration {
        let last = self.counted.back();
        last.map_or(Duration::ZERO, |last| last.at + self.period)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn cost(cost: u32) -> NonZeroU32 {
        NonZeroU32::new(cost).unwrap()
    }

    fn window(count: u32) -> Window {
        Window::new(cost(count), ms(1000), 100)
    }

    #[test]
    fn a_place_comes_back_one_period_after_the_request_was_counted() {
        let mut window = window(2);
        window.counted(ms(5), cost(1));
        window.counted(ms(9), cost(1));
        assert_eq!(window.ready_at(ms(10), 1, 0, ms(10)), ms(1005));
        assert_eq!(window.ready_at(ms(10), 2, 0, ms(10)), ms(1009));
        window.forget(ms(1005));
        assert_eq!(window.ready_at(ms(1005), 1, 0, ms(1005)), ms(1005));
        window.counted(ms(1006), cost(1));
        assert_eq!(window.ready_at(ms(1006), 1, 0, ms(1006)), ms(1009));
    }

    #[test]
    fn requests_on_their_way_hold_their_places() {
        let window = window(2);
        assert_eq!(window.room(ms(1), 2), 0);
        // At best the answer comes now.
        assert_eq!(window.ready_at(ms(1), 1, 2, ms(100)), ms(1001));
        // Without an answer it had certainly been counted at 100 ms.
        assert_eq!(window.ready_at(ms(600), 1, 2, ms(100)), ms(1100));
    }

    #[test]
    fn a_large_count_takes_no_more_entries_than_slots_and_frees_none_early() {
        let mut window = window(10_000);
        for nth in 0..10_000 {
            window.counted(Duration::from_micros(nth * 100), cost(1));
        }
        assert!(window.counted.len() <= 101, "{}", window.counted.len());
        for nth in 0..10_000 {
            let freed = Duration::from_micros(nth * 100) + ms(1000);
            let room = window.room(freed - Duration::from_nanos(1), 0);
            assert!(u64::from(room) <= nth, "{nth}: {room}");
        }
        window.forget(ms(2000));
        assert_eq!(window.counted.len(), 0);
        assert_eq!(window.room(ms(2000), 0), 10_000);
    }

    /// What is recalled can be more than any count: its sum overflowed.
    #[test]
    fn more_than_any_count_is_held_and_freed() {
        let mut window = window(2);
        for at in 1..=3 {
            window.counted(ms(at), cost(u32::MAX));
        }
        assert_eq!(window.ready_at(ms(4), 1, u32::MAX, ms(4)), ms(1004));
        assert_eq!(window.ready_at(ms(4), 1, 0, ms(4)), ms(1003));
        assert_eq!(window.room(ms(1002), 0), 0);
        assert_eq!(window.room(ms(1003), 0), 2);
        assert_eq!(window.entries().count(), 3);
        window.forget(ms(1003));
        assert_eq!(window.ready_at(ms(1003), 2, 0, ms(1003)), ms(1003));
    }
}
