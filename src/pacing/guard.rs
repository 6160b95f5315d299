//! The requests of a lane that are on their way to the upstream and not yet
//! certainly counted there.
//!
//! A limit holds where the upstream counts, not where we send. An answer proves
//! that its request was counted; without one, the guard bounds how long a
//! request can have been on its way. Whichever comes first is the time from
//! which the windows let the request age. This file only sorts turns by that
//! time; it decides nothing.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config;

/// The least and the most that an automatic guard takes. A request is seldom on
/// its way for a tenth of the least, but a busy machine can hold one back that
/// long, and an answer in time costs nothing.
const LEAST: Duration = Duration::from_millis(250);
const MOST: Duration = Duration::from_secs(1);

/// Turns that are neither answered nor older than the guard, in order of start.
/// Times are durations since the lane's epoch.
#[derive(Debug)]
pub(super) struct Guard {
    span: Span,
    /// Start times; `None` once answered. The first is turn number `first`.
    started: VecDeque<Option<Duration>>,
    first: u64,
    open: usize,
}

/// How long a request can be on its way.
#[derive(Debug)]
enum Span {
    Fixed(Duration),
    Auto(Reach),
}

/// What is known of the time that requests are on their way.
///
/// Only the whole trip can be measured. Where answers are usually quick, a long
/// trip means that something held the request back, so the longest counts, and
/// is forgotten slowly. Where they never are, trips tell nothing of the way. A
/// refusal says that it was longer than thought.
#[derive(Debug)]
struct Reach {
    shortest: Duration,
    longest: Duration,
}

impl Reach {
    fn answered(&mut self, trip: Duration) {
        self.shortest = trip.min(self.shortest + self.shortest / 100);
        self.longest -= self.longest / 100;
        if self.shortest < LEAST {
            self.longest = self.longest.max(trip).min(MOST);
        }
    }

    fn refused(&mut self) {
        self.longest = MOST;
    }

    fn span(&self) -> Duration {
        (self.longest * 2).clamp(LEAST, MOST)
    }
}

impl Guard {
    pub(super) fn new(settings: config::Guard) -> Self {
        let span = match settings {
            config::Guard::Auto => Span::Auto(Reach {
                shortest: MOST,
                longest: MOST,
            }),
            config::Guard::Fixed(span) => Span::Fixed(span),
        };
        Self {
            span,
            started: VecDeque::new(),
            first: 0,
            open: 0,
        }
    }

    /// How long a request can be on its way, at present.
    pub(super) fn span(&self) -> Duration {
        match &self.span {
            Span::Fixed(span) => *span,
            Span::Auto(reach) => reach.span(),
        }
    }

    /// The upstream refused a request although the limits allowed it.
    pub(super) fn refused(&mut self) {
        if let Span::Auto(reach) = &mut self.span {
            reach.refused();
        }
    }

    /// A request starts at `now`; returns the number of its turn.
    pub(super) fn start(&mut self, now: Duration) -> u64 {
        self.started.push_back(Some(now));
        self.open += 1;
        self.first + self.started.len() as u64 - 1
    }

    /// Turns that are still open.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// The start of the `n`-th open turn, counted from 0 and from the oldest.
    pub(super) fn nth_open(&self, n: usize) -> Option<Duration> {
        self.started.iter().flatten().nth(n).copied()
    }

    /// Closes `turn` because its answer came at `now`. False if it was closed.
    pub(super) fn answered(&mut self, turn: u64, now: Duration) -> bool {
        let Some(slot) = turn
            .checked_sub(self.first)
            .and_then(|index| self.started.get_mut(usize::try_from(index).ok()?))
        else {
            return false;
        };
        let Some(start) = slot.take() else {
            return false;
        };
        self.open -= 1;
        if let Span::Auto(reach) = &mut self.span {
            reach.answered(now.saturating_sub(start));
        }
        self.drop_closed();
        true
    }

    /// Closes `turn` because its request never left. False if it was closed.
    pub(super) fn cancel(&mut self, turn: u64) -> bool {
        let index = turn
            .checked_sub(self.first)
            .and_then(|index| usize::try_from(index).ok());
        let Some(slot) = index.and_then(|index| self.started.get_mut(index)) else {
            return false;
        };
        let was_open = slot.take().is_some();
        self.open -= usize::from(was_open);
        self.drop_closed();
        was_open
    }

    /// Closes the oldest turn if the guard has run out for it by `now`, and
    /// returns the time at which it had certainly been counted.
    pub(super) fn expire(&mut self, now: Duration) -> Option<Duration> {
        self.drop_closed();
        let counted = (*self.started.front()?)? + self.span();
        if counted > now {
            return None;
        }
        self.started.pop_front();
        self.first += 1;
        self.open -= 1;
        Some(counted)
    }

    fn drop_closed(&mut self) {
        while let Some(None) = self.started.front() {
            self.started.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_turn_is_counted_when_its_guard_has_run_out() {
        let mut guard = Guard::new(config::Guard::Fixed(ms(20)));
        guard.start(ms(0));
        assert_eq!(guard.expire(ms(19)), None);
        assert_eq!(guard.expire(ms(50)), Some(ms(20)));
        assert_eq!(guard.open(), 0);
    }

    #[test]
    fn answers_may_come_in_any_order_and_only_once() {
        let mut guard = Guard::new(config::Guard::Fixed(ms(500)));
        let turns: Vec<u64> = (0..3).map(|at| guard.start(ms(at))).collect();
        assert!(guard.answered(turns[1], ms(10)));
        assert!(!guard.answered(turns[1], ms(11)));
        assert_eq!(guard.open(), 2);
        assert_eq!(guard.nth_open(1), Some(ms(2)));
        assert!(guard.cancel(turns[0]));
        assert!(guard.answered(turns[2], ms(12)));
        assert_eq!(guard.open(), 0);
        assert!(!guard.answered(turns[2], ms(13)));
    }

    /// One request after the other, each answered after `trip`.
    fn answer(guard: &mut Guard, trip: Duration, times: usize) {
        for _ in 0..times {
            let turn = guard.start(Duration::ZERO);
            guard.answered(turn, trip);
        }
    }

    #[test]
    fn an_automatic_guard_starts_wide_and_narrows_as_answers_come_quickly() {
        let mut guard = Guard::new(config::Guard::Auto);
        assert_eq!(guard.span(), MOST);
        answer(&mut guard, ms(5), 300);
        assert_eq!(guard.span(), LEAST);
    }

    #[test]
    fn a_long_trip_among_quick_ones_and_a_refusal_widen_it_for_a_while() {
        let mut guard = Guard::new(config::Guard::Auto);
        answer(&mut guard, ms(5), 300);
        answer(&mut guard, ms(320), 1);
        assert_eq!(guard.span(), ms(640));
        answer(&mut guard, ms(5), 300);
        assert_eq!(guard.span(), LEAST);
        guard.refused();
        assert_eq!(guard.span(), MOST);
    }

    #[test]
    fn answers_that_are_always_slow_do_not_widen_it() {
        let mut guard = Guard::new(config::Guard::Auto);
        answer(&mut guard, ms(3000), 300);
        assert_eq!(guard.span(), LEAST);
    }
}
