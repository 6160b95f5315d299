//! Durations as the file writes them: `250ms`, `30s`, `5min`, `1m 30s`.
//!
//! Owns the units, which rates share. Whole numbers only: what cannot be
//! written exactly in a smaller unit is refused rather than rounded.

use std::time::Duration;

use super::fault::{Fault, nearest, quote};

/// The forms that are accepted, for messages.
pub(super) const EXPECTED: &str = "a duration such as `250ms`, `30s` or `5min`";

/// One day.
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest duration that makes sense: ten years.
pub(super) const LONGEST: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

const UNITS: [(&str, Duration); 11] = [
    ("ms", Duration::from_millis(1)),
    ("s", Duration::from_secs(1)),
    ("sec", Duration::from_secs(1)),
    ("second", Duration::from_secs(1)),
    ("m", Duration::from_secs(60)),
    ("min", Duration::from_secs(60)),
    ("minute", Duration::from_secs(60)),
    ("h", Duration::from_secs(60 * 60)),
    ("hour", Duration::from_secs(60 * 60)),
    ("d", DAY),
    ("day", DAY),
];

/// Reads a duration: more than zero, at most ten years.
///
/// # Errors
///
/// What is wrong with the text, and what was probably meant.
pub(super) fn parse(text: &str) -> Result<Duration, Fault> {
    match parse_or_zero(text)? {
        Duration::ZERO => Err(Fault::new(format!(
            "{} is no time at all, expected more than zero",
            quote(text)
        ))),
        duration => Ok(duration),
    }
}

/// Reads a duration that may be zero, at most ten years.
///
/// # Errors
///
/// What is wrong with the text, and what was probably meant.
pub(super) fn parse_or_zero(text: &str) -> Result<Duration, Fault> {
    let wrong = |what: &str| Fault::new(format!("{} {what}", quote(text)));
    match read(text) {
        None => Err(wrong(&format!("is not a duration, expected {EXPECTED}")).meant(suggest(text))),
        Some(duration) if duration > LONGEST => {
            Err(wrong("is too long, expected at most ten years"))
        }
        Some(duration) => Ok(duration),
    }
}

/// The time that `name` stands for.
pub(super) fn unit(name: &str) -> Option<Duration> {
    UNITS
        .iter()
        .find(|(unit, _)| *unit == name)
        .map(|&(_, time)| time)
}

/// The unit that was probably meant by `name`.
pub(super) fn nearest_unit(name: &str) -> Option<&'static str> {
    nearest(name, UNITS.iter().map(|&(unit, _)| unit))
}

/// Splits `text` where its leading digits end.
pub(super) fn split_digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

/// The sum of all parts, saturating; `None` when a part is not understood.
fn read(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut sum = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (digits, tail) = split_digits(rest);
        let tail = tail.trim_start();
        let end = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (name, tail) = tail.split_at(end);
        let time = unit(name).or_else(|| plural(name))?;
        if digits.is_empty() {
            return None;
        }
        sum = sum.saturating_add(times(digits, time));
        rest = tail.trim_start();
    }
    Some(sum)
}

/// `digits` times `unit`, saturating.
pub(super) fn times(digits: &str, unit: Duration) -> Duration {
    let count = digits.parse().unwrap_or(u64::MAX);
    let milliseconds = u64::try_from(unit.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(milliseconds.saturating_mul(count))
}

/// `seconds`, `mins` and the like, but not `ss`.
fn plural(name: &str) -> Option<Duration> {
    name.strip_suffix('s')
        .filter(|one| one.len() > 2)
        .and_then(unit)
}

fn suggest(text: &str) -> Option<String> {
    let lower = text.trim().to_lowercase();
    let (digits, name) = split_digits(&lower);
    if digits.is_empty() {
        return None;
    }
    if name.is_empty() {
        return Some(format!("{digits}s"));
    }
    if read(&lower).is_some() {
        return Some(lower);
    }
    if matches!(name.trim(), "w" | "week" | "weeks") {
        let days = digits.parse::<u64>().ok()?.checked_mul(7)?.max(1);
        return Some(format!("{days}d"));
    }
    let exact = without_fraction(digits, name);
    exact.or_else(|| nearest_unit(name.trim()).map(|unit| format!("{digits}{unit}")))
}

/// `1.5s` as `1500ms`: the same time in whole numbers; `rest` begins with the point.
fn without_fraction(whole: &str, rest: &str) -> Option<String> {
    let (fraction, name) = split_digits(rest.strip_prefix('.')?);
    let name = name.trim();
    let time = unit(name).or_else(|| plural(name))?;
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let count: u128 = format!("{whole}{fraction}").parse().ok()?;
    let scaled = count.checked_mul(time.as_millis())?;
    let is_whole = scaled > 0 && scaled.is_multiple_of(scale);
    let milliseconds = is_whole.then(|| scaled / scale)?;
    ["d", "h", "min", "s", "ms"].into_iter().find_map(|name| {
        let unit = unit(name)?.as_millis();
        let is_exact = milliseconds.is_multiple_of(unit);
        is_exact.then(|| format!("{}{name}", milliseconds / unit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_every_unit_and_sums_parts() {
        for (text, milliseconds) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("5min", 300_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("1m 30s", 90_000),
            ("1m30s", 90_000),
            ("2 minutes", 120_000),
            ("4294967296ms", 4_294_967_296),
        ] {
            assert_eq!(
                parse(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_zero_and_more_than_ten_years() {
        assert!(parse("0s").is_err());
        assert!(parse("3650d").is_ok());
        assert!(parse("3651d").is_err());
        assert!(parse("99999999999999999999s").is_err());
    }

    #[test]
    fn says_what_was_probably_meant() {
        for (text, hint) in [
            ("30", Some("30s")),
            ("30S", Some("30s")),
            ("5mim", Some("5min")),
            ("soon", None),
            ("1.5s", Some("1500ms")),
            ("1.5 Hours", Some("90min")),
            ("0.0s", None),
            ("0.0001s", None),
            ("1week", Some("7d")),
            ("-5s", None),
            ("", None),
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
        fn never_panics_on_what_looks_right(text in "[0-9]{0,24} ?[a-zµ]{0,4} ?[0-9]{0,3}[a-z]{0,3}") {
            let _ = parse(&text);
        }

        #[test]
        fn reads_back_whole_seconds(seconds in 1u32..300_000_000) {
            prop_assert_eq!(parse(&format!("{seconds}s")), Ok(Duration::from_secs(seconds.into())));
        }
    }
}
