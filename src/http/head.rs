//! Message heads: which requests are refused as they stand, and what changes
//! in a head that is passed on.
//!
//! Only what RFC 9110, section 7.6, asks of a gateway changes; the order and
//! the repeats of all other fields stay.

use std::net::IpAddr;
use std::time::Duration;

use ::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE,
    COOKIE, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, MAX_FORWARDS,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRANSFER_ENCODING, UPGRADE, VIA,
};
use ::http::request::Parts;
use ::http::uri::{PathAndQuery, Uri};
use ::http::{Method, Version};

use crate::http::grammar::members;
use crate::outcome::Fault;

/// Tells a caller where the time went.
pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// How often a request may come through a pacegate before it is taken to go in
/// a circle.
const MOST_PASSES: usize = 8;

/// The name by which we are known in `Via`.
const PSEUDONYM: &[u8] = b"pacegate";

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

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
    ) || matches!(
        name.as_str(),
        "keep-alive" | "proxy-connection" | "http2-settings"
    )
}

/// Fields that stay even if `Connection` names them: they are meant for the
/// other end (RFC 9110, section 7.6.1, forbids to name such), and who can have
/// them removed changes what a request means.
fn is_end_to_end(name: &HeaderName) -> bool {
    matches!(
        name,
        &HOST
            | &AUTHORIZATION
            | &CACHE_CONTROL
            | &CONTENT_ENCODING
            | &CONTENT_LENGTH
            | &CONTENT_TYPE
            | &COOKIE
            | &SET_COOKIE
            | &VIA
    )
}

/// Fields that tell where a request came from.
fn is_forwarded(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, "forwarded" | "x-real-ip") || name.starts_with("x-forwarded-")
}

/// Refuses what is malformed, ambiguous or not for a gateway. What concerns bytes
/// that are not in `head` any more was refused before, by the server's framing
/// reader or by HTTP/2's own rules.
///
/// # Errors
///
/// The first thing found wrong.
pub(crate) fn check(head: &Parts, max_fields: usize) -> Result<(), Fault> {
    if head.method == Method::CONNECT {
        return Err(Fault::Connect);
    }
    if head.headers.len() > max_fields {
        return Err(Fault::HeadTooLarge);
    }
    check_host(head)?;
    check_target(head)?;
    check_framing(head)?;
    let mut expectations = head.headers.get_all(EXPECT).iter();
    if !expectations.all(|one| one.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Fault::Expectation);
    }
    match passes(&head.headers) < MOST_PASSES {
        true => Ok(()),
        false => Err(Fault::Loop),
    }
}

/// RFC 9112, section 3.2, and RFC 9113, section 8.3.1: one name, said once or
/// twice the same.
fn check_host(head: &Parts) -> Result<(), Fault> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    let host = host.map(HeaderValue::as_bytes);
    let authority = head.uri.authority().map(|known| known.as_str().as_bytes());
    let known = match head.version {
        Version::HTTP_10 => true,
        Version::HTTP_2 => host.is_some() || authority.is_some(),
        _ => host.is_some(),
    };
    let valid = host.is_none_or(is_host) && authority.is_none_or(is_host);
    let same = host.zip(authority).is_none_or(|(host, authority)| {
        let https = head.uri.scheme_str() == Some("https");
        let port: &[u8] = if https { b"443" } else { b"80" };
        let (host, authority) = (host_and_port(host), host_and_port(authority));
        let ports = [host.1, authority.1].map(|given| if given.is_empty() { port } else { given });
        host.0.eq_ignore_ascii_case(authority.0) && ports[0] == ports[1]
    });
    match second.is_none() && known && valid && same {
        true => Ok(()),
        false => Err(Fault::Host),
    }
}

/// `host[:port]` with nothing else: no user, no list, no escapes.
pub(crate) fn is_host(text: &[u8]) -> bool {
    let (name, port) = host_and_port(text);
    let valid = match name {
        [b'[', address @ .., b']'] => std::str::from_utf8(address)
            .is_ok_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()),
        _ => {
            let good = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
            !name.is_empty() && name.iter().all(good)
        }
    };
    valid && port.len() <= 5 && port.iter().all(u8::is_ascii_digit)
}

/// The two parts of an authority; the port is empty where there is none.
pub(crate) fn host_and_port(authority: &[u8]) -> (&[u8], &[u8]) {
    let colon = authority.iter().rposition(|byte| *byte == b':');
    match colon {
        // A colon inside the brackets of an IPv6 address is not a port's.
        Some(colon) if !authority[colon..].contains(&b']') => {
            (&authority[..colon], &authority[colon + 1..])
        }
        _ => (authority, b""),
    }
}

fn check_target(head: &Parts) -> Result<(), Fault> {
    let path = head.uri.path();
    let asterisk = path == "*" && head.method == Method::OPTIONS;
    let known = head
        .uri
        .scheme_str()
        .is_none_or(|scheme| matches!(scheme, "http" | "https"));
    let whole = head.uri.path_and_query();
    let ascii = whole.is_none_or(|whole| whole.as_str().is_ascii());
    match (path.starts_with('/') || asterisk) && known && ascii {
        true => Ok(()),
        false => Err(Fault::Target),
    }
}

/// HTTP/1.1 callers come no further than the framing reader with any of this;
/// HTTP/2 leaves equal lengths in.
fn check_framing(head: &Parts) -> Result<(), Fault> {
    if head.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Fault::Length);
    }
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(());
    };
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(Fault::TransferCoding);
    }
    if head.headers.contains_key(CONTENT_LENGTH) || head.version != Version::HTTP_11 {
        return Err(Fault::Framing);
    }
    Ok(())
}

/// How often a request has come through a pacegate.
fn passes(headers: &HeaderMap) -> usize {
    let hops = headers.get_all(VIA).iter();
    let hops = hops.flat_map(|value| members(value.as_bytes()));
    let ours = hops.filter(|hop| {
        let mut words = hop
            .split(|byte| byte.is_ascii_whitespace())
            .filter(|word| !word.is_empty());
        words.nth(1) == Some(PSEUDONYM)
    });
    ours.count()
}

/// Says that a request came through here (RFC 9110, section 7.6.3).
pub(crate) fn add_via(headers: &mut HeaderMap, version: Version) {
    headers.append(
        VIA,
        HeaderValue::from_static(match version {
            Version::HTTP_10 => "1.0 pacegate",
            Version::HTTP_2 => "2 pacegate",
            _ => "1.1 pacegate",
        }),
    );
}

/// Says for whom a request is sent, and by which name it was asked for
/// (RFC 7239, and the names from before that).
pub(crate) fn add_forwarded(
    headers: &mut HeaderMap,
    peer: Option<IpAddr>,
    host: Option<&HeaderValue>,
) {
    let mut forwarded = match peer.map(|peer| peer.to_canonical()) {
        Some(IpAddr::V6(peer)) => format!("for=\"[{peer}]\""),
        Some(IpAddr::V4(peer)) => format!("for={peer}"),
        None => "for=unknown".to_owned(),
    };
    let peer = peer.and_then(|peer| HeaderValue::try_from(peer.to_canonical().to_string()).ok());
    if let Some(peer) = peer {
        headers.insert(X_FORWARDED_FOR, peer);
    }
    if let Some(host) = host {
        if let Ok(host) = host.to_str() {
            forwarded.push_str(&format!(";host=\"{host}\""));
        }
        headers.insert(X_FORWARDED_HOST, host.clone());
    }
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    forwarded.push_str(";proto=http");
    if let Ok(forwarded) = HeaderValue::try_from(forwarded) {
        headers.insert(FORWARDED, forwarded);
    }
}

/// Takes one off the hops that a request may still go (RFC 9110, section 7.6.2).
/// False if there is none left, so that we are whom it is meant for.
pub(crate) fn take_hop(head: &mut Parts) -> bool {
    if !matches!(head.method, Method::OPTIONS | Method::TRACE) {
        return true;
    }
    let left = head.headers.get(MAX_FORWARDS);
    // `parse` would take a sign as well.
    let left = left.filter(|left| left.as_bytes().iter().all(u8::is_ascii_digit));
    let left = left.and_then(|left| left.to_str().ok()?.parse::<u64>().ok());
    match left.map(|left| left.checked_sub(1)) {
        Some(Some(left)) => {
            head.headers.insert(MAX_FORWARDS, HeaderValue::from(left));
            true
        }
        Some(None) => false,
        // Not there, or not a number and so without a meaning.
        None => true,
    }
}

/// Host and port a request is meant for, as the caller wrote them.
pub(crate) fn authority(head: &Parts) -> Option<HeaderValue> {
    match head.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => head.headers.get(HOST).cloned(),
    }
}

/// The host a request is meant for, without its port.
pub(crate) fn host(head: &Parts) -> Option<&[u8]> {
    let authority = match head.uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => head.headers.get(HOST)?.as_bytes(),
    };
    Some(host_and_port(authority).0)
}

/// Removes from a response what concerns one connection only: the hop-by-hop
/// fields and those that `Connection` names (RFC 9110, section 7.6.1).
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    strip(headers, is_hop_by_hop);
}

/// The same of a request, where `TE: trailers` stays; and where `forwarded`, what
/// tells where it came from.
pub(crate) fn strip_request(headers: &mut HeaderMap, forwarded: bool) {
    strip(headers, |name| {
        is_hop_by_hop(name) || (forwarded && is_forwarded(name))
    });
}

fn strip(headers: &mut HeaderMap, goes: impl Fn(&HeaderName) -> bool) {
    if !headers.keys().any(&goes) {
        return;
    }
    let options = headers.get_all(CONNECTION).iter();
    let options = options.flat_map(|value| members(value.as_bytes()));
    let named: Vec<HeaderName> = options
        .filter(|name| !name.eq_ignore_ascii_case(b"keep-alive"))
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| !is_end_to_end(name))
        .collect();
    let trailers = headers.get_all(TE).iter().any(accepts_trailers);
    remove(headers, |name| goes(name) || named.contains(name));
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
    members(te.as_bytes()).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

/// Shows how long a request waited, in pieces of the value of [`SERVER_TIMING`]
/// (Server-Timing, section 3).
pub(crate) fn queue_time<R>(wait: Duration, show: impl FnOnce([&[u8]; 4]) -> R) -> R {
    let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
    let mut digits = itoa::Buffer::new();
    let millis = digits.format(micros / 1000).as_bytes();
    let digit = |place: u64| b'0' + (micros / place % 10) as u8;
    let rest = [digit(100), digit(10), digit(1)];
    show([b"pacegate_queue;dur=", millis, b".", &rest])
}

/// Makes the target `*`: RFC 9112, section 3.2.4.
pub(crate) fn ask_whole_server(uri: &mut Uri) {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static("*"));
    if let Ok(whole) = Uri::from_parts(parts) {
        *uri = whole;
    }
}

/// The path and query to send: the caller's own bytes, less the first `prefix`
/// bytes of the path.
pub(crate) fn target(uri: &Uri, prefix: usize) -> PathAndQuery {
    let whole = uri.path_and_query().cloned();
    let whole = whole.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let rest = &whole.as_str()[prefix..];
    // A URI may have a query and no path; HTTP/2 would send that as it is.
    if prefix == 0 && !rest.starts_with('?') {
        return whole;
    }
    let rooted = match rest.as_bytes().first() {
        Some(b'/') => rest.to_owned(),
        _ => format!("/{rest}"),
    };
    PathAndQuery::try_from(rooted).unwrap_or(whole)
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use ::http::Request;

    use super::*;

    fn parts(request: ::http::request::Builder) -> Parts {
        request.body(()).unwrap().into_parts().0
    }

    fn checked(request: ::http::request::Builder) -> Result<(), Fault> {
        check(&parts(request), 100)
    }

    #[test]
    fn two_host_fields_or_none_are_refused() {
        let two = Request::get("/").header(HOST, "a").header(HOST, "a");
        assert_eq!(checked(two), Err(Fault::Host));
        assert_eq!(checked(Request::get("/")), Err(Fault::Host));
        let old = Request::get("/").version(Version::HTTP_10);
        assert_eq!(checked(old), Ok(()));
        let newer = Request::get("/").version(Version::HTTP_2);
        assert_eq!(checked(newer), Err(Fault::Host));
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for good in [
            "a",
            "a.b:80",
            "a_b",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:80",
            "a:",
            "A-1~",
        ] {
            assert_eq!(
                checked(Request::get("/").header(HOST, good)),
                Ok(()),
                "{good}"
            );
        }
        for bad in [
            "", ":80", "a b", "a,b", "a, a", "u@a", "u:p@a", "a:b", "a:80:80", "a:-1", "a:123456",
            "[::1", "::1", "[a]", "[]", "a/b", "a?b", "a#b", "a%00", "a%41", "a\\b", "\"a\"",
            "a[::1]",
        ] {
            let request = Request::get("/").header(HOST, bad);
            assert_eq!(checked(request), Err(Fault::Host), "{bad}");
        }
    }

    #[test]
    fn an_absolute_target_that_disagrees_with_host_is_refused() {
        for (target, host, good) in [
            ("http://A/p", "a", true),
            ("http://a:80/p", "a", true),
            ("http://a/p", "a:80", true),
            ("https://a/p", "a:443", true),
            ("http://evil/p", "a", false),
            ("http://a:81/p", "a", false),
            ("https://a/p", "a:80", false),
            ("http://u@a/p", "a", false),
            ("http://u@a/p", "u@a", false),
        ] {
            let outcome = checked(Request::get(target).header(HOST, host));
            let expected = if good { Ok(()) } else { Err(Fault::Host) };
            assert_eq!(outcome, expected, "{target} {host}");
        }
        let ftp = Request::get("ftp://a/p").header(HOST, "a");
        assert_eq!(checked(ftp), Err(Fault::Target));
    }

    #[test]
    fn transfer_codings_other_than_exactly_chunked_are_refused() {
        for coding in ["gzip, chunked", "identity", "chunked, chunked"] {
            let request = Request::post("/")
                .header(HOST, "a")
                .header(TRANSFER_ENCODING, coding);
            assert_eq!(checked(request), Err(Fault::TransferCoding), "{coding}");
        }
        let both = Request::post("/").header(HOST, "a");
        let both = both
            .header(TRANSFER_ENCODING, "chunked")
            .header(CONTENT_LENGTH, 3);
        assert_eq!(checked(both), Err(Fault::Framing));
    }

    #[test]
    fn connect_unknown_expectations_and_circles_are_refused() {
        let connect = Request::connect("a:443").header(HOST, "a:443");
        assert_eq!(checked(connect), Err(Fault::Connect));
        let expect = Request::post("/").header(HOST, "a");
        let expect = expect.header(EXPECT, "100-continue").header(EXPECT, "tea");
        assert_eq!(checked(expect), Err(Fault::Expectation));
        for (passes, expected) in [(7, Ok(())), (8, Err(Fault::Loop))] {
            let via = vec!["1.1 other, 1.1  pacegate (x)"; passes].join(", ");
            let request = Request::get("/").header(HOST, "a").header(VIA, via);
            assert_eq!(checked(request), expected);
        }
    }

    #[test]
    fn max_forwards_counts_down_for_those_two_methods() {
        for (method, given, left, goes_on) in [
            ("OPTIONS", "3", "2", true),
            ("TRACE", "1", "0", true),
            ("TRACE", "0", "0", false),
            ("OPTIONS", "many", "many", true),
            ("GET", "0", "0", true),
        ] {
            let request = Request::builder()
                .method(method)
                .header(MAX_FORWARDS, given);
            let mut head = parts(request);
            assert_eq!(take_hop(&mut head), goes_on, "{method} {given}");
            assert_eq!(head.headers[MAX_FORWARDS], left, "{method} {given}");
        }
    }

    #[test]
    fn what_is_meant_for_the_other_end_stays_although_connection_names_it() {
        let fields = [
            (
                "connection",
                "Authorization, cookie, host, x-a, content-length, via",
            ),
            ("host", "a"),
            ("authorization", "secret"),
            ("cookie", "c=1"),
            ("x-a", "1"),
            ("via", "1.1 other"),
            ("x-real-ip", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
        ];
        let fields = fields.map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        let names = |forwarded| {
            let mut headers: HeaderMap = fields.iter().cloned().collect();
            strip_request(&mut headers, forwarded);
            let names = headers.keys().map(|name| name.as_str().to_owned());
            names.collect::<Vec<_>>()
        };
        let stays = ["host", "authorization", "cookie", "via"];
        assert_eq!(names(true), stays);
        assert_eq!(
            names(false)[4..],
            ["x-real-ip", "x-forwarded-for", "forwarded"]
        );
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
            assert_eq!(host(&request), Some(expected.as_bytes()));
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
        strip_request(&mut headers, true);
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
    fn the_target_keeps_every_byte_but_the_prefix() {
        let uri: Uri = "/github//a%2fb;c?".parse().unwrap();
        assert_eq!(target(&uri, 0).as_str(), "/github//a%2fb;c?");
        assert_eq!(target(&uri, 7).as_str(), "//a%2fb;c?");
        let bare: Uri = "/github?x=/".parse().unwrap();
        assert_eq!(target(&bare, 7).as_str(), "/?x=/");
    }
}
