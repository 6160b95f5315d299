//! One token bucket: governor's arithmetic under our own clock.
//!
//! The only file that names governor. Its limiter is asked with `check_n` alone:
//! `until_ready` keeps no order among waiters and sleeps on a clock that tests
//! cannot pause. The clock here is a hand that we set before each question, so
//! a turn whose wake-up came late can be booked at the time it was due, and a
//! question can be asked without taking a token.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

use super::window::ASKS;

/// Who waits for one on its way asks no more often.
const LEAST_STEP: Duration = Duration::from_millis(1);

/// A bucket that holds up to `size` tokens and regains one per interval.
/// Times are durations since the lane's epoch.
#[derive(Debug)]
pub(super) struct Bucket {
    limiter: RateLimiter<NotKeyed, Full, Hand, NoOpMiddleware<Duration>>,
    full: Full,
    interval: Duration,
    size: NonZeroU32,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(interval: Duration, size: NonZeroU32) -> Self {
        let quota = Quota::with_period(interval)
            .expect("an interval is at least a microsecond")
            .allow_burst(size);
        let full = Full::default();
        let limiter = RateLimiter::new(quota, full.clone(), Hand::default());
        Self {
            limiter,
            full,
            interval,
            size,
        }
    }

    /// When `cost` tokens are there beside `reserved` others: `now`, or a later
    /// time. More tokens than the bucket holds are asked for as a full bucket.
    pub(super) fn ready_at(&self, now: Duration, cost: u32, reserved: u32) -> Duration {
        let wanted = u64::from(cost.min(self.size.get())) + u64::from(reserved);
        let size = u64::from(self.size.get());
        let base = self.full.at().max(now);
        // Full again at `base`; with the tokens taken it would be so later.
        match wanted.checked_sub(size) {
            Some(over) => {
                let over = u32::try_from(over).unwrap_or(u32::MAX);
                let at = base.saturating_add(self.interval.saturating_mul(over));
                at.max(now)
            }
            None => {
                let spare = u32::try_from(size - wanted).unwrap_or(u32::MAX);
                base.saturating_sub(self.interval.saturating_mul(spare))
                    .max(now)
            }
        }
    }

    /// When `cost` tokens are there while `open` others are taken by who was not
    /// counted yet, and will not have been before `first`: `now`, or a later time that
    /// can turn out to be too early. To be asked again then, but not all the time.
    pub(super) fn ready_at_best(
        &self,
        now: Duration,
        cost: u32,
        open: u32,
        first: Duration,
    ) -> Duration {
        let ready = self.ready_at(now, cost, open);
        let wanted = u64::from(cost.min(self.size.get())) + u64::from(open);
        let over = wanted.saturating_sub(self.size.get().into());
        if over == 0 {
            return ready;
        }
        // How long before `now` the first of them may have been counted.
        let before = now - self.full.at().max(first).min(now);
        let step = (self.interval / ASKS).max(LEAST_STEP);
        ready.saturating_sub(before).max(now + step)
    }

    /// So many tokens are missing at `now`, or more; all if it holds fewer.
    pub(super) fn lacks(&self, missing: u32, now: Duration) {
        let missing = self.interval.saturating_mul(missing.min(self.size.get()));
        self.full
            .set(self.full.at().max(now.saturating_add(missing)));
    }

    /// Since when the `cost` tokens that are there have been there; zero if the
    /// bucket has never been used.
    pub(super) fn due(&self, cost: u32) -> Duration {
        let spare = self.size.get() - cost.min(self.size.get());
        let full = self.full.at();
        full.saturating_sub(self.interval.saturating_mul(spare))
    }

    /// Takes `cost` tokens at `at`, when they were there. What the cost is over
    /// the bucket's size is owed.
    pub(super) fn take(&self, at: Duration, cost: NonZeroU32) {
        let now = cost.min(self.size);
        self.limiter.clock().0.set(at);
        let taken = self.limiter.check_n(now);
        debug_assert!(
            matches!(taken, Ok(Ok(()))),
            "tokens were taken before they were there"
        );
        if !matches!(taken, Ok(Ok(()))) {
            self.spend(at, cost);
        } else if cost > now {
            self.delay(self.interval.saturating_mul(cost.get() - now.get()));
        }
    }

    /// `cost` tokens were taken at `at`, whether they were there or not.
    pub(super) fn spend(&self, at: Duration, cost: NonZeroU32) {
        let full = self.full.at().max(at);
        let taken = self.interval.saturating_mul(cost.get());
        self.full.set(full.saturating_add(taken));
    }

    /// `times` requests took `cost` tokens each until `at`, told in the order of
    /// time. No bucket is emptier than empty, but for what the last one owes.
    pub(super) fn recall(&self, at: Duration, cost: NonZeroU32, times: NonZeroU32) {
        let before = self.full.at();
        self.spend(at, cost.saturating_mul(times));
        let most = self.interval.saturating_mul(cost.max(self.size).get());
        let empty = before.max(at.saturating_add(most));
        self.full.set(self.full.at().min(empty));
    }

    /// Holds as many tokens from now on as `other`, of the same interval and size.
    pub(super) fn follow(&self, other: &Self) {
        self.full.set(other.full.at());
    }

    /// All tokens come `by` later.
    pub(super) fn delay(&self, by: Duration) {
        self.full.set(self.full.at().saturating_add(by));
    }

    /// All tokens come `by` earlier.
    pub(super) fn advance(&self, by: Duration) {
        self.full.set(self.full.at().saturating_sub(by));
    }

    /// No token before `until`, and only one then.
    pub(super) fn empty_until(&self, until: Duration) {
        let full = until + self.interval.saturating_mul(self.size.get() - 1);
        self.full.set(self.full.at().max(full));
    }

    /// Tokens that could be taken at once at `now`.
    pub(super) fn tokens(&self, now: Duration) -> u64 {
        let missing = self.full.at().saturating_sub(now).as_nanos();
        let missing = missing.div_ceil(self.interval.as_nanos());
        u64::from(self.size.get()).saturating_sub(u64::try_from(missing).unwrap_or(u64::MAX))
    }

    /// The time one token takes to come back.
    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    /// The most it holds.
    pub(super) fn size(&self) -> NonZeroU32 {
        self.size
    }

    /// When it will be full.
    pub(super) fn full_at(&self) -> Duration {
        self.full.at()
    }
}

/// When the bucket will be full: governor's only state (its "theoretical
/// arrival time"), shared so that we can read it. Zero while never used. Only
/// ever touched under the lane's limits lock.
#[derive(Debug, Clone, Default)]
struct Full(Arc<AtomicU64>);

impl Full {
    fn at(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, at: Duration) {
        let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        self.0.store(nanos, Ordering::Relaxed);
    }
}

impl StateStore for Full {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let at = self.0.load(Ordering::Relaxed);
        let (taken, next) = measure((at > 0).then(|| Nanos::new(at)))?;
        self.0.store(next.into(), Ordering::Relaxed);
        Ok(taken)
    }
}

/// The clock that governor reads: whatever time we last set.
#[derive(Debug, Default)]
struct Hand(Cell<Duration>);

impl Clock for Hand {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENTH: Duration = Duration::from_millis(100);

    fn bucket(size: u32) -> Bucket {
        Bucket::new(TENTH, NonZeroU32::new(size).unwrap())
    }

    fn one() -> NonZeroU32 {
        NonZeroU32::MIN
    }

    #[test]
    fn a_full_bucket_gives_all_it_holds_and_then_one_per_interval() {
        let bucket = bucket(3);
        for _ in 0..3 {
            assert_eq!(bucket.ready_at(Duration::ZERO, 1, 0), Duration::ZERO);
            bucket.take(Duration::ZERO, one());
        }
        assert_eq!(bucket.ready_at(Duration::ZERO, 1, 0), TENTH);
        assert_eq!(bucket.ready_at(Duration::ZERO, 2, 0), TENTH * 2);
        assert_eq!(bucket.tokens(TENTH), 1);
    }

    #[test]
    fn what_is_reserved_must_be_there_as_well() {
        let bucket = bucket(2);
        assert_eq!(bucket.ready_at(TENTH, 1, 1), TENTH);
        // At best the two that are reserved are taken now.
        assert_eq!(bucket.ready_at(TENTH, 1, 2), TENTH * 2);
    }

    #[test]
    fn a_cost_above_the_size_goes_with_a_full_bucket_and_is_owed() {
        let bucket = bucket(1);
        bucket.take(Duration::ZERO, NonZeroU32::new(5).unwrap());
        assert_eq!(bucket.ready_at(Duration::ZERO, 1, 0), TENTH * 5);
    }

    #[test]
    fn what_is_recalled_leaves_a_bucket_empty_and_no_emptier() {
        let bucket = bucket(3);
        let many = NonZeroU32::new(100).unwrap();
        bucket.recall(TENTH, one(), many);
        assert_eq!(bucket.ready_at(TENTH, 1, 0), TENTH * 2);
        bucket.recall(TENTH * 2, one(), one());
        assert_eq!(bucket.ready_at(TENTH * 2, 1, 0), TENTH * 3);
        // What a pause keeps back stays so, and a heavy request owes its cost.
        bucket.empty_until(TENTH * 50);
        bucket.recall(TENTH * 3, many, one());
        assert_eq!(bucket.ready_at(TENTH * 3, 3, 0), TENTH * 103);
    }

    #[test]
    fn an_emptied_bucket_gives_one_token_at_the_time_and_then_the_rate() {
        let bucket = bucket(10);
        let until = Duration::from_secs(5);
        bucket.empty_until(until);
        assert_eq!(bucket.ready_at(Duration::ZERO, 1, 0), until);
        bucket.take(until, one());
        assert_eq!(bucket.ready_at(until, 1, 0), until + TENTH);
        assert_eq!(bucket.tokens(until + Duration::from_secs(20)), 10);
    }
}
