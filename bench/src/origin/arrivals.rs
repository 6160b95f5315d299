//! What an origin recorded, and what can be read from it: how full the fullest window was, how even the gaps were, whether
//! the requests came in the order of their numbers.

use std::fmt;

use crate::Result;
use crate::clock;
use crate::pace::Pace;
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
}

/// All requests of an origin in the order in which it saw them.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(pub(crate) Vec<Arrival>);

/// How evenly requests were spaced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Evenness {
    /// Achieved rate / allowed rate, from the first arrival to the last.
    pub(crate) utilization: f64,
    /// Median of |gap - ideal gap|, nanoseconds.
    pub(crate) jitter_p50: u64,
    /// The same, 99th percentile.
    pub(crate) jitter_p99: u64,
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

    /// How evenly the requests came, none if fewer than two did.
    pub(crate) fn evenness(&self, pace: Pace) -> Option<Evenness> {
        let (first, last) = (self.0.first()?, self.0.last()?);
        let ideal = clock::nanos(pace.interval());
        let mut off: Vec<u64> = self
            .0
            .windows(2)
            .map(|pair| (pair[1].at - pair[0].at).abs_diff(ideal))
            .collect();
        off.sort_unstable();
        let achieved = off.len() as f64 / clock::seconds(last.at - first.at);
        (!off.is_empty()).then(|| Evenness {
            utilization: achieved / pace.per_second(),
            jitter_p50: percentile(&off, 0.5),
            jitter_p99: percentile(&off, 0.99),
        })
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
                "{} {} {}",
                arrival.number,
                arrival.at,
                u8::from(arrival.accepted)
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

    #[test]
    fn even_arrivals_use_the_whole_rate_without_jitter() {
        let even = at(&[0, 100, 200, 300]).evenness(Pace::even(10)).unwrap();
        assert!((even.utilization - 1.0).abs() < 1e-9, "{even:?}");
        assert_eq!((even.jitter_p50, even.jitter_p99), (0, 0));
        let late = at(&[0, 200, 400]).evenness(Pace::even(10)).unwrap();
        assert!((late.utilization - 0.5).abs() < 1e-9, "{late:?}");
        assert_eq!(late.jitter_p50, 100_000_000);
        assert_eq!(at(&[5]).evenness(Pace::even(10)), None);
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
            },
        );
        assert_eq!(arrivals.overtaken(), 0);
        assert_eq!(arrivals.refused(), 1);
        arrivals.0[0].number = 9;
        assert_eq!(arrivals.overtaken(), 4);
    }

    #[test]
    fn reads_what_it_writes() {
        let arrivals = at(&[3, 4]);
        assert_eq!(
            Arrivals::parse(&arrivals.to_string()).unwrap().0,
            arrivals.0
        );
        assert!(Arrivals::parse("1 2\n").is_err());
    }
}
