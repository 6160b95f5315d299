//! The RateLimit fields of the IETF, in the three generations that are sent.
//!
//! Separate fields (drafts 00 to 06), a dictionary (07), and lists of policies
//! (08 and later: draft-ietf-httpapi-ratelimit-headers-11). The last two share
//! a name; members such as `remaining=5` tell the dictionary. What is left of
//! structured fields (RFC 9651) is quoted strings and parameters.

use std::time::Duration;

use ::http::{HeaderMap, HeaderName};

use super::{Budget, Counts, MOST, budget, name, text, value};

const FIELD: HeaderName = HeaderName::from_static("ratelimit");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// The budgets that the response tells, at most [`MOST`].
pub(super) fn read(headers: &HeaderMap) -> Vec<Budget> {
    if !headers.contains_key(FIELD) {
        return separate(headers).into_iter().collect();
    }
    match dictionary(headers) {
        Some(budget) => vec![budget],
        None => list(headers),
    }
}

fn separate(headers: &HeaderMap) -> Option<Budget> {
    let remaining = value::whole(text(headers, &REMAINING)?)?;
    let reset = value::seconds(text(headers, &RESET)?)?;
    budget(name(FIELD), remaining, reset, Counts::Requests)
}

/// `limit=100, remaining=50, reset=5`.
fn dictionary(headers: &HeaderMap) -> Option<Budget> {
    let member = |wanted| members(headers, &FIELD).find_map(|member| parameter(member, wanted));
    let remaining = value::whole(member("remaining")?)?;
    let reset = value::seconds(member("reset")?)?;
    budget(name(FIELD), remaining, reset, Counts::Requests)
}

/// `"burst";r=50;t=30, "day";r=900;t=3600`.
fn list(headers: &HeaderMap) -> Vec<Budget> {
    let members = members(headers, &FIELD).take(MOST);
    members.filter_map(|member| item(member, headers)).collect()
}

fn item(member: &str, headers: &HeaderMap) -> Option<Budget> {
    let policy = policy(title(member), headers);
    let of_policy = |key| policy.and_then(|policy| get(policy, key));
    let counts = match of_policy("qu").map(unquoted) {
        None | Some("requests") => Counts::Requests,
        // They come back when a call ends, and at no other time.
        Some("concurrent-requests") => return None,
        Some(_) => Counts::Other,
    };
    let remaining = value::whole(get(member, "r")?)?;
    // Without an end of its own, the window is over at the latest after itself.
    let reset: Duration = value::seconds(get(member, "t").or_else(|| of_policy("w"))?)?;
    // Partitions are budgets of their own.
    let which = (title(member), get(member, "pk"));
    budget(name((FIELD, which)), remaining, reset, counts)
}

/// The policy of that title: `"burst";q=100;w=60;qu="requests"`.
fn policy<'h>(wanted: &str, headers: &'h HeaderMap) -> Option<&'h str> {
    members(headers, &POLICY)
        .take(MOST)
        .find(|member| title(member) == wanted)
}

/// The members of a field, over all its lines.
fn members<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'h str> + use<'h> {
    let lines = headers.get_all(name).into_iter();
    let lines = lines.filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| split(line, b','))
}

fn title(member: &str) -> &str {
    unquoted(split(member, b';').next().unwrap_or_default())
}

/// The value of a parameter.
fn get<'m>(member: &'m str, key: &str) -> Option<&'m str> {
    split(member, b';')
        .skip(1)
        .find_map(|pair| parameter(pair, key))
}

fn parameter<'m>(pair: &'m str, key: &str) -> Option<&'m str> {
    let (name, value) = pair.split_once('=')?;
    name.trim().eq_ignore_ascii_case(key).then(|| value.trim())
}

fn unquoted(text: &str) -> &str {
    let inner = text.strip_prefix('"');
    inner
        .and_then(|inner| inner.strip_suffix('"'))
        .unwrap_or(text)
}

/// The parts of `text` between separators that are not in quotes, trimmed.
fn split(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut quoted, mut escaped) = (false, false);
        let end = text.bytes().position(|byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ => return byte == separator && !quoted,
            }
            false
        });
        let (part, after) = match end {
            Some(end) => (text.get(..end)?, text.get(end + 1..)),
            None => (text, None),
        };
        rest = after;
        Some(part.trim())
    })
}
