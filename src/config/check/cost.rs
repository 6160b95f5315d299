//! What requests cost, and that every cost can be paid.
//!
//! The first rule that applies decides, so a rule behind one that takes every
//! request is an error, and so is a cost that a limit could never let through.
//! How a request is compared with a rule is `lane/charge`'s business.

use std::num::NonZeroU32;

use toml::Spanned;

use super::header::field_name;
use super::route::is_path;
use crate::config::fault::{Fault, quote};
use crate::config::file;
use crate::config::report::Report;
use crate::config::{CostRule, Counts, Limit};

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Checks the costs of an upstream; `limits` are its own, `None` if some of them
/// are not known.
pub(super) fn all(
    written: &[Spanned<file::Cost>],
    limits: Option<&[Limit]>,
    report: &mut Report<'_>,
) -> Vec<CostRule> {
    let counting = limits.map(|limits| smallest(limits));
    if let (Some(first), Some(None)) = (written.first(), counting) {
        let fault = Fault::new("no limit counts costs, expected one in `limits`");
        report.add(first.span(), fault);
    }
    let mut rules = Vec::new();
    let mut all_taken = false;
    for entry in written {
        if all_taken {
            let fault = Fault::new("never applies, since the rule before it takes every request");
            report.add(entry.span(), fault);
        }
        all_taken = takes_all(entry.get_ref());
        rules.extend(one(entry, counting.flatten(), report));
    }
    rules
}

/// Of the limits that count costs the one that lets through the least, and how
/// much that is.
fn smallest(limits: &[Limit]) -> Option<(&Limit, NonZeroU32)> {
    let counting = limits.iter().filter(|limit| limit.counts == Counts::Cost);
    counting
        .map(|limit| (limit, limit.most()))
        .min_by_key(|(_, most)| *most)
}

fn takes_all(cost: &file::Cost) -> bool {
    let any_path = cost
        .path
        .as_ref()
        .is_none_or(|path| path.get_ref() == "/**");
    cost.cost.is_some() && cost.header.is_none() && cost.method.is_none() && any_path
}

/// `None` only when something was reported.
fn one(
    entry: &Spanned<file::Cost>,
    smallest: Option<(&Limit, NonZeroU32)>,
    report: &mut Report<'_>,
) -> Option<CostRule> {
    let table = entry.get_ref();
    let path = report.tree().path(&entry.span());
    let lost = ["cost", "header"].map(|key| report.is_lost(&format!("{path}.{key}")));
    let (cost, header) = (&table.cost, &table.header);
    let others = table.method.is_some() || table.path.is_some() || cost.is_some();
    match (cost, header) {
        (_, Some(header)) if others => {
            let fault = "`header` stands alone, expected no `method`, `path` or `cost` beside it";
            report.add(header.span(), Fault::new(fault));
            None
        }
        (_, Some(header)) => {
            let name = report.check(header.span(), field_name(header.get_ref()));
            name.map(CostRule::Header)
        }
        (None, None) if lost == [false, false] => {
            let fault = Fault::new("says no cost, expected `cost` or `header`");
            report.add(entry.span(), fault);
            None
        }
        (None, None) => None,
        (Some(cost), None) => {
            let method = optional(table.method.as_ref(), method, report);
            let path = optional(table.path.as_ref(), pattern, report);
            let number = cost.get_ref().0;
            report.check(cost.span(), payable(number, smallest));
            Some(CostRule::Fixed {
                method: method?,
                path: path?,
                cost: number,
            })
        }
    }
}

/// `Some(None)` when absent, `None` when wrong.
fn optional(
    written: Option<&Spanned<String>>,
    parse: fn(&str) -> Result<String, Fault>,
    report: &mut Report<'_>,
) -> Option<Option<String>> {
    match written {
        None => Some(None),
        Some(text) => report.check(text.span(), parse(text.get_ref())).map(Some),
    }
}

fn payable(cost: NonZeroU32, smallest: Option<(&Limit, NonZeroU32)>) -> Result<(), Fault> {
    match smallest {
        Some((limit, most)) if cost > most => Err(Fault::new(format!(
            "`{cost}` is more than {} ever lets through at once, expected at most {most}",
            quote(&limit.label)
        ))),
        _ => Ok(()),
    }
}

/// A method is a token, and its case matters (RFC 9110, section 9.1).
pub(super) fn method(text: &str) -> Result<String, Fault> {
    let meant = METHODS
        .into_iter()
        .find(|known| text.eq_ignore_ascii_case(known));
    if meant.is_none_or(|known| known == text) && http::Method::from_bytes(text.as_bytes()).is_ok()
    {
        return Ok(text.to_owned());
    }
    let fault = format!(
        "{} is not a method, expected one such as `POST`",
        quote(text)
    );
    Err(Fault::new(fault).meant(meant))
}

/// A path whose segments are literal, `*`, or at its end `**`.
pub(super) fn pattern(text: &str) -> Result<String, Fault> {
    let wrong = |what: &str| Err(Fault::new(format!("{} {what}", quote(text))));
    let Some(segments) = text.strip_prefix('/') else {
        return wrong("does not start with `/`");
    };
    if text.contains(['?', '#']) {
        return wrong("is more than a path, expected no query: it is not looked at");
    }
    if !is_path(text) {
        return wrong(
            "is not a path, expected only characters that a path may have, others as `%XX`",
        );
    }
    let mut segments = segments.split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "**" if segments.peek().is_some() => {
                return wrong("has `**` in its middle, expected it only at the end");
            }
            "*" | "**" => {}
            segment if segment.contains('*') => {
                return wrong("has a `*` inside a segment, which stands for a whole one");
            }
            _ => {}
        }
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_path_of_whole_segments() {
        for good in ["/", "/v1/batch", "/v1/*/x", "/v1/**", "/**", "/a/"] {
            assert_eq!(pattern(good), Ok(good.to_owned()));
        }
        for bad in ["", "v1", "/a?b", "/a b", "/a*", "/**/b", "/***"] {
            assert!(pattern(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_method_is_written_as_it_is_sent() {
        assert_eq!(method("POST"), Ok("POST".to_owned()));
        assert_eq!(method("PURGE"), Ok("PURGE".to_owned()));
        let fault = method("post").unwrap_err();
        assert_eq!(fault.hint.unwrap(), "did you mean `POST`?");
        assert!(method("P OST").is_err());
    }
}
