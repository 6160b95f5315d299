//! From text to a [`File`](super::File), past every error.
//!
//! serde stops at its first error. Here the offending key is taken out and
//! serde starts again, until the rest can be read; so every unknown key and
//! every wrong type is found in one run, and `check` can look at the rest.
//! After an error of syntax that may have changed the meaning of everything
//! below it, what follows is not reported.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue, Deserializer, Error};

use super::home;
use super::tree::{Spot, Step, Tree, remove};
use crate::config::fault::{Fault, nearest, quote};
use crate::config::report::Report;

/// More errors than anyone wants to read; a bound for the loop.
const MOST_ERRORS: usize = 1000;

/// How errors begin that stay within their line. A message that is not known
/// here counts as one that may have swallowed what follows.
const LOCAL: [&str; 8] = [
    DUPLICATE,
    UNQUOTED,
    "key with no value",
    "invalid basic string",
    "invalid literal string",
    "invalid boolean",
    "missing escaped value",
    "unexpected key or value",
];

const DUPLICATE: &str = "duplicate key";
const NAMELESS: &str = "write `[upstream.NAME]`, with a name of your choice";
const UNQUOTED: &str = "string values must be quoted";

/// Reads what can be read of `text`, and reports what cannot.
pub(in crate::config) fn read<T: DeserializeOwned + Default>(text: &str) -> (T, Report<'_>) {
    let (root, errors) = DeTable::parse_recoverable(text);
    let broken = errors.iter().any(|error| error.message() != DUPLICATE);
    let mut report = Report::new(text, Tree::new(root.into_inner(), broken));
    let mut copy = report.tree().copy();
    for (span, fault) in syntax(text, &errors) {
        if !fault.text.starts_with(DUPLICATE) {
            remove(&mut copy, &span);
        }
        report.syntax(span, fault);
    }
    if let Some(cut) = first_spreading(&errors) {
        report.ignore_after(cut);
    }
    (deserialize(copy, &mut report), report)
}

/// The errors of syntax worth telling: the first of each line.
fn syntax(text: &str, errors: &[Error]) -> Vec<(Range<usize>, Fault)> {
    let mut found: Vec<_> = errors
        .iter()
        .map(|error| {
            let span = error.span().unwrap_or_default();
            let written = text.get(span.clone()).unwrap_or_default();
            let fault = syntax_fault(error.message(), written);
            (span, fault)
        })
        .collect();
    found.sort_by_key(|(span, _)| span.start);
    found.dedup_by(|later, first| !text[first.0.start..later.0.start].contains('\n'));
    found
}

fn syntax_fault(message: &str, written: &str) -> Fault {
    match message {
        DUPLICATE => Fault::new(format!(
            "{DUPLICATE} {}, expected each key and each table once",
            quote(written)
        )),
        message if message.starts_with(UNQUOTED) && written.is_empty() => {
            Fault::new("expected a value after `=`")
        }
        message if message.starts_with(UNQUOTED) => {
            Fault::new("a string is not quoted, expected `\"` around it")
                .hint(format!("did you mean \"{}\"?", written.escape_debug()))
        }
        message if message.starts_with("invalid boolean") => {
            Fault::new("this is not a boolean, expected `true`, `false`, or a string in quotes")
        }
        message => Fault::new(message),
    }
}

/// Where the first error stands after which the structure is in doubt.
fn first_spreading(errors: &[Error]) -> Option<usize> {
    errors
        .iter()
        .filter(|error| !LOCAL.iter().any(|local| error.message().starts_with(local)))
        .map(|error| error.span().unwrap_or_default().start)
        .min()
}

/// Takes out what serde refuses until it refuses nothing.
fn deserialize<T: DeserializeOwned + Default>(
    mut table: DeTable<'_>,
    report: &mut Report<'_>,
) -> T {
    for _ in 0..MOST_ERRORS {
        let root = toml::Spanned::new(0..0, table.clone());
        let error = match T::deserialize(Deserializer::from(root)) {
            Ok(file) => return file,
            Err(error) => error,
        };
        let span = error.span().unwrap_or_default();
        let (fault, meant) = match report.tree().spot(&span) {
            Some(spot) => explain(error.message(), &spot),
            None => (Fault::parse(error.message()), None),
        };
        report.lose(&span, fault, meant);
        if !remove(&mut table, &span) {
            break;
        }
    }
    T::default()
}

/// serde's message in our words, and the key that was meant by an unknown one.
fn explain<'m>(message: &'m str, spot: &Spot<'_>) -> (Fault, Option<&'m str>) {
    let Some((found, expected)) = message.rsplit_once(", expected ") else {
        return (Fault::parse(message), None);
    };
    if spot.is_key && found.starts_with("unknown field ") {
        let key = spot.name();
        let fault = Fault::new(format!("unknown key {}, expected {expected}", quote(key)));
        if let Some(home) = home::hint(spot) {
            return (fault.hint(home), None);
        }
        let meant = nearest(key, expected.split('`').skip(1).step_by(2));
        return (fault.meant(meant), meant);
    }
    // serde takes an array for a struct whose fields have no names.
    let unnamed = is_nameless(&spot.steps) && !spot.value.is_table();
    if found.starts_with("invalid type: ") || unnamed && !spot.is_key {
        return (wrong_type(spot, expected), None);
    }
    (Fault::parse(message), None)
}

fn wrong_type(spot: &Spot<'_>, expected: &str) -> Fault {
    let expected = match expected {
        "a boolean" => "`true` or `false`",
        "a map" => "a table",
        "a sequence" => "an array",
        other if other.starts_with("struct ") => "a table",
        other => other,
    };
    let (shown, kind) = match spot.value {
        DeValue::String(text) => (Some(quote(text)), "a string"),
        DeValue::Integer(number) => (Some(format!("`{number}`")), "a whole number"),
        DeValue::Float(number) => (Some(format!("`{number}`")), "a number with a fraction"),
        DeValue::Boolean(value) => (Some(format!("`{value}`")), "a boolean"),
        DeValue::Datetime(time) => (Some(format!("`{time}`")), "a date or time"),
        DeValue::Array(_) => (None, "an array"),
        DeValue::Table(_) => (None, "a table"),
    };
    let Some(shown) = shown.filter(|_| !spot.is_secret()) else {
        let fault = Fault::new(format!("this is {kind}, expected {expected}"));
        return match spot.value {
            _ if is_nameless(&spot.steps) => fault.hint(NAMELESS),
            DeValue::Table(_) if expected == "an array" => fault.hint("did you mean [{ ... }]?"),
            _ => fault,
        };
    };
    // It would have been read, were it smaller.
    if matches!(spot.value, DeValue::Integer(_))
        && expected.starts_with("a whole number")
        && !shown.starts_with("`-")
    {
        let most = u32::MAX;
        return Fault::new(format!("{shown} is too large, expected at most {most}"));
    }
    let fault = Fault::new(format!("{shown} is {kind}, expected {expected}"));
    if is_nameless(&spot.steps) {
        return fault.hint(NAMELESS);
    }
    match spot.value {
        DeValue::String(text) if expected == "an array" => {
            fault.hint(format!("did you mean [\"{}\"]?", text.escape_debug()))
        }
        DeValue::String(text) => {
            let is_boolean = matches!(&**text, "true" | "false");
            fault.meant(is_boolean.then_some(text))
        }
        DeValue::Integer(status) if expected == "an array" && spot.name() == "signals" => {
            fault.hint(format!("did you mean [{status}]?"))
        }
        DeValue::Boolean(false) if takes_off(spot, expected) => fault.hint("did you mean \"off\"?"),
        _ => fault,
    }
}

/// Whether the setting is switched off by a word.
fn takes_off(spot: &Spot<'_>, expected: &str) -> bool {
    expected.contains("`off`") || ["admin", "dir", "filter"].contains(&spot.name())
}

/// Whether something else stands where each upstream has its table.
fn is_nameless(steps: &[Step]) -> bool {
    matches!(steps, [Step::Key(root), Step::Key(_)] if root == "upstream")
}
