//! How an origin treats a request: always answer, never answer, or enforce a limit the way third-party APIs do (sliding log,
//! fixed window, concurrency) with 429 beyond it. Pure: the server gives the time.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use crate::clock;
use crate::pace::Pace;

/// What an origin does, as it travels on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Answers everything.
    Open,
    /// Reads and never answers.
    Silent,
    /// At most so many accepted requests in any window of the period.
    Sliding(Pace),
    /// At most so many accepted requests in each period of its clock.
    Fixed(Pace),
    /// At most so many at once.
    Concurrency(u32),
}

/// The count behind a policy.
#[derive(Debug)]
pub(crate) struct Enforcer {
    policy: Policy,
    /// Sliding: instants of the accepted requests that still count.
    log: VecDeque<u64>,
    /// Fixed: the current window. Concurrency: unused.
    window: u64,
    /// Fixed: accepted in the window. Concurrency: in progress.
    count: u32,
}

impl Enforcer {
    /// Nothing spent yet.
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            policy,
            log: VecDeque::new(),
            window: 0,
            count: 0,
        }
    }

    /// Whether a request that arrives at `now` (nanoseconds, not decreasing) is within the limit; if so it counts.
    pub(crate) fn accepts(&mut self, now: u64) -> bool {
        match self.policy {
            Policy::Open | Policy::Silent => true,
            Policy::Sliding(pace) => {
                let period = clock::nanos(pace.period);
                while self
                    .log
                    .front()
                    .is_some_and(|accepted| now - accepted >= period)
                {
                    self.log.pop_front();
                }
                let accepted = self.log.len() < pace.count as usize;
                if accepted {
                    self.log.push_back(now);
                }
                accepted
            }
            Policy::Fixed(pace) => {
                let window = now / clock::nanos(pace.period);
                if window != self.window {
                    (self.window, self.count) = (window, 0);
                }
                self.count_up(pace.count)
            }
            Policy::Concurrency(limit) => self.count_up(limit),
        }
    }

    /// A request that was accepted has been answered.
    pub(crate) fn answered(&mut self) {
        if matches!(self.policy, Policy::Concurrency(_)) {
            self.count = self.count.saturating_sub(1);
        }
    }

    fn count_up(&mut self, limit: u32) -> bool {
        let accepted = self.count < limit;
        self.count += u32::from(accepted);
        accepted
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => write!(f, "open"),
            Self::Silent => write!(f, "silent"),
            Self::Sliding(pace) => write!(f, "sliding:{pace}"),
            Self::Fixed(pace) => write!(f, "fixed:{pace}"),
            Self::Concurrency(limit) => write!(f, "concurrency:{limit}"),
        }
    }
}

impl FromStr for Policy {
    type Err = String;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, value) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "open" => Ok(Self::Open),
            "silent" => Ok(Self::Silent),
            "sliding" => value.parse().map(Self::Sliding),
            "fixed" => value.parse().map(Self::Fixed),
            "concurrency" => value
                .parse()
                .map(Self::Concurrency)
                .map_err(|error| format!("`{value}` is not a number: {error}")),
            _ => Err(format!("`{text}` is not a policy")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn accepted(policy: &str, arrivals: &[u64]) -> Vec<bool> {
        let mut enforcer = Enforcer::new(policy.parse().unwrap());
        arrivals
            .iter()
            .map(|ms| enforcer.accepts(ms * MS))
            .collect()
    }

    #[test]
    fn a_sliding_log_counts_any_window() {
        assert_eq!(
            accepted("sliding:2/s", &[900, 950, 1000, 1899, 1900, 1901]),
            [true, true, false, false, true, false]
        );
    }

    #[test]
    fn a_fixed_window_forgets_at_its_border() {
        assert_eq!(
            accepted("fixed:2/s", &[900, 950, 999, 1000, 1001, 1002]),
            [true, true, false, true, true, false]
        );
    }

    #[test]
    fn a_concurrency_limit_frees_a_place_with_each_answer() {
        let mut enforcer = Enforcer::new("concurrency:1".parse().unwrap());
        assert!(enforcer.accepts(0));
        assert!(!enforcer.accepts(1));
        enforcer.answered();
        assert!(enforcer.accepts(2));
    }

    #[test]
    fn reads_what_it_writes() {
        for text in [
            "open",
            "silent",
            "sliding:10/s",
            "fixed:30/2s",
            "concurrency:8",
        ] {
            assert_eq!(text.parse::<Policy>().unwrap().to_string(), text);
        }
    }
}
