//! The limits of a lane as one decision: may a request start now, and if not,
//! when?
//!
//! [`Limits`] is pure arithmetic. It is told the time, never reads a clock and
//! never sleeps; the gate asks it under a lock held for a few lines, and the
//! worker that got an answer reports it. Either all limits are charged or none.
//!
//! Two mechanisms hold together: governor's token bucket (`bucket`) spaces the
//! starts, and a rolling log (`window`) keeps the promise that no window of the
//! period, at any phase, holds more than the limit *where the upstream counts*.
//!
//! Why the window promise holds. Take any `count + 1` requests and call the one
//! that started last X, its start `s`. When X started, the log had room, so of
//! the other `count` at least one, Y, was neither on its way nor counted within
//! the last period: Y had been counted by `c` with `c + period <= s`, where `c`
//! is its answer or its start + guard, whichever was first. X is counted at `s`
//! or later, a whole period after Y, so no window holds all of them. The
//! assumptions: an answer comes after the request was counted; one without an
//! answer is counted within `guard` of its start or never; both clocks run at
//! one speed.

use std::time::Duration;

use tokio::time::Instant;

use crate::config;
use bucket::Bucket;
use guard::Guard;
use window::Window;

pub(crate) mod alarm;
mod bucket;
mod guard;
mod window;

/// All limits of one lane.
#[derive(Debug)]
pub(crate) struct Limits {
    epoch: Instant,
    guard: Guard,
    each: Vec<Limit>,
    /// The end of the last cooldown; the epoch if there was none.
    cooled: Duration,
}

#[derive(Debug)]
struct Limit {
    label: String,
    bucket: Bucket,
    window: Option<Window>,
}

/// The number of a turn that was taken, for reporting its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn(u64);

impl Limits {
    /// Limits of which nothing has been spent; `epoch` is before every time
    /// they will be told.
    pub(crate) fn new(limits: &[config::Limit], guard: config::Guard, epoch: Instant) -> Self {
        let each = limits
            .iter()
            .map(|limit| Limit {
                label: limit.label.clone(),
                bucket: Bucket::new(limit.count, limit.period, limit.burst),
                window: limit.window.then(|| Window::new(limit.count, limit.period)),
            })
            .collect();
        Self {
            epoch,
            guard: Guard::new(guard),
            each,
            cooled: Duration::ZERO,
        }
    }

    /// Whether a request may start at `now`, or the time before which none may.
    /// That time can turn out too early, never too late: ask again then.
    pub(crate) fn ready(&mut self, now: Instant) -> Result<(), Instant> {
        let at = self.settle(now);
        let earliest = self
            .each
            .iter()
            .map(|limit| limit.ready_at(at, &self.guard));
        match earliest.chain([self.cooled]).max() {
            Some(time) if time > at => Err(self.epoch + time),
            _ => Ok(()),
        }
    }

    /// Charges every limit for a request that starts at `now`, which
    /// [`Limits::ready`] has just allowed. `since` is when it was first wanted.
    pub(crate) fn start(&mut self, now: Instant, since: Instant) -> Turn {
        let (at, since) = (self.time(now), self.time(since));
        for limit in &self.each {
            limit.bucket.take(at, since);
        }
        Turn(self.guard.start(at))
    }

    /// The answer to the request of `turn` came at `now`.
    pub(crate) fn answered(&mut self, turn: Turn, now: Instant) {
        let at = self.settle(now);
        if self.guard.answered(turn.0, at) {
            self.count(at);
        }
    }

    /// The upstream refused a request although these limits allowed it.
    pub(crate) fn refused(&mut self) {
        self.guard.refused();
    }

    /// Nothing starts before `until`: a cooldown. It only ever gets longer, and
    /// no burst follows it: one request, then the steady rate.
    pub(crate) fn cool(&mut self, until: Instant) {
        let until = self.time(until);
        self.cooled = self.cooled.max(until);
        for limit in &self.each {
            limit.bucket.empty_until(until);
        }
    }

    /// The end of the cooldown, now or past; `None` if there was none.
    pub(crate) fn cooled(&self) -> Option<Instant> {
        (!self.cooled.is_zero()).then(|| self.epoch + self.cooled)
    }

    /// The request of `turn` never left; its places in the windows come back.
    /// The tokens do not: a token bucket cannot take them back.
    pub(crate) fn canceled(&mut self, turn: Turn) {
        self.guard.cancel(turn.0);
    }

    /// At most how many requests can start from `now` until `horizon` later.
    pub(crate) fn starts_within(&mut self, now: Instant, horizon: Duration) -> u64 {
        let at = self.settle(now);
        if self.cooled > at + horizon {
            return 0;
        }
        let starts = self.each.iter().map(|limit| {
            let regained = horizon.as_nanos() / limit.bucket.interval().as_nanos();
            let tokens = limit.bucket.tokens(at).saturating_add(regained as u64);
            tokens.min(limit.room(at + horizon, &self.guard))
        });
        starts.min().unwrap_or(u64::MAX)
    }

    /// About how long a request must wait that has `ahead` others before it.
    pub(crate) fn wait(&mut self, now: Instant, ahead: usize) -> Duration {
        let at = self.settle(now);
        let waits = self.each.iter().map(|limit| {
            let behind = (ahead as u64 + 1).saturating_sub(limit.left(at, &self.guard));
            let behind = u32::try_from(behind).unwrap_or(u32::MAX);
            limit.bucket.interval().saturating_mul(behind)
        });
        waits
            .max()
            .unwrap_or_default()
            .max(self.cooled.saturating_sub(at))
    }

    /// Each limit's label and the requests it would let start at `now`.
    pub(crate) fn available(&mut self, now: Instant) -> Vec<(String, u64)> {
        let at = self.settle(now);
        self.each
            .iter()
            .map(|limit| (limit.label.clone(), limit.left(at, &self.guard)))
            .collect()
    }

    /// `now` as a time since the epoch, after the requests whose guard has run
    /// out by then have been written into the windows.
    fn settle(&mut self, now: Instant) -> Duration {
        let at = self.time(now);
        while let Some(counted) = self.guard.expire(at) {
            self.count(counted);
        }
        for window in self
            .each
            .iter_mut()
            .filter_map(|limit| limit.window.as_mut())
        {
            window.forget(at);
        }
        at
    }

    fn count(&mut self, at: Duration) {
        for limit in &mut self.each {
            if let Some(window) = &mut limit.window {
                window.counted(at);
            }
        }
    }

    fn time(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.epoch)
    }
}

impl Limit {
    /// When this limit lets the next request start: `now` or later.
    fn ready_at(&self, now: Duration, guard: &Guard) -> Duration {
        let bucket = self.bucket.ready_at(now);
        let window = self.window.as_ref();
        window.map_or(bucket, |window| window.ready_at(now, guard).max(bucket))
    }

    /// Requests its window lets start at `at`; no bound without a window.
    fn room(&self, at: Duration, guard: &Guard) -> u64 {
        let window = self.window.as_ref();
        window.map_or(u64::MAX, |window| window.room(at, guard) as u64)
    }

    /// Requests it would let start at `now`.
    fn left(&self, now: Duration, guard: &Guard) -> u64 {
        self.bucket.tokens(now).min(self.room(now, guard))
    }
}

#[cfg(test)]
mod tests;
