//! The limits of one upstream: bursts, buckets, labels.
//!
//! A plain rate lets its whole count start at once; `burst` lowers that,
//! `bucket` replaces the promise per window by a token bucket. A label is
//! canonical, so two limits with one label are one limit written twice.
//! `per` and `counts` are part of it. Whether one limit is stricter than another is not judged: both hold.

use std::num::NonZeroU32;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::choice;
use super::header::field_name;
use crate::config::duration::LONGEST;
use crate::config::fault::{Fault, quote};
use crate::config::file::{self, LimitTable, Written};
use crate::config::per;
use crate::config::rate::{EXPECTED, Rate};
use crate::config::report::Report;
use crate::config::{Counts, Limit};

/// Checks the limits of an upstream.
pub(super) fn all(written: &[Spanned<file::Limit>], report: &mut Report<'_>) -> Vec<Limit> {
    let mut limits: Vec<Limit> = Vec::new();
    for entry in written {
        let Some(limit) = one(&entry.get_ref().0, entry.span(), report) else {
            continue;
        };
        if limits.iter().any(|other| other.label == limit.label) {
            let text = format!("{} is there twice, expected it once", quote(&limit.label));
            report.add(entry.span(), Fault::new(text));
            continue;
        }
        limits.push(limit);
    }
    limits
}

/// `None` only when something was reported.
fn one(table: &LimitTable, span: Range<usize>, report: &mut Report<'_>) -> Option<Limit> {
    let per = match &table.per {
        None => Some(None),
        Some(text) => {
            let read = per::parse(text.get_ref(), field_name);
            report.check(text.span(), read).map(Some)
        }
    };
    let variants = [("cost", Counts::Cost), ("requests", Counts::Requests)];
    let counts = choice(table.counts.as_ref(), &variants, report);
    let mut limit = rate(table, span, report)?;
    limit.per = per?;
    limit.counts = counts?;
    if let Some(per) = &limit.per {
        limit.label.push_str(&format!(" per {per}"));
    }
    if limit.counts == Counts::Requests {
        limit.label.push_str(" counts requests");
    }
    Some(limit)
}

/// The limit but for whom it holds and what it counts; `None` only when
/// something was reported.
fn rate(table: &LimitTable, span: Range<usize>, report: &mut Report<'_>) -> Option<Limit> {
    let Some(Written(rate)) = table.rate else {
        let path = format!("{}.rate", report.tree().path(&span));
        let fault = Fault::new(format!("is missing, expected {EXPECTED}"));
        report.missing(Some(span), path, fault);
        return None;
    };
    match (&table.burst, &table.bucket) {
        (Some(_), Some(bucket)) => {
            let fault = Fault::new("`burst` and `bucket` exclude each other, expected one of them");
            let hint = "`burst` for a count per window, `bucket` for a documented token bucket";
            report.add(bucket.span(), fault.hint(hint));
            None
        }
        (Some(burst), None) => report.check(burst.span(), with_burst(rate, burst.get_ref().0)),
        (None, Some(bucket)) => report.check(bucket.span(), with_bucket(rate, bucket.get_ref().0)),
        (None, None) => Some(limit(rate, rate.count, rate.to_string())),
    }
}

fn with_burst(rate: Rate, burst: NonZeroU32) -> Result<Limit, Fault> {
    let count = rate.count;
    if burst > count {
        let text = format!("`{burst}` is more than the count of `{rate}`, expected 1 to {count}");
        let hint = format!("for a token bucket, write bucket = {burst}");
        return Err(Fault::new(text).hint(hint));
    }
    let label = match burst {
        burst if burst == count => rate.to_string(),
        burst => format!("{rate} burst {burst}"),
    };
    Ok(limit(rate, burst, label))
}

fn with_bucket(rate: Rate, bucket: NonZeroU32) -> Result<Limit, Fault> {
    let refill = rate.period.checked_mul(bucket.get());
    let refill = refill.map_or(Duration::MAX, |time| time / rate.count.get());
    if refill > LONGEST {
        let text = format!(
            "`{bucket}` takes more than ten years to fill at `{rate}`, expected a smaller bucket"
        );
        return Err(Fault::new(text));
    }
    Ok(Limit {
        window: false,
        ..limit(rate, bucket, format!("{rate} bucket {bucket}"))
    })
}

fn limit(rate: Rate, burst: NonZeroU32, label: String) -> Limit {
    Limit {
        label,
        count: rate.count,
        period: rate.period,
        burst,
        window: true,
        per: None,
        counts: Counts::Cost,
    }
}
