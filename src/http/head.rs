//! Message heads: which requests are refused as they stand, and what changes
//! in a head that is passed on.
//!
//! Only what RFC 9110, section 7.6, asks of a gateway changes; the order and
//! the repeats of all other fields stay.

use std::time::{Duration, SystemTime};

use ::http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, DATE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RETRY_AFTER, TE, TRANSFER_ENCODING, UPGRADE,
};
use ::http::request::Parts;
use ::http::uri::{Authority, PathAndQuery, Uri};
use ::http::{Method, StatusCode, Version};

use crate::outcome::Fault;

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Fields that concern one connection only (RFC 9110, section 7.6.1).
/// `TE` is among them but for its value `trailers`, and so is `Expect`: the
/// server has asked the caller for the body itself.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name,
        &CONNECTION
            | &TRANSFER_ENCODING
            | &UPGRADE
            | &TE
            | &EXPECT
            | &PROXY_AUTHENTICATE
            | &PROXY_AUTHORIZATION
    ) || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// Refuses what is malformed, ambiguous or not for a gateway.
///
/// # Errors
///
/// The first thing found wrong.
pub(crate) fn check(head: &Parts) -> Result<(), Fault> {
    if head.method == Method::CONNECT {
        return Err(Fault::Connect);
    }
    check_target(head)?;
    check_framing(head)?;
    match head.headers.get(EXPECT) {
        Some(expect) if !expect.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
            Err(Fault::Expectation)
        }
        _ => Ok(()),
    }
}

fn check_target(head: &Parts) -> Result<(), Fault> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() || (head.version == Version::HTTP_11 && host.is_none()) {
        return Err(Fault::Host);
    }
    if let Some(host) = host {
        let valid = host.is_empty() || Authority::try_from(host.as_bytes()).is_ok();
        let userinfo = host.as_bytes().contains(&b'@');
        if !valid || userinfo {
            return Err(Fault::Host);
        }
    }
    if let (Some(host), Some(authority)) = (host, head.uri.authority())
        && !host
            .as_bytes()
            .eq_ignore_ascii_case(authority.as_str().as_bytes())
    {
        return Err(Fault::Host);
    }
    let scheme = head.uri.scheme_str();
    let path = head.uri.path();
    let asterisk = path == "*" && head.method == Method::OPTIONS;
    let known = scheme.is_none_or(|scheme| matches!(scheme, "http" | "https"));
    if (path.starts_with('/') || asterisk) && known {
        Ok(())
    } else {
        Err(Fault::Target)
    }
}

fn check_framing(head: &Parts) -> Result<(), Fault> {
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(());
    };
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(Fault::TransferCoding);
    }
    if head.headers.contains_key(CONTENT_LENGTH) || head.version == Version::HTTP_10 {
        return Err(Fault::Framing);
    }
    Ok(())
}

/// The host a request is meant for, without its port.
pub(crate) fn host(head: &Parts) -> Option<&str> {
    let authority = match head.uri.authority() {
        Some(authority) => authority.as_str(),
        None => head.headers.get(HOST)?.to_str().ok()?,
    };
    let end = match authority.rfind(':') {
        // A colon inside the brackets of an IPv6 address is not a port's.
        Some(colon) if !authority[colon..].contains(']') => colon,
        _ => authority.len(),
    };
    Some(&authority[..end])
}

/// Removes what concerns one connection only: the hop-by-hop fields and those
/// that `Connection` names (RFC 9110, section 7.6.1). `TE: trailers` stays.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    let trailers = headers.get_all(TE).iter().any(accepts_trailers);
    remove(headers, |name| is_hop_by_hop(name) || named.contains(name));
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes the fields that are `unwanted`.
pub(crate) fn remove(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    // `HeaderMap::remove` moves the last field into the gap; the order of
    // fields is the caller's, so the rest is written anew.
    let capacity = headers.len();
    let all = std::mem::replace(headers, HeaderMap::with_capacity(capacity));
    let mut name = None;
    for (next, value) in all {
        name = next.or(name);
        let Some(name) = &name else { continue };
        if !unwanted(name) {
            headers.append(name.clone(), value);
        }
    }
}

/// Puts together what an HTTP/2 caller may send in pieces (RFC 9113, section
/// 8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let mut pieces = headers.get_all(COOKIE).iter();
    if pieces.by_ref().nth(1).is_none() {
        return;
    }
    let pieces: Vec<_> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(whole) = HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
        headers.insert(COOKIE, whole);
    }
}

fn accepts_trailers(te: &HeaderValue) -> bool {
    te.as_bytes()
        .split(|byte| *byte == b',')
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Whether a response refuses a request because of a limit, and how long it asks
/// us to send nothing: 429 does, and 503 with a `Retry-After` in seconds or as a
/// date (RFC 9110, section 10.2.3). A date is taken against the response's own
/// clock.
pub(crate) fn refuses(status: StatusCode, headers: &HeaderMap) -> Option<Option<Duration>> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let date = |text| httpdate::parse_http_date(text).ok();
    let retry_after = text(RETRY_AFTER).and_then(|value| {
        let seconds = value.parse::<f64>().ok();
        if let Some(pause) = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
            return Some(pause);
        }
        let now = text(DATE).and_then(date).unwrap_or_else(SystemTime::now);
        Some(date(value)?.duration_since(now).unwrap_or_default())
    });
    match status {
        StatusCode::TOO_MANY_REQUESTS => Some(retry_after),
        StatusCode::SERVICE_UNAVAILABLE => retry_after.map(Some),
        _ => None,
    }
}

/// Tells the caller how long its request waited (Server-Timing, section 3).
pub(crate) fn add_queue_time(headers: &mut HeaderMap, wait: Duration) {
    let micros = wait.as_micros();
    let text = format!("pacegate_queue;dur={}.{:03}", micros / 1000, micros % 1000);
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.append(SERVER_TIMING, value);
    }
}

/// The path and query to send: the caller's own bytes, less the first `prefix`
/// bytes of the path.
pub(crate) fn target(uri: &Uri, prefix: usize) -> PathAndQuery {
    let whole = uri.path_and_query().cloned();
    let whole = whole.unwrap_or_else(|| PathAndQuery::from_static("/"));
    if prefix == 0 {
        return whole;
    }
    let rest = &whole.as_str()[prefix..];
    let rooted = match rest.as_bytes().first() {
        Some(b'/') => rest.to_owned(),
        _ => format!("/{rest}"),
    };
    PathAndQuery::try_from(rooted).unwrap_or(whole)
}

#[cfg(test)]
mod tests {
    use ::http::Request;

    use super::*;

    fn parts(request: ::http::request::Builder) -> Parts {
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn two_host_fields_or_none_are_refused() {
        let two = Request::get("/").header(HOST, "a").header(HOST, "a");
        assert_eq!(check(&parts(two)), Err(Fault::Host));
        assert_eq!(check(&parts(Request::get("/"))), Err(Fault::Host));
        let old = Request::get("/").version(Version::HTTP_10);
        assert_eq!(check(&parts(old)), Ok(()));
    }

    #[test]
    fn an_absolute_target_that_disagrees_with_host_is_refused() {
        let evil = Request::get("http://evil/p").header(HOST, "a");
        assert_eq!(check(&parts(evil)), Err(Fault::Host));
        let same = Request::get("http://A/p").header(HOST, "a");
        assert_eq!(check(&parts(same)), Ok(()));
    }

    #[test]
    fn transfer_codings_other_than_exactly_chunked_are_refused() {
        for coding in ["gzip, chunked", "identity", "chunked, chunked"] {
            let request = Request::post("/")
                .header(HOST, "a")
                .header(TRANSFER_ENCODING, coding);
            assert_eq!(
                check(&parts(request)),
                Err(Fault::TransferCoding),
                "{coding}"
            );
        }
        let both = Request::post("/").header(HOST, "a");
        let both = both
            .header(TRANSFER_ENCODING, "chunked")
            .header(CONTENT_LENGTH, 3);
        assert_eq!(check(&parts(both)), Err(Fault::Framing));
    }

    #[test]
    fn connect_and_unknown_expectations_are_refused() {
        let connect = Request::connect("a:443").header(HOST, "a:443");
        assert_eq!(check(&parts(connect)), Err(Fault::Connect));
        let expect = Request::post("/").header(HOST, "a").header(EXPECT, "tea");
        assert_eq!(check(&parts(expect)), Err(Fault::Expectation));
    }

    #[test]
    fn the_host_for_routing_has_no_port() {
        for (given, expected) in [
            ("a:80", "a"),
            ("a", "a"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            let request = parts(Request::get("/").header(HOST, given));
            assert_eq!(host(&request), Some(expected));
        }
    }

    #[test]
    fn hop_by_hop_fields_go_and_all_others_keep_their_order_and_repeats() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("accept", "1"),
            ("connection", "close, X-Secret"),
            ("x-secret", "2"),
            ("cookie", "3"),
            ("te", "gzip, trailers"),
            ("keep-alive", "4"),
            ("x-last", "5"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers.append("accept", HeaderValue::from_static("6"));
        strip_hop_by_hop(&mut headers);
        let left: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        let expected = [
            ("accept", "1"),
            ("accept", "6"),
            ("cookie", "3"),
            ("x-last", "5"),
            ("te", "trailers"),
        ];
        assert_eq!(left, expected);
    }

    #[test]
    fn a_refusal_says_how_long_to_pause_in_seconds_or_as_a_date() {
        let pause = |status: u16, fields: &[(&'static str, &'static str)]| {
            let fields = fields.iter().map(|(name, value)| {
                let name = HeaderName::from_static(name);
                (name, HeaderValue::from_static(value))
            });
            refuses(StatusCode::from_u16(status).unwrap(), &fields.collect())
        };
        let seconds = |seconds| Some(Some(Duration::from_secs(seconds)));
        assert_eq!(pause(429, &[]), Some(None));
        assert_eq!(pause(429, &[("retry-after", "7")]), seconds(7));
        assert_eq!(pause(429, &[("retry-after", "2.0")]), seconds(2));
        assert_eq!(pause(503, &[("retry-after", "30")]), seconds(30));
        let date = ("date", "Sat, 21 Nov 2026 11:00:00 GMT");
        let then = ("retry-after", "Sat, 21 Nov 2026 11:01:40 GMT");
        assert_eq!(pause(429, &[date, then]), seconds(100));
        assert_eq!(pause(503, &[]), None);
        assert_eq!(pause(200, &[("retry-after", "30")]), None);
        assert_eq!(pause(429, &[("retry-after", "-5")]), Some(None));
        assert_eq!(pause(429, &[("retry-after", "inf")]), Some(None));
    }

    #[test]
    fn the_target_keeps_every_byte_but_the_prefix() {
        let uri: Uri = "/github//a%2fb;c?".parse().unwrap();
        assert_eq!(target(&uri, 0).as_str(), "/github//a%2fb;c?");
        assert_eq!(target(&uri, 7).as_str(), "//a%2fb;c?");
        let bare: Uri = "/github?x=/".parse().unwrap();
        assert_eq!(target(&bare, 7).as_str(), "/?x=/");
    }
}
