//! Log filters as the file and the command line write them: `info`, or
//! `warn,pacegate=debug`.
//!
//! The library that applies them takes a word that is no level for the name of
//! a part of the program, and then logs nothing else: a slip of the finger would
//! be silent. So a part always comes with its level here.

use super::fault::{Fault, nearest, quote};

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

const EXPECTED: &str =
    "`off`, `error`, `warn`, `info`, `debug` or `trace`, or `PART=LEVEL` such as `pacegate=debug`";

/// Checks the filter that the command line or the environment gives.
///
/// # Errors
///
/// What is wrong with it, ready to print.
pub fn check(text: &str) -> Result<(), String> {
    parse(text).map_err(|fault| format!("pacegate: --log or PACEGATE_LOG: {fault}"))
}

/// Checks each of the entries between commas.
pub(super) fn parse(text: &str) -> Result<(), Fault> {
    if text.trim().is_empty() {
        let fault = Fault::new("is empty, expected a filter such as `info`");
        return Err(fault.hint("to log nothing, write \"off\""));
    }
    text.split(',').try_for_each(|entry| one(text, entry))
}

fn one(text: &str, entry: &str) -> Result<(), Fault> {
    let is_level = |word: &str| LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level));
    let wrong = |what: &str, expected: &str| {
        let (entry, text) = (quote(entry), quote(text));
        let place = match entry == text {
            true => String::new(),
            false => format!(" in {text}"),
        };
        Fault::new(format!("{entry}{place} {what}, expected {expected}"))
    };
    if entry.trim().is_empty() {
        let fault = format!("{} has an empty entry, expected {EXPECTED}", quote(text));
        return Err(Fault::new(fault));
    }
    let Some((part, level)) = entry.split_once('=') else {
        return match is_level(entry) {
            true => Ok(()),
            false => {
                let meant = suggest(entry.trim(), text.split(',').any(is_level));
                Err(wrong("is not a level", EXPECTED).meant(meant))
            }
        };
    };
    if !is_part(part) {
        let fault = wrong(
            "names no part of the program",
            "one such as `pacegate=debug`",
        );
        return Err(fault);
    }
    if !is_level(level) {
        let levels = LEVELS.map(|level| format!("`{level}`")).join(", ");
        let near = nearest(level.trim(), LEVELS).map(|level| format!("{part}={level}"));
        return Err(wrong("has no level behind `=`", &levels).meant(near));
    }
    Ok(())
}

/// What was probably meant by a word that is no level. One that names no part for
/// certain stands for a level, unless that is there: as a part it would log nothing
/// of ours.
fn suggest(word: &str, has_level: bool) -> Option<String> {
    if let Some(level) = nearest(word, LEVELS) {
        return Some(level.to_owned());
    }
    let names_part = has_level || word == "pacegate" || word.contains("::");
    is_part(word).then(|| match names_part {
        true => format!("{word}=debug"),
        false => "debug".to_owned(),
    })
}

/// Whether `text` may be the path of a module.
fn is_part(text: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-');
    !text.is_empty() && text.chars().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_levels_and_parts_with_levels() {
        for good in [
            "info",
            "OFF",
            "warn,pacegate=debug",
            "hyper::proto=trace,error",
        ] {
            assert_eq!(parse(good), Ok(()), "{good}");
        }
    }

    /// Each was accepted, and nothing was logged.
    #[test]
    fn refuses_what_would_silence_everything() {
        for (bad, hint) in [
            ("inof", Some("info")),
            ("info, debug", Some("debug")),
            ("blah", Some("debug")),
            ("verbose", Some("debug")),
            ("so much", None),
            ("pacegate", Some("pacegate=debug")),
            ("warn,hyper::proto", Some("hyper::proto=debug")),
            ("pacegate=", None),
            ("pacegate=debgu", Some("pacegate=debug")),
            ("pacegate=a=info", Some("pacegate=info")),
            ("=info", None),
            ("foo,,=", Some("debug")),
            ("info,", None),
        ] {
            let fault = parse(bad).unwrap_err();
            let hint = hint.map(|hint| format!("did you mean `{hint}`?"));
            assert_eq!(fault.hint, hint, "{bad}");
        }
        assert!(parse(" ").is_err());
        let fault = parse("verbose").unwrap_err();
        for level in LEVELS {
            assert!(fault.text.contains(&format!("`{level}`")), "{fault}");
        }
    }
}
