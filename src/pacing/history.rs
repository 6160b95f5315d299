//! What was spent under limits whose place others take.
//!
//! Limits count requests or their costs, and each only as far back as its own
//! period. Of each kind the log that reaches back the farthest is kept; where a
//! limit needs the other kind, it takes a cost for as many requests, and a
//! request for the most that one may have cost: never less than was spent.

use std::num::NonZeroU32;
use std::time::Duration;

use super::meter::Meter;
use crate::config::{Counts, Limit};

/// When how much was spent, in the order of time.
type Entries = Vec<(Duration, NonZeroU32)>;

/// What is known of the past. Times are durations since the lane's epoch.
#[derive(Debug, Default)]
pub(super) struct History {
    costs: Log,
    requests: Log,
}

#[derive(Debug, Default)]
struct Log {
    /// How far back it tells everything.
    reach: Duration,
    /// How much later than it was spent something may stand there.
    late: Duration,
    entries: Entries,
}

impl History {
    /// What the meters of `limits` know at `now`.
    pub(super) fn of<'a>(
        limits: &[Limit],
        meters: impl IntoIterator<Item = &'a Meter>,
        now: Duration,
    ) -> Self {
        let mut history = Self::default();
        for (limit, meter) in limits.iter().zip(meters) {
            let log = Log {
                // A bucket only knows what is missing of it now.
                reach: match limit.window {
                    true => limit.period,
                    false => Duration::ZERO,
                },
                late: meter.late(),
                entries: meter.history(now),
            };
            history.log(limit.counts).replace_if_farther(log);
        }
        history
    }

    /// What callers, or groups of them, have spent together under the same limits.
    pub(super) fn together(each: impl Iterator<Item = Self>) -> Self {
        let mut all = Self::default();
        for one in each {
            all.costs.extend(one.costs);
            all.requests.extend(one.requests);
        }
        // Once, for there may be very many.
        for log in [&mut all.costs, &mut all.requests] {
            log.entries.sort_by_key(|(at, _)| *at);
        }
        all
    }

    /// The same requests as other limits have seen them: what tells more.
    pub(super) fn or_farther(mut self, other: Self) -> Self {
        self.costs.replace_if_farther(other.costs);
        self.requests.replace_if_farther(other.requests);
        self
    }

    /// What a limit that `counts` has to count at `now`, in the order of time;
    /// `most` is what a request can have cost.
    pub(super) fn under(&self, counts: Counts, most: NonZeroU32, now: Duration) -> Entries {
        let (own, other, times) = match counts {
            Counts::Cost => (&self.costs, &self.requests, most),
            Counts::Requests => (&self.requests, &self.costs, NonZeroU32::MIN),
        };
        // One that tells nothing does not tell either what is only on its way, which
        // is counted later than now. An entry that may hold older ones is taken whole.
        let missed = |at: Duration| own.reach.is_zero() || at + own.reach <= now + other.late;
        let older = other.entries.iter().filter(|(at, _)| missed(*at));
        let older = older.map(|(at, spent)| (*at, spent.saturating_mul(times)));
        let mut all: Entries = older.chain(own.entries.iter().copied()).collect();
        all.sort_by_key(|(at, _)| *at);
        all
    }

    fn log(&mut self, counts: Counts) -> &mut Log {
        match counts {
            Counts::Cost => &mut self.costs,
            Counts::Requests => &mut self.requests,
        }
    }
}

impl Log {
    /// Adds the entries of `other`; their order is lost.
    fn extend(&mut self, other: Self) {
        self.reach = self.reach.max(other.reach);
        self.late = self.late.max(other.late);
        self.entries.extend(other.entries);
    }

    fn replace_if_farther(&mut self, other: Self) {
        if other.reach > self.reach || self.entries.is_empty() && self.reach.is_zero() {
            *self = other;
        }
    }
}
