//! What was spent before these limits held: under other settings, or by another run
//! of this program.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

use super::history::History;
use super::scope::Scope;
use super::{Charge, Limits, patience, scopes, slack};
use crate::config;

/// The longest pause that goes on after a restart: what an API says of its budgets
/// is believed for no longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);

impl Limits {
    /// Takes other settings and keeps what was spent under the old ones.
    pub(crate) fn reconfigure(&mut self, settings: &config::Upstream, now: Instant) {
        let at = self.settle(now);
        let mut olds = std::mem::replace(&mut self.scopes, scopes(settings));
        // Where the keys of each scope stand in the charges made so far.
        let places: Vec<Option<usize>> = self
            .scopes
            .iter()
            .map(|scope| olds.iter().position(|old| old.per() == scope.per()))
            .collect();
        // Only who has no past of its own asks for that of all; it can be long.
        let knows = |place: usize| !olds[place].limits().is_empty();
        let all = match places.iter().all(|place| place.is_some_and(knows)) {
            true => None,
            false => olds
                .iter()
                .map(|old| old.history(at))
                .reduce(History::or_farther),
        };
        let all = all.unwrap_or_default();
        let lane = self.ledger.history(self.guard.open_since());
        let none = History::default();
        let lost = olds.iter().filter_map(Scope::lost).max();
        for (scope, place) in self.scopes.iter_mut().zip(&places) {
            if let Some(lost) = lost {
                scope.spent_all(lost);
            }
            let Some(place) = *place else {
                scope.begin_with(&all, self.most, self.guard.open(), at);
                continue;
            };
            let old_limits = olds[place].limits().to_vec();
            // Only the lane can have had none.
            if old_limits.is_empty() {
                let all = all.clone().or_farther(lane.clone());
                scope.begin_with(&all, self.most, std::iter::empty(), at);
            }
            let lane = if old_limits.is_empty() { &none } else { &lane };
            scope.inherit(&mut olds[place], lane, self.most, at);
            for charge in self.guard.open() {
                scope.adopt(&old_limits, self.kinds.key(charge, place), charge);
            }
        }
        if !places.iter().copied().eq((0..olds.len()).map(Some)) {
            let kinds = places[1..].iter();
            let kinds = kinds.map(|place| place.and_then(|place| place.checked_sub(1)));
            self.kinds.change(kinds.collect());
            self.scopes.iter_mut().for_each(Scope::orphan);
            for charge in self.guard.open_mut() {
                *charge = self.kinds.renew(charge.clone(), self.scopes.len() - 1);
            }
        }
        self.guard.set(settings.guard);
        self.cooldown = settings.cooldown.clone();
        self.most = self.most.max(settings.dearest());
        self.slack = slack(settings);
        self.patience = patience(settings);
    }

    /// Another run of this program had started so many requests by `at`, which
    /// may be in the past or in the future; told in the order of time.
    pub(crate) fn spent(&mut self, charge: &Charge, times: NonZeroU32, at: Instant) {
        let at = self.time(at);
        // On its way for so long at most.
        let counted = at + self.guard.span();
        self.ledger.start([at, counted], charge, times.get());
        for (index, scope) in self.scopes.iter_mut().enumerate() {
            let (_, state) = scope.enter(self.kinds.key(charge, index), at, counted);
            state.spent([at, counted], charge, times);
        }
    }

    /// Another run of this program was told to send nothing before `until`, in the
    /// answer to a request of `charge`; now it is `now`.
    pub(crate) fn paused(&mut self, charge: &Charge, until: Instant, now: Instant) {
        let (at, until) = (self.time(now), self.time(until));
        let until = until.min(at + LONGEST_PAUSE);
        let counted = at + self.guard.span();
        let index = usize::from(self.answers_are_keyed());
        let key = self.kinds.key(charge, index);
        let (_, state) = self.scopes[index].enter(key, at, counted);
        state.cooldown.resume(until);
        state.empty_until(until);
    }

    /// What was spent until `at` is not known: it counts as everything. Returns
    /// the time from which everything can be spent again.
    pub(crate) fn spent_all(&mut self, at: Instant) -> Instant {
        let at = self.time(at) + self.guard.span();
        let until = self.scopes.iter_mut().map(|scope| scope.spent_all(at));
        self.epoch + until.max().unwrap_or(at)
    }
}
