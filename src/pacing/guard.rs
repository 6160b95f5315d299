//! The requests of a lane that are on their way to the upstream and not yet
//! certainly counted there.
//!
//! A limit holds where the upstream counts, not where we send. An answer proves
//! that its request was counted, some time before if no trip is that short (see
//! `trips`); without one, the guard bounds how long a request can have been on
//! its way. Whichever comes first is the time from which the windows let the
//! request age. This file only sorts turns by that time; it decides nothing.

use std::collections::VecDeque;
use std::time::Duration;

use super::Charge;
use super::trips::Trips;
use crate::config;

/// Turns that are neither answered nor older than the guard, in the order in which they
/// were taken; one whose request leaves later holds up those behind it.
/// Times are durations since the lane's epoch.
#[derive(Debug)]
pub(super) struct Guard {
    span: Span,
    /// `None` once answered. The first is turn number `first`.
    started: VecDeque<Option<Open>>,
    first: u64,
}

/// A request that is on its way.
#[derive(Debug)]
struct Open {
    start: Duration,
    charge: Charge,
}

/// How long a request can be on its way.
#[derive(Debug)]
enum Span {
    Fixed(Duration),
    Auto(Trips),
}

impl Guard {
    pub(super) fn new(settings: config::Guard) -> Self {
        let span = match settings {
            config::Guard::Auto => Span::Auto(Trips::new()),
            config::Guard::Fixed(span) => Span::Fixed(span),
        };
        Self {
            span,
            started: VecDeque::new(),
            first: 0,
        }
    }

    /// How long a request can be on its way, at present.
    pub(super) fn span(&self) -> Duration {
        match &self.span {
            Span::Fixed(span) => *span,
            Span::Auto(trips) => trips.span(),
        }
    }

    /// How long before its answer a request had been counted, as far as what starts
    /// after the answer is concerned: see `trips`.
    pub(super) fn floor(&self) -> Duration {
        match &self.span {
            Span::Fixed(_) => Duration::ZERO,
            Span::Auto(trips) => trips.floor(),
        }
    }

    /// The upstream refused a request although the limits allowed it.
    pub(super) fn refused(&mut self) {
        if let Span::Auto(trips) = &mut self.span {
            trips.refused();
        }
    }

    /// Takes another setting; what was learned is kept where it applies. The way
    /// may be another from now on.
    pub(super) fn set(&mut self, settings: config::Guard) {
        match (&mut self.span, settings) {
            (Span::Auto(trips), config::Guard::Auto) => trips.forget(),
            _ => self.span = Self::new(settings).span,
        }
    }

    /// A request starts at `now`; returns the number of its turn.
    pub(super) fn start(&mut self, now: Duration, charge: Charge) -> u64 {
        self.started.push_back(Some(Open { start: now, charge }));
        self.next() - 1
    }

    /// The number that the next turn will have.
    pub(super) fn next(&self) -> u64 {
        self.first + self.started.len() as u64
    }

    /// The charges of the turns that are still open.
    pub(super) fn open(&self) -> impl Iterator<Item = &Charge> {
        self.started.iter().flatten().map(|open| &open.charge)
    }

    /// The same, each with the time of its start.
    pub(super) fn open_since(&self) -> impl Iterator<Item = (Duration, &Charge)> {
        let open = self.started.iter().flatten();
        open.map(|open| (open.start, &open.charge))
    }

    /// The same, to be changed.
    pub(super) fn open_mut(&mut self) -> impl Iterator<Item = &mut Charge> {
        let open = self.started.iter_mut().flatten();
        open.map(|open| &mut open.charge)
    }

    /// When the first of the open turns will have been counted at the earliest, if
    /// the answer to one comes at `now` or later; `now` if none is open.
    pub(super) fn first_counted(&self, now: Duration) -> Duration {
        let oldest = self.started.iter().flatten().next();
        let answered = now.saturating_sub(self.floor());
        oldest.map_or(now, |open| answered.min(open.start + self.span()))
    }

    /// The request of `turn` leaves at `at`, later than it was to; whatever started
    /// after it is not counted before it, unless answered.
    pub(super) fn defer(&mut self, turn: u64, at: Duration) {
        if let Some(Some(open)) = self.slot(turn) {
            open.start = at;
        }
    }

    /// Closes `turn` because its answer came at `now`, and returns the time at which
    /// it had been counted. `None` if it was closed. `beside` as in [`Guard::learn`].
    pub(super) fn answered(
        &mut self,
        turn: u64,
        beside: u64,
        now: Duration,
    ) -> Option<(Duration, Charge)> {
        let open = self.slot(turn)?.take()?;
        // Its guard may have run out, see `expire`.
        let latest = open.start + self.span();
        self.learn([open.start, now], beside);
        self.drop_closed();
        let counted = now.saturating_sub(self.floor()).min(latest);
        Some((counted, open.charge))
    }

    /// The answer to a request that left at the first of the times came at the second;
    /// `beside` others had no answer when it left, or left since.
    pub(super) fn learn(&mut self, [start, now]: [Duration; 2], beside: u64) {
        if let Span::Auto(trips) = &mut self.span {
            trips.answered(now.saturating_sub(start), beside, now);
        }
    }

    /// What the open `turn` costs, and whom.
    pub(super) fn charge(&mut self, turn: u64) -> Option<Charge> {
        let open = self.slot(turn)?.as_ref()?;
        Some(open.charge.clone())
    }

    /// Closes `turn` because its request never left. `None` if it was closed.
    pub(super) fn cancel(&mut self, turn: u64) -> Option<Charge> {
        let open = self.slot(turn)?.take()?;
        self.drop_closed();
        Some(open.charge)
    }

    /// Closes the oldest turn if the guard has run out for it by `now`, and
    /// returns the time at which it had certainly been counted. Nothing comes of that
    /// within `slack`, so for as long its answer is waited for, if that can tell more.
    pub(super) fn expire(&mut self, now: Duration, slack: Duration) -> Option<(Duration, Charge)> {
        let start = self.started.front()?.as_ref()?.start;
        let span = self.span();
        if start + span > now {
            return None;
        }
        let answered_by = match &self.span {
            Span::Fixed(_) => None,
            Span::Auto(trips) => trips.answered_by(),
        };
        let worth = |by: &Duration| *by <= span + slack && start + *by > now;
        if answered_by.as_ref().is_some_and(worth) {
            return None;
        }
        let open = self.started.pop_front()??;
        self.first += 1;
        self.drop_closed();
        Some((start + span, open.charge))
    }

    fn slot(&mut self, turn: u64) -> Option<&mut Option<Open>> {
        let index = usize::try_from(turn.checked_sub(self.first)?).ok()?;
        self.started.get_mut(index)
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
        guard.start(ms(0), Charge::ONE);
        assert!(guard.expire(ms(19), ms(0)).is_none());
        assert_eq!(guard.first_counted(ms(19)), ms(19));
        assert_eq!(guard.first_counted(ms(30)), ms(20));
        let (counted, _) = guard.expire(ms(50), ms(0)).unwrap();
        assert_eq!((counted, guard.open().count()), (ms(20), 0));
    }

    #[test]
    fn answers_may_come_in_any_order_and_only_once() {
        let mut guard = Guard::new(config::Guard::Fixed(ms(500)));
        let turns: Vec<u64> = (0..3).map(|at| guard.start(ms(at), Charge::ONE)).collect();
        assert!(guard.answered(turns[1], 0, ms(10)).is_some());
        assert!(guard.answered(turns[1], 0, ms(11)).is_none());
        assert_eq!(guard.open().count(), 2);
        assert!(guard.cancel(turns[0]).is_some());
        assert_eq!(guard.first_counted(ms(600)), ms(502));
        assert!(guard.answered(turns[2], 0, ms(12)).is_some());
        assert_eq!((guard.open().count(), guard.next()), (0, 3));
        assert!(guard.answered(turns[2], 0, ms(13)).is_none());
    }

    #[test]
    fn a_request_that_leaves_later_is_on_its_way_from_then_on() {
        let mut guard = Guard::new(config::Guard::Fixed(ms(20)));
        let turn = guard.start(ms(0), Charge::ONE);
        guard.start(ms(1), Charge::ONE);
        guard.defer(turn, ms(1000));
        assert!(guard.expire(ms(900), ms(0)).is_none());
        guard.defer(turn, ms(100));
        assert!(guard.expire(ms(119), ms(0)).is_none());
        assert_eq!(guard.expire(ms(120), ms(0)).unwrap().0, ms(120));
        assert_eq!(guard.expire(ms(120), ms(0)).unwrap().0, ms(21));
    }
}
