//! What the upstream itself says is left, in the header fields of its answers: so
//! many requests, whatever they cost here.
//!
//! It only ever lowers what the limits allow, takes account of what is on its
//! way, and is forgotten when the upstream says that the budget is whole again.
//!
//! Why it is exact. Each answer's own request is in its count. So of the answers
//! of one window the lowest count has all requests in it that were answered, and
//! what can be missing are those that were not: so many fewer may start. A
//! request that started after a count was read is counted later than it, so its
//! count replaces the lowest, which lets budgets grow that regain by and by.

use std::time::Duration;

/// Budgets that one upstream can name; further ones are not kept.
const MOST_BUDGETS: usize = 8;

/// The budgets of a lane, or of one key. Times are durations since the lane's
/// epoch.
#[derive(Debug, Default, Clone)]
pub(super) struct Budgets(Vec<Budget>);

#[derive(Debug, Clone)]
struct Budget {
    /// Which of the upstream's budgets.
    name: u64,
    /// The lowest count that holds.
    low: u64,
    /// Turns from this number on started after the count was read.
    from: u64,
    /// When it is whole again.
    until: Duration,
}

/// One count, as an answer told it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count {
    /// Which of the upstream's budgets.
    pub(super) name: u64,
    /// What is left.
    pub(super) remaining: u64,
    /// When it is whole again.
    pub(super) until: Duration,
    /// The turn whose answer told it.
    pub(super) turn: u64,
    /// The turn that will start next.
    pub(super) next: u64,
}

impl Budgets {
    /// When a request can start: `now`, or a later time. So many are `pending`: they
    /// have no answer yet.
    pub(super) fn ready_at(&self, now: Duration, pending: u64) -> Duration {
        let short = |budget: &&Budget| budget.low <= pending && budget.until > now;
        let short = self.0.iter().filter(short);
        short.map(|budget| budget.until).max().unwrap_or(now)
    }

    /// What is left by the shortest budget, and until when; `None` without one.
    pub(super) fn left(&self, now: Duration, pending: u64) -> Option<(u64, Duration)> {
        let known = self.0.iter().filter(|budget| budget.until > now);
        let left = known.map(|budget| (budget.low.saturating_sub(pending), budget.until));
        left.min()
    }

    /// Takes a count into account.
    pub(super) fn learn(&mut self, now: Duration, count: Count) {
        self.0.retain(|budget| budget.until > now);
        let room = self.0.len() < MOST_BUDGETS;
        let known = self.0.iter_mut().find(|budget| budget.name == count.name);
        let budget = Budget {
            name: count.name,
            low: count.remaining,
            from: count.next,
            until: count.until,
        };
        match known {
            Some(known) if count.turn >= known.from => *known = budget,
            Some(known) => known.low = known.low.min(count.remaining),
            None if room => self.0.push(budget),
            None => {}
        }
    }

    /// So many requests were counted without an answer that told a count.
    pub(super) fn spent(&mut self, requests: u64) {
        for budget in &mut self.0 {
            budget.low = budget.low.saturating_sub(requests);
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
        assert_eq!(budgets.ready_at(MINUTE, 3), MINUTE);
        assert_eq!(budgets.left(now, 1), Some((2, MINUTE)));
    }

    #[test]
    fn of_answers_that_cross_the_lowest_count_holds() {
        let mut budgets = Budgets::default();
        let now = Duration::ZERO;
        // Turns 0 to 2 are on their way; the upstream counts 1 first.
        budgets.learn(now, count(7, 0, 3));
        budgets.learn(now, count(9, 1, 3));
        assert_eq!(budgets.left(now, 1), Some((6, MINUTE)));
    }

    #[test]
    fn a_later_request_may_find_more_than_an_earlier_one() {
        let mut budgets = Budgets::default();
        let now = Duration::ZERO;
        budgets.learn(now, count(0, 0, 1));
        budgets.learn(now, count(4, 1, 2));
        assert_eq!(budgets.left(now, 0), Some((4, MINUTE)));
        budgets.spent(1);
        assert_eq!(budgets.left(now, 0), Some((3, MINUTE)));
    }
}
