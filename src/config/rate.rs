//! Rates as the file writes them: `10/s`, `600/min`, `100/10s`.
//!
//! A [`Rate`] is an exact pair of count and period, never a float: `1/3s` has
//! no other form. Its `Display` is canonical, so equal rates have equal texts.
//! Bursts and buckets belong to `check/limit`.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use super::duration::{DAY, nearest_unit, split_digits, times, unit};
use super::fault::{Fault, quote};

/// The forms that are accepted, for messages.
pub(super) const EXPECTED: &str = "a form such as `10/s`, `600/min` or `100/10s`";

/// The shortest time between two requests that can be kept apart.
const SHORTEST_INTERVAL: Duration = Duration::from_micros(1);

/// The longest period over which requests are counted, in days.
const LONGEST_PERIOD: u32 = 366;

/// So many requests in so much time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    /// Requests per period.
    pub(super) count: NonZeroU32,
    /// The period, more than zero.
    pub(super) period: Duration,
}

/// Reads a rate that can be kept.
///
/// # Errors
///
/// What is wrong with the text, and what was probably meant.
pub(super) fn parse(text: &str) -> Result<Rate, Fault> {
    let wrong = |what: &str| Err(Fault::new(format!("{} {what}", quote(text))));
    let Some((count, period)) = read(text) else {
        let what = format!("{} is not a rate, expected {EXPECTED}", quote(text));
        return Err(Fault::new(what).meant(suggest(text)));
    };
    let Some(count) = NonZeroU32::new(count) else {
        return wrong("lets no request through, expected a count of at least 1");
    };
    if period.is_zero() {
        return wrong("has a period of zero, expected more than zero");
    }
    if period > LONGEST_PERIOD * DAY {
        return wrong("has too long a period, expected at most 366 days");
    }
    if period < SHORTEST_INTERVAL.saturating_mul(count.get()) {
        return wrong("is too fast, expected at most one request per microsecond");
    }
    Ok(Rate { count, period })
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.period.as_millis();
        let (name, unit) = [
            ("day", DAY.as_millis()),
            ("h", 3_600_000),
            ("min", 60_000),
            ("s", 1_000),
        ]
        .into_iter()
        .find(|(_, unit)| milliseconds.is_multiple_of(*unit))
        .unwrap_or(("ms", 1));
        match milliseconds / unit {
            1 => write!(f, "{}/{name}", self.count),
            several => write!(f, "{}/{several}{name}", self.count),
        }
    }
}

/// Count and period as written, whatever their values.
fn read(text: &str) -> Option<(u32, Duration)> {
    let (count, per) = text.trim().split_once('/')?;
    let (digits, name) = split_digits(per);
    let time = unit(name)?;
    let period = match digits {
        "" => time,
        digits => times(digits, time),
    };
    Some((whole(count)?, period))
}

/// A number of digits only; one that is too large counts as the largest.
fn whole(digits: &str) -> Option<u32> {
    match split_digits(digits) {
        (digits, "") if !digits.is_empty() => Some(digits.parse().unwrap_or(u32::MAX)),
        _ => None,
    }
}

fn suggest(text: &str) -> Option<String> {
    let mut plain: String = text
        .to_lowercase()
        .replace(" per ", "/")
        .split_whitespace()
        .collect();
    for (end, unit) in [("rps", "/s"), ("rpm", "/min"), ("rph", "/h")] {
        if let Some(count) = plain.strip_suffix(end) {
            plain = format!("{count}{unit}");
        }
    }
    if read(&plain).is_some() {
        return Some(plain);
    }
    let Some((count, per)) = plain.split_once('/') else {
        return whole(&plain).map(|count| format!("{count}/s"));
    };
    let (digits, name) = split_digits(per);
    let fixed = match (count.split_once('.'), unit(name)) {
        (Some((whole, fraction)), Some(_)) => without_fraction(whole, fraction, digits, name)?,
        _ => format!("{count}/{digits}{}", nearest_unit(name)?),
    };
    read(&fixed).map(|_| fixed)
}

/// `0.5/s` as `1/2s`: the same rate in whole numbers.
fn without_fraction(whole: &str, fraction: &str, digits: &str, unit: &str) -> Option<String> {
    let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let count: u64 = format!("{whole}{fraction}").parse().ok()?;
    let times: u64 = if digits.is_empty() {
        scale
    } else {
        digits.parse::<u64>().ok()?.checked_mul(scale)?
    };
    let divisor = greatest_common_divisor(count, times);
    let (count, times) = (count.checked_div(divisor)?, times.checked_div(divisor)?);
    Some(match times {
        1 => format!("{count}/{unit}"),
        times => format!("{count}/{times}{unit}"),
    })
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(count: u32, milliseconds: u64) -> Rate {
        Rate {
            count: NonZeroU32::new(count).unwrap(),
            period: Duration::from_millis(milliseconds),
        }
    }

    #[test]
    fn keeps_count_and_period_exactly() {
        for (text, expected, canonical) in [
            ("10/s", rate(10, 1_000), "10/s"),
            ("10/sec", rate(10, 1_000), "10/s"),
            ("10/1000ms", rate(10, 1_000), "10/s"),
            ("600/min", rate(600, 60_000), "600/min"),
            ("600/60s", rate(600, 60_000), "600/min"),
            ("5000/h", rate(5_000, 3_600_000), "5000/h"),
            ("100/10s", rate(100, 10_000), "100/10s"),
            ("20000/day", rate(20_000, 86_400_000), "20000/day"),
            ("1/24h", rate(1, 86_400_000), "1/day"),
            ("1/3s", rate(1, 3_000), "1/3s"),
            ("2/150ms", rate(2, 150), "2/150ms"),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
            assert_eq!(expected.to_string(), canonical);
        }
    }

    #[test]
    fn refuses_what_cannot_be_kept() {
        for text in [
            "0/s",
            "1/0s",
            "1/367d",
            "1001/ms",
            "4000000000/s",
            "9999999999/h",
        ] {
            let fault = parse(text).unwrap_err();
            assert!(!fault.text.contains("is not a rate"), "{text}: {fault}");
        }
        assert!(parse("1/366d").is_ok());
        assert!(parse("1000/ms").is_ok());
    }

    #[test]
    fn says_what_was_probably_meant() {
        for (text, hint) in [
            ("10/sek", Some("10/sec")),
            ("10 / s", Some("10/s")),
            ("10/S", Some("10/s")),
            ("10 per minute", Some("10/minute")),
            ("10", Some("10/s")),
            ("10rps", Some("10/s")),
            ("10 RPM", Some("10/min")),
            ("0.5/s", Some("1/2s")),
            ("1.5/s", Some("3/2s")),
            ("0.1/10s", Some("1/100s")),
            ("10/", None),
            ("fast", None),
            ("-1/s", None),
        ] {
            let hint = hint.map(|hint| format!("did you mean `{hint}`?"));
            assert_eq!(parse(text).unwrap_err().hint, hint, "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in ".*") {
            let _ = parse(&text);
        }

        #[test]
        fn never_panics_on_what_looks_right(text in "[0-9]{0,24}(\\.[0-9]{0,24})?/[0-9]{0,12}[a-z]{0,4}") {
            let _ = parse(&text);
        }

        #[test]
        fn reads_back_what_it_shows(count in 1u32..1_000_000, milliseconds in 1_000u64..31_000_000_000) {
            let rate = rate(count, milliseconds);
            prop_assert_eq!(parse(&rate.to_string()), Ok(rate));
        }
    }
}
