//! One limit's state, for the whole lane or for one key.
//!
//! A limit is either a window with its spacing, or a token bucket as the
//! upstream documents it. Both are judged by what the upstream may have counted:
//! a request is *open* from its start until its answer, or its guard, tells that
//! it was counted, and holds its place all that time. For the bucket this is
//! safe since charging it late never leaves more tokens than charging it early.

use std::num::NonZeroU32;
use std::time::Duration;

use super::Charge;
use super::bucket::Bucket;
use super::spacing::Spacing;
use super::window::Window;
use crate::config::{Counts, Limit};

/// How much slower than ours the upstream's clock may run: a little more than
/// 1 in 1000. Quartz clocks are off by 1 in 10 000, virtual machines by more.
const DRIFT: u32 = 997;

/// Even spacing leaves the window this much room, 1 in 6000, so that in the
/// steady state the spacing sets the pace and not the noise of the answers.
const SLACK: u32 = 6000;

/// Entries of the window of a lane, and of one key.
const LANE_SLOTS: u32 = 8192;
const KEY_SLOTS: u32 = 1024;

/// The state of one limit.
#[derive(Debug)]
pub(super) struct Meter {
    counts: Counts,
    rule: Rule,
    /// Started and not known to be counted.
    open: u32,
}

#[derive(Debug)]
enum Rule {
    Window(Window, Spacing),
    Bucket(Bucket),
}

impl Meter {
    /// Nothing spent; `keyed` if there is one for each key.
    pub(super) fn new(limit: &Limit, keyed: bool) -> Self {
        let period = slower(limit.period);
        let interval = interval(period, limit.count);
        let rule = if limit.window {
            let slots = if keyed { KEY_SLOTS } else { LANE_SLOTS };
            let spaced = match limit.burst < limit.count {
                true => interval + interval / SLACK,
                // The window alone decides, but after a cooldown.
                false => limit.period / limit.count.get(),
            };
            Rule::Window(
                Window::new(limit.count, period, slots),
                Spacing::new(spaced, limit.burst, period),
            )
        } else {
            Rule::Bucket(Bucket::new(interval, limit.burst))
        };
        Self {
            counts: limit.counts,
            rule,
            open: 0,
        }
    }

    /// When a request can start: `now`, or a later time that can turn out to be
    /// too early. The first of the open ones is counted at `first` at the latest.
    pub(super) fn ready_at(&self, now: Duration, charge: &Charge, first: Duration) -> Duration {
        let cost = self.cost(charge).get();
        match &self.rule {
            Rule::Window(window, spacing) => window
                .ready_at(now, cost, self.open, first)
                .max(spacing.bucket().ready_at(now, cost, 0)),
            Rule::Bucket(bucket) => bucket.ready_at_best(now, cost, self.open, first),
        }
    }

    /// Whether a request that is counted at `at`, as its answer tells `now`, may let
    /// one that costs `most` start sooner than [`Self::ready_at`] has said.
    pub(super) fn comes_back_early(&self, at: Duration, now: Duration, most: NonZeroU32) -> bool {
        match &self.rule {
            Rule::Window(window, _) => window.comes_back_early(at, now),
            Rule::Bucket(bucket) => {
                at < now && self.open.saturating_add(most.get()) > bucket.size().get()
            }
        }
    }

    /// When a request of `charge` can start at the latest, if one of `other` starts
    /// `now` and then none; that and the open ones are counted at `last` at the latest.
    pub(super) fn ready_after(
        &self,
        other: &Charge,
        charge: &Charge,
        [now, last]: [Duration; 2],
    ) -> Duration {
        let [taken, cost] = [other, charge].map(|charge| self.cost(charge).get());
        let open = self.open.saturating_add(taken);
        match &self.rule {
            Rule::Window(window, spacing) => window
                .surely_ready_at(now, cost, open, last)
                .max(spacing.bucket().ready_at(now, cost, taken)),
            Rule::Bucket(bucket) => match cost.saturating_add(open) <= bucket.size().get() {
                // However late those are counted.
                true => bucket.ready_at(now, cost, open),
                false => bucket.ready_at(last, cost, open),
            },
        }
    }

    /// A request starts at `now`; it was first wanted at `since`.
    pub(super) fn start(&mut self, now: Duration, since: Duration, charge: &Charge) {
        let cost = self.cost(charge);
        self.open = self.open.saturating_add(cost.get());
        if let Rule::Window(_, spacing) = &mut self.rule {
            spacing.take(now, since, cost);
        }
    }

    /// A request that had started was certainly counted at `at`.
    pub(super) fn counted(&mut self, at: Duration, charge: &Charge) {
        let cost = self.cost(charge);
        self.open = self.open.saturating_sub(cost.get());
        match &mut self.rule {
            Rule::Window(window, _) => window.counted(at, cost),
            Rule::Bucket(bucket) => bucket.spend(at, cost),
        }
    }

    /// The upstream refused a request although the limits allowed it.
    pub(super) fn refused(&mut self) {
        if let Rule::Window(_, spacing) = &mut self.rule {
            spacing.refused();
        }
    }

    /// A request that had started never left.
    pub(super) fn canceled(&mut self, charge: &Charge) {
        self.open = self.open.saturating_sub(self.cost(charge).get());
    }

    /// A request is open that was started under another limit.
    pub(super) fn adopt(&mut self, charge: &Charge) {
        self.open = self.open.saturating_add(self.cost(charge).get());
    }

    /// So many requests were started at the first of the times, and counted at
    /// the second, that were not started here.
    pub(super) fn spent(
        &mut self,
        [started, counted]: [Duration; 2],
        charge: &Charge,
        count: NonZeroU32,
    ) {
        let cost = self.cost(charge);
        match &mut self.rule {
            Rule::Window(window, spacing) => {
                window.counted(counted, cost.saturating_mul(count));
                spacing.bucket().recall(started, cost, count);
            }
            Rule::Bucket(bucket) => bucket.recall(counted, cost, count),
        }
    }

    /// So much had been spent before this limit held, in the order of time.
    pub(super) fn recall(&mut self, spent: Vec<(Duration, NonZeroU32)>) {
        for (at, spent) in spent {
            self.spent([at; 2], &Charge::ONE, spent);
        }
    }

    /// What `other`, of the same limit, knows at `now` had been spent; what it has
    /// on its way is counted at `counted` at the latest.
    pub(super) fn follow(&mut self, other: &Self, now: Duration, counted: Duration) {
        let open = NonZeroU32::new(other.open);
        match (&mut self.rule, &other.rule) {
            (Rule::Window(window, spacing), Rule::Window(theirs, spaced)) => {
                let open = open.map(|open| (counted, open));
                for (at, cost) in theirs.entries().chain(open) {
                    window.counted(at, cost);
                }
                window.forget(now);
                spacing.bucket().follow(spaced.bucket());
            }
            (Rule::Bucket(bucket), Rule::Bucket(theirs)) => {
                bucket.follow(theirs);
                open.into_iter()
                    .for_each(|open| bucket.spend(counted, open));
            }
            _ => {}
        }
    }

    /// All that there was had been spent at `at`; returns when it is whole again.
    pub(super) fn spent_all(&mut self, at: Duration) -> Duration {
        match &mut self.rule {
            Rule::Window(window, _) => {
                window.counted(at, window.count());
                window.empty_at()
            }
            Rule::Bucket(bucket) => {
                bucket.spend(at, bucket.size());
                bucket.full_at()
            }
        }
    }

    /// Whether what `other` has saved up takes a period of this one or longer to
    /// go at the rate of this one, and is no burst then.
    pub(super) fn spreads(&self, other: &Self) -> bool {
        let ((most, period), (saved, longer)) = (self.most(), other.most());
        most <= saved && period < longer
    }

    /// Nothing starts before `until`, and no burst follows.
    pub(super) fn empty_until(&self, until: Duration) {
        match &self.rule {
            Rule::Window(_, spacing) => spacing.bucket().empty_until(until),
            Rule::Bucket(bucket) => bucket.empty_until(until),
        }
    }

    /// Drops what no longer matters at `now`.
    pub(super) fn forget(&mut self, now: Duration) {
        if let Rule::Window(window, _) = &mut self.rule {
            window.forget(now);
        }
    }

    /// What may start at `at`, now or later, if nothing starts before.
    pub(super) fn left(&self, at: Duration) -> u64 {
        match &self.rule {
            Rule::Window(window, spacing) => {
                let room = u64::from(window.room(at, self.open));
                room.min(spacing.bucket().tokens(at))
            }
            Rule::Bucket(bucket) => bucket.tokens(at).saturating_sub(u64::from(self.open)),
        }
    }

    /// At most what can start until `at`, `horizon` from now.
    pub(super) fn left_within(&self, at: Duration, horizon: Duration) -> u64 {
        let regained = |bucket: &Bucket| {
            let regained = horizon.as_nanos() / bucket.interval().as_nanos();
            u64::try_from(regained).unwrap_or(u64::MAX)
        };
        match &self.rule {
            Rule::Window(window, spacing) => {
                let room = u64::from(window.room(at, self.open));
                let bucket = spacing.bucket();
                room.min(bucket.tokens(at - horizon).saturating_add(regained(bucket)))
            }
            Rule::Bucket(bucket) => self.left(at - horizon).saturating_add(regained(bucket)),
        }
    }

    /// About how long it takes from `now` until the last of `wanted` can start.
    /// What is on its way is taken to be counted now.
    pub(super) fn takes(&self, now: Duration, wanted: u64) -> Duration {
        let few = u32::try_from(wanted).unwrap_or(u32::MAX);
        let ready = match &self.rule {
            Rule::Window(window, spacing) => window
                .nth_ready_at(now, wanted, self.open)
                .max(spacing.bucket().ready_at(now, 0, few)),
            Rule::Bucket(bucket) => bucket.ready_at(now, 0, few.saturating_add(self.open)),
        };
        ready - now
    }

    /// Whether some were started and are not known to be counted.
    pub(super) fn is_open(&self) -> bool {
        self.open > 0
    }

    /// Whether a new meter would decide as this one from `now` on.
    pub(super) fn is_fresh(&self, now: Duration) -> bool {
        let quiet = match &self.rule {
            Rule::Window(window, spacing) => {
                window.empty_at() <= now && spacing.bucket().full_at() <= now
            }
            Rule::Bucket(bucket) => bucket.full_at() <= now,
        };
        quiet && self.open == 0
    }

    /// What was spent and still matters at `now`, for a limit that takes this
    /// one's place.
    pub(super) fn history(&self, now: Duration) -> Vec<(Duration, NonZeroU32)> {
        match &self.rule {
            Rule::Window(window, _) => window.entries().collect(),
            Rule::Bucket(_) => {
                let missing = self.missing(now).and_then(NonZeroU32::new);
                missing.map(|missing| (now, missing)).into_iter().collect()
            }
        }
    }

    /// What is missing from the bucket at `now`, if it is one.
    pub(super) fn missing(&self, now: Duration) -> Option<u32> {
        match &self.rule {
            Rule::Window(..) => None,
            Rule::Bucket(bucket) => {
                let missing = u64::from(bucket.size().get()) - bucket.tokens(now);
                u32::try_from(missing).ok()
            }
        }
    }

    /// So many tokens are missing at `now`, if it is a bucket, or more.
    pub(super) fn lacks(&mut self, missing: u32, now: Duration) {
        if let Rule::Bucket(bucket) = &self.rule {
            bucket.lacks(missing, now);
        }
    }

    /// How much later than it was spent something stands in the history at most.
    pub(super) fn late(&self) -> Duration {
        match &self.rule {
            Rule::Window(window, _) => window.late(),
            Rule::Bucket(_) => Duration::ZERO,
        }
    }

    /// The most it ever lets start at once, and how long that takes to come back.
    fn most(&self) -> (NonZeroU32, Duration) {
        match &self.rule {
            Rule::Window(window, _) => (window.count(), window.period()),
            Rule::Bucket(bucket) => {
                let size = bucket.size();
                (size, bucket.interval().saturating_mul(size.get()))
            }
        }
    }

    /// What is counted for `charge`.
    fn cost(&self, charge: &Charge) -> NonZeroU32 {
        match self.counts {
            Counts::Requests => NonZeroU32::MIN,
            Counts::Cost => charge.cost,
        }
    }
}

/// `period` on a clock that runs as slowly as [`DRIFT`] allows.
fn slower(period: Duration) -> Duration {
    period + period / DRIFT
}

/// Rounded up to whole nanoseconds: never too fast.
fn interval(period: Duration, count: NonZeroU32) -> Duration {
    let nanos = period.as_nanos().div_ceil(u128::from(count.get()));
    Duration::from_nanos(u64::try_from(nanos.max(1)).unwrap_or(u64::MAX))
}
