//! Sizes as the file writes them: `512B`, `64KiB`, `64KB`, `1MiB`.
//!
//! `KiB` counts by 1024 and `KB` by 1000, always; a bare `K` could be either
//! and is refused. Bounds belong to the setting, so `check` looks at them.

use super::duration::split_digits;
use super::fault::{Fault, quote};

/// The forms that are accepted, for messages.
pub(super) const EXPECTED: &str = "a size such as `512B`, `64KiB` or `1MiB`";

const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads a size in bytes.
///
/// # Errors
///
/// What is wrong with the text, and what was probably meant.
pub(super) fn parse(text: &str) -> Result<u64, Fault> {
    let trimmed = text.trim();
    let (digits, tail) = split_digits(trimmed);
    let name = tail.trim_start();
    let wrong = || {
        Fault::new(format!(
            "{} is not a size, expected {EXPECTED}",
            quote(text)
        ))
    };
    if digits.is_empty() {
        return Err(wrong());
    }
    if let ("K" | "k" | "M" | "G" | "T", letter) = (name, name.to_uppercase()) {
        return Err(ambiguous(text, digits, &letter));
    }
    let Some(unit) = unit(name) else {
        return Err(wrong().meant(suggest(digits, name)));
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(unit))
        .ok_or_else(|| Fault::new(format!("{} is too large for a size", quote(text))))
}

/// `bytes` with the largest unit that is exact.
pub(super) fn show(bytes: u64) -> String {
    UNITS
        .iter()
        .find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .map_or_else(
            || format!("{bytes}B"),
            |(name, unit)| format!("{}{name}", bytes / unit),
        )
}

fn unit(name: &str) -> Option<u64> {
    UNITS
        .iter()
        .find(|(unit, _)| *unit == name)
        .map(|&(_, bytes)| bytes)
}

fn ambiguous(text: &str, digits: &str, letter: &str) -> Fault {
    let (decimal, binary) = (format!("{letter}B"), format!("{letter}iB"));
    let bytes = |name: &str| {
        let count = digits.parse::<u64>().ok();
        let count = count
            .zip(unit(name))
            .and_then(|(n, unit)| n.checked_mul(unit));
        count.map_or_else(String::new, |count| format!(" ({count} bytes)"))
    };
    Fault::new(format!(
        "{} is ambiguous, expected `{digits}{decimal}`{} or `{digits}{binary}`{}",
        quote(text),
        bytes(&decimal),
        bytes(&binary),
    ))
}

fn suggest(digits: &str, name: &str) -> Option<String> {
    if name.is_empty() {
        return digits.parse().ok().map(show);
    }
    UNITS
        .iter()
        .find(|(unit, _)| unit.eq_ignore_ascii_case(name))
        .map(|(unit, _)| format!("{digits}{unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tells_powers_of_1024_from_powers_of_1000() {
        for (text, bytes) in [
            ("0B", 0),
            ("512B", 512),
            ("64KiB", 65_536),
            ("64KB", 64_000),
            ("1MiB", 1_048_576),
            ("1 GiB", 1_073_741_824),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn says_what_was_probably_meant() {
        for (text, hint) in [
            ("65536", Some("64KiB")),
            ("1000", Some("1KB")),
            ("64kb", Some("64KB")),
            ("64kib", Some("64KiB")),
            ("big", None),
            ("1.5MiB", None),
            ("64X", None),
        ] {
            let hint = hint.map(|hint| format!("did you mean `{hint}`?"));
            assert_eq!(parse(text).unwrap_err().hint, hint, "{text}");
        }
    }

    #[test]
    fn a_bare_letter_could_be_either() {
        let fault = parse("64K").unwrap_err();
        assert_eq!(
            fault.text,
            "`64K` is ambiguous, expected `64KB` (64000 bytes) or `64KiB` (65536 bytes)"
        );
    }

    proptest! {
        #[test]
        fn never_panics(text in ".*") {
            let _ = parse(&text);
        }

        #[test]
        fn never_panics_on_what_looks_right(text in "[0-9]{0,24} ?[KMGTkmgtiB]{0,3}") {
            let _ = parse(&text);
        }

        #[test]
        fn reads_back_what_it_shows(bytes: u64) {
            prop_assert_eq!(parse(&show(bytes)), Ok(bytes));
        }
    }
}
