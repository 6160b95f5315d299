//! What the end of a request tells the limits: when it was counted, what the
//! upstream says is left, and whether anybody has to pause.

use std::time::Duration;

use tokio::time::Instant;

use super::meter::Meter;
use super::scope::OTHERS;
use super::state::State;
use super::{Charge, Closed, End, Limits, Turn};

impl Limits {
    /// The request of `turn` has ended at `now`.
    pub(crate) fn close(&mut self, turn: Turn, end: End<'_>, now: Instant) -> Closed {
        let at = self.settle(now);
        let Turn {
            number,
            mut charge,
            kinds,
            start,
            ahead,
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
        let next = self.guard.next();
        let beside = ahead + next.saturating_sub(number + 1);
        let early = self.count(number, [start, at], beside, end);
        let before = self.learned.then(|| self.budgets_ready_at(&charge, at));
        self.ended(&charge, at, known, end);
        // With one less on its way more of what the upstream says is left can start.
        let sooner = before.is_some_and(|before| self.budgets_ready_at(&charge, at) < before);
        let settings = self.cooldown.clone();
        let mut closed = Closed {
            cooldown: None,
            sooner: self.release(&charge, number, end, at)
                || sooner
                || matches!(end, End::Canceled),
            early,
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

    /// What the end of turn `number` tells of when it was counted; it was taken at the
    /// first of the times, ended at the second, and had `beside` others beside it.
    /// Returns whether another may start sooner than was said, as far as the limits of
    /// the lane hold it; of keys too many may wait to ask for all.
    fn count(
        &mut self,
        number: u64,
        [start, at]: [Duration; 2],
        beside: u64,
        end: End<'_>,
    ) -> bool {
        let mut early = false;
        match end {
            End::Answered(_) | End::Refused(..) => match self.guard.answered(number, beside, at) {
                Some((counted, charge)) => {
                    let most = self.most;
                    early = self
                        .lane()
                        .is_some_and(|lane| lane.comes_back_early(counted, at, most));
                    self.each(&charge, |state| state.counted(counted, &charge));
                }
                // Its guard had run out.
                None => self.guard.learn([start, at], beside),
            },
            End::Canceled => {
                if let Some(charge) = self.guard.cancel(number) {
                    self.each(&charge, |state| state.canceled(&charge));
                }
            }
            // They may have been counted: the guard tells when at the latest.
            End::Failed | End::Lost => {}
        }
        early
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

    /// The state whose requests the upstream's refusals and counts concern.
    fn answering(&mut self, charge: &Charge) -> Option<&mut State> {
        let index = usize::from(self.answers_are_keyed());
        self.scopes[index].get_mut(self.kinds.key(charge, index))
    }
}
