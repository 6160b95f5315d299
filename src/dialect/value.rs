//! Numbers and times as response fields write them.
//!
//! Nothing is negative, nothing overflows: what is too large counts as the
//! largest. No floating point, so that a decimal is what it says.

use std::time::{Duration, SystemTime};

const DAY: u64 = 24 * 60 * 60;

/// A number, rounded down: some APIs write `41.0`.
pub(super) fn whole(text: &str) -> Option<u64> {
    seconds(text).map(|number| number.as_secs())
}

/// `7` or `7.25`.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let nanos = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanos = nanos.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    Some(Duration::new(whole.parse().unwrap_or(u64::MAX), nanos))
}

/// `7000` or `7000.25`.
pub(super) fn milliseconds(text: &str) -> Option<Duration> {
    seconds(text).map(|number| number / 1000)
}

/// `6m0s`, `20ms`, `2m59.56s`, `1h`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut sum = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| !c.is_ascii_alphabetic());
        let (unit, tail) = tail.split_at(end.unwrap_or(tail.len()));
        let number = seconds(number)?;
        let part = match unit {
            "ns" => number / 1_000_000_000,
            "us" => number / 1_000_000,
            "ms" => number / 1_000,
            "s" => number,
            "m" => number.saturating_mul(60),
            "h" => number.saturating_mul(60 * 60),
            "d" => number.saturating_mul(24 * 60 * 60),
            _ => return None,
        };
        sum = sum.saturating_add(part);
        rest = tail;
    }
    Some(sum)
}

/// A time of RFC 3339 since 1970; the seconds may be missing, as some APIs do.
pub(super) fn rfc3339(text: &str) -> Option<SystemTime> {
    let (date, time) = text.trim().split_once(['T', 't', ' '])?;
    let zone = time.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = time.split_at(zone);
    let day = day(date)?;
    let clock = clock(time)?;
    let utc = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(day * DAY))?;
    let local = utc.checked_add(clock)?;
    match zone.split_at_checked(1)? {
        ("Z" | "z", "") => Some(local),
        ("+", offset) => local.checked_sub(hours_and_minutes(offset)?),
        ("-", offset) => local.checked_add(hours_and_minutes(offset)?),
        _ => None,
    }
}

/// The day since 1970 of `2026-11-25`.
fn day(date: &str) -> Option<u64> {
    let mut parts = date.split('-');
    let year = number(parts.next()?, 4).filter(|year| *year >= 1970)?;
    let month = number(parts.next()?, 2).filter(|month| (1..=12).contains(month))?;
    let day = number(parts.next()?, 2).filter(|day| (1..=31).contains(day))?;
    if parts.next().is_some() {
        return None;
    }
    // Years begin in March here, so that the leap day is the last.
    let (year, month) = match month {
        1 | 2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let leap_days = year / 4 - year / 100 + year / 400;
    let days = year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1;
    // March 1st of the year 0 is so many days before 1970.
    days.checked_sub(719_468)
}

/// `10:30:59.5` or `10:30`.
fn clock(time: &str) -> Option<Duration> {
    let (minutes, rest) = time.split_at_checked(5)?;
    let seconds = match rest.strip_prefix(':') {
        Some(rest) => seconds(rest).filter(|seconds| seconds.as_secs() <= 60)?,
        None if rest.is_empty() => Duration::ZERO,
        None => return None,
    };
    Some(hours_and_minutes(minutes)? + seconds)
}

fn hours_and_minutes(text: &str) -> Option<Duration> {
    let (hours, minutes) = text.split_once(':')?;
    let hours = number(hours, 2).filter(|hours| *hours < 24)?;
    let minutes = number(minutes, 2).filter(|minutes| *minutes < 60)?;
    Some(Duration::from_secs(hours * 3600 + minutes * 60))
}

fn number(text: &str, digits: usize) -> Option<u64> {
    let good = text.len() == digits && is_digits(text);
    good.then(|| text.parse().ok())?
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decimals_are_exact_and_never_negative() {
        for (text, nanos) in [
            ("7", Some(7_000_000_000)),
            (" 7.25 ", Some(7_250_000_000)),
            ("0.1234567899", Some(123_456_789)),
            ("-1", None),
            ("+1", None),
            ("1e3", None),
            (".5", None),
            ("5.", None),
            ("inf", None),
            ("", None),
        ] {
            let read = seconds(text).map(|number| number.as_nanos());
            assert_eq!(read, nanos, "{text}");
        }
        assert_eq!(whole("99999999999999999999999"), Some(u64::MAX));
        assert_eq!(whole("41.9"), Some(41));
        assert_eq!(
            milliseconds("10000.5"),
            Some(Duration::from_micros(10_000_500))
        );
    }

    #[test]
    fn durations_are_sums_with_units() {
        for (text, micros) in [
            ("6m0s", Some(360_000_000)),
            ("20ms", Some(20_000)),
            ("2m59.56s", Some(179_560_000)),
            ("1h2m3s", Some(3_723_000_000)),
            ("1d", Some(86_400_000_000)),
            ("0s", Some(0)),
            ("150us", Some(150)),
            ("5", None),
            ("5x", None),
            ("s", None),
            ("-5s", None),
            ("", None),
        ] {
            let read = duration(text).map(|time| time.as_micros());
            assert_eq!(read, micros, "{text}");
        }
        assert_eq!(duration("99999999999999999999d"), Some(Duration::MAX));
    }

    #[test]
    fn times_of_rfc_3339_are_read_in_every_zone() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T00:00:00Z", Some(951_782_400)),
            ("2026-03-26T16:00Z", Some(1_774_540_800)),
            ("2026-11-25T10:00:00Z", Some(1_795_600_800)),
            ("2026-11-25T11:00:00+01:00", Some(1_795_600_800)),
            ("2026-11-25 04:30:00-05:30", Some(1_795_600_800)),
            ("2026-11-25T10:00:00.999Z", Some(1_795_600_800)),
            ("2026-11-25T10:00:00", None),
            ("2026-13-25T10:00:00Z", None),
            ("2026-11-25T24:00:00Z", None),
            ("2026-11-25T10:00:00Zz", None),
            ("1969-12-31T23:59:59Z", None),
            ("1970-01-01T00:00:00+01:00", Some(-3600)),
            ("26-11-25T10:00:00Z", None),
        ] {
            let read =
                rfc3339(text).map(|time| match time.duration_since(SystemTime::UNIX_EPOCH) {
                    Ok(after) => i64::try_from(after.as_secs()).unwrap(),
                    Err(before) => -i64::try_from(before.duration().as_secs()).unwrap(),
                });
            assert_eq!(read, seconds, "{text}");
        }
    }

    proptest! {
        #[test]
        fn reads_a_time_as_the_http_date_of_the_same_second(at in 0_u64..253_402_300_800) {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(at);
            let date = httpdate::fmt_http_date(time);
            let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
            let month = months.find(&date[8..11]).unwrap() / 3 + 1;
            let text = format!("{}-{month:02}-{}T{}Z", &date[12..16], &date[5..7], &date[17..25]);
            prop_assert_eq!(rfc3339(&text), Some(time));
        }
    }
}
