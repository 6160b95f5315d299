//! How an API says what is left: a dialect by name, or its fields.
//!
//! The unit of a reset is never guessed from its size, so it must be written.

use http::HeaderName;
use toml::Spanned;

use crate::config::fault::{Fault, nearest, quote};
use crate::config::file;
use crate::config::report::Report;
use crate::config::{Dialect, Fields, Unit};

const NAMES: [(&str, Dialect); 10] = [
    ("none", Dialect::None),
    ("retry-after", Dialect::RetryAfter),
    ("ietf", Dialect::Ietf),
    ("github", Dialect::Github),
    ("openai", Dialect::Openai),
    ("anthropic", Dialect::Anthropic),
    ("discord", Dialect::Discord),
    ("shopify", Dialect::Shopify),
    ("reddit", Dialect::Reddit),
    ("hubspot", Dialect::Hubspot),
];

const UNITS: [(&str, Unit); 6] = [
    ("seconds", Unit::Seconds),
    ("milliseconds", Unit::Milliseconds),
    ("epoch_seconds", Unit::EpochSeconds),
    ("epoch_milliseconds", Unit::EpochMilliseconds),
    ("rfc3339", Unit::Rfc3339),
    ("duration", Unit::Duration),
];

/// Checks the dialect of one upstream, which is `default` when absent; `None`
/// only when something was reported.
pub(super) fn one(
    written: Option<&Spanned<file::Dialect>>,
    default: &Dialect,
    report: &mut Report<'_>,
) -> Option<Dialect> {
    let Some(written) = written else {
        return Some(default.clone());
    };
    match written.get_ref() {
        file::Dialect::Named(name) => report.check(written.span(), pick(name, &NAMES)),
        file::Dialect::Fields(table) => fields(table, written, report).map(Dialect::Fields),
    }
}

fn fields(
    table: &file::Fields,
    written: &Spanned<file::Dialect>,
    report: &mut Report<'_>,
) -> Option<Fields> {
    let path = report.tree().path(&written.span());
    let mut missing = |keys: &[&str], expected: &str| {
        if keys
            .iter()
            .all(|key| !report.is_lost(&format!("{path}.{key}")))
        {
            let fault = Fault::new(format!("is missing, expected {expected}"));
            let key = keys.first().copied().unwrap_or_default();
            report.missing(Some(written.span()), format!("{path}.{key}"), fault);
        }
    };
    if table.remaining.is_none() && (table.used.is_none() || table.limit.is_none()) {
        let keys = ["remaining", "used", "limit"];
        missing(
            &keys,
            "the field that says what is left, or `used` and `limit`",
        );
    }
    if table.reset.is_none() {
        missing(
            &["reset"],
            "the field that says when the budget is whole again",
        );
    }
    if table.unit.is_none() {
        missing(&["unit"], &names(&UNITS));
    }
    let remaining = optional(table.remaining.as_ref(), report);
    let used = optional(table.used.as_ref(), report);
    let limit = optional(table.limit.as_ref(), report);
    let reset = optional(table.reset.as_ref(), report);
    let unit = table.unit.as_ref();
    let unit = unit.and_then(|unit| report.check(unit.span(), pick(unit.get_ref(), &UNITS)));
    let (remaining, used, limit) = (remaining?, used?, limit?);
    if remaining.is_none() && (used.is_none() || limit.is_none()) {
        return None;
    }
    Some(Fields {
        remaining,
        used,
        limit,
        reset: reset??,
        unit: unit?,
    })
}

/// `Some(None)` when absent, `None` when wrong.
fn optional(
    written: Option<&Spanned<String>>,
    report: &mut Report<'_>,
) -> Option<Option<HeaderName>> {
    match written {
        None => Some(None),
        Some(name) => report.check(name.span(), field(name.get_ref())).map(Some),
    }
}

/// Reads the name of a header field.
pub(super) fn field(name: &str) -> Result<HeaderName, Fault> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_error| {
        Fault::new(format!(
            "{} is not a field name, expected letters, digits and `-`",
            quote(name)
        ))
    })
}

/// The variant of that name.
fn pick<T: Clone>(name: &str, variants: &[(&str, T)]) -> Result<T, Fault> {
    let found = variants.iter().find(|(variant, _)| *variant == name);
    found.map(|(_, variant)| variant.clone()).ok_or_else(|| {
        let text = format!("{} is not known, expected {}", quote(name), names(variants));
        Fault::new(text).meant(nearest(name, variants.iter().map(|(variant, _)| *variant)))
    })
}

/// Name of a dialect that is built in; `None` for fields that a file names.
pub(in crate::config) fn name(dialect: &Dialect) -> Option<&'static str> {
    let found = NAMES.iter().find(|(_, variant)| variant == dialect);
    found.map(|&(name, _)| name)
}

fn names<T>(variants: &[(&str, T)]) -> String {
    let names: Vec<_> = variants
        .iter()
        .map(|(name, _)| format!("`{name}`"))
        .collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.join(""),
    }
}
