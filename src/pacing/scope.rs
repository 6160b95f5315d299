//! The limits that hold for the whole lane, or for each key of one kind.
//!
//! A key is what a caller's request carries in the field, the cookie or the
//! place that a limit names with `per`; here it is a number. Each key has a
//! [`State`] of its own (`state`). A state that no longer matters is dropped, and when
//! there are as many as allowed the keys beyond share one more, which is
//! stricter than the limits ask for and never laxer.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use super::claim::Claims;
use super::history::History;
use super::state::State;
use super::{Charge, Rank};
use crate::config::{Limit, Per};

/// The key of those that find no state of their own, and the lane's.
pub(super) const OTHERS: u64 = 0;

/// How long keys are left alone after they were cleaned up, for each of them; the
/// clean-up takes about a hundredth of it, however few it frees.
const PAUSE: Duration = Duration::from_micros(10);

/// Limits of one kind, and their states.
#[derive(Debug)]
pub(super) struct Scope {
    /// What tells the keys apart; `None` for the whole lane.
    per: Option<Per>,
    limits: Vec<Limit>,
    states: States,
    /// Of those who wait for their keys.
    pub(super) claims: Claims,
    /// Until when it is not known what was spent; `None` if it is.
    lost: Option<Duration>,
    /// Before this time a key of which nothing is known may have spent all.
    unknown_until: Duration,
}

#[derive(Debug)]
enum States {
    Lane(Box<State>),
    Keyed {
        known: HashMap<u64, State>,
        max: usize,
        /// Clean up when there are so many.
        sweep_at: usize,
        /// And not before this time.
        sweep_after: Duration,
    },
}

impl Scope {
    /// The limits of the whole lane.
    pub(super) fn lane(limits: Vec<Limit>) -> Self {
        Self {
            per: None,
            states: States::Lane(Box::new(State::new(&limits, false))),
            limits,
            claims: Claims::default(),
            lost: None,
            unknown_until: Duration::ZERO,
        }
    }

    /// The limits of each key, of which at most `max` are told apart.
    pub(super) fn keyed(per: &Per, limits: Vec<Limit>, max: usize) -> Self {
        Self {
            per: Some(per.clone()),
            claims: Claims::default(),
            lost: None,
            unknown_until: Duration::ZERO,
            limits,
            states: States::Keyed {
                known: HashMap::new(),
                max,
                sweep_at: max.min(64),
                sweep_after: Duration::ZERO,
            },
        }
    }

    pub(super) fn per(&self) -> Option<&Per> {
        self.per.as_ref()
    }

    /// Until when it is not known what was spent; `None` if it is.
    pub(super) fn lost(&self) -> Option<Duration> {
        self.lost
    }

    /// Before this time a key of which nothing is known cannot start.
    pub(super) fn unknown_until(&self) -> Duration {
        self.unknown_until
    }

    pub(super) fn limits(&self) -> &[Limit] {
        &self.limits
    }

    /// The state for `key`; `None` while nothing is known of it. The lane's own
    /// has any key.
    pub(super) fn get(&self, key: u64) -> Option<&State> {
        match &self.states {
            States::Lane(state) => Some(state),
            States::Keyed { known, .. } => known.get(&key).or_else(|| known.get(&OTHERS)),
        }
    }

    /// The state for `key`, if something is known of it.
    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut State> {
        match &mut self.states {
            States::Lane(state) => Some(state),
            States::Keyed { known, .. } => known.get_mut(&key),
        }
    }

    /// The key under which `key` is known, or would be if it started now.
    pub(super) fn known_as(&self, key: u64) -> u64 {
        match &self.states {
            States::Keyed { known, max, .. }
                if known.len() >= *max && !known.contains_key(&key) =>
            {
                OTHERS
            }
            _ => key,
        }
    }

    /// Until when a request of `charge` and `key`, at `rank`, must leave what there is
    /// at `now` to elder ones, or when to ask again; `now` if it need not. It and all
    /// that is on its way will have been counted at `last`.
    pub(super) fn yields_until(
        &self,
        key: u64,
        charge: &Charge,
        rank: Rank,
        [now, last]: [Duration; 2],
    ) -> Duration {
        let known_as = self.known_as(key);
        let mut claims = self.claims.before(known_as, rank, now).peekable();
        if claims.peek().is_none() {
            return now;
        }
        let fresh;
        let state = match self.get(key) {
            Some(state) => state,
            None => {
                fresh = State::new(&self.limits, true);
                &fresh
            }
        };
        let short = claims.filter(|claim| !state.leaves(claim, charge, [now, last]));
        match short.map(|claim| claim.until).max() {
            // By `last` it is known when the places of what is on its way come back.
            Some(until) if state.is_open() && last > now => until.min(last),
            Some(until) => until,
            None => now,
        }
    }

    /// How long what was spent matters.
    pub(super) fn reach(&self) -> Duration {
        let each = self.limits.iter().map(Limit::reach);
        each.max().unwrap_or_default()
    }

    /// The key under which `key` is known from `now` on, and its state. What is on
    /// its way now is counted at `counted` at the latest.
    pub(super) fn enter(
        &mut self,
        key: u64,
        now: Duration,
        counted: Duration,
    ) -> (u64, &mut State) {
        let (known, max, sweep_at, sweep_after) = match &mut self.states {
            States::Lane(state) => return (key, state),
            States::Keyed {
                known,
                max,
                sweep_at,
                sweep_after,
            } => (known, *max, sweep_at, sweep_after),
        };
        let new = !known.contains_key(&key);
        if new && known.len() >= *sweep_at && now >= *sweep_after {
            let looked_at = u32::try_from(known.len()).unwrap_or(u32::MAX);
            *sweep_after = now + PAUSE.saturating_mul(looked_at);
            known.retain(|_, state| !state.is_fresh(now));
            *sweep_at = (known.len() * 2).max(64).min(max);
            known.shrink_to(*sweep_at);
        }
        if new
            && known
                .get(&OTHERS)
                .is_some_and(|others| others.is_fresh(now))
        {
            known.remove(&OTHERS);
        }
        let key = match new && known.len() >= max {
            true => OTHERS,
            false => key,
        };
        if !known.contains_key(&key) {
            let mut state = State::new(&self.limits, true);
            if let Some(lost) = self.lost.filter(|_| now < self.unknown_until) {
                state.spent_all(lost);
            }
            // It may have been among the others, and have spent all that they
            // did. So they are no trap: nobody joins them while there is room.
            if let Some(others) = known.get(&OTHERS) {
                state.follow(others, now, counted);
            }
            known.insert(key, state);
        }
        let state = known.get_mut(&key);
        (key, state.expect("a key was entered when it was not known"))
    }

    /// All states, each with its key.
    pub(super) fn states(&self) -> impl Iterator<Item = (u64, &State)> {
        let (lane, keyed) = match &self.states {
            States::Lane(state) => (Some((OTHERS, &**state)), None),
            States::Keyed { known, .. } => (None, Some(known)),
        };
        let keyed = keyed.into_iter().flatten();
        lane.into_iter()
            .chain(keyed.map(|(key, state)| (*key, state)))
    }

    /// Keys that are told apart; 0 for the lane's own.
    pub(super) fn keys(&self) -> usize {
        match &self.states {
            States::Lane(_) => 0,
            States::Keyed { known, .. } => known.len(),
        }
    }

    /// Nobody knows what was spent by `at`: all of it. Returns when everything
    /// can be spent again.
    pub(super) fn spent_all(&mut self, at: Duration) -> Duration {
        let known: Vec<&mut State> = match &mut self.states {
            States::Lane(state) => vec![state],
            States::Keyed { known, .. } => known.values_mut().collect(),
        };
        let until = known.into_iter().map(|state| state.spent_all(at)).max();
        // A key of which nothing is known gets its state when it first starts.
        let mut unknown = State::new(&self.limits, true);
        self.lost = self.lost.max(Some(at));
        self.unknown_until = self.unknown_until.max(unknown.spent_all(at));
        until.unwrap_or(self.unknown_until)
    }

    /// What is known at `now` of all that was spent.
    pub(super) fn history(&self, now: Duration) -> History {
        let of = |state: &State| History::of(&self.limits, &state.meters, now);
        History::together(self.states().map(|(_, state)| of(state)))
    }

    /// What was spent before these limits held, nobody knows by whom of those
    /// that they tell apart, so it counts for each. `open` is on its way.
    pub(super) fn begin_with<'a>(
        &mut self,
        history: &History,
        most: NonZeroU32,
        open: impl Iterator<Item = &'a Charge>,
        now: Duration,
    ) {
        let state = match &mut self.states {
            States::Lane(state) => state,
            States::Keyed { known, .. } => {
                let mut state = State::new(&self.limits, true);
                if let Some(lost) = self.lost.filter(|_| now < self.unknown_until) {
                    state.spent_all(lost);
                }
                let state = known.entry(OTHERS).or_insert(state);
                for charge in open {
                    state
                        .meters
                        .iter_mut()
                        .for_each(|meter| meter.adopt(charge));
                }
                state
            }
        };
        for (limit, meter) in self.limits.iter().zip(&mut state.meters) {
            meter.recall(history.under(limit.counts, most, now));
            meter.lacks(history.missing(limit.counts, most), now);
        }
        if let States::Keyed { known, .. } = &mut self.states {
            known.retain(|_, state| !state.is_fresh(now));
        }
    }

    /// The requests that are on their way will not be known any more when they
    /// end.
    pub(super) fn orphan(&mut self) {
        if let States::Keyed { known, .. } = &mut self.states {
            for state in known.values_mut() {
                state.pending = 0;
                state.cooldown.orphan();
                state.budgets.orphan();
            }
        }
    }

    /// Takes over what `old`, a scope of the same kind, knows at `now`; of the lane's
    /// limits those that reach farther get what `lane` tells. A request can have cost
    /// `most`.
    pub(super) fn inherit(
        &mut self,
        old: &mut Self,
        lane: &History,
        most: NonZeroU32,
        now: Duration,
    ) {
        let old_limits = &old.limits;
        match (&mut self.states, &mut old.states) {
            (States::Lane(state), States::Lane(old_state)) => {
                let empty = Box::new(State::new(&[], false));
                let old_state = std::mem::replace(old_state, empty);
                let history = History::of(old_limits, &old_state.meters, now);
                let pasts = [&history, lane];
                state.inherit(&self.limits, *old_state, old_limits, pasts, most, now);
            }
            (States::Keyed { known, .. }, States::Keyed { known: olds, .. }) => {
                for (key, old_state) in olds.drain() {
                    let mut state = State::new(&self.limits, true);
                    let history = History::of(old_limits, &old_state.meters, now);
                    let pasts = [&history, &history];
                    state.inherit(&self.limits, old_state, old_limits, pasts, most, now);
                    known.insert(key, state);
                }
            }
            _ => {}
        }
    }

    /// A request is on its way that limits which are not among `old_limits` did
    /// not see start.
    pub(super) fn adopt(&mut self, old_limits: &[Limit], key: u64, charge: &Charge) {
        let state = match &mut self.states {
            States::Lane(state) => state,
            States::Keyed { known, .. } => match known.get_mut(&key) {
                Some(state) => state,
                None => return,
            },
        };
        for (limit, meter) in self.limits.iter().zip(&mut state.meters) {
            if !old_limits.contains(limit) {
                meter.adopt(charge);
            }
        }
    }
}
