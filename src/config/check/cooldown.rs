//! `[upstream.NAME.cooldown]`: which answers pause a lane, and for how long.
//!
//! A signal names a status; a status that is no error must come with a field
//! or a text of the body, or every good answer would pause the lane.

use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;

use super::dialect::field;
use super::{choice, time};
use crate::config::duration::DAY;
use crate::config::fault::Fault;
use crate::config::file::{self, Placed, SignalTable};
use crate::config::report::Report;
use crate::config::{Cooldown, Signal};

/// The longest text that is looked for in a body, in bytes.
const LONGEST_TEXT: usize = 256;

/// What pauses, and whether that is a key alone.
const SCOPES: [(&str, bool); 2] = [("key", true), ("lane", false)];

/// Checks the cooldown of the upstream at `path`; what is absent is taken from
/// `default`. `None` only when something was reported.
pub(super) fn one(
    written: &file::Cooldown,
    default: &Cooldown,
    path: &str,
    report: &mut Report<'_>,
) -> Option<Cooldown> {
    let signals = match &written.signals {
        None => Some(Arc::clone(&default.signals)),
        Some(list) => signals(list.get_ref(), report),
    };
    let or =
        |key: &Placed<Duration>, default| time(key.as_ref().map(|key| *key.get_ref()), default);
    let first = or(&written.first, default.first);
    let longest = or(&written.longest, default.longest);
    if let Some(key) = written.longest.as_ref().filter(|_| longest > DAY) {
        let text = "is longer than any pause that is kept, expected at most `1d`";
        report.add(key.span(), Fault::new(text));
    }
    let lost = ["first", "longest"].map(|key| report.is_lost(&format!("{path}.cooldown.{key}")));
    let at = written.first.as_ref().or(written.longest.as_ref());
    if let Some(at) = at.filter(|_| first > longest && lost == [false, false]) {
        let text = "`first` is longer than `longest`, expected at most as long";
        report.add(at.span(), Fault::new(text));
    }
    let keyed = choice(written.per.as_ref(), &SCOPES, report);
    Some(Cooldown {
        signals: signals?,
        first,
        longest,
        keyed: keyed?,
    })
}

fn signals(list: &[Spanned<file::Signal>], report: &mut Report<'_>) -> Option<Arc<[Signal]>> {
    let checked: Vec<_> = list
        .iter()
        .map(|entry| signal(&entry.get_ref().0, entry, report))
        .collect();
    checked.into_iter().collect()
}

/// `None` only when something was reported.
fn signal(
    table: &SignalTable,
    entry: &Spanned<file::Signal>,
    report: &mut Report<'_>,
) -> Option<Signal> {
    // `Some(None)` when absent, `None` when wrong.
    let header = match &table.header {
        None => Some(None),
        Some(name) => report.check(name.span(), field(name.get_ref())).map(Some),
    };
    let body = match &table.body {
        None => Some(None),
        Some(text) => report.check(text.span(), body(text.get_ref())).map(Some),
    };
    let Some(file::Status(status)) = table.status else {
        let path = format!("{}.status", report.tree().path(&entry.span()));
        let fault = Fault::new("is missing, expected a status such as `429`");
        report.missing(Some(entry.span()), path, fault);
        return None;
    };
    let bare = table.header.is_none() && table.body.is_none();
    if bare && !status.is_client_error() && !status.is_server_error() {
        let text = format!("`{}` is not an error by itself, expected", status.as_u16());
        let fault = Fault::new(format!("{text} `header` or `body` beside it"));
        report.add(entry.span(), fault);
        return None;
    }
    if let (Some(equals), None) = (&table.equals, &table.header) {
        let fault = Fault::new("there is no `header` to compare, expected its name beside it");
        report.add(equals.span(), fault);
        return None;
    }
    Some(Signal {
        status,
        header: header?,
        equals: table.equals.as_ref().map(|text| text.get_ref().clone()),
        body: body?,
    })
}

fn body(text: &str) -> Result<String, Fault> {
    match text.len() {
        0 => Err(Fault::new("is empty, expected a text that the body holds")),
        length if length > LONGEST_TEXT => Err(Fault::new(format!(
            "is too long, expected at most {LONGEST_TEXT} bytes"
        ))),
        _ => Ok(text.to_owned()),
    }
}
