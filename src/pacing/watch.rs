//! What the limits tell those who watch or wait; nothing here decides about a
//! turn.

use std::time::Duration;

use tokio::time::Instant;

use super::meter::Meter;
use super::scope::Scope;
use super::state::State;
use super::{Charge, Gauge, Limits, Waiting};

impl Limits {
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
            let Some(state) = scope.get(self.kinds.key(charge, index)) else {
                return scope.unknown_until().saturating_sub(at);
            };
            let wanted = ahead + u64::from(charge.cost.get());
            let meters = state.meters.iter().map(|meter| meter.takes(at, wanted));
            let cooldown = match state.cooldown.is_over() {
                true => Duration::ZERO,
                false => state.cooldown.until().saturating_sub(at),
            };
            // At least so many requests.
            let requests = wanted.div_ceil(u64::from(self.most.get()));
            let budget = state.budgets.has_at(at, state.pending, requests);
            meters
                .chain([cooldown, budget.saturating_sub(at)])
                .max()
                .unwrap_or_default()
        });
        waits.max().unwrap_or_default()
    }

    /// Each limit as it stands at `now`, and last what the upstream says is left.
    /// `waiting` are those who wait, if there are any.
    pub(crate) fn gauges(&mut self, now: Instant, waiting: Option<&Waiting>) -> Vec<Gauge> {
        let at = self.settle(now);
        let first = self.guard.first_counted(at);
        let charge = waiting.map_or(Charge::ONE, |waiting| Charge::of(waiting.cost));
        let mut gauges = Vec::new();
        // How long those who wait must wait for each.
        let mut held = Vec::new();
        let mut told = Duration::ZERO;
        for (index, scope) in self.scopes.iter().enumerate() {
            let asking = waiting.map_or(Vec::new(), |waiting| asking(scope, index, waiting));
            for (index, limit) in scope.limits().iter().enumerate() {
                let meters = scope.states().map(|(_, state)| &state.meters[index]);
                let busiest = meters.min_by_key(|meter| meter.left(at));
                let wait = |meter: &Meter| meter.ready_at(at, &charge, first) - at;
                gauges.push(Gauge {
                    label: limit.label.clone(),
                    capacity: Some(u64::from(limit.most().get())),
                    left: busiest.map_or(u64::from(limit.burst.get()), |meter| meter.left(at)),
                    wait: busiest.map_or(Duration::ZERO, wait),
                    binding: false,
                });
                let waits = asking.iter().map(|state| wait(&state.meters[index]));
                held.push(waits.max().unwrap_or_default());
            }
            let waits = asking.iter().map(|state| state.budget_wait(at));
            told = told.max(waits.max().unwrap_or_default());
        }
        let learned = self.scopes.iter().flat_map(Scope::states);
        let learned = learned.filter_map(|(_, state)| {
            let left = state.budgets.left(at, state.pending)?;
            Some((left, state.budget_wait(at)))
        });
        if let Some((left, wait)) = learned.min() {
            gauges.push(Gauge {
                label: "upstream".to_owned(),
                capacity: None,
                left,
                wait,
                binding: false,
            });
            held.push(told);
        }
        let longest = gauges.iter_mut().zip(held).max_by_key(|(_, held)| *held);
        if let Some((longest, _)) = longest.filter(|(_, held)| !held.is_zero()) {
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

    /// What every trip to the upstream and back takes, as far as is known.
    pub(crate) fn floor(&self) -> Duration {
        self.guard.floor()
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
}

/// The states of `scope`, the one at `index`, that those concern who wait.
fn asking<'a>(scope: &'a Scope, index: usize, waiting: &Waiting) -> Vec<&'a State> {
    let Some(kind) = index.checked_sub(1) else {
        return scope.states().map(|(_, state)| state).collect();
    };
    let keys = waiting.keys.iter().filter(|(of, _)| *of == kind);
    keys.filter_map(|(_, key)| scope.get(*key)).collect()
}
