//! What the limits tell those who watch or wait; nothing here decides about a
//! turn.

use std::time::Duration;

use tokio::time::Instant;

use super::meter::Meter;
use super::scope::Scope;
use super::{Charge, Gauge, Limits};

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
                let wait = |meter: &Meter| meter.ready_at(at, charge, first) - at;
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
        let learned = learned.filter_map(|(_, state)| {
            let until = state.budgets.has_at(at, state.pending, 1);
            let left = state.budgets.left(at, state.pending)?;
            Some((left, until.saturating_sub(at)))
        });
        gauges.extend(learned.min().map(|(left, wait)| Gauge {
            label: "upstream".to_owned(),
            capacity: None,
            left,
            wait,
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
