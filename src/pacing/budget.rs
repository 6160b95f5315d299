//! What the upstream itself says is left, in the header fields of its answers: so
//! many requests, whatever they cost here.
//!
//! It only ever lowers what the limits allow, takes account of what is on its
//! way, and ends when the upstream says that the budget is whole again.
//!
//! Why it is exact. Each answer's own request is in its count. So of the answers
//! of one window the lowest count has all requests in it that were answered, and
//! what can be missing are those that were not: so many fewer may start. A
//! request that started after a count was read is counted later than it, so its
//! count replaces the lowest, which lets budgets grow that regain by and by.
//!
//! Where an answer tells how long it takes to regain one, what is left grows by
//! that; elsewhere nothing comes back before the end. How much there is after
//! the end only the next answer tells: until then no more start than were left,
//! and one where nothing was.

use std::time::Duration;

/// Budgets that one upstream can name; of more, those with the least left are kept.
const MOST_BUDGETS: usize = 8;

/// Who waits for an answer is told to ask again after this, and is woken when it
/// comes.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The budgets of a lane, or of one key. Times are durations since the lane's
/// epoch.
#[derive(Debug, Default, Clone)]
pub(super) struct Budgets(Vec<Budget>);

#[derive(Debug, Clone)]
struct Budget {
    /// Which of the upstream's budgets.
    name: u64,
    /// The lowest count that holds, and when it was told.
    low: u64,
    told: Duration,
    /// How long it takes to regain one, if that comes by and by.
    each: Option<Duration>,
    /// Turns from this number on started after the count was read.
    from: u64,
    /// When it is whole again.
    until: Duration,
    /// Requests that have started since.
    since: u64,
}

/// One count, as an answer told it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count {
    /// Which of the upstream's budgets.
    pub(super) name: u64,
    /// What is left.
    pub(super) remaining: u64,
    /// How long it takes to regain one; `None` if all comes back at once.
    pub(super) each: Option<Duration>,
    /// When it is whole again.
    pub(super) until: Duration,
    /// The turn whose answer told it.
    pub(super) turn: u64,
    /// The turn that will start next.
    pub(super) next: u64,
}

impl Budget {
    fn new(now: Duration, count: &Count) -> Self {
        Self {
            name: count.name,
            low: count.remaining,
            told: now,
            each: count.each.filter(|each| !each.is_zero()),
            from: count.next,
            until: count.until,
            since: 0,
        }
    }

    /// What is left at `now`, without those that have no answer.
    fn left(&self, now: Duration) -> u64 {
        let passed = now.saturating_sub(self.told).as_nanos();
        let regained = self.each.map_or(0, |each| passed / each.as_nanos());
        self.low
            .saturating_add(u64::try_from(regained).unwrap_or(u64::MAX))
    }

    /// When so many are left, without those that have no answer.
    fn has_at(&self, wanted: u64) -> Duration {
        let missing = u32::try_from(wanted.saturating_sub(self.low)).unwrap_or(u32::MAX);
        let regained = self
            .each
            .map(|each| self.told.saturating_add(each.saturating_mul(missing)));
        regained.map_or(self.until, |regained| regained.min(self.until))
    }

    /// Whether it is over, and all that can start before it is known anew have.
    fn awaits_answer(&self, now: Duration) -> bool {
        self.until <= now && self.low.max(1) <= self.since
    }

    /// When a request can start after one that starts `now`, with so many `pending`
    /// before; never if nobody knows.
    fn ready_after(&self, now: Duration, pending: u64) -> Duration {
        match self.until > now {
            true => self.ready_at(now, pending.saturating_add(1)),
            false if self.low.max(1) > self.since + 1 => now,
            false => Duration::MAX,
        }
    }

    /// When a request can start, or ask again, while so many are `pending`.
    fn ready_at(&self, now: Duration, pending: u64) -> Duration {
        match self.until > now {
            true if self.left(now) > pending => now,
            true => self.has_at(pending.saturating_add(1)),
            false if !self.awaits_answer(now) => now,
            false => now + ASK_AGAIN,
        }
    }
}

impl Budgets {
    /// When a request can start: `now`, or a later time. So many are `pending`: they
    /// have no answer yet.
    pub(super) fn ready_at(&self, now: Duration, pending: u64) -> Duration {
        let each = self.0.iter().map(|budget| budget.ready_at(now, pending));
        each.max().unwrap_or(now)
    }

    /// Whether nothing can start at `now` before an answer comes.
    pub(super) fn await_answer(&self, now: Duration) -> bool {
        self.0.iter().any(|budget| budget.awaits_answer(now))
    }

    /// When a request can start after one that starts `now`; never if nobody knows.
    pub(super) fn ready_after(&self, now: Duration, pending: u64) -> Duration {
        let each = self.0.iter().map(|budget| budget.ready_after(now, pending));
        each.max().unwrap_or(now)
    }

    /// What is left by the shortest budget; `None` without one.
    pub(super) fn left(&self, now: Duration, pending: u64) -> Option<u64> {
        let known = self.0.iter().filter(|budget| budget.until > now);
        let left = known.map(|budget| budget.left(now).saturating_sub(pending));
        left.min()
    }

    /// When so many requests can have started, at the earliest.
    pub(super) fn has_at(&self, now: Duration, pending: u64, requests: u64) -> Duration {
        let wanted = pending.saturating_add(requests);
        let known = self.0.iter().filter(|budget| budget.until > now);
        let short = known.filter(|budget| budget.left(now) < wanted);
        let each = short.map(|budget| budget.has_at(wanted));
        each.max().unwrap_or(now)
    }

    /// A request starts at `now`.
    pub(super) fn started(&mut self, now: Duration) {
        let over = self.0.iter_mut().filter(|budget| budget.until <= now);
        over.for_each(|budget| budget.since += 1);
    }

    /// A request has ended by `now`, in whatever way: if it told nothing, another can.
    pub(super) fn ended(&mut self, now: Duration) {
        let over = self.0.iter_mut().filter(|budget| budget.until <= now);
        over.for_each(|budget| budget.since = budget.since.saturating_sub(1));
    }

    /// The requests that are on their way will not be known when they end.
    pub(super) fn orphan(&mut self) {
        self.0.iter_mut().for_each(|budget| budget.since = 0);
    }

    /// An answer came at `now`: what was over says nothing any more.
    pub(super) fn answered(&mut self, now: Duration) {
        self.0.retain(|budget| budget.until > now);
    }

    /// Takes a count into account.
    pub(super) fn learn(&mut self, now: Duration, count: Count) {
        let room = self.0.len() < MOST_BUDGETS;
        let known = self.0.iter_mut().find(|budget| budget.name == count.name);
        match known {
            Some(known) if count.turn >= known.from => *known = Budget::new(now, &count),
            // The end goes with the count: where a budget regains by and by, that of
            // the lowest is the latest.
            Some(known) if count.remaining <= known.left(now) => {
                let lowest = Budget::new(now, &count);
                *known = Budget {
                    from: known.from,
                    until: known.until.max(lowest.until),
                    ..lowest
                };
            }
            Some(_) => {}
            None if room => self.0.push(Budget::new(now, &count)),
            None => {
                let most = self.0.iter_mut().max_by_key(|budget| budget.left(now));
                if let Some(most) = most.filter(|most| count.remaining < most.left(now)) {
                    *most = Budget::new(now, &count);
                }
            }
        }
    }

    /// So many requests were counted without an answer that told a count.
    pub(super) fn spent(&mut self, requests: u64) {
        for budget in &mut self.0 {
            let missing = requests.saturating_sub(budget.low);
            budget.low = budget.low.saturating_sub(requests);
            if let Some(each) = budget.each {
                let missing = u32::try_from(missing).unwrap_or(u32::MAX);
                budget.told = budget.told.saturating_add(each.saturating_mul(missing));
            }
        }
    }

    /// Whether nothing is known at `now`.
    pub(super) fn is_empty(&self, now: Duration) -> bool {
        self.0.iter().all(|budget| budget.until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn count(remaining: u64, turn: u64, next: u64) -> Count {
        Count {
            name: 1,
            remaining,
            each: None,
            until: MINUTE,
            turn,
            next,
        }
    }

    #[test]
    fn what_has_no_answer_yet_counts_as_spent() {
        let mut budgets = Budgets::default();
        let now = Duration::ZERO;
        assert_eq!(budgets.ready_at(now, 100), now);
        budgets.learn(now, count(3, 0, 5));
        assert_eq!(budgets.ready_at(now, 2), now);
        assert_eq!(budgets.ready_at(now, 3), MINUTE);
        assert_eq!(budgets.left(now, 1), Some(2));
        assert_eq!(budgets.has_at(now, 1, 2), now);
        assert_eq!(budgets.has_at(now, 1, 3), MINUTE);
    }

    #[test]
    fn of_answers_that_cross_the_lowest_count_holds() {
        let mut budgets = Budgets::default();
        let now = Duration::ZERO;
        // Turns 0 to 2 are on their way; the upstream counts 1 first.
        budgets.learn(now, count(7, 0, 3));
        budgets.learn(now, count(9, 1, 3));
        assert_eq!(budgets.left(now, 1), Some(6));
    }

    #[test]
    fn a_later_request_may_find_more_than_an_earlier_one() {
        let mut budgets = Budgets::default();
        let now = Duration::ZERO;
        budgets.learn(now, count(0, 0, 1));
        budgets.learn(now, count(4, 1, 2));
        assert_eq!(budgets.left(now, 0), Some(4));
        budgets.spent(1);
        assert_eq!(budgets.left(now, 0), Some(3));
    }

    #[test]
    fn after_the_end_no_more_go_than_were_left_until_an_answer_tells_anew() {
        let mut budgets = Budgets::default();
        budgets.learn(Duration::ZERO, count(0, 0, 1));
        // One from before may take long.
        assert_eq!(budgets.ready_at(MINUTE, 1), MINUTE);
        budgets.started(MINUTE);
        assert_eq!(budgets.ready_at(MINUTE, 2), MINUTE + ASK_AGAIN);
        budgets.ended(MINUTE);
        assert_eq!(budgets.ready_at(MINUTE, 1), MINUTE);
        for _ in 0..2 {
            budgets.started(MINUTE);
        }
        let mut orphans = budgets.clone();
        orphans.orphan();
        assert_eq!(orphans.ready_at(MINUTE, 0), MINUTE);
        budgets.answered(MINUTE);
        assert_eq!(budgets.ready_at(MINUTE, 100), MINUTE);
    }

    #[test]
    fn each_budget_holds_and_of_too_many_those_with_the_least_left() {
        let mut budgets = Budgets::default();
        let now = Duration::ZERO;
        let named = |name, remaining| Count {
            name,
            ..count(remaining, 0, 1)
        };
        (1..=8).for_each(|name| budgets.learn(now, named(name, 10 + name)));
        assert_eq!(budgets.left(now, 0), Some(11));
        budgets.learn(now, named(9, 30));
        assert_eq!(budgets.0.len(), MOST_BUDGETS);
        budgets.learn(now, named(10, 0));
        assert_eq!(budgets.ready_at(now, 0), MINUTE);
        assert_eq!(budgets.0.len(), MOST_BUDGETS);
        let names = budgets.0.iter().map(|budget| budget.name);
        assert_eq!(names.collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 10]);
    }

    /// A minute for sixty: 0 are left after as many have been answered out of order.
    #[test]
    fn a_budget_that_regains_by_and_by_grows_from_its_lowest_count() {
        let second = Duration::from_secs(1);
        let mut budgets = Budgets::default();
        for (turn, remaining) in [(0, 58), (2, 0), (1, 30)] {
            let missing = u32::try_from(60 - remaining).unwrap();
            let count = Count {
                each: Some(second),
                until: second * missing,
                ..count(remaining, turn, 60)
            };
            budgets.learn(Duration::ZERO, count);
        }
        assert_eq!(budgets.ready_at(Duration::ZERO, 0), second);
        assert_eq!(budgets.ready_at(Duration::ZERO, 4), second * 5);
        assert_eq!(budgets.left(second * 10, 4), Some(6));
        assert_eq!(budgets.has_at(second, 0, 30), second * 30);
        assert_eq!(budgets.has_at(second, 0, 3000), second * 60);
        budgets.spent(2);
        assert_eq!(budgets.ready_at(Duration::ZERO, 0), second * 3);
    }
}
