//! What was spent under limits whose place others take.
//!
//! Limits count requests or their costs, and each only as far back as its own
//! period. Of each kind the log that reaches back the farthest is kept; where a
//! limit needs the other kind, it takes a cost for as many requests, and a
//! request for the most that one may have cost: never less than was spent. For a
//! limit that reaches back farther than all of them, a [`Ledger`] tells what the
//! whole lane has started, coarsely.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use super::Charge;
use super::meter::Meter;
use crate::config::{Counts, Limit};

/// How far back a ledger tells; as far as what survives a restart.
const REACH: Duration = Duration::from_secs(3600);

/// What a ledger has started within so long is one entry.
const GRAIN: Duration = Duration::from_secs(4);

/// When how much was spent, in the order of time.
type Entries = Vec<(Duration, NonZeroU32)>;

/// What is known of the past. Times are durations since the lane's epoch.
#[derive(Debug, Default, Clone)]
pub(super) struct History {
    costs: Log,
    requests: Log,
}

/// All that a lane has started in the last hour.
#[derive(Debug, Default)]
pub(super) struct Ledger(VecDeque<Started>);

/// Requests that started close together.
#[derive(Debug, Clone)]
struct Started {
    /// When the first did.
    first: Duration,
    /// When the last was counted, at the latest.
    counted: Duration,
    costs: u64,
    requests: u64,
}

#[derive(Debug, Default, Clone)]
struct Log {
    /// How far back it tells everything.
    reach: Duration,
    /// How much later than it was spent something may stand there.
    late: Duration,
    entries: Entries,
    /// What is missing from a bucket now, if there is one.
    missing: Option<u32>,
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
                missing: meter.missing(now),
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

    /// How far back it tells everything.
    pub(super) fn reach(&self) -> Duration {
        self.costs.reach.max(self.requests.reach)
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

    /// The least that is missing now from a bucket that `counts`, as another tells.
    pub(super) fn missing(&self, counts: Counts, most: NonZeroU32) -> u32 {
        let (own, other, times) = match counts {
            Counts::Cost => (&self.costs, &self.requests, most),
            Counts::Requests => (&self.requests, &self.costs, NonZeroU32::MIN),
        };
        let other = other.missing.filter(|_| own.reach.is_zero());
        let other = other.map(|missing| missing.saturating_mul(times.get()));
        own.missing.or(other).unwrap_or(0)
    }

    fn log(&mut self, counts: Counts) -> &mut Log {
        match counts {
            Counts::Cost => &mut self.costs,
            Counts::Requests => &mut self.requests,
        }
    }
}

impl Ledger {
    /// So many requests of `charge` start at `at`, not before those told so far, and are
    /// counted at `counted` at the latest.
    pub(super) fn start(&mut self, [at, counted]: [Duration; 2], charge: &Charge, times: u32) {
        let costs = u64::from(charge.cost.get()) * u64::from(times);
        let requests = u64::from(times);
        if let Some(last) = self.0.back_mut().filter(|last| at < last.first + GRAIN) {
            last.counted = last.counted.max(counted);
            last.costs = last.costs.saturating_add(costs);
            last.requests = last.requests.saturating_add(requests);
            return;
        }
        let oldest = at.saturating_sub(REACH);
        while self
            .0
            .pop_front_if(|first| first.counted < oldest)
            .is_some()
        {}
        self.0.push_back(Started {
            first: at,
            counted,
            costs,
            requests,
        });
    }

    /// What it tells, without what is `open`: on its way, since when.
    pub(super) fn history<'a>(
        &self,
        open: impl Iterator<Item = (Duration, &'a Charge)>,
    ) -> History {
        let mut all = self.0.clone();
        for (start, charge) in open {
            let place = all.partition_point(|entry| entry.first <= start);
            let entry = place.checked_sub(1).and_then(|place| all.get_mut(place));
            if let Some(entry) = entry {
                entry.costs = entry.costs.saturating_sub(charge.cost.get().into());
                entry.requests = entry.requests.saturating_sub(1);
            }
        }
        let lates = all
            .iter()
            .map(|entry| entry.counted.saturating_sub(entry.first));
        let late = lates.max().unwrap_or_default();
        let log = |spent: fn(&Started) -> u64| Log {
            reach: REACH,
            late,
            entries: all
                .iter()
                .filter_map(|entry| {
                    let spent = u32::try_from(spent(entry)).unwrap_or(u32::MAX);
                    Some((entry.counted, NonZeroU32::new(spent)?))
                })
                .collect(),
            missing: None,
        };
        History {
            costs: log(|entry| entry.costs),
            requests: log(|entry| entry.requests),
        }
    }
}

impl Log {
    /// Adds the entries of `other`; their order is lost.
    fn extend(&mut self, other: Self) {
        self.reach = self.reach.max(other.reach);
        self.late = self.late.max(other.late);
        self.entries.extend(other.entries);
        let both = [self.missing, other.missing].into_iter().flatten();
        self.missing = both.reduce(u32::saturating_add);
    }

    fn replace_if_farther(&mut self, other: Self) {
        let missing = self.missing.max(other.missing);
        if other.reach > self.reach || self.entries.is_empty() && self.reach.is_zero() {
            *self = other;
        }
        self.missing = missing;
    }
}
