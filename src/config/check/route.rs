//! Which requests an upstream takes, and that no two take the same.
//!
//! One upstream may go without a `match`: it takes what the others leave.
//! Which of two overlapping routes wins is `proxy`'s business; two equal ones
//! could never both win, so they are refused.

use std::ops::Range;

use toml::Spanned;

use super::host;
use crate::config::Route;
use crate::config::fault::{Fault, quote};
use crate::config::file::Match;
use crate::config::report::Report;

/// The route of one upstream, to be compared with the others.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    /// The path of its table, such as `upstream.github`.
    pub(super) path: &'a str,
    /// The place of its `match`, or of its table when it has none.
    pub(super) at: Range<usize>,
    /// `None` when it could not be read.
    pub(super) route: Option<Route>,
}

/// Checks one `match`; `None` only when something was reported.
pub(super) fn one(
    written: Option<&Spanned<Match>>,
    path: &str,
    report: &mut Report<'_>,
) -> Option<Route> {
    let path = format!("{path}.match");
    let Some(written) = written else {
        return (!report.is_lost(&path)).then(Route::default);
    };
    let table = written.get_ref();
    let lost = ["host", "prefix"].map(|key| report.is_lost(&format!("{path}.{key}")));
    if table.host.is_none() && table.prefix.is_none() && lost == [false, false] {
        let fault = Fault::new("matches nothing in particular, expected `host`, `prefix` or both");
        report.add(written.span(), fault);
        return None;
    }
    if let (Some(keep), None, [_, false]) = (&table.keep_prefix, &table.prefix, lost) {
        report.add(keep.span(), Fault::new("there is no `prefix` to keep"));
    }
    let host = text(table.host.as_ref(), request_host, report);
    let prefix = text(table.prefix.as_ref(), prefix, report);
    if lost != [false, false] {
        return None;
    }
    Some(Route {
        host: host?,
        prefix: prefix?,
        keep_prefix: table
            .keep_prefix
            .as_ref()
            .is_some_and(|keep| *keep.get_ref()),
    })
}

/// Compares the routes of all upstreams.
pub(super) fn apart(claims: &[Claim<'_>], report: &mut Report<'_>) {
    for (index, claim) in claims.iter().enumerate() {
        let Some(route) = &claim.route else {
            continue;
        };
        let same = claims[..index].iter().find(|other| {
            let other = other.route.as_ref();
            other.is_some_and(|other| other.host == route.host && other.prefix == route.prefix)
        });
        let Some(same) = same else {
            continue;
        };
        let fault = if *route == Route::default() {
            Fault::new(format!(
                "`{}` and `{}` have no `match`, expected at most one without",
                same.path, claim.path
            ))
            .hint("add one such as match = { prefix = \"/api\" }")
        } else {
            Fault::new(format!(
                "`{}` and `{}` match the same requests, expected them to differ in `host` or `prefix`",
                same.path, claim.path
            ))
        };
        report.add(claim.at.clone(), fault);
    }
}

/// `Some(None)` when absent, `None` when wrong.
fn text(
    written: Option<&Spanned<String>>,
    parse: fn(&str) -> Result<String, Fault>,
    report: &mut Report<'_>,
) -> Option<Option<String>> {
    match written {
        None => Some(None),
        Some(text) => report.check(text.span(), parse(text.get_ref())).map(Some),
    }
}

pub(super) fn request_host(text: &str) -> Result<String, Fault> {
    if let Some((host, port)) = text.rsplit_once(':')
        && port.parse::<u16>().is_ok()
        && let Ok(host) = host::parse(host)
    {
        let fault = Fault::new(format!("{} has a port, expected only a host", quote(text)));
        return Err(fault.meant(Some(host)));
    }
    host::parse(text)
}

pub(super) fn prefix(text: &str) -> Result<String, Fault> {
    let wrong = |what: &str| Fault::new(format!("{} {what}", quote(text)));
    let good = |text: String| Some(text).filter(|text| prefix(text).is_ok());
    if text == "/" {
        return Err(wrong("takes every path, expected a longer one")
            .hint("leave `prefix` out to take every path"));
    }
    if !text.starts_with('/') {
        return Err(wrong("does not start with `/`").meant(good(format!("/{text}"))));
    }
    if text.ends_with('/') {
        let near = good(text.trim_end_matches('/').to_owned());
        return Err(wrong("ends with `/`, expected no slash at the end").meant(near));
    }
    if !is_path(text) {
        return Err(wrong(
            "is not a path, expected only characters that a path may have, others as `%XX`",
        ));
    }
    Ok(text.to_owned())
}

/// Whether `text` has only the characters of RFC 3986, section 3.3.
pub(super) fn is_path(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let good = match byte {
            b'%' => [bytes.next(), bytes.next()]
                .iter()
                .all(|digit| digit.is_some_and(|digit| digit.is_ascii_hexdigit())),
            byte => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte),
        };
        if !good {
            return false;
        }
    }
    !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_path_without_a_slash_at_its_end() {
        for good in ["/a", "/a/b", "/a%20b", "/~x:@y"] {
            assert_eq!(prefix(good), Ok(good.to_owned()));
        }
        for bad in [
            "", "/", "a", "/a/", "/a?b", "/a#b", "/a b", "/%2", "/ü", "//",
        ] {
            assert!(prefix(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_host_comes_without_port_and_in_lower_case() {
        assert_eq!(request_host("GitHub.local"), Ok("github.local".to_owned()));
        assert_eq!(request_host("[::1]"), Ok("[::1]".to_owned()));
        let fault = request_host("github.local:8080").unwrap_err();
        assert_eq!(fault.hint.unwrap(), "did you mean `github.local`?");
    }
}
