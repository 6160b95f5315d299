//! What is known of the lane, or of one key: what each limit has counted, what the
//! upstream says, and what is on its way.

use std::num::NonZeroU32;
use std::time::Duration;

use super::budget::{Budgets, Count};
use super::claim::Claim;
use super::cooldown::Cooldown;
use super::history::History;
use super::meter::Meter;
use super::{Charge, End, Reading};
use crate::config::{self, Limit};

/// What is known of the lane, or of one key.
#[derive(Debug)]
pub(super) struct State {
    /// One per limit of the scope.
    pub(super) meters: Vec<Meter>,
    pub(super) cooldown: Cooldown,
    pub(super) budgets: Budgets,
    /// Requests that have no answer yet.
    pub(super) pending: u64,
}

impl State {
    pub(super) fn new(limits: &[Limit], keyed: bool) -> Self {
        Self {
            meters: limits
                .iter()
                .map(|limit| Meter::new(limit, keyed))
                .collect(),
            cooldown: Cooldown::default(),
            budgets: Budgets::default(),
            pending: 0,
        }
    }

    /// When a request can start: `now`, or a later time that can turn out to be
    /// too early.
    pub(super) fn ready_at(&self, now: Duration, charge: &Charge, first: Duration) -> Duration {
        let meters = self.meters.iter();
        let meters = meters.map(|meter| meter.ready_at(now, charge, first));
        meters
            .chain([
                self.cooldown.ready_at(now),
                self.budgets.ready_at(now, self.pending),
            ])
            .max()
            .unwrap_or(now)
    }

    /// Whether there is enough for `claim` in time if one of `charge` starts `now`; that
    /// and all open ones will have been counted at `last`.
    pub(super) fn leaves(
        &self,
        claim: &Claim,
        charge: &Charge,
        [now, last]: [Duration; 2],
    ) -> bool {
        let meters = self.meters.iter();
        let ready = meters.map(|meter| meter.ready_after(charge, &claim.charge, [now, last]));
        let ready = ready.chain([self.budgets.ready_after(now, self.pending)]);
        // The answer to a probe can be late.
        !self.cooldown.is_pause() && ready.max().unwrap_or(now) <= claim.until
    }

    /// Whether something is on its way that may not have been counted.
    pub(super) fn is_open(&self) -> bool {
        self.meters.iter().any(Meter::is_open)
    }

    /// Whether nothing can start at `now` before an answer comes.
    pub(super) fn awaits_answer(&self, now: Duration) -> bool {
        self.cooldown.is_probing() || self.budgets.await_answer(now)
    }

    /// How long nothing starts at `now` because of what the upstream says is left.
    pub(super) fn budget_wait(&self, now: Duration) -> Duration {
        let until = self.budgets.has_at(now, self.pending, 1);
        until.saturating_sub(now)
    }

    /// Begins with all that `others` have spent at `now`; what they have on its
    /// way is counted at `counted` at the latest.
    pub(super) fn follow(&mut self, others: &Self, now: Duration, counted: Duration) {
        for (meter, theirs) in self.meters.iter_mut().zip(&others.meters) {
            meter.follow(theirs, now, counted);
        }
        self.cooldown = others.cooldown.clone();
        self.cooldown.orphan();
        self.budgets = others.budgets.clone();
        self.budgets.orphan();
        self.budgets.spent(others.pending);
    }

    pub(super) fn start(&mut self, number: u64, now: Duration, since: Duration, charge: &Charge) {
        for meter in &mut self.meters {
            meter.start(now, since, charge);
        }
        self.cooldown.start(number);
        self.budgets.started(now);
        self.pending += 1;
    }

    /// Whether a request that is counted at `at`, as its answer tells `now`, may let
    /// one that costs `most` start sooner than was said.
    pub(super) fn comes_back_early(&self, at: Duration, now: Duration, most: NonZeroU32) -> bool {
        let mut meters = self.meters.iter();
        meters.any(|meter| meter.comes_back_early(at, now, most))
    }

    pub(super) fn counted(&mut self, at: Duration, charge: &Charge) {
        for meter in &mut self.meters {
            meter.counted(at, charge);
        }
    }

    pub(super) fn canceled(&mut self, charge: &Charge) {
        for meter in &mut self.meters {
            meter.canceled(charge);
        }
    }

    pub(super) fn spent(&mut self, times: [Duration; 2], charge: &Charge, count: NonZeroU32) {
        for meter in &mut self.meters {
            meter.spent(times, charge, count);
        }
    }

    pub(super) fn spent_all(&mut self, at: Duration) -> Duration {
        let meters = self.meters.iter_mut();
        let until = meters.map(|meter| meter.spent_all(at));
        until.max().unwrap_or(at)
    }

    /// Nothing starts before `until`, and no burst follows. A limit that a shorter
    /// one spreads keeps what is left of it: an hour's would set the pace for an
    /// hour, with most of it unused.
    pub(super) fn empty_until(&self, until: Duration) {
        for meter in &self.meters {
            if !self.meters.iter().any(|other| other.spreads(meter)) {
                meter.empty_until(until);
            }
        }
    }

    pub(super) fn forget(&mut self, now: Duration) {
        for meter in &mut self.meters {
            meter.forget(now);
        }
    }

    pub(super) fn is_fresh(&self, now: Duration) -> bool {
        self.pending == 0
            && self.cooldown.is_forgotten(now)
            && self.budgets.is_empty(now)
            && self.meters.iter().all(|meter| meter.is_fresh(now))
    }

    /// Takes over what `old` knows. A limit that stays keeps its meter; another
    /// gets what was spent by the first of the `pasts`, or, if it reaches back farther
    /// than that, by the second.
    pub(super) fn inherit(
        &mut self,
        limits: &[Limit],
        old: Self,
        old_limits: &[Limit],
        [near, far]: [&History; 2],
        most: NonZeroU32,
        now: Duration,
    ) {
        let longest = old_limits.iter().map(Limit::reach).max();
        let mut olds: Vec<_> = old_limits.iter().zip(old.meters).collect();
        for (limit, meter) in limits.iter().zip(&mut self.meters) {
            match olds.iter().position(|(old, _)| *old == limit) {
                Some(same) => *meter = olds.swap_remove(same).1,
                None => {
                    // What is missing of a bucket is enough for another.
                    let known = match limit.window {
                        true => near.reach(),
                        false => longest.unwrap_or_default(),
                    };
                    let past = if limit.reach() > known { far } else { near };
                    meter.recall(past.under(limit.counts, most, now));
                    meter.lacks(near.missing(limit.counts, most), now);
                }
            }
        }
        self.cooldown = old.cooldown;
        self.budgets = old.budgets;
        self.pending = old.pending;
    }

    /// The answer to turn `number` told `readings`; the turn `next` starts next.
    pub(super) fn learn(&mut self, readings: &[Reading], at: Duration, [turn, next]: [u64; 2]) {
        for reading in readings {
            let count = Count {
                name: reading.name,
                remaining: reading.remaining,
                each: reading.each,
                until: at + reading.reset,
                turn,
                next,
            };
            self.budgets.learn(at, count);
        }
    }

    /// What an end means for the cooldown; the end of the pause if it makes one.
    pub(super) fn ended(
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
