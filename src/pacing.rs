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
//! starts (`spacing`), or a token bucket as the upstream documents it (`bucket`).
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
//! counted; one without an answer is counted within `guard` of its start or
//! never; the upstream's clock is at most 1 in 1000 slower than ours, which is
//! why our periods are so much longer.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

use crate::config;
use budget::Count;
use guard::Guard;
use scope::{Scope, State};

pub(crate) mod alarm;
mod bucket;
mod budget;
mod cooldown;
mod guard;
mod meter;
mod scope;
mod spacing;
mod window;

/// All limits of one lane.
#[derive(Debug)]
pub(crate) struct Limits {
    epoch: Instant,
    guard: Guard,
    /// The lane's own first, then one for each kind of key.
    scopes: Vec<Scope>,
    cooldown: config::Cooldown,
    /// How often the kinds of keys have changed.
    kinds: u32,
}

/// What a request costs, and whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Charge {
    /// What limits count that do not count requests.
    pub(crate) cost: NonZeroU32,
    /// Its key of each kind, in the order of [`config::Upstream::kinds`].
    pub(crate) keys: Option<Box<[u64]>>,
}

/// A turn that was taken. It must be given to [`Limits::close`] at its end.
#[derive(Debug)]
pub(crate) struct Turn {
    number: u64,
    charge: Charge,
    kinds: u32,
}

impl Turn {
    /// What it costs, and whom.
    pub(crate) fn charge(&self) -> &Charge {
        &self.charge
    }
}

/// How the request of a turn ended, as far as the limits are concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End<'a> {
    /// It was answered, and the answer told these counts.
    Answered(&'a [Reading]),
    /// The upstream refused it, for so long if it said so.
    Refused(Option<Duration>, &'a [Reading]),
    /// The upstream broke off or did not answer.
    Failed,
    /// It never left: its places come back. Tokens do not.
    Canceled,
    /// Nobody knows: the caller has gone.
    Lost,
}

/// What an answer says is left of one of the upstream's budgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Which of its budgets.
    pub(crate) name: &'static str,
    /// What is left.
    pub(crate) remaining: u64,
    /// How long until it is whole again.
    pub(crate) reset: Duration,
}

/// Why a request cannot start yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hold {
    /// It cannot before; it can turn out that it cannot then either.
    pub(crate) until: Instant,
    /// Whether only requests with the same keys are held.
    pub(crate) keyed: bool,
}

/// What the end of a request changes for those who wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Closed {
    /// The end of the cooldown, if one began or was prolonged.
    pub(crate) cooldown: Option<Instant>,
    /// Whether a request may start sooner than was said.
    pub(crate) sooner: bool,
}

/// One limit, for those who watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gauge {
    /// The limit as written.
    pub(crate) label: String,
    /// The most that it ever lets start at once, if that is known.
    pub(crate) capacity: Option<u64>,
    /// What it would let start now; of a limit with keys, for the busiest one.
    pub(crate) left: u64,
    /// How long it lets nothing start.
    pub(crate) wait: Duration,
    /// Whether somebody waits, and for this limit the longest.
    pub(crate) binding: bool,
}

impl Charge {
    /// One request without keys.
    pub(crate) const ONE: Self = Self::of(NonZeroU32::MIN);

    /// A request without keys.
    pub(crate) const fn of(cost: NonZeroU32) -> Self {
        Self { cost, keys: None }
    }

    /// Its key of each kind.
    pub(crate) fn keys(&self) -> &[u64] {
        self.keys.as_deref().unwrap_or_default()
    }

    /// The line it stands in: one for each combination of keys.
    pub(crate) fn line(&self) -> u64 {
        let mix = |line: u64, key: &u64| line.rotate_left(31) ^ key;
        self.keys().iter().fold(0, mix)
    }

    /// Its key in the scope `index`; the lane's own has none.
    fn key(&self, index: usize) -> u64 {
        match index.checked_sub(1) {
            None => 0,
            Some(kind) => self.keys().get(kind).copied().unwrap_or(0),
        }
    }
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
            kinds: 0,
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
        for (scope, place) in self.scopes.iter_mut().zip(&places) {
            let Some(place) = *place else { continue };
            let old_limits = olds[place].limits().to_vec();
            scope.inherit(&mut olds[place], at);
            for charge in self.guard.open() {
                scope.adopt(&old_limits, charge.key(place), charge);
            }
        }
        if !places.iter().copied().eq((0..olds.len()).map(Some)) {
            self.kinds += 1;
            for charge in self.guard.open_mut() {
                let keys = places[1..].iter();
                let keys = keys.map(|place| place.map_or(0, |place| charge.key(place)));
                charge.keys = Some(keys.collect());
            }
        }
        self.guard.set(settings.guard);
        self.cooldown = settings.cooldown.clone();
    }

    /// Whether a request may start at `now`, or the time before which it may
    /// not. That time can turn out too early, never too late: ask again then.
    pub(crate) fn ready(&mut self, charge: &Charge, now: Instant) -> Result<(), Hold> {
        let at = self.settle(now);
        let first = self.guard.first_counted(at);
        let until = |(index, scope): (usize, &Scope)| {
            let state = scope.get(charge.key(index));
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
        match (lane > at, keyed > at) {
            (true, _) => Err(hold(lane, false)),
            (false, true) => Err(hold(keyed, true)),
            (false, false) => Ok(()),
        }
    }

    /// Charges every limit for a request that starts at `now`, which
    /// [`Limits::ready`] has just allowed. `since` is when it was first wanted.
    pub(crate) fn start(&mut self, mut charge: Charge, now: Instant, since: Instant) -> Turn {
        let (at, since) = (self.time(now), self.time(since));
        let number = self.guard.next();
        for (index, scope) in self.scopes.iter_mut().enumerate() {
            let (key, state) = scope.enter(charge.key(index), at);
            state.forget(at);
            state.start(number, at, since, &charge);
            if let (Some(kind), Some(keys)) = (index.checked_sub(1), &mut charge.keys) {
                keys[kind] = key;
            }
        }
        self.guard.start(at, charge.clone());
        Turn {
            number,
            charge,
            kinds: self.kinds,
        }
    }

    /// The request of `turn` has ended at `now`.
    pub(crate) fn close(&mut self, turn: Turn, end: End<'_>, now: Instant) -> Closed {
        let at = self.settle(now);
        let Turn {
            number,
            mut charge,
            kinds,
        } = turn;
        if kinds != self.kinds {
            // Its keys are no longer told apart, or stand elsewhere.
            charge.keys = None;
        }
        match end {
            End::Answered(_) | End::Refused(..) => {
                if let Some(charge) = self.guard.answered(number, at) {
                    self.each(&charge, |state| state.counted(at, &charge));
                }
            }
            End::Canceled => {
                if let Some(charge) = self.guard.cancel(number) {
                    self.each(&charge, |state| state.canceled(&charge));
                }
            }
            // They may have been counted: the guard tells when at the latest.
            End::Failed | End::Lost => {}
        }
        if let End::Refused(..) = end {
            self.guard.refused();
        }
        let cost = charge.cost.get();
        let uncounted = matches!(end, End::Failed | End::Lost);
        self.each(&charge, |state| {
            state.pending = state.pending.saturating_sub(u64::from(cost));
            if uncounted {
                state.budgets.spent(cost);
            }
        });
        let next = self.guard.next();
        let settings = self.cooldown.clone();
        let mut closed = Closed {
            cooldown: None,
            sooner: matches!(end, End::Canceled),
        };
        let epoch = self.epoch;
        let Some(state) = self.answering(&charge) else {
            return closed;
        };
        if let End::Answered(readings) | End::Refused(_, readings) = end {
            state.learn(readings, at, [number, next]);
        }
        closed.sooner |= state.cooldown.is_probe(number);
        if let Some(until) = state.ended(number, end, at, &settings) {
            state.empty_until(until);
            closed.cooldown = Some(epoch + until);
        }
        closed
    }

    /// At most how many requests can start from `now` until `horizon` later.
    pub(crate) fn starts_within(&mut self, now: Instant, horizon: Duration) -> u64 {
        let at = self.settle(now);
        let Some(lane) = self.lane() else {
            return u64::MAX;
        };
        if lane.cooldown.ready_at(at) > at + horizon {
            return 0;
        }
        let meters = lane.meters.iter();
        meters
            .map(|meter| meter.left_within(at + horizon, horizon))
            .min()
            .unwrap_or(u64::MAX)
    }

    /// About how long a request must wait, with requests before it that cost
    /// `ahead` in the lane and `in_line` of each of its keys.
    pub(crate) fn wait(
        &mut self,
        charge: &Charge,
        now: Instant,
        ahead: u64,
        in_line: &[u64],
    ) -> Duration {
        let at = self.settle(now);
        let waits = self.scopes.iter().enumerate().map(|(index, scope)| {
            let ahead = match index.checked_sub(1) {
                None => ahead,
                Some(kind) => in_line.get(kind).copied().unwrap_or(0),
            };
            let Some(state) = scope.get(charge.key(index)) else {
                return Duration::ZERO;
            };
            let wanted = ahead + u64::from(charge.cost.get());
            let meters = state
                .meters
                .iter()
                .map(|meter| meter.takes(wanted.saturating_sub(meter.left(at))));
            let cooldown = match state.cooldown.is_over() {
                true => Duration::ZERO,
                false => state.cooldown.until().saturating_sub(at),
            };
            let short = state.budgets.left(at, state.pending);
            let budget = short.filter(|(left, _)| *left < wanted);
            meters
                .chain([
                    cooldown,
                    budget.map_or(Duration::ZERO, |(_, until)| until - at),
                ])
                .max()
                .unwrap_or_default()
        });
        waits.max().unwrap_or_default()
    }

    /// Each limit as it stands at `now`, and last what the upstream says is left.
    /// `waits` is what a request costs of those that wait, if there are any.
    pub(crate) fn gauges(&mut self, now: Instant, waits: Option<&Charge>) -> Vec<Gauge> {
        let at = self.settle(now);
        let first = self.guard.first_counted(at);
        let one = Charge::ONE;
        let charge = waits.unwrap_or(&one);
        let mut gauges = Vec::new();
        for scope in &self.scopes {
            for (index, limit) in scope.limits().iter().enumerate() {
                let meters = scope.states().map(|(_, state)| &state.meters[index]);
                let busiest = meters.min_by_key(|meter| meter.left(at));
                let wait = |meter: &meter::Meter| meter.ready_at(at, charge, first) - at;
                gauges.push(Gauge {
                    label: limit.label.clone(),
                    capacity: Some(u64::from(limit.most().get())),
                    left: busiest.map_or(u64::from(limit.burst.get()), |meter| meter.left(at)),
                    wait: busiest.map_or(Duration::ZERO, wait),
                    binding: false,
                });
            }
        }
        let learned = self.scopes.iter().flat_map(Scope::states);
        let learned = learned.filter_map(|(_, state)| state.budgets.left(at, state.pending));
        gauges.extend(learned.min().map(|(left, until)| Gauge {
            label: "upstream".to_owned(),
            capacity: None,
            left,
            wait: if left == 0 {
                until - at
            } else {
                Duration::ZERO
            },
            binding: false,
        }));
        let longest = gauges.iter_mut().max_by_key(|gauge| gauge.wait);
        if let Some(longest) = longest.filter(|gauge| waits.is_some() && !gauge.wait.is_zero()) {
            longest.binding = true;
        }
        gauges
    }

    /// Whether a cooldown is over but for the answer of its probe.
    pub(crate) fn probing(&self) -> bool {
        let mut states = self.scopes.iter().flat_map(Scope::states);
        states.any(|(_, state)| state.cooldown.is_probing())
    }

    /// How long a request can be on its way before the upstream has counted it.
    pub(crate) fn guard(&self) -> Duration {
        self.guard.span()
    }

    /// What is left of the longest cooldown at `now`.
    pub(crate) fn cooldown(&self, now: Instant) -> Duration {
        let at = self.time(now);
        let states = self.scopes.iter().flat_map(Scope::states);
        let ends = states.map(|(_, state)| state.cooldown.until());
        ends.max().unwrap_or_default().saturating_sub(at)
    }

    /// The end of the lane's last cooldown, now or past; `None` if there was none.
    pub(crate) fn cooled(&self) -> Option<Instant> {
        let until = self.lane()?.cooldown.until();
        (!until.is_zero()).then(|| self.epoch + until)
    }

    /// Keys that are told apart.
    pub(crate) fn keys(&self) -> usize {
        self.scopes.iter().map(Scope::keys).sum()
    }

    /// Another run of this program had started so many requests by `at`, which
    /// may be in the past or in the future; told in the order of time.
    pub(crate) fn spent(&mut self, charge: &Charge, times: NonZeroU32, at: Instant) {
        let at = self.time(at);
        // On its way for so long at most.
        let counted = at + self.guard.span();
        for (index, scope) in self.scopes.iter_mut().enumerate() {
            let (_, state) = scope.enter(charge.key(index), at);
            state.spent([at, counted], charge, times);
        }
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
        while let Some((counted, charge)) = self.guard.expire(at) {
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
            if let Some(state) = scope.get_mut(charge.key(index)) {
                act(state);
            }
        }
    }

    /// The state whose requests the upstream's refusals and counts concern.
    fn answering(&mut self, charge: &Charge) -> Option<&mut State> {
        let keyed = self.cooldown.keyed && self.scopes.len() > 1;
        let index = usize::from(keyed);
        self.scopes[index].get_mut(charge.key(index))
    }

    fn lane(&self) -> Option<&State> {
        self.scopes.first()?.get(0)
    }

    fn time(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.epoch)
    }
}

impl State {
    /// The answer to turn `number` told `readings`; the turn `next` starts next.
    fn learn(&mut self, readings: &[Reading], at: Duration, [turn, next]: [u64; 2]) {
        for reading in readings {
            let count = Count {
                name: reading.name,
                remaining: reading.remaining,
                until: at + reading.reset,
                turn,
                next,
            };
            self.budgets.learn(at, count);
        }
    }

    /// What an end means for the cooldown; the end of the pause if it makes one.
    fn ended(
        &mut self,
        number: u64,
        end: End<'_>,
        at: Duration,
        settings: &config::Cooldown,
    ) -> Option<Duration> {
        match end {
            End::Answered(_) => {
                if self.cooldown.is_probe(number) {
                    // What was saved up while it was on its way is no burst either.
                    self.empty_until(at);
                }
                self.cooldown.succeeded(number);
            }
            End::Canceled | End::Lost => self.cooldown.lost(number),
            End::Failed => return self.cooldown.failed(number, at, settings),
            End::Refused(asked, _) => {
                return Some(self.cooldown.refused(number, at, asked, settings));
            }
        }
        None
    }
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
