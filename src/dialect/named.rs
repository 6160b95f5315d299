//! The fields of the APIs whose dialects are built in.
//!
//! Only what their documentation says of them is used. HubSpot's budget per day
//! is not read: no field tells when it ends.

use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, HeaderName};

use super::{Budget, Counts, budget, name, read, text, value};
use crate::config::{Fields, Unit};

/// One budget of a dialect.
#[derive(Debug)]
pub(super) struct Entry {
    fields: Fields,
    counts: Counts,
    /// The field that says which of several budgets this is.
    which: Option<HeaderName>,
    /// The field that says how much it is in all, of one that grows back by and
    /// by.
    grows_to: Option<HeaderName>,
}

impl Entry {
    pub(super) fn read(&self, headers: &HeaderMap, now: SystemTime) -> Option<Budget> {
        let told = read(&self.fields, headers, now)?;
        let which = self.which.as_ref();
        let name = match which.and_then(|which| text(headers, which)) {
            Some(which) => name((told.name, which)),
            None => told.name,
        };
        let budget = budget(name, told.remaining, told.reset, self.counts)?;
        let limit = self.grows_to.as_ref();
        let limit = limit.and_then(|limit| value::whole(text(headers, limit)?));
        Some(match limit {
            Some(limit) => budget.growing_to(limit),
            None => budget,
        })
    }
}

pub(super) static GITHUB: [Entry; 1] = [several(
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    Unit::EpochSeconds,
    "x-ratelimit-resource",
)];

pub(super) static OPENAI: [Entry; 2] = [
    growing(
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
        Unit::Duration,
        "x-ratelimit-limit-requests",
    ),
    tokens(
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-tokens",
        Unit::Duration,
    ),
];

pub(super) static ANTHROPIC: [Entry; 4] = [
    growing(
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-requests-reset",
        Unit::Rfc3339,
        "anthropic-ratelimit-requests-limit",
    ),
    tokens(
        "anthropic-ratelimit-tokens-remaining",
        "anthropic-ratelimit-tokens-reset",
        Unit::Rfc3339,
    ),
    tokens(
        "anthropic-ratelimit-input-tokens-remaining",
        "anthropic-ratelimit-input-tokens-reset",
        Unit::Rfc3339,
    ),
    tokens(
        "anthropic-ratelimit-output-tokens-remaining",
        "anthropic-ratelimit-output-tokens-reset",
        Unit::Rfc3339,
    ),
];

pub(super) static DISCORD: [Entry; 1] = [several(
    "x-ratelimit-remaining",
    "x-ratelimit-reset-after",
    Unit::Seconds,
    "x-ratelimit-bucket",
)];

pub(super) static REDDIT: [Entry; 1] = [requests(
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    Unit::Seconds,
)];

/// The window rolls: what is left now is left until it has passed.
pub(super) static HUBSPOT: [Entry; 1] = [requests(
    "x-hubspot-ratelimit-remaining",
    "x-hubspot-ratelimit-interval-milliseconds",
    Unit::Milliseconds,
)];

const SHOPIFY: HeaderName = HeaderName::from_static("x-shopify-shop-api-call-limit");

/// The time in which the bucket of every plan of Shopify runs empty: 40 at 2/s,
/// 80 at 4/s, 400 at 20/s.
const SHOPIFY_DRAIN: Duration = Duration::from_secs(20);

/// `32/40`: what is in the bucket, and how much it holds.
pub(super) fn shopify(headers: &HeaderMap) -> Option<Budget> {
    let (used, limit) = text(headers, &SHOPIFY)?.split_once('/')?;
    let (used, limit) = (value::whole(used)?, value::whole(limit)?);
    let in_bucket = u32::try_from(used.min(limit)).ok()?;
    let size = u32::try_from(limit).ok().filter(|size| *size > 0)?;
    let reset = SHOPIFY_DRAIN * in_bucket / size;
    let left = limit.saturating_sub(used);
    let budget = budget(name(SHOPIFY), left, reset, Counts::Requests)?;
    Some(budget.growing_to(limit))
}

/// A budget of requests.
const fn requests(remaining: &'static str, reset: &'static str, unit: Unit) -> Entry {
    Entry {
        fields: fields(remaining, reset, unit),
        counts: Counts::Requests,
        which: None,
        grows_to: None,
    }
}

/// A budget of requests that grows back by and by, to what the field `limit` says.
const fn growing(
    remaining: &'static str,
    reset: &'static str,
    unit: Unit,
    limit: &'static str,
) -> Entry {
    Entry {
        fields: fields(remaining, reset, unit),
        counts: Counts::Requests,
        which: None,
        grows_to: Some(HeaderName::from_static(limit)),
    }
}

/// A budget of tokens.
const fn tokens(remaining: &'static str, reset: &'static str, unit: Unit) -> Entry {
    Entry {
        fields: fields(remaining, reset, unit),
        counts: Counts::Other,
        which: None,
        grows_to: None,
    }
}

/// One of several budgets of requests, which the field `which` names.
const fn several(
    remaining: &'static str,
    reset: &'static str,
    unit: Unit,
    which: &'static str,
) -> Entry {
    Entry {
        fields: fields(remaining, reset, unit),
        counts: Counts::Requests,
        which: Some(HeaderName::from_static(which)),
        grows_to: None,
    }
}

const fn fields(remaining: &'static str, reset: &'static str, unit: Unit) -> Fields {
    Fields {
        remaining: Some(HeaderName::from_static(remaining)),
        used: None,
        limit: None,
        reset: HeaderName::from_static(reset),
        unit,
    }
}
