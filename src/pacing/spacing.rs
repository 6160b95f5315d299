//! How many requests may start at once, and how far apart the others are.
//!
//! A bucket that is charged when a request starts. It only ever delays: the
//! promise about what the upstream counts is the window's. So a wake-up that
//! comes late need not cost rate: a turn is booked at the time it was due when
//! that is no more than [`CREDIT`] ago, and what was lost beyond is made up for
//! by spacing the next turns a little closer, never by a burst.

use std::num::NonZeroU32;
use std::time::Duration;

use super::bucket::Bucket;

/// How late a wake-up may be without delaying the turns after it, at most.
///
/// Long enough for the usual lateness of a timerfd (30 µs) and for a shared
/// machine's small stalls.
const CREDIT: Duration = Duration::from_micros(400);

/// Lost time is made up for with one part in so many of each interval: 4 %.
const CATCH_UP: u32 = 25;

/// Of a limit's period, one part in so many may be made up for at once. Upstreams
/// that estimate a window from the counts of two notice what moves from one to
/// the next; so much is within the room that our longer periods leave.
const MOST_BEHIND: u32 = 1000;

/// However often the upstream refuses, a timer's usual lateness is made up for.
const LEAST_BEHIND: Duration = Duration::from_micros(100);

/// The spacing of one limit's turns.
#[derive(Debug)]
pub(super) struct Spacing {
    bucket: Bucket,
    /// Time lost by wake-ups that were later than the credit.
    behind: Duration,
    most_behind: Duration,
}

impl Spacing {
    /// For a limit over `period`, with `burst` tokens that regain one per
    /// `interval`.
    pub(super) fn new(interval: Duration, burst: NonZeroU32, period: Duration) -> Self {
        Self {
            bucket: Bucket::new(interval, burst),
            behind: Duration::ZERO,
            most_behind: period / MOST_BEHIND,
        }
    }

    pub(super) fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// The upstream refused a request although the limits allowed it. Since that may
    /// be because of what was made up for, from now on it is half as much at most.
    pub(super) fn refused(&mut self) {
        self.most_behind = (self.most_behind / 2).max(LEAST_BEHIND.min(self.most_behind));
        self.behind = self.behind.min(self.most_behind);
    }

    /// Takes the turn that the bucket has promised for `now`. `since` is when
    /// somebody first wanted it.
    pub(super) fn take(&mut self, now: Duration, since: Duration, cost: NonZeroU32) {
        let due = self.bucket.due(cost.get());
        if since > due {
            // Nobody waited for the turn, so no time was lost.
            self.behind = Duration::ZERO;
        }
        let wanted = due.max(since).min(now);
        let booked = wanted.max(now.saturating_sub(CREDIT.min(self.most_behind)));
        self.behind = (self.behind + (booked - wanted)).min(self.most_behind);
        self.bucket.take(booked, cost);
        let made_up = self.behind.min(self.bucket.interval() / CATCH_UP);
        self.bucket.advance(made_up);
        self.behind -= made_up;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn even() -> Spacing {
        Spacing::new(MILLI, NonZeroU32::MIN, Duration::from_secs(10))
    }

    /// Takes at each of the times the spacing names, `late` after it.
    fn saturate(
        spacing: &mut Spacing,
        late: impl Fn(usize) -> Duration,
        times: usize,
    ) -> Vec<Duration> {
        let mut now = Duration::ZERO;
        (0..times)
            .map(|nth| {
                let ready = spacing.bucket.ready_at(now, 1, 0);
                now = if ready > now { ready + late(nth) } else { now };
                spacing.take(now, Duration::ZERO, NonZeroU32::MIN);
                now
            })
            .collect()
    }

    #[test]
    fn spaces_turns_exactly() {
        let turns = saturate(&mut even(), |_| Duration::ZERO, 4);
        assert_eq!(turns, [Duration::ZERO, MILLI, MILLI * 2, MILLI * 3]);
    }

    #[test]
    fn a_wake_up_that_is_late_within_the_credit_does_not_push_the_next_turn() {
        let late = Duration::from_micros(300);
        let turns = saturate(&mut even(), |_| late, 1001);
        assert_eq!(turns[1000], Duration::from_secs(1) + late);
    }

    #[test]
    fn a_longer_delay_is_made_up_for_little_by_little_and_never_in_a_burst() {
        let stall = |nth| if nth == 10 { MILLI * 5 } else { Duration::ZERO };
        let turns = saturate(&mut even(), stall, 500);
        let gaps: Vec<_> = turns.windows(2).map(|pair| pair[1] - pair[0]).collect();
        // The one after the stall comes a credit early, the others 4 %.
        assert!(gaps[11..].iter().all(|gap| *gap >= MILLI - MILLI / 25));
        assert!(gaps[10] >= MILLI - CREDIT - MILLI / 25, "{:?}", gaps[10]);
        assert_eq!(turns[499], MILLI * 499);
    }

    #[test]
    fn each_refusal_halves_what_is_made_up_for_but_not_a_timers_lateness() {
        let stall = |nth| {
            if nth == 10 {
                MILLI * 20
            } else {
                Duration::ZERO
            }
        };
        let lost = |refusals| {
            let mut spacing = even();
            (0..refusals).for_each(|_| spacing.refused());
            saturate(&mut spacing, stall, 1000)[999] - MILLI * 999
        };
        // A credit beside it.
        let made_up = [0, 1, 2].map(|refusals| MILLI * 20 - lost(refusals) - CREDIT);
        assert_eq!(made_up, [MILLI * 10, MILLI * 5, MILLI * 5 / 2]);
        let late = LEAST_BEHIND;
        let mut spacing = even();
        (0..20).for_each(|_| spacing.refused());
        let turns = saturate(&mut spacing, |_| late, 1001);
        assert_eq!(turns[1000], Duration::from_secs(1) + late);
    }

    #[test]
    fn time_in_which_nobody_waits_is_not_made_up_for() {
        let mut spacing = even();
        spacing.take(Duration::ZERO, Duration::ZERO, NonZeroU32::MIN);
        let now = Duration::from_secs(5);
        spacing.take(now, now, NonZeroU32::MIN);
        assert_eq!(spacing.bucket.ready_at(now, 1, 0), now + MILLI);
    }
}
