//! What an origin recorded, and what can be read from it: how full the fullest window was, how much of a limit was used and how
//! exactly the requests followed it, whether they came in the order of their numbers.
//!
//! **Utilization.** Quotients of accepted requests and time err by up to a burst, so laps are measured. A lap is as many requests as a limit
//! allows at once (one if they are evenly spaced); the limit wants at least a lap time (the window, the interval) between the first request of a lap
//! and the first of the next. Utilization is (whole laps x lap time) / (time they took), over the accepted requests from the
//! first on. What was cut off by the end of the load counts neither way, but a peer that stops early does not get away with it: the
//! time reaches at least to one lap time before the end of the load. A bucket has no laps: there it is accepted / (size + rate x
//! time from the first request to the end of the load), all that it could have let through.
//!
//! **Deviation.** Of evenly spaced requests |gap - interval|; of a window |start - (the start that many requests before + the
//! window)|; of a bucket |start - the instant at which it had earned the credit|, where that made it wait. Refused requests count, since
//! they were sent. The first lap is bound by nothing and has no deviation.

use std::fmt;
use std::time::Duration;

use crate::Result;
use crate::clock;
use crate::pace::{Form, Pace};
use crate::report::percentile;

/// One request as the origin saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// The number it carried.
    pub(crate) number: u32,
    /// When its head had been read, in the clock's nanoseconds.
    pub(crate) at: u64,
    /// Whether it was within the limit (200, else 429).
    pub(crate) accepted: bool,
    /// What the work of an accepted one took, nanoseconds; 0 before it is done, or if it is none.
    pub(crate) took: u64,
}

/// All requests of an origin in the order in which it saw them.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(pub(crate) Vec<Arrival>);

/// How requests followed a limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Fit {
    /// Accepted of what the limit allowed.
    pub(crate) utilization: f64,
    /// Median of the deviation from the earliest start that the limit allows, nanoseconds.
    pub(crate) deviation_p50: u64,
    /// The same, 99th percentile.
    pub(crate) deviation_p99: u64,
}

impl Arrivals {
    /// Reads what `Display` writes: one line per arrival.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let arrival = |line: &str| -> Option<Arrival> {
            let mut fields = line.split(' ');
            let number = fields.next()?.parse().ok()?;
            let at = fields.next()?.parse().ok()?;
            Some(Arrival {
                number,
                at,
                accepted: fields.next()? == "1",
                took: fields.next()?.parse().ok()?,
            })
        };
        let parsed = text
            .lines()
            .map(|line| arrival(line).ok_or_else(|| format!("`{line}` is not an arrival")));
        Ok(Self(parsed.collect::<std::result::Result<_, _>>()?))
    }

    /// Requests answered 429.
    pub(crate) fn refused(&self) -> usize {
        self.0.iter().filter(|arrival| !arrival.accepted).count()
    }

    /// Forgets what came after `end`: of the requests whose callers hang up then, some are sent and cut off, in no order
    /// that a limit has to do with.
    pub(crate) fn until(mut self, end: u64) -> Self {
        self.0.retain(|arrival| arrival.at <= end);
        self
    }

    /// The most arrivals in any window of so many nanoseconds.
    pub(crate) fn worst_window(&self, width: u64) -> usize {
        let mut first = 0;
        let mut worst = 0;
        for (last, arrival) in self.0.iter().enumerate() {
            while arrival.at - self.0[first].at >= width {
                first += 1;
            }
            worst = worst.max(last + 1 - first);
        }
        worst
    }

    /// What the work of a request took on average; none if no work was done.
    pub(crate) fn mean_work(&self) -> Option<Duration> {
        let done = || {
            self.0
                .iter()
                .map(|arrival| arrival.took)
                .filter(|&took| took > 0)
        };
        let count = done().count() as u64;
        (count > 0).then(|| Duration::from_nanos(done().sum::<u64>() / count))
    }

    /// The longest time without an arrival between the first and the last, nanoseconds.
    pub(crate) fn longest_pause(&self) -> u64 {
        let pauses = self.0.windows(2).map(|pair| pair[1].at - pair[0].at);
        pauses.max().unwrap_or(0)
    }

    /// How the requests followed `pace` while the load lasted, until `end`; none if not one lap was accepted.
    pub(crate) fn fit(&self, pace: Pace, end: u64) -> Option<Fit> {
        let utilization = match pace.form {
            Form::Window | Form::Spaced(_) => self.laps(pace, end)?,
            Form::Bucket(size) => {
                let passed = clock::seconds(end.saturating_sub(self.0.first()?.at));
                self.accepted().count() as f64 / (f64::from(size) + pace.per_second() * passed)
            }
        };
        let mut deviations = match pace.form {
            Form::Window | Form::Spaced(_) => self.deviations(pace),
            Form::Bucket(size) => self.deviations_of_bucket(pace, size),
        };
        deviations.sort_unstable();
        Some(Fit {
            utilization,
            deviation_p50: percentile(&deviations, 0.5),
            deviation_p99: percentile(&deviations, 0.99),
        })
    }

    fn accepted(&self) -> impl Iterator<Item = u64> {
        let accepted = self.0.iter().filter(|arrival| arrival.accepted);
        accepted.map(|arrival| arrival.at)
    }

    fn laps(&self, pace: Pace, end: u64) -> Option<f64> {
        let (size, time) = pace.lap();
        let starts: Vec<u64> = self.accepted().step_by(size).collect();
        let (first, last) = (*starts.first()?, *starts.last()?);
        let taken = last.max(end.saturating_sub(time)).saturating_sub(first);
        let laps = starts.len() - 1;
        (laps > 0 && taken > 0).then(|| laps as f64 * time as f64 / taken as f64)
    }

    fn deviations(&self, pace: Pace) -> Vec<u64> {
        let (size, time) = pace.lap();
        let bound = self.0.iter().skip(size).zip(&self.0);
        bound
            .map(|(start, earlier)| start.at.abs_diff(earlier.at + time))
            .collect()
    }

    /// `full_at` is when the bucket would be full again; one request is left in it `size - 1` intervals earlier.
    fn deviations_of_bucket(&self, pace: Pace, size: u32) -> Vec<u64> {
        let interval = clock::nanos(pace.interval());
        let saved = interval * u64::from(size.saturating_sub(1));
        let (mut full_at, mut before) = (0, 0);
        let mut deviations = Vec::new();
        for arrival in &self.0 {
            let earned = full_at.max(saved) - saved;
            if earned > before {
                deviations.push(arrival.at.abs_diff(earned));
            }
            full_at = full_at.max(arrival.at) + interval;
            before = arrival.at;
        }
        deviations
    }

    /// How many requests were seen after one with a higher number; 0 means arrival order. A request that was sent again
    /// counts where it was seen first.
    pub(crate) fn overtaken(&self) -> usize {
        let mut seen = std::collections::BTreeSet::new();
        let mut highest = 0;
        let mut overtaken = 0;
        for arrival in self.0.iter().filter(|arrival| seen.insert(arrival.number)) {
            overtaken += usize::from(arrival.number < highest);
            highest = highest.max(arrival.number);
        }
        overtaken
    }
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|arrival| {
            writeln!(
                f,
                "{} {} {} {}",
                arrival.number,
                arrival.at,
                u8::from(arrival.accepted),
                arrival.took
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(instants: &[u64]) -> Arrivals {
        let arrival = |(number, &ms)| Arrival {
            number,
            at: ms * 1_000_000,
            accepted: true,
            took: 0,
        };
        Arrivals((0..).zip(instants).map(arrival).collect())
    }

    #[test]
    fn the_worst_window_is_half_open() {
        assert_eq!(
            at(&[0, 100, 900, 999, 1000, 1001]).worst_window(1_000_000_000),
            5
        );
        assert_eq!(at(&[0, 1000, 2000]).worst_window(1_000_000_000), 1);
        assert_eq!(at(&[]).worst_window(1), 0);
    }

    fn fit(instants: &[u64], pace: Pace, end: u64) -> Fit {
        at(instants).fit(pace, end * 1_000_000).unwrap()
    }

    #[track_caller]
    fn assert_used(fit: Fit, utilization: f64) {
        assert!((fit.utilization - utilization).abs() < 1e-9, "{fit:?}");
    }

    #[test]
    fn even_arrivals_use_the_whole_rate_without_deviation() {
        let even = fit(&[0, 100, 200, 300], Pace::even(10), 350);
        assert_used(even, 1.0);
        assert_eq!((even.deviation_p50, even.deviation_p99), (0, 0));
        let late = fit(&[0, 200, 400], Pace::even(10), 450);
        assert_used(late, 0.5);
        assert_eq!(late.deviation_p50, 100_000_000);
        assert_eq!(at(&[5]).fit(Pace::even(10), 9), None);
    }

    #[test]
    fn bursts_are_measured_from_one_to_the_next() {
        let pace = Pace::window(2, 1);
        // The last burst is cut off by the end of the load.
        let whole = fit(&[0, 1, 1000, 1001, 2000], pace, 2000);
        assert_used(whole, 1.0);
        assert_eq!(whole.deviation_p99, 0);
        let late = fit(&[0, 1, 1250, 1251, 2500, 2501], pace, 2600);
        assert_used(late, 0.8);
        assert_eq!(late.deviation_p50, 250_000_000);
        // Half of the load's time without a request.
        assert_used(fit(&[0, 1, 1000, 1001], pace, 3000), 0.5);
    }

    #[test]
    fn a_bucket_must_be_emptied_to_be_used() {
        let pace = Pace::bucket(10, 3);
        let all = fit(&[0, 0, 0, 100, 201, 300, 400], pace, 400);
        assert_used(all, 1.0);
        assert_eq!((all.deviation_p50, all.deviation_p99), (0, 1_000_000));
        let even = fit(&[0, 100, 200, 300, 400], pace, 400);
        assert_used(even, 5.0 / 7.0);
        assert_eq!(even.deviation_p99, 0, "nothing had to wait");
    }

    #[test]
    fn refused_requests_use_nothing() {
        let mut arrivals = at(&[0, 100, 150, 200]);
        arrivals.0[2].accepted = false;
        assert_used(arrivals.fit(Pace::even(10), 250_000_000).unwrap(), 1.0);
    }

    #[test]
    fn order_forgives_a_repeat_but_not_an_overtaking() {
        let mut arrivals = at(&[0, 1, 2, 3]);
        arrivals.0.insert(
            2,
            Arrival {
                number: 0,
                at: 1_500_000,
                accepted: false,
                took: 0,
            },
        );
        assert_eq!(arrivals.overtaken(), 0);
        assert_eq!(arrivals.refused(), 1);
        assert_eq!(arrivals.longest_pause(), 1_000_000);
        arrivals.0[0].number = 9;
        assert_eq!(arrivals.overtaken(), 4);
    }

    #[test]
    fn reads_what_it_writes() {
        let mut arrivals = at(&[3, 4]);
        arrivals.0[1].took = 5;
        assert_eq!(
            Arrivals::parse(&arrivals.to_string()).unwrap().0,
            arrivals.0
        );
        assert!(Arrivals::parse("1 2 1\n").is_err());
    }
}
