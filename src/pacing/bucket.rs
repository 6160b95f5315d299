//! One token bucket: governor's arithmetic under our own clock.
//!
//! The only file that names governor. Its limiter is asked with `check` alone:
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

/// How late a wake-up may be without delaying the turns after it.
///
/// Long enough for the usual lateness of a timerfd (30 µs) and for a shared
/// machine's small stalls; short enough that a window of 10 ms or more cannot
/// notice it.
const CREDIT: Duration = Duration::from_micros(400);

/// A bucket that holds up to `burst` tokens and regains one per interval.
/// Times are durations since the lane's epoch.
#[derive(Debug)]
pub(super) struct Bucket {
    limiter: RateLimiter<NotKeyed, Full, Hand, NoOpMiddleware<Duration>>,
    full: Full,
    interval: Duration,
    burst: NonZeroU32,
}

impl Bucket {
    /// A full bucket for `count` tokens per `period`.
    ///
    /// The interval is rounded up to whole nanoseconds: never too fast.
    pub(super) fn new(count: NonZeroU32, period: Duration, burst: NonZeroU32) -> Self {
        let nanos = period.as_nanos().div_ceil(u128::from(count.get())).max(1);
        let interval = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let quota = Quota::with_period(interval)
            .expect("the interval is at least one nanosecond")
            .allow_burst(burst);
        let full = Full::default();
        let limiter = RateLimiter::new(quota, full.clone(), Hand::default());
        Self {
            limiter,
            full,
            interval,
            burst,
        }
    }

    /// When the next token can be taken: `now`, or a later time.
    pub(super) fn ready_at(&self, now: Duration) -> Duration {
        self.earliest().map_or(now, |earliest| earliest.max(now))
    }

    /// Takes the token that `ready_at(now)` has promised.
    ///
    /// `since` is when somebody first wanted it: the turn is booked at the time
    /// it was due after that, if that is no more than [`CREDIT`] ago.
    pub(super) fn take(&self, now: Duration, since: Duration) {
        let due = self
            .earliest()
            .map_or(since, |earliest| earliest.max(since));
        let booked = due.max(now.saturating_sub(CREDIT)).min(now);
        self.limiter.clock().0.set(booked);
        let taken = self.limiter.check();
        debug_assert!(taken.is_ok(), "a token was taken before it was ready");
    }

    /// No token before `until`, and only one then.
    pub(super) fn empty_until(&self, until: Duration) {
        let full = until + self.interval * (self.burst.get() - 1);
        self.full.0.fetch_max(
            u64::try_from(full.as_nanos()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }

    /// Tokens that could be taken at once at `now`.
    pub(super) fn tokens(&self, now: Duration) -> u64 {
        let burst = u64::from(self.burst.get());
        let Some(full_at) = self.full.at() else {
            return burst;
        };
        let missing = full_at.saturating_sub(now).as_nanos();
        let missing = missing.div_ceil(self.interval.as_nanos());
        burst.saturating_sub(u64::try_from(missing).unwrap_or(u64::MAX))
    }

    /// The time one token takes to come back.
    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    /// The time from which a token is there; `None` while never used.
    fn earliest(&self) -> Option<Duration> {
        Some(
            self.full
                .at()?
                .saturating_sub(self.interval * (self.burst.get() - 1)),
        )
    }
}

/// When the bucket will be full again plus one interval: governor's only state
/// (its "theoretical arrival time"), shared so that we can read it.
/// Zero while never used. Only ever touched under the lane's limits lock.
#[derive(Debug, Clone, Default)]
struct Full(Arc<AtomicU64>);

impl Full {
    fn at(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }
}

impl StateStore for Full {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (taken, next) = measure(self.at().map(Into::into))?;
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

    fn bucket(count: u32, period: Duration, burst: u32) -> Bucket {
        Bucket::new(
            NonZeroU32::new(count).unwrap(),
            period,
            NonZeroU32::new(burst).unwrap(),
        )
    }

    /// Takes at each of the times the bucket names, as often as `times` says.
    fn saturate(bucket: &Bucket, late: Duration, times: usize) -> Vec<Duration> {
        let mut now = Duration::ZERO;
        (0..times)
            .map(|_| {
                let ready = bucket.ready_at(now);
                now = if ready > now { ready + late } else { now };
                bucket.take(now, Duration::ZERO);
                now
            })
            .collect()
    }

    #[test]
    fn spaces_turns_exactly_when_the_burst_is_one() {
        let turns = saturate(&bucket(10, Duration::from_secs(1), 1), Duration::ZERO, 4);
        let expected: Vec<_> = [0, 100, 200, 300].map(Duration::from_millis).into();
        assert_eq!(turns, expected);
    }

    #[test]
    fn a_wake_up_that_is_late_within_the_credit_does_not_push_the_next_turn() {
        let late = Duration::from_micros(300);
        let turns = saturate(&bucket(1000, Duration::from_secs(1), 1), late, 1001);
        assert_eq!(turns[1000], Duration::from_secs(1) + late);
    }

    #[test]
    fn a_longer_delay_is_lost_but_for_the_credit_and_never_made_up_in_a_burst() {
        let bucket = bucket(1000, Duration::from_secs(1), 1);
        bucket.take(Duration::ZERO, Duration::ZERO);
        let late = Duration::from_millis(5);
        bucket.take(late, Duration::ZERO);
        assert_eq!(
            bucket.ready_at(late),
            late - CREDIT + Duration::from_millis(1)
        );
    }

    #[test]
    fn a_turn_wanted_only_now_is_booked_now() {
        let bucket = bucket(1000, Duration::from_secs(1), 1);
        bucket.take(Duration::ZERO, Duration::ZERO);
        let now = Duration::from_secs(5);
        bucket.take(now, now);
        assert_eq!(bucket.ready_at(now), now + Duration::from_millis(1));
    }

    #[test]
    fn lets_a_burst_go_at_once_and_then_keeps_the_rate() {
        let turns = saturate(&bucket(10, Duration::from_secs(1), 4), Duration::ZERO, 6);
        let expected: Vec<_> = [0, 0, 0, 0, 100, 200].map(Duration::from_millis).into();
        assert_eq!(turns, expected);
    }

    #[test]
    fn an_emptied_bucket_gives_one_token_at_its_time_and_then_keeps_the_rate() {
        let bucket = bucket(10, Duration::from_secs(1), 4);
        bucket.empty_until(Duration::from_secs(3));
        let turns = saturate(&bucket, Duration::ZERO, 3);
        let expected: Vec<_> = [3000, 3100, 3200].map(Duration::from_millis).into();
        assert_eq!(turns, expected);
    }

    #[test]
    fn counts_the_tokens_that_are_left() {
        let bucket = bucket(10, Duration::from_secs(1), 4);
        assert_eq!(bucket.tokens(Duration::ZERO), 4);
        bucket.take(Duration::ZERO, Duration::ZERO);
        bucket.take(Duration::ZERO, Duration::ZERO);
        assert_eq!(bucket.tokens(Duration::ZERO), 2);
        assert_eq!(bucket.tokens(Duration::from_millis(100)), 3);
        assert_eq!(bucket.tokens(Duration::from_secs(9)), 4);
    }
}
