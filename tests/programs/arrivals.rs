//! What the upstream saw: the instants at which requests arrived, in order, and
//! whether the limit allowed them.
//!
//! The limit is a sliding log, the strictest form: no window `[t, t + period)`
//! holds more than `count` requests, wherever it begins.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// At most `count` requests in any window of `period`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) count: usize,
    pub(crate) period: Duration,
}

/// A limit that holds up none of a few requests.
pub(crate) const HUNDRED_A_SECOND: Limit = Limit {
    count: 100,
    period: Duration::from_secs(1),
};

/// The arrivals at one upstream.
#[derive(Debug, Clone)]
pub(crate) struct Arrivals {
    limit: Limit,
    seen: Vec<Arrival>,
}

#[derive(Debug, Clone)]
struct Arrival {
    at: Instant,
    path: String,
    allowed: bool,
}

impl Limit {
    /// The least time from the first to the last of `requests`.
    pub(crate) fn ideal(&self, requests: usize) -> Duration {
        let periods = requests.div_ceil(self.count) - 1;
        self.period * u32::try_from(periods).unwrap()
    }
}

/// As it is written in `proxy.toml`.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.period.as_secs() {
            1 => write!(f, "{}/s", self.count),
            seconds => write!(f, "{}/{seconds}s", self.count),
        }
    }
}

impl Arrivals {
    pub(crate) fn new(limit: Limit) -> Self {
        Self {
            limit,
            seen: Vec::new(),
        }
    }

    /// Records a request that arrives at `at`; whether the limit allows it.
    pub(crate) fn arrive(&mut self, at: Instant, path: &str) -> bool {
        let mut earlier = self.seen.iter().rev().filter(|arrival| arrival.allowed);
        let first = earlier.nth(self.limit.count - 1);
        let allowed = first.is_none_or(|first| at >= first.at + self.limit.period);
        self.seen.push(Arrival {
            at,
            path: path.to_owned(),
            allowed,
        });
        allowed
    }

    /// All requests, the refused ones included.
    pub(crate) fn total(&self) -> usize {
        self.seen.len()
    }

    /// Requests that were refused.
    pub(crate) fn refused(&self) -> usize {
        self.seen.iter().filter(|arrival| !arrival.allowed).count()
    }

    /// From the first arrival to the last.
    pub(crate) fn span(&self) -> Duration {
        match (self.seen.first(), self.seen.last()) {
            (Some(first), Some(last)) => last.at - first.at,
            _ => Duration::ZERO,
        }
    }

    /// The most requests in any window of the period, the refused ones included.
    pub(crate) fn fullest_window(&self) -> usize {
        let within = |index: usize| {
            let end = self.seen[index].at + self.limit.period;
            self.seen[index..].partition_point(|arrival| arrival.at < end)
        };
        (0..self.seen.len()).map(within).max().unwrap_or(0)
    }
}

/// One line per arrival, for a test that fails.
impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (total, refused) = (self.total(), self.refused());
        writeln!(f, "{total} arrivals, {refused} refused by {}:", self.limit)?;
        for arrival in &self.seen {
            let at = (arrival.at - self.seen[0].at).as_secs_f64();
            let refused = if arrival.allowed { "" } else { "  refused" };
            writeln!(f, "{at:10.6} s  {}{refused}", arrival.path)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(millis: &[u64]) -> (Arrivals, Vec<bool>) {
        let mut arrivals = Arrivals::new(Limit {
            count: 2,
            period: Duration::from_millis(1000),
        });
        let start = Instant::now();
        let allowed = millis
            .iter()
            .map(|at| arrivals.arrive(start + Duration::from_millis(*at), "/"))
            .collect();
        (arrivals, allowed)
    }

    #[test]
    fn refuses_the_request_that_comes_a_moment_too_early() {
        let (arrivals, allowed) = arrivals(&[0, 900, 999]);
        assert_eq!(allowed, [true, true, false]);
        assert_eq!(arrivals.refused(), 1);
        assert_eq!(arrivals.fullest_window(), 3);
    }

    #[test]
    fn allows_a_request_one_period_after_the_one_whose_place_it_takes() {
        let (arrivals, allowed) = arrivals(&[0, 900, 1000, 1900, 2000]);
        assert_eq!(allowed, [true; 5]);
        assert_eq!(arrivals.fullest_window(), 2);
        assert_eq!(arrivals.span(), arrivals.limit.ideal(5));
    }

    #[test]
    fn a_refused_request_takes_no_place() {
        let (_, allowed) = arrivals(&[0, 10, 20, 1000, 1010]);
        assert_eq!(allowed, [true, true, false, true, true]);
    }
}
