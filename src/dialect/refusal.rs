//! Which answers mean "too many requests", and how long they ask to wait.
//!
//! Most are known by their status and fields. For the others [`Verdict::AskBody`]
//! asks for the beginning of the body, at most [`BODY_PREFIX`] bytes of it, as
//! far as its content coding can be undone.

use std::time::{Duration, SystemTime};

use ::http::header::RETRY_AFTER;
use ::http::{HeaderMap, HeaderName, StatusCode};

use super::coding::Coding;
use super::{LONGEST, from_response, text, value};
use crate::config::{Dialect, Signal};

/// The bytes of a body in which a signal's text is looked for.
pub(crate) const BODY_PREFIX: usize = 16 << 10;

/// Sent by OpenAI and Azure beside `Retry-After`, and finer.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// Whether an answer means "too many requests".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It does not.
    Fine,
    /// It does.
    Throttled,
    /// [`body_says`] knows.
    AskBody,
}

/// Judges an answer by its head.
pub(crate) fn verdict(signals: &[Signal], status: StatusCode, headers: &HeaderMap) -> Verdict {
    let mut heads = signals
        .iter()
        .filter(|signal| fits(signal, status, headers));
    let mut ask = false;
    if heads.any(|signal| {
        ask |= signal.body.is_some();
        signal.body.is_none()
    }) {
        return Verdict::Throttled;
    }
    match ask && Coding::of(headers).is_some() {
        true => Verdict::AskBody,
        false => Verdict::Fine,
    }
}

/// Judges an answer by its head and the beginning of its body.
pub(crate) fn body_says(
    signals: &[Signal],
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> bool {
    let coding = Coding::of(headers);
    let body = coding.map(|coding| coding.undo(body, BODY_PREFIX));
    let body = body.unwrap_or_default();
    let mut heads = signals
        .iter()
        .filter(|signal| fits(signal, status, headers));
    heads.any(|signal| {
        let wanted = signal.body.as_deref();
        wanted.is_none_or(|wanted| holds(&body, wanted.as_bytes()))
    })
}

/// How long a refusal asks to wait (RFC 9110, section 10.2.3): seconds, with
/// decimals too, or a date against the response's own; `now` counts where it has
/// none. `None` when it does not say, or names no time to come. At most
/// [`LONGEST`].
pub(crate) fn retry_after(
    dialect: &Dialect,
    headers: &HeaderMap,
    now: SystemTime,
) -> Option<Duration> {
    if *dialect == Dialect::None {
        return None;
    }
    let fine = text(headers, &RETRY_AFTER_MS).and_then(value::milliseconds);
    let wait = fine.or_else(|| {
        let text = text(headers, &RETRY_AFTER)?;
        let date = || httpdate::parse_http_date(text).ok();
        value::seconds(text).or_else(|| Some(from_response(date()?, headers, now)))
    })?;
    (!wait.is_zero()).then(|| wait.min(LONGEST))
}

/// Whether all that a signal says of the head holds.
fn fits(signal: &Signal, status: StatusCode, headers: &HeaderMap) -> bool {
    let Some(name) = &signal.header else {
        return signal.status == status;
    };
    let mut values = headers.get_all(name).into_iter();
    signal.status == status
        && match &signal.equals {
            None => values.next().is_some(),
            Some(wanted) => values.any(|value| {
                let value = value.as_bytes().trim_ascii();
                value.eq_ignore_ascii_case(wanted.as_bytes())
            }),
        }
}

/// Whether `text` holds `wanted`, which is short, in any case.
fn holds(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len().max(1))
        .any(|window| window.eq_ignore_ascii_case(wanted))
}
