//! Limits per key, and whether the API can see the keys that are told apart.
//!
//! A key is taken from what is sent to the API, since that is what it counts by.
//! So a field that is the same on every request makes all of them one key, and
//! so does one that is never sent; both are slips. Presets have no such limits.

use toml::Spanned;

use super::header::field_name;
use crate::config::fault::{Fault, quote};
use crate::config::file::{self, Header, Named};
use crate::config::report::Report;
use crate::config::{Forwarded, Per, per};

/// Of the fields that tell where a request came from, those that `"set"` gives a
/// value that differs between callers.
const TELLING: [&str; 3] = ["forwarded", "x-forwarded-for", "x-forwarded-host"];

/// Checks the keys of limits as they are `written`.
pub(super) fn all(
    written: &[Spanned<file::Limit>],
    headers: &Named<Header>,
    forwarded: Forwarded,
    report: &mut Report<'_>,
) {
    let texts = written.iter().filter_map(|entry| {
        let per = &entry.get_ref().0.per;
        per.as_ref()
    });
    for text in texts {
        // What cannot be read was reported.
        let per = per::parse(text.get_ref(), field_name).ok();
        if let Some(fault) = per.and_then(|per| fault(&per, headers, forwarded)) {
            report.add(text.span(), fault);
        }
    }
}

fn fault(per: &Per, headers: &Named<Header>, forwarded: Forwarded) -> Option<Fault> {
    let field = match per {
        Per::Header(name) => name.as_str(),
        Per::Cookie(_) => "cookie",
        Per::Address | Per::Segment(_) => return None,
    };
    let mut set = headers.keys().map(Spanned::get_ref);
    if set.any(|name| name.eq_ignore_ascii_case(field)) {
        let text = format!(
            "{} is set by `headers`, which makes all requests one key",
            quote(field)
        );
        return Some(Fault::new(text).hint("without `per` the limit means the same"));
    }
    let tells = matches!(field, "forwarded" | "x-real-ip") || field.starts_with("x-forwarded-");
    let alike = match forwarded {
        Forwarded::Keep => false,
        Forwarded::Strip => tells,
        Forwarded::Set => tells && !TELLING.contains(&field),
    };
    alike.then(|| {
        let text = format!(
            "{} is not passed on, which makes all requests one key",
            quote(field)
        );
        let hint = "forwarded = \"keep\" passes it on; per = \"address\" tells callers apart by their connections";
        Fault::new(text).hint(hint)
    })
}
