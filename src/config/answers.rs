//! What the answers of an API say of its limits.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, StatusCode};

/// How the responses of an API say what is left of its budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dialect {
    /// Not at all; `Retry-After` is ignored as well.
    None,
    /// Only a refusal says how long to wait.
    RetryAfter,
    /// `x-ratelimit-*`, reset in epoch seconds.
    Github,
    /// `x-ratelimit-*-requests` and `-tokens`, reset as `6m0s`.
    Openai,
    /// `anthropic-ratelimit-*`, reset in RFC 3339.
    Anthropic,
    /// `x-ratelimit-*`, reset after fractional seconds.
    Discord,
    /// `x-shopify-shop-api-call-limit: 32/40`.
    Shopify,
    /// `x-ratelimit-*`, a decimal remaining, reset in seconds.
    Reddit,
    /// `x-hubspot-ratelimit-*`, interval in milliseconds.
    Hubspot,
    /// `RateLimit` and its older forms, of the IETF's drafts.
    Ietf,
    /// Fields that the file names.
    Fields(Fields),
}

/// The response fields of a budget counted in requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    /// Requests left; there unless `used` and `limit` are.
    pub remaining: Option<HeaderName>,
    /// Requests spent.
    pub used: Option<HeaderName>,
    /// Requests in all.
    pub limit: Option<HeaderName>,
    /// When the budget is whole again.
    pub reset: HeaderName,
    /// How `reset` is written.
    pub unit: Unit,
}

/// How the time of a reset is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds from the response on, decimals allowed.
    Seconds,
    /// Milliseconds from the response on.
    Milliseconds,
    /// Seconds since 1970.
    EpochSeconds,
    /// Milliseconds since 1970.
    EpochMilliseconds,
    /// A time such as `2026-11-25T10:00:00Z`.
    Rfc3339,
    /// A time from the response on such as `6m0s` or `20ms`.
    Duration,
}

/// When a lane is paused by what the API answers, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cooldown {
    /// The answers that mean "too many requests"; any of them does.
    pub signals: Arc<[Signal]>,
    /// The pause after an answer that does not say how long; more than zero, at
    /// most `longest`. Doubles with each refusal that follows.
    pub first: Duration,
    /// The longest pause, whatever the answer says; at most one day.
    pub longest: Duration,
    /// Whether only requests with the same key pause, where limits have keys.
    pub keyed: bool,
}

/// An answer that means "too many requests". All that is set must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    /// Its status.
    pub status: StatusCode,
    /// A field that it has.
    pub header: Option<HeaderName>,
    /// The value of that field, in any case; any value when `None`.
    pub equals: Option<String>,
    /// A text that its body holds near the beginning, in any case.
    pub body: Option<String>,
}
