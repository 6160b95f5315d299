//! Heads of plausible and implausible pieces, read and rewritten, beside a second
//! reading that works on text and shares nothing with the first.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ::http::Request;

use super::*;
use crate::fuzz::{self, Random};
use crate::http::upgrade;

const METHODS: [Method; 4] = [Method::GET, Method::OPTIONS, Method::TRACE, Method::POST];

const NAMES: &[&str] = &[
    "host",
    "connection",
    "te",
    "via",
    "max-forwards",
    "upgrade",
    "keep-alive",
    "cookie",
    "proxy-authorization",
    "proxy-connection",
    "forwarded",
    "x-forwarded-for",
    "x-real-ip",
    "expect",
    "cache-control",
    "authorization",
    "x-a",
    "x-b",
    "trailer",
    "http2-settings",
];

const PIECES: &[&str] = &[
    "close",
    "keep-alive",
    "Upgrade",
    "x-a",
    "X-B",
    "te",
    "host",
    "Cookie",
    "via",
    "connection",
    "trailers",
    "gzip;q=1",
    "websocket",
    "h2c",
    "chat/2",
    "1.1 pacegate",
    "1.0 a",
    "2 pacegate ",
    "pacegate",
    "0",
    "1",
    "7",
    "18446744073709551615",
    "18446744073709551616",
    "+1",
    "-1",
    "a",
    "a.b",
    "127.0.0.1",
    "[::1]",
    "[::ffff:1.2.3.4]",
    "[1]",
    ":80",
    ":",
    ":99999",
    ":100000",
    "@",
    "~",
    "\"",
    "\\",
    "=",
    ";",
    ",",
    ", ",
    " ,",
    ",,",
    " ",
    "\t",
    "\u{e9}",
    "(",
    "/",
];

const TARGETS: &[&str] = &[
    "/",
    "/a",
    "/a/",
    "//a",
    "/a/b%2f?c=/a",
    "/?",
    "/a?x",
    "/ab",
    "*",
    "http://a",
    "http://a/a/b",
    "http://a:80/",
    "https://a?q",
    "http://[::1]:81/a//",
    "http://A.b:/a;x",
];

fn head(random: &mut Random) -> Parts {
    let mut request = Request::new(());
    *request.method_mut() = METHODS[random.below(METHODS.len())].clone();
    *request.uri_mut() = random.pick(TARGETS).parse().unwrap();
    *request.version_mut() = random.pick(&[Version::HTTP_10, Version::HTTP_11, Version::HTTP_2]);
    for _ in 0..random.below(8) {
        let name = HeaderName::from_static(random.pick(NAMES));
        if let Ok(value) = HeaderValue::from_bytes(&value(random)) {
            request.headers_mut().append(name, value);
        }
    }
    request.into_parts().0
}

fn value(random: &mut Random) -> Vec<u8> {
    let mut value = Vec::new();
    for _ in 0..random.below(5) {
        match random.below(12) {
            0 => value.push(random.byte()),
            1 | 2 => value.extend_from_slice(b", "),
            _ => value.extend_from_slice(random.pick(PIECES).as_bytes()),
        }
    }
    // As it comes from hyper.
    value.trim_ascii().to_vec()
}

/// Bytes as text, one character each.
fn text(value: &HeaderValue) -> String {
    value.as_bytes().iter().copied().map(char::from).collect()
}

/// The members of all fields of that name, in lower case.
fn members(headers: &HeaderMap, name: &str) -> Vec<String> {
    let fields = headers.get_all(name).iter().map(text);
    let all = fields.collect::<Vec<_>>().join(",").to_ascii_lowercase();
    let members = all.split(',').map(|one| one.trim_matches([' ', '\t']));
    members
        .filter(|one| !one.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The fields as they stand: each name where it comes first, with its values.
fn fields(headers: &HeaderMap) -> Vec<(String, Vec<String>)> {
    let values = |name: &HeaderName| headers.get_all(name).iter().map(text).collect();
    let names = headers.keys();
    names.map(|name| (name.to_string(), values(name))).collect()
}

fn is_good_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<Ipv6Addr>().is_ok() => ("a", port),
            _ => return false,
        },
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let digits = match port.strip_prefix(':') {
        Some(digits) => digits,
        None if port.is_empty() => "",
        None => return false,
    };
    let named = |one: char| one.is_ascii_alphanumeric() || "-._~".contains(one);
    !name.is_empty()
        && name.chars().all(named)
        && digits.len() < 6
        && digits.chars().all(|one| one.is_ascii_digit())
}

/// What is left of the fields of a request.
fn stripped(headers: &HeaderMap, forwarded: bool) -> Vec<(String, Vec<String>)> {
    const HOP: &str = " connection transfer-encoding upgrade te expect proxy-authenticate \
        proxy-authorization keep-alive proxy-connection http2-settings ";
    const KEPT: &str = " host authorization cache-control content-encoding content-length \
        content-type cookie set-cookie via ";
    let named = members(headers, "connection");
    let mut left = fields(headers);
    left.retain(|(name, _)| {
        let has = |list: &str| list.contains(&format!(" {name} "));
        let tells = name.starts_with("x-forwarded-") || name == "forwarded" || name == "x-real-ip";
        !(has(HOP) || named.contains(name) && !has(KEPT) || forwarded && tells)
    });
    if members(headers, "te").contains(&"trailers".to_owned()) {
        left.push(("te".to_owned(), vec!["trailers".to_owned()]));
    }
    left
}

/// RFC 9110, section 7.6.2: digits and nothing else.
fn hops(head: &Parts) -> Option<u64> {
    let left = text(head.headers.get("max-forwards")?);
    let digits = !left.is_empty() && left.chars().all(|one| one.is_ascii_digit());
    let counts = [Method::OPTIONS, Method::TRACE].contains(&head.method);
    left.parse().ok().filter(|_| digits && counts)
}

#[test]
fn fuzz_what_is_read_of_a_head() {
    fuzz::run(20_000, |random| {
        let head = head(random);
        let hosts: Vec<_> = head.headers.get_all(HOST).iter().map(text).collect();
        for host in &hosts {
            let bytes: Vec<u8> = host.chars().map(|one| one as u8).collect();
            assert_eq!(is_host(&bytes), is_good_host(host), "{host:?}");
        }
        let passes = members(&head.headers, "via");
        let passes = passes.iter().filter(|hop| {
            let mut words = hop.split([' ', '\t']).filter(|word| !word.is_empty());
            words.nth(1) == Some("pacegate")
        });
        assert_eq!(super::passes(&head.headers), passes.count());
        if check(&head, 100).is_ok() {
            assert!(hosts.len() < 2 && hosts.iter().all(|host| is_good_host(host)));
            let authority = head.uri.authority().map(ToString::to_string);
            let known = authority.or(hosts.first().cloned());
            let name = super::host(&head).map(|name| String::from_utf8(name.to_vec()).unwrap());
            assert!(
                known
                    .unwrap_or_default()
                    .starts_with(&name.unwrap_or_default())
            );
        }
        let connection = members(&head.headers, "connection").contains(&"upgrade".to_owned());
        let asked: Vec<_> = members(&head.headers, "upgrade")
            .into_iter()
            .filter(|one| one != "h2c")
            .collect();
        let offered = connection && head.version == Version::HTTP_11 && !asked.is_empty();
        let offer = upgrade::offered(&head);
        let said = offer.map(|offer| text(&offer).to_ascii_lowercase());
        assert_eq!(said, offered.then(|| asked.join(", ")));
    });
}

#[test]
fn fuzz_what_is_written_of_a_head() {
    fuzz::run(20_000, |random| {
        let mut head = head(random);
        let (before, left) = (fields(&head.headers), hops(&head));
        assert_eq!(take_hop(&mut head), left != Some(0));
        match left {
            None | Some(0) => assert_eq!(fields(&head.headers), before),
            Some(left) => assert_eq!(head.headers["max-forwards"], (left - 1).to_string()),
        }
        let forwarded = random.below(2) == 0;
        let expected = stripped(&head.headers, forwarded);
        strip_request(&mut head.headers, forwarded);
        assert_eq!(fields(&head.headers), expected);

        let prefix = if head.uri.path().starts_with("/a") {
            2
        } else {
            0
        };
        let whole = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let sent = target(&head.uri, prefix);
        let rest = &whole[prefix..];
        let expected = match rest.starts_with('/') || rest == "*" {
            true => rest.to_owned(),
            false => format!("/{rest}"),
        };
        assert_eq!(sent.as_str(), expected);

        let host = authority(&head).filter(|host| is_host(host.as_bytes()));
        let peer = random.pick(&[
            None,
            Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))),
            Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        ]);
        add_forwarded(&mut head.headers, peer, host.as_ref());
        let said = text(&head.headers[FORWARDED]);
        let pairs: Vec<_> = said
            .split(';')
            .map(|pair| pair.split_once('=').unwrap())
            .collect();
        let names: Vec<_> = pairs.iter().map(|(name, _)| *name).collect();
        match &host {
            Some(host) => {
                assert_eq!(names, ["for", "host", "proto"]);
                assert_eq!(pairs[1].1, format!("\"{}\"", text(host)));
            }
            None => assert_eq!(names, ["for", "proto"]),
        }
        for (_, value) in pairs {
            let quoted = value
                .strip_prefix('"')
                .and_then(|rest| rest.strip_suffix('"'));
            let bare = quoted.unwrap_or(value);
            assert!(!bare.contains(['"', '\\', ' ', ',']), "{said}");
            assert!(
                quoted.is_some() || !bare.contains([':', '[', ']']),
                "{said}"
            );
        }
    });
}
