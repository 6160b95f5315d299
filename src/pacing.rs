//! The limits of a lane as one decision: may a request start now, and if not,
//! when?
//!
//! [`Limits`] is pure arithmetic. It is told the time, never reads a clock and
//! never sleeps; the gate asks it under a lock held for a few lines, and whoever
//! made the call reports how it ended. Either all limits are charged or none.
//!
//! Limits that hold for the whole lane are one `scope`, those that hold for each
//! key of one kind another; in each scope every limit is a `meter`: a rolling
//! log of what the upstream has counted (`window`) with the distance between
//! starts (`spacing`), or a token bucket as the upstream documents it (`bucket`);
//! `history` hands on what was spent when one takes another's place, and `kinds`
//! knows the keys of requests that came before the kinds changed.
//! Beside them stand the `cooldown` after a refusal and what the upstream says
//! of its own counts (`budget`).
//!
//! Why the window promise holds. Take requests whose costs add up to more than
//! the count, and call the one that started last X, its start `s`. When X
//! started, the log had room, so of the others at least one, Y, was neither on
//! its way nor counted within the last period: Y had been counted by `c` with
//! `c + period <= s`, where `c` is its answer or its start + guard, whichever was
//! first. X is counted at `s` or later, a whole period after Y, so no window
//! holds all of them. The assumptions: an answer comes after the request was
//! counted; one without an answer is counted within `guard` of its start, or of when
//! it left if that was later, or never; the upstream's clock is at most 1 in 1000 slower than ours, which is
//! why our periods are so much longer.
//!
//! An automatic guard has Y's place come back earlier, by the `floor` of trips:
//! `c + period <= s + floor`. Y was counted its way back before its answer, and X
//! will be its way there after its start. Both ways together take the floor at
//! least, which is the one assumption more (see `trips`), so again a whole period lies between.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

use crate::config;
use guard::Guard;
use history::{History, Ledger};
use kinds::Kinds;
use meter::Meter;
use scope::{OTHERS, Scope};
use state::State;
pub(crate) use turn::{Charge, Closed, End, Gauge, Hold, Reading, Turn};

pub(crate) mod alarm;
mod bucket;
mod budget;
mod cooldown;
mod guard;
mod history;
mod kinds;
mod meter;
mod scope;
mod spacing;
mod state;
mod trips;
mod turn;
mod watch;
mod window;

/// The longest pause that goes on after a restart: what an API says of its budgets
/// is believed for no longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);

/// All limits of one lane.
#[derive(Debug)]
pub(crate) struct Limits {
    epoch: Instant,
    guard: Guard,
    /// The lane's own first, then one for each kind of key.
    scopes: Vec<Scope>,
    cooldown: config::Cooldown,
    /// The most that a request can have cost so far.
    most: NonZeroU32,
    ledger: Ledger,
    /// For how long nothing comes of it that a request was counted.
    slack: Duration,
    /// Whether the upstream ever said what is left.
    learned: bool,
    kinds: Kinds,
}

impl Limits {
    /// Limits of which nothing has been spent; `epoch` is before every time
    /// they will be told.
    pub(crate) fn new(settings: &config::Upstream, epoch: Instant) -> Self {
        Self {
            epoch,
            guard: Guard::new(settings.guard),
            scopes: scopes(settings),
            cooldown: settings.cooldown.clone(),
            most: settings.dearest(),
            ledger: Ledger::default(),
            slack: slack(settings),
            learned: false,
            kinds: Kinds::default(),
        }
    }

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
    }

    /// The number of the kinds of keys that requests are told apart by. A charge
    /// that bears another keeps what keys it has of these.
    pub(crate) fn kinds(&self) -> u32 {
        self.kinds.number()
    }

    /// Whether a request may start at `now`, or the time before which it may
    /// not. That time can turn out too early, never too late: ask again then.
    pub(crate) fn ready(&mut self, charge: &Charge, now: Instant) -> Result<(), Hold> {
        let at = self.settle(now);
        let first = self.guard.first_counted(at);
        let until = |(index, scope): (usize, &Scope)| {
            let state = scope.get(self.kinds.key(charge, index));
            let unknown = scope.unknown_until().max(at);
            state.map_or(unknown, |state| state.ready_at(at, charge, first))
        };
        let mut each = self.scopes.iter().enumerate().map(until);
        let lane = each.next().unwrap_or(at);
        let keyed = each.max().unwrap_or(at);
        let hold = |until, keyed| Hold {
            until: self.epoch + until,
            keyed,
        };
        // Who waits longer for its own keys holds up nobody meanwhile.
        match (lane > at, keyed > lane) {
            (_, true) => Err(hold(keyed, true)),
            (true, false) => Err(hold(lane, false)),
            (false, false) => Ok(()),
        }
    }

    /// Charges every limit for a request that starts at `now`, which
    /// [`Limits::ready`] has just allowed. `since` is when it was first wanted.
    pub(crate) fn start(&mut self, charge: Charge, now: Instant, since: Instant) -> Turn {
        let mut charge = self.kinds.renew(charge, self.scopes.len() - 1);
        let (at, since) = (self.time(now), self.time(since));
        let number = self.guard.next();
        let counted = at + self.guard.span();
        for (index, scope) in self.scopes.iter_mut().enumerate() {
            let (key, state) = scope.enter(self.kinds.key(&charge, index), at, counted);
            state.forget(at);
            state.start(number, at, since, &charge);
            let keys = charge.keys.as_mut().zip(index.checked_sub(1));
            if let Some(entered) = keys.and_then(|(keys, kind)| keys.get_mut(kind)) {
                *entered = key;
            }
        }
        self.ledger.start([at, counted], &charge, 1);
        self.guard.start(at, charge.clone());
        Turn {
            number,
            charge,
            kinds: self.kinds.number(),
            start: at,
        }
    }

    /// The request of turn `number` leaves at `at`, which may be later than now. To
    /// be told before its guard has run out.
    pub(crate) fn defer(&mut self, number: u64, at: Instant) {
        let at = self.time(at);
        self.guard.defer(number, at);
    }

    /// What turn `number` costs, and whom, while its guard has not run out.
    pub(crate) fn charge(&mut self, number: u64) -> Option<Charge> {
        self.guard.charge(number)
    }

    /// The request of `turn` has ended at `now`.
    pub(crate) fn close(&mut self, turn: Turn, end: End<'_>, now: Instant) -> Closed {
        let at = self.settle(now);
        let Turn {
            number,
            mut charge,
            kinds,
            start,
        } = turn;
        // If not, its keys are no longer told apart, or stand elsewhere.
        let known = kinds == self.kinds.number();
        if !known {
            charge.keys = None;
        }
        // Before its trip counts: refusals are often quick.
        if let End::Refused(..) = end {
            self.guard.refused();
            self.each(&charge, |state| {
                state.meters.iter_mut().for_each(Meter::refused)
            });
        }
        self.count(number, start, end, at);
        let before = self.learned.then(|| self.budgets_ready_at(&charge, at));
        self.ended(&charge, at, known, end);
        // With one less on its way more of what the upstream says is left can start.
        let sooner = before.is_some_and(|before| self.budgets_ready_at(&charge, at) < before);
        let next = self.guard.next();
        let settings = self.cooldown.clone();
        let mut closed = Closed {
            cooldown: None,
            sooner: self.release(&charge, number, end, at)
                || sooner
                || matches!(end, End::Canceled),
        };
        let epoch = self.epoch;
        let keyed = self.answers_are_keyed();
        if keyed {
            let (until, released) = self.lane_ended(number, end, at);
            closed.cooldown = until.map(|until| epoch + until);
            closed.sooner |= released;
        }
        let mut learned = false;
        let Some(state) = self.answering(&charge).filter(|_| known || !keyed) else {
            return closed;
        };
        if let End::Answered(readings) | End::Refused(_, readings) = end {
            state.learn(readings, at, [number, next]);
            learned = !readings.is_empty();
        }
        closed.sooner |= state.cooldown.is_probe(number);
        // That the upstream fails concerns all.
        let own = match end {
            End::Failed if keyed => End::Lost,
            end => end,
        };
        if let Some(until) = state.ended(number, own, at, &settings) {
            state.empty_until(until);
            closed.cooldown = Some(epoch + until);
        }
        // What it told may be more than was known.
        let sooner = |before| self.budgets_ready_at(&charge, at) < before;
        closed.sooner |= before.is_some_and(sooner);
        self.learned |= learned;
        closed
    }

    /// What the end of turn `number`, which was taken at `start`, tells of when it was
    /// counted.
    fn count(&mut self, number: u64, start: Duration, end: End<'_>, at: Duration) {
        match end {
            End::Answered(_) | End::Refused(..) => match self.guard.answered(number, at) {
                Some((counted, charge)) => {
                    self.each(&charge, |state| state.counted(counted, &charge));
                }
                None => self.guard.late(start, at),
            },
            End::Canceled => {
                if let Some(charge) = self.guard.cancel(number) {
                    self.each(&charge, |state| state.canceled(&charge));
                }
            }
            // They may have been counted: the guard tells when at the latest.
            End::Failed | End::Lost => {}
        }
    }

    /// When what the upstream says is left lets a request of `charge` start.
    fn budgets_ready_at(&mut self, charge: &Charge, at: Duration) -> Duration {
        let mut ready_at = at;
        self.each(charge, |state| {
            ready_at = ready_at.max(state.budgets.ready_at(at, state.pending));
        });
        ready_at
    }

    /// What the end of turn `number` means for the whole lane, where answers concern
    /// keys: whether the upstream works. Returns the end of the pause if it makes one,
    /// and whether others waited for this end.
    fn lane_ended(&mut self, number: u64, end: End<'_>, at: Duration) -> (Option<Duration>, bool) {
        let end = match end {
            End::Answered(_) | End::Refused(..) => End::Answered(&[]),
            end => end,
        };
        let Some(lane) = self.scopes[0].get_mut(OTHERS) else {
            return (None, false);
        };
        let released = lane.cooldown.is_probe(number);
        let until = lane.ended(number, end, at, &self.cooldown);
        if let Some(until) = until {
            lane.empty_until(until);
        }
        (until, released)
    }

    /// A request of `charge` waits for no answer any more, and may have been
    /// counted without one. `known` unless its keys were told apart otherwise.
    fn ended(&mut self, charge: &Charge, at: Duration, known: bool, end: End<'_>) {
        let ended = |state: &mut State| {
            state.pending = state.pending.saturating_sub(1);
            state.budgets.ended(at);
            match end {
                End::Answered(_) | End::Refused(..) => state.budgets.answered(at),
                End::Failed | End::Lost => state.budgets.spent(1),
                End::Canceled => {}
            }
        };
        match known {
            true => self.each(charge, ended),
            // Its keys do not wait for it, see `Scope::orphan`.
            false => self.scopes[0].get_mut(0).into_iter().for_each(ended),
        }
    }

    /// Lets those go on who wait for the answer to turn `number` although since a
    /// reload answers concern others. Returns whether there are any.
    fn release(&mut self, charge: &Charge, number: u64, end: End<'_>, at: Duration) -> bool {
        let answering = usize::from(self.answers_are_keyed());
        let end = match end {
            End::Answered(_) => End::Answered(&[]),
            // What else it says is for the others.
            End::Refused(..) | End::Failed | End::Canceled | End::Lost => End::Lost,
        };
        let mut released = false;
        for (index, scope) in self.scopes.iter_mut().enumerate() {
            let state = scope.get_mut(self.kinds.key(charge, index));
            let waits = |state: &&mut State| state.cooldown.is_probe(number);
            let told = [0, answering].contains(&index);
            if let Some(state) = state.filter(waits).filter(|_| !told) {
                state.ended(number, end, at, &self.cooldown);
                released = true;
            }
        }
        released
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

    /// `now` as a time since the epoch, after the requests whose guard has run
    /// out by then have been counted.
    fn settle(&mut self, now: Instant) -> Duration {
        let at = self.time(now);
        while let Some((counted, charge)) = self.guard.expire(at, self.slack) {
            self.each(&charge, |state| state.counted(counted, &charge));
        }
        if let Some(lane) = self.scopes.first_mut().and_then(|scope| scope.get_mut(0)) {
            lane.forget(at);
        }
        at
    }

    /// The states that `charge` concerns.
    fn each(&mut self, charge: &Charge, mut act: impl FnMut(&mut State)) {
        for (index, scope) in self.scopes.iter_mut().enumerate() {
            if let Some(state) = scope.get_mut(self.kinds.key(charge, index)) {
                act(state);
            }
        }
    }

    /// The state whose requests the upstream's refusals and counts concern.
    fn answering(&mut self, charge: &Charge) -> Option<&mut State> {
        let index = usize::from(self.answers_are_keyed());
        self.scopes[index].get_mut(self.kinds.key(charge, index))
    }

    /// Whether they concern only those of the same key.
    fn answers_are_keyed(&self) -> bool {
        self.cooldown.keyed && self.scopes.len() > 1
    }

    fn lane(&self) -> Option<&State> {
        self.scopes.first()?.get(0)
    }

    fn time(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.epoch)
    }
}

/// A place in a window comes back one period after its request was counted; a bucket
/// fills from then on.
fn slack(settings: &config::Upstream) -> Duration {
    let each = settings.limits.iter().map(|limit| match limit.window {
        true => limit.period,
        false => Duration::ZERO,
    });
    each.min().unwrap_or_default()
}

/// The lane's own limits, then those of each kind of key.
fn scopes(settings: &config::Upstream) -> Vec<Scope> {
    let of = |per: Option<&config::Per>| {
        let limits = settings.limits.iter();
        limits
            .filter(|limit| limit.per.as_ref() == per)
            .cloned()
            .collect()
    };
    let keyed = settings
        .kinds()
        .into_iter()
        .map(|kind| Scope::keyed(kind, of(Some(kind)), settings.max_keys.get()));
    std::iter::once(Scope::lane(of(None)))
        .chain(keyed)
        .collect()
}

#[cfg(test)]
mod tests;
