//! What an API's answers say of its limits.
//!
//! [`budgets`] reads what is left by the dialect that the settings name,
//! `refusal` which answers mean "too many requests" and how long they ask to
//! wait, `coding` undoes the coding of a body that is asked for it. `named` has the fields of the dialects that are built in, `ietf` the
//! standard ones, `value` the forms of numbers and times.
//!
//! The rule for who learns from a budget: it only ever lowers what our limits
//! allow, what is in flight may not be in it yet, and it is forgotten at its
//! reset. Where an API's budget grows back by and by, and the answer tells how much
//! it is in all, ours grows with it. A budget counts for the whole lane, even
//! where an API has one per route or model.
//!
//! Pure functions of a response head, which may hold anything: what is not
//! understood is left out, no time is longer than [`LONGEST`].

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, SystemTime};

use ::http::header::{AGE, DATE};
use ::http::{HeaderMap, HeaderName, StatusCode};

use crate::config::{Dialect, Fields, Unit, Upstream};
use crate::http::plain::response::Look;

mod coding;
mod ietf;
mod named;
mod refusal;
mod value;

#[cfg(test)]
mod tests;

pub(crate) use refusal::{BODY_PREFIX, Verdict, body_says, retry_after, verdict};

/// The longest time that is believed; longer ones count as this.
pub(crate) const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The most budgets that are read from one response.
const MOST: usize = 8;

/// What an answer says is left of one of the API's budgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Which of its budgets: equal numbers are one budget, of any answer.
    pub(crate) name: u64,
    /// Whole requests left.
    pub(crate) remaining: u64,
    /// From the answer until the budget is whole again; more than zero, at most
    /// [`LONGEST`].
    pub(crate) reset: Duration,
    /// How long it takes to regain one; `None` if all comes back at the reset.
    pub(crate) each: Option<Duration>,
}

/// What a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counts {
    Requests,
    /// Something of which a request takes an unknown number: only that nothing
    /// is left says anything of requests.
    Other,
}

/// The budgets that the response with these `headers` tells. `now` counts where
/// it has no `Date`. Without the dialect's fields nothing is allocated.
pub(crate) fn budgets(dialect: &Dialect, headers: &HeaderMap, now: SystemTime) -> Vec<Budget> {
    let one = |budget: Option<Budget>| budget.into_iter().collect();
    // A cache answered: its fields are those of an earlier response.
    if text(headers, &AGE).is_some_and(|age| age != "0") {
        return Vec::new();
    }
    let table = match dialect {
        Dialect::None | Dialect::RetryAfter => return Vec::new(),
        Dialect::Ietf => return ietf::read(headers),
        Dialect::Shopify => return one(named::shopify(headers)),
        Dialect::Fields(fields) => return one(read(fields, headers, now)),
        Dialect::Github => &named::GITHUB[..],
        Dialect::Openai => &named::OPENAI[..],
        Dialect::Anthropic => &named::ANTHROPIC[..],
        Dialect::Discord => &named::DISCORD[..],
        Dialect::Reddit => &named::REDDIT[..],
        Dialect::Hubspot => &named::HUBSPOT[..],
    };
    let found = table.iter().filter_map(|entry| entry.read(headers, now));
    found.collect()
}

/// What there is to be looked at in an answer of that `status`.
pub(crate) fn look(settings: &Upstream, status: StatusCode) -> Look {
    let silent = matches!(settings.dialect, Dialect::None | Dialect::RetryAfter);
    let mut signals = settings.cooldown.signals.iter();
    // A 408 may have been said before the request came.
    let refuses = status == StatusCode::REQUEST_TIMEOUT;
    match refuses || signals.any(|signal| signal.status == status) {
        true => Look::Everything,
        false if silent => Look::Nothing,
        false => Look::Fields,
    }
}

/// What `fields` tell of a budget of requests.
fn read(fields: &Fields, headers: &HeaderMap, now: SystemTime) -> Option<Budget> {
    let number = |name: &Option<HeaderName>| value::whole(text(headers, name.as_ref()?)?);
    let remaining = match number(&fields.remaining) {
        Some(remaining) => remaining,
        None => number(&fields.limit)?.saturating_sub(number(&fields.used)?),
    };
    let reset = until(fields.unit, text(headers, &fields.reset)?, headers, now)?;
    budget(name(&fields.reset), remaining, reset, Counts::Requests)
}

/// `None` when the budget is whole already, or says nothing of requests.
fn budget(name: u64, remaining: u64, reset: Duration, counts: Counts) -> Option<Budget> {
    let tells = counts == Counts::Requests || remaining == 0;
    (tells && !reset.is_zero()).then(|| Budget {
        name,
        remaining,
        reset: reset.min(LONGEST),
        each: None,
    })
}

impl Budget {
    /// The same where it grows back by and by, up to `limit`.
    fn growing_to(self, limit: u64) -> Self {
        let missing = limit.saturating_sub(self.remaining);
        let missing = u32::try_from(missing).ok().filter(|missing| *missing > 0);
        Self {
            each: missing.map(|missing| self.reset / missing),
            ..self
        }
    }
}

/// The number by which a budget is known.
fn name(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// How long it is from the response until the time that `text` means; zero when
/// that has passed.
fn until(unit: Unit, text: &str, headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let since_1970 = |span| SystemTime::UNIX_EPOCH.checked_add(span);
    let time = match unit {
        Unit::Seconds => return value::seconds(text),
        Unit::Milliseconds => return value::milliseconds(text),
        Unit::Duration => return value::duration(text),
        Unit::EpochSeconds => since_1970(value::seconds(text)?)?,
        Unit::EpochMilliseconds => since_1970(value::milliseconds(text)?)?,
        Unit::Rfc3339 => value::rfc3339(text)?,
    };
    Some(from_response(time, headers, now))
}

/// How long it is to `time`, by the response's own clock: ours may be wrong.
fn from_response(time: SystemTime, headers: &HeaderMap, now: SystemTime) -> Duration {
    let date = text(headers, &DATE).and_then(|date| httpdate::parse_http_date(date).ok());
    time.duration_since(date.unwrap_or(now)).unwrap_or_default()
}

/// The first value of a field, if it is printable ASCII.
fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}
