//! Which requests a target means (RFC 9112, section 3), and how it is passed on.

use crate::support::{Proxy, Upstream, get, ok};

fn request(method: &str, target: &str, host: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

/// RFC 9112, section 3.2.1: every byte is the upstream's to understand.
#[tokio::test]
async fn origin_form_arrives_byte_for_byte() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let targets = [
        "/",
        "//",
        "//evil.example/x",
        "/a//b/",
        "/%2f%2F%00%zz%",
        "/a;b=c;d",
        "/.",
        "/../../etc/passwd",
        "/a/./b/../c",
        "/?",
        "/?a?b??c",
        "/a?b=/../;c&&d",
        "/:8080@host",
        "/http://evil/",
        "/a\\b",
        "/*",
    ];
    for target in targets {
        assert_eq!(proxy.get(target).await.status, 200, "{target}");
    }
    assert_eq!(upstream.targets(), targets);
}

/// RFC 9112, section 3.2.2.
#[tokio::test]
async fn absolute_form_is_taken_apart() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    for (target, host) in [
        ("http://caller/a?b", "caller"),
        ("http://CALLER:80/", "caller"),
        ("https://caller", "caller:443"),
        ("http://caller?q", "caller"),
        ("http://[::1]:81//x", "[::1]:81"),
    ] {
        let mut caller = proxy.send(request("GET", target, host)).await;
        assert_eq!(caller.response().await.status, 200, "{target}");
    }
    assert_eq!(upstream.targets(), ["/a?b", "/", "/", "/?q", "//x"]);
    for seen in upstream.requests() {
        assert_eq!(seen.fields.get("host"), Some(upstream.authority().as_str()));
    }
}

/// RFC 9112, sections 3.2 and 3.2.2; RFC 9110, section 4.2.4.
#[tokio::test]
async fn a_host_that_is_missing_doubled_malformed_or_disagrees_is_refused() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let mut requests: Vec<_> = [
        "", "a b", "a,b", "a, a", "user@a", "a:port", "a:80:80", "a/b", "[::1", "[v1.a]",
        "a\u{e9}", ":80",
    ]
    .iter()
    .map(|host| request("GET", "/", host))
    .collect();
    requests.extend([
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nX-Host: a\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n".to_owned(),
        "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(),
        request("GET", "http://evil/", "caller"),
        request("GET", "http://caller:81/", "caller"),
        request("GET", "http://caller@evil/", "caller"),
        request("GET", "http://user@caller/", "caller"),
        "GET http://caller/ HTTP/1.1\r\n\r\n".to_owned(),
    ]);
    for request in &requests {
        let mut caller = proxy.send(request).await;
        caller.response().await.assert_refusal(400, "bad_request");
        caller.closed().await;
    }
    assert_eq!(upstream.log().opened, 0);
    let ended = proxy.metrics().await.ended("", "bad_request");
    assert_eq!(ended, requests.len() as f64);
}

/// RFC 9112, section 3.2: none of the four forms, or not for a gateway.
#[tokio::test]
async fn other_targets_are_refused() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    for (method, target, status) in [
        ("GET", "*", 400),
        ("OPTIONS", "*x", 400),
        ("GET", "relative", 400),
        ("GET", "caller:80", 400),
        ("GET", "?q", 400),
        ("GET", "ftp://caller/", 400),
        ("GET", "file:///etc/passwd", 400),
        ("GET", "http:///", 400),
        ("GET", "http://", 400),
        ("GET", "http:/caller/", 400),
        ("GET", "/a#b", 400),
        ("GET", "/a?b#c", 400),
        ("GET", "http://caller/#", 400),
        ("GET", "/<script>", 400),
        ("GET", "/\u{e9}", 400),
        ("GET", "/?\u{e9}", 400),
        ("GET", "/\u{7f}", 400),
        ("CONNECT", "caller:443", 501),
        ("CONNECT", "/", 501),
        ("CONNECT", "http://caller/", 501),
    ] {
        let mut caller = proxy.send(request(method, target, "caller")).await;
        let response = caller.response().await;
        assert_eq!(response.status, status, "{target}");
        response.assert_refusal(status, "bad_request");
        caller.closed().await;
    }
    assert_eq!(upstream.log().opened, 0);
}

/// RFC 9110, section 15.5.15.
#[tokio::test]
async fn a_target_that_is_too_long_is_refused_as_such() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "[client]\nmax_header_bytes = \"128KiB\"\n");
    for (length, status) in [(60_000, 200), (66_000, 414), (200_000, 414)] {
        let mut caller = proxy.caller().await;
        caller
            .send_some(get(&format!("/{}", "x".repeat(length))))
            .await;
        assert_eq!(caller.response().await.status, status, "{length}");
    }
}

/// RFC 9112, section 3.2.4.
#[tokio::test]
async fn options_for_the_whole_server_goes_by_host() {
    let (first, second) = (
        Upstream::answering(ok("first")).await,
        Upstream::answering(ok("second")).await,
    );
    let proxy = Proxy::start(&format!(
        "[upstream.first]\nurl = \"{}\"\nmatch = {{ host = \"first\" }}\n\
         [upstream.second]\nurl = \"{}\"\nmatch = {{ host = \"second\" }}\n",
        first.url(),
        second.url(),
    ));
    for name in ["second", "first"] {
        let absolute = format!("http://{name}");
        for target in ["*", &absolute] {
            let mut caller = proxy.send(request("OPTIONS", target, name)).await;
            assert_eq!(caller.response().await.text(), name);
        }
    }
    assert_eq!(
        (first.targets(), second.targets()),
        (vec!["*".to_owned(); 2], vec!["*".to_owned(); 2])
    );
    // With a path or a query, or for another method, it is not the whole.
    let others = [
        ("OPTIONS", "http://first/", "/"),
        ("OPTIONS", "http://first?q", "/?q"),
        ("OPTIONS", "/http://first", "/http://first"),
        ("GET", "http://first", "/"),
    ];
    for (method, target, _) in others {
        let mut caller = proxy.send(request(method, target, "first")).await;
        assert_eq!(caller.response().await.status, 200);
    }
    assert_eq!(
        first.targets()[2..],
        others.map(|(.., sent)| sent.to_owned())
    );
}
