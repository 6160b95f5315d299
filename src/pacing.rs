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
//! `history` hands on what was spent when one takes another's place (`past`),
//! `ending` says what the end of a request tells, and `kinds` knows the keys of
//! requests that came before the kinds changed.
//! Beside them stand the `cooldown` after a refusal, what the upstream says of its
//! own counts (`budget`), and what those who wait need of their keys (`claim`).
//!
//! Why the window promise holds. Take requests whose costs add up to more than
//! the count, and call the one that started last X, its start `s`. When X
//! started, the log had room, so of the others at least one, Y, was neither on
//! its way nor counted within the last period: Y had been counted by `c` with
//! `c + period <= s`, where `c` is its answer or its start + guard, whichever was
//! first. X is counted at `s` or later, a whole period after Y, so no window
//! holds all of them. The assumptions: an answer comes after the request was
//! counted; one without an answer is counted within `guard` of its start, or of when
//! it left if that was later, or never; the upstream's clock is at most 1 in 1000
//! slower than ours, which is why our periods are so much longer.
//!
//! An automatic guard has Y's place come back earlier, by the `floor` of trips:
//! `c + period <= s + floor`. Y was counted its way back before its answer, and X
//! will be its way there after its start. Both ways together take the floor at
//! least, which is the one assumption more (see `trips`), so again a whole period
//! lies between.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

use crate::config;
use claim::{ASKS, Claim, PATIENCE};
use guard::Guard;
use history::Ledger;
use kinds::Kinds;
use scope::{OTHERS, Scope};
use state::State;
pub(crate) use turn::{Charge, Closed, End, Gauge, Hold, Rank, Reading, Turn, Waiting};

pub(crate) mod alarm;
mod bucket;
mod budget;
mod claim;
mod cooldown;
mod ending;
mod guard;
mod history;
mod kinds;
mod meter;
mod past;
mod scope;
mod spacing;
mod state;
mod trips;
mod turn;
mod watch;
mod window;

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
    /// Who waits claims its keys after so long at the latest.
    patience: Duration,
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
            patience: patience(settings),
            learned: false,
            kinds: Kinds::default(),
        }
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
        self.ask(charge, None, at)
    }

    /// The same for one of several who wait, which stands at `rank` and was first asked
    /// for at `since`: it leaves elder ones what they will need of the keys that both
    /// have, which may hold it longer.
    pub(crate) fn ready_in_order(
        &mut self,
        charge: &Charge,
        rank: Rank,
        since: Instant,
        now: Instant,
    ) -> Result<(), Hold> {
        let at = self.settle(now);
        let since = self.time(since);
        let asked = self.ask(charge, Some(rank), at);
        match asked {
            Err(hold) if hold.keyed => Err(self.claim(charge, (rank, since), hold, at)),
            asked => asked,
        }
    }

    /// Whether some leave others what they need.
    pub(crate) fn has_claims(&self) -> bool {
        self.scopes.iter().any(|scope| !scope.claims.is_empty())
    }

    /// All that wait are asked anew, in their order; some may have gone.
    pub(crate) fn ask_anew(&mut self) {
        let scopes = self.scopes.iter_mut();
        scopes.for_each(|scope| scope.claims.clear());
    }

    fn ask(&self, charge: &Charge, rank: Option<Rank>, at: Duration) -> Result<(), Hold> {
        let first = self.guard.first_counted(at);
        let last = at + self.guard.span();
        let until = |(index, scope): (usize, &Scope)| {
            let key = self.kinds.key(charge, index);
            let state = scope.get(key);
            let unknown = scope.unknown_until().max(at);
            let ready = state.map_or(unknown, |state| state.ready_at(at, charge, first));
            match rank.filter(|_| ready <= at) {
                Some(rank) => scope.yields_until(key, charge, rank, [at, last]),
                None => ready,
            }
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

    /// A request of `charge` waits for its keys at `at`, as `hold` says. Returns when to
    /// ask again, which may be sooner: it claims nothing that will have come back by
    /// then anyway, and nothing before its patience is over.
    fn claim(
        &mut self,
        charge: &Charge,
        (rank, since): (Rank, Duration),
        hold: Hold,
        at: Duration,
    ) -> Hold {
        if let [_, scope] = &self.scopes[..]
            && scope.known_as(self.kinds.key(charge, 1)) != OTHERS
        {
            // All who share its key stand in its line.
            return hold;
        }
        // Who only leaves something to elder ones needs nothing before they have gone.
        let own = self.ask(charge, None, at).err();
        let Some(own) = own.filter(|own| own.keyed) else {
            return hold;
        };
        let states = self.scopes.iter().enumerate();
        let mut states =
            states.filter_map(|(index, scope)| scope.get(self.kinds.key(charge, index)));
        // When that comes, and what it says, nobody knows.
        if states.any(|state| state.awaits_answer(at)) {
            return hold;
        }
        let until = self.time(own.until);
        let span = self.guard.span();
        let mut again = self.time(hold.until);
        for (index, scope) in self.scopes.iter_mut().enumerate().skip(1) {
            let reach = scope.reach();
            let patience = (reach * PATIENCE).min(self.patience);
            let from = until.saturating_sub(span + reach * 2).max(since + patience);
            if from > at {
                again = again.min(from.max(at + reach / ASKS));
            } else {
                let key = scope.known_as(self.kinds.key(charge, index));
                let claim = Claim::new(rank, charge.cost, until);
                scope.claims.add(key, claim, at);
            }
        }
        Hold {
            until: self.epoch + again,
            ..hold
        }
    }

    /// Charges every limit for a request that starts at `now`, which
    /// [`Limits::ready`] has just allowed. `since` is when it was first wanted.
    pub(crate) fn start(&mut self, charge: Charge, now: Instant, since: Instant) -> Turn {
        let mut charge = self.kinds.renew(charge, self.scopes.len() - 1);
        let (at, since) = (self.time(now), self.time(since));
        let number = self.guard.next();
        let counted = at + self.guard.span();
        let ahead = self.lane().map_or(0, |lane| lane.pending);
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
            ahead,
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

/// What is left of the longest wait is for what is then claimed.
fn patience(settings: &config::Upstream) -> Duration {
    settings.longest_wait() / PATIENCE
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
