//! A limit as the benchmark means it, in the words of each peer, and the shortest time it allows: the ideal that the measured
//! times stand beside.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::clock;

/// `count` requests per `period`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Requests per period.
    pub(crate) count: u32,
    /// The window, whole milliseconds.
    pub(crate) period: Duration,
    /// How many at once.
    pub(crate) form: Form,
}

/// How a rate may be used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Up to `count` at once, never more in any window of the period.
    Window,
    /// Evenly spaced but for so many that may start at once, from 1 on.
    Spaced(u32),
    /// A token bucket of this size, full at first: no promise for any window.
    Bucket(u32),
}

impl Pace {
    /// Evenly spaced requests, so many per second.
    pub(crate) const fn even(count: u32) -> Self {
        Self::spaced(count, 1)
    }

    /// The same, but up to `burst` at once.
    pub(crate) const fn spaced(count: u32, burst: u32) -> Self {
        Self {
            count,
            period: Duration::from_secs(1),
            form: Form::Spaced(burst),
        }
    }

    /// Up to `count` at once, never more in any window of so many seconds.
    pub(crate) const fn window(count: u32, seconds: u64) -> Self {
        Self {
            count,
            period: Duration::from_secs(seconds),
            form: Form::Window,
        }
    }

    /// A token bucket that saves up to `size` and is refilled at `count` per second.
    pub(crate) const fn bucket(count: u32, size: u32) -> Self {
        Self {
            count,
            period: Duration::from_secs(1),
            form: Form::Bucket(size),
        }
    }

    /// The most at once.
    pub(crate) fn burst(&self) -> u32 {
        match self.form {
            Form::Window => self.count,
            Form::Spaced(burst) | Form::Bucket(burst) => burst,
        }
    }

    /// Requests per second.
    pub(crate) fn per_second(&self) -> f64 {
        f64::from(self.count) / self.period.as_secs_f64()
    }

    /// Time between two requests when they are evenly spaced.
    pub(crate) fn interval(&self) -> Duration {
        self.period / self.count
    }

    /// The same limit as a TOML value of pacegate's `limits`.
    pub(crate) fn toml(&self) -> String {
        let rate = self.rate();
        match self.form {
            Form::Window => format!(r#""{rate}""#),
            Form::Spaced(burst) => format!(r#"{{ rate = "{rate}", burst = {burst} }}"#),
            Form::Bucket(size) => format!(r#"{{ rate = "{rate}", bucket = {size} }}"#),
        }
    }

    /// So many requests, and the shortest time (nanoseconds) between the first of them and the one after the last, once what
    /// was saved at first is spent.
    pub(crate) fn lap(&self) -> (usize, u64) {
        match self.form {
            Form::Window => (self.count as usize, clock::nanos(self.period)),
            Form::Spaced(_) | Form::Bucket(_) => (1, clock::nanos(self.interval())),
        }
    }

    /// The earliest instants (nanoseconds) at which requests that arrive at `arrivals` may start; exact for windows and bursts of 1.
    pub(crate) fn earliest_starts(&self, arrivals: &[u64]) -> Vec<u64> {
        let (back, wait) = self.lap();
        let mut starts: Vec<u64> = Vec::with_capacity(arrivals.len());
        for (place, &arrival) in arrivals.iter().enumerate() {
            let free = place
                .checked_sub(back)
                .map_or(0, |earlier| starts[earlier] + wait);
            starts.push(arrival.max(free));
        }
        starts
    }

    fn rate(&self) -> String {
        match self.period.as_millis() {
            1000 => format!("{}/s", self.count),
            millis if millis.is_multiple_of(1000) => format!("{}/{}s", self.count, millis / 1000),
            millis => format!("{}/{millis}ms", self.count),
        }
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.rate())?;
        match self.form {
            Form::Window => Ok(()),
            Form::Spaced(burst) => write!(f, " burst {burst}"),
            Form::Bucket(size) => write!(f, " bucket {size}"),
        }
    }
}

impl FromStr for Pace {
    type Err = String;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not a pace, expected a form such as `10/s`, `30/2s`, `10/s burst 1` or `10/s bucket 40`"
            )
        };
        let (rate, form) = match text.split_once(' ') {
            None => (text, Form::Window),
            Some((rate, words)) => {
                let (form, size) = words.split_once(' ').ok_or_else(wrong)?;
                let size = size.parse().map_err(|_not| wrong())?;
                match form {
                    "burst" => (rate, Form::Spaced(size)),
                    "bucket" => (rate, Form::Bucket(size)),
                    _ => return Err(wrong()),
                }
            }
        };
        let (count, period) = rate.split_once('/').ok_or_else(wrong)?;
        let millis = match (period.strip_suffix("ms"), period.strip_suffix('s')) {
            (Some(millis), _) => millis.parse().ok(),
            (None, Some("")) => Some(1000),
            (None, Some(seconds)) => seconds
                .parse::<u64>()
                .ok()
                .and_then(|seconds| seconds.checked_mul(1000)),
            (None, None) => None,
        };
        match (count.parse(), millis) {
            (Ok(count), Some(millis)) if count > 0 && millis > 0 => Ok(Self {
                count,
                period: Duration::from_millis(millis),
                form,
            }),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn reads_what_it_writes() {
        for text in [
            "10/s",
            "30/2s",
            "10/100ms",
            "1000/s burst 1",
            "1000/s burst 10",
            "2/s bucket 40",
        ] {
            assert_eq!(text.parse::<Pace>().unwrap().to_string(), text);
        }
        for text in [
            "10",
            "10/",
            "0/s",
            "10/0s",
            "x/s",
            "10/min",
            "10/s burst",
            "10/s at 2",
        ] {
            assert!(text.parse::<Pace>().is_err(), "{text}");
        }
    }

    #[test]
    fn says_a_limit_in_the_words_of_the_config() {
        assert_eq!(Pace::window(30, 2).toml(), r#""30/2s""#);
        assert_eq!(Pace::even(1).toml(), r#"{ rate = "1/s", burst = 1 }"#);
        assert_eq!(
            Pace::bucket(2, 40).toml(),
            r#"{ rate = "2/s", bucket = 40 }"#
        );
    }

    #[test]
    fn the_ideal_is_the_shortest_time_the_limit_allows() {
        let at_once = vec![0; 1000];
        let last = |pace: Pace| *pace.earliest_starts(&at_once).last().unwrap();
        assert_eq!(last(Pace::even(10)), 99_900 * MS);
        assert_eq!(last(Pace::window(10, 1)), 99_000 * MS);
        assert_eq!(last(Pace::window(100, 1)), 9_000 * MS);
        assert_eq!(
            Pace::even(10).earliest_starts(&[0, 10 * MS, 500 * MS]),
            [0, 100 * MS, 500 * MS]
        );
    }
}
