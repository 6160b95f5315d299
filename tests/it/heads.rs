//! What changes in a message head on its way, and what does not.

use std::fs;

use crate::support::{Fields, Proxy, Upstream, get, ok};

/// The names of the fields whose names start with `x-`, in their order.
fn own_names(fields: &Fields) -> Vec<&str> {
    let names = fields.0.iter().map(|(name, _)| name.as_str());
    names.filter(|name| name.starts_with("x-")).collect()
}

/// RFC 9110, section 7.7: a proxy does not modify them.
#[tokio::test]
async fn path_and_query_arrive_byte_for_byte() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let targets = [
        "//a%2fb;c?x=/?&&",
        "/%7Euser/%7euser/../.?",
        "/a'b(c)*!$,:@|{}?q='`{}|^",
        "/?",
        "/?http://elsewhere/",
    ];
    for target in targets {
        assert_eq!(proxy.get(target).await.status, 200, "{target}");
    }
    assert_eq!(upstream.targets(), targets);
}

#[tokio::test]
async fn a_prefix_is_cut_off_or_kept_as_configured() {
    let (cut, kept) = (
        Upstream::answering(ok("cut")).await,
        Upstream::answering(ok("kept")).await,
    );
    let proxy = Proxy::start(&format!(
        "[upstream.cut]\nurl = \"{}\"\nmatch = {{ prefix = \"/cut\" }}\n\
         [upstream.kept]\nurl = \"{}\"\nmatch = {{ prefix = \"/kept\", keep_prefix = true }}\n",
        cut.url(),
        kept.url(),
    ));
    for rest in ["//a%2fb;c?x=/?&&", "?q", ""] {
        assert_eq!(proxy.get(&format!("/cut{rest}")).await.text(), "cut");
        assert_eq!(proxy.get(&format!("/kept{rest}")).await.text(), "kept");
    }
    assert_eq!(cut.targets(), ["//a%2fb;c?x=/?&&", "/?q", "/"]);
    assert_eq!(
        kept.targets(),
        ["/kept//a%2fb;c?x=/?&&", "/kept?q", "/kept"]
    );
}

/// RFC 9110, section 5.3.
#[tokio::test]
async fn fields_keep_their_order_and_their_repeats() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let head = "POST / HTTP/1.1\r\nX-First: 1\r\nHost: caller\r\nExpect: 100-continue\r\n\
        X-Twice: b\r\nX-Twice: a\r\nContent-Length: 2\r\nX-Empty:\r\nConnection: keep-alive\r\n\
        X-Odd: \"a, b\";c=\u{e9}\r\nX-Last: 9\r\n\r\nhi";
    let response = proxy.send(head).await;
    let mut caller = response;
    assert_eq!(caller.response().await.status, 100);
    assert_eq!(caller.response().await.status, 200);
    let seen = upstream.only_request();
    let expected = [
        "x-first", "x-twice", "x-twice", "x-empty", "x-odd", "x-last",
    ];
    assert_eq!(own_names(&seen.fields), expected);
    assert_eq!(seen.fields.all("x-twice"), ["b", "a"]);
    assert_eq!(seen.fields.get("x-empty"), Some(""));
    assert_eq!(seen.fields.get("x-odd"), Some("\"a, b\";c=\u{e9}"));
}

/// RFC 9110, section 7.6.1.
#[tokio::test]
async fn fields_of_one_connection_stay_there() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Kept: 1\r\nConnection: X-Theirs\r\n\
        X-Theirs: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\n\r\n";
    let upstream = Upstream::answering(answer).await;
    let proxy = Proxy::before(&upstream, "");
    let request = "GET / HTTP/1.1\r\nHost: caller\r\nX-Kept: 1\r\nConnection: X-Ours, keep-alive\r\n\
        X-Ours: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\n\
        Proxy-Authorization: Basic Zm9v\r\nUpgrade: h2c\r\n\r\n";
    let response = proxy.send(request).await.response().await;
    let seen = upstream.only_request();
    let gone = [
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "upgrade",
        "x-ours",
        "x-theirs",
    ];
    for (side, fields) in [("request", &seen.fields), ("response", &response.fields)] {
        assert_eq!(fields.get("x-kept"), Some("1"), "{side}");
        for name in gone {
            assert_eq!(fields.all(name), Vec::<&str>::new(), "{name} of the {side}");
        }
    }
    assert!(!seen.fields.has_token("connection", "x-ours"));
    assert!(!response.fields.has_token("connection", "x-theirs"));
}

/// RFC 9110, section 7.2.
#[tokio::test]
async fn the_upstream_is_asked_by_its_own_name() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    assert_eq!(proxy.get("/").await.status, 200);
    let absolute = "GET http://caller/absolute?q HTTP/1.1\r\nHost: caller\r\n\r\n";
    assert_eq!(proxy.send(absolute).await.response().await.status, 200);
    for seen in upstream.requests() {
        assert_eq!(seen.fields.get("host"), Some(upstream.authority().as_str()));
    }
    assert_eq!(upstream.targets(), ["/", "/absolute?q"]);
}

#[tokio::test]
async fn configured_fields_replace_those_of_the_caller() {
    let upstream = Upstream::answering(ok("ok")).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "s3cret\n").unwrap();
    let settings = format!(
        "[upstream.api.headers]\nuser-agent = \"pacegate-test\"\n\
         authorization = {{ file = \"{}\", prefix = \"Bearer \" }}\n",
        file.display(),
    );
    let proxy = Proxy::before(&upstream, &settings);
    let request = "GET / HTTP/1.1\r\nHost: caller\r\nAuthorization: Basic mine\r\nX-Kept: 1\r\n\
        User-Agent: mine\r\nUser-Agent: mine too\r\n\r\n";
    assert_eq!(proxy.send(request).await.response().await.status, 200);
    let fields = upstream.only_request().fields;
    assert_eq!(fields.all("authorization"), ["Bearer s3cret"]);
    assert_eq!(fields.all("user-agent"), ["pacegate-test"]);
    assert_eq!(fields.get("x-kept"), Some("1"));
}

/// RFC 9110, section 5.3, and RFC 9112, section 4.
#[tokio::test]
async fn responses_keep_status_reason_order_and_repeats() {
    let answer = "HTTP/1.1 299 Rather Odd\r\nX-First: 1\r\nSet-Cookie: b=2\r\nSet-Cookie: a=1\r\n\
        X-Middle: 2\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: own\r\nX-Last: 3\r\n\
        Content-Length: 2\r\n\r\nok";
    let upstream = Upstream::answering(answer).await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = proxy.send(get("/")).await;
    caller.sees("HTTP/1.1 299 Rather Odd\r\n").await;
    let response = caller.response().await;
    assert_eq!(response.status, 299);
    assert_eq!(response.fields.all("set-cookie"), ["b=2", "a=1"]);
    assert_eq!(
        own_names(&response.fields),
        ["x-first", "x-middle", "x-last"]
    );
    assert_eq!(
        response.fields.get("date"),
        Some("Thu, 01 Jan 1970 00:00:00 GMT")
    );
    assert_eq!(response.fields.get("server"), Some("own"));
}

/// Both where the head stays bytes and, behind an empty line, where it is parsed.
#[tokio::test]
async fn an_answer_gets_no_field_but_its_time_in_the_queue() {
    let answer = "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nX-Own: 1\r\n\
        Content-Length: 2\r\n\r\nok";
    let upstream = Upstream::answering(answer).await;
    let proxy = Proxy::before(&upstream, "");
    for before in ["", "\r\n"] {
        let request = format!("{before}GET / HTTP/1.1\r\nHost: caller\r\n\r\n");
        let response = proxy.send(request).await.response().await;
        let mut names: Vec<_> = response.fields.0.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "date", "server-timing", "x-own"]);
    }
}

/// RFC 9110, section 7.6.3.
#[tokio::test]
async fn requests_say_that_they_came_through_here_unless_switched_off() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let request = "GET / HTTP/1.1\r\nHost: caller\r\nVia: 1.0 fred, 1.1 p (x)\r\n\r\n";
    let response = proxy.send(request).await.response().await;
    assert_eq!(response.fields.all("via"), Vec::<&str>::new());
    let old = "GET / HTTP/1.0\r\n\r\n";
    assert_eq!(proxy.send(old).await.response().await.status, 200);
    let silent = Proxy::before(&upstream, "via = false");
    assert_eq!(silent.get("/").await.status, 200);
    let vias: Vec<_> = upstream
        .requests()
        .iter()
        .map(|seen| seen.fields.all("via").join(" | "))
        .collect();
    assert_eq!(
        vias,
        ["1.0 fred, 1.1 p (x) | 1.1 pacegate", "1.0 pacegate", ""]
    );
}

/// RFC 5842, section 7.2: a proxy whose API is itself.
#[tokio::test]
async fn a_request_that_goes_in_a_circle_is_stopped() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let via = ["1.1 pacegate"; 8].join(", ");
    let request = format!("GET / HTTP/1.1\r\nHost: caller\r\nVia: {via}\r\n\r\n");
    let response = proxy.send(request).await.response().await;
    response.assert_refusal(508, "bad_request");
    assert_eq!(upstream.log().opened, 0);
}

/// RFC 7239.
#[tokio::test]
async fn where_a_request_came_from_is_hidden_passed_on_or_said_as_configured() {
    let upstream = Upstream::answering(ok("ok")).await;
    let request = "GET / HTTP/1.1\r\nHost: caller:8080\r\nForwarded: for=10.0.0.1\r\n\
        X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Prefix: /x\r\nX-Real-IP: 10.0.0.1\r\n\r\n";
    let names = [
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-prefix",
        "x-real-ip",
    ];
    for (settings, expected) in [
        ("", [None; 4]),
        (
            "forwarded = \"keep\"",
            [
                Some("for=10.0.0.1"),
                Some("10.0.0.1"),
                Some("/x"),
                Some("10.0.0.1"),
            ],
        ),
        (
            "forwarded = \"set\"",
            [
                Some("for=127.0.0.1;host=\"caller:8080\";proto=http"),
                Some("127.0.0.1"),
                None,
                None,
            ],
        ),
    ] {
        let proxy = Proxy::before(&upstream, settings);
        assert_eq!(proxy.send(request).await.response().await.status, 200);
        let seen = upstream.requests().pop().unwrap();
        assert_eq!(
            names.map(|name| seen.fields.get(name)),
            expected,
            "{settings}"
        );
        let set = settings.contains("set");
        assert_eq!(
            seen.fields.get("x-forwarded-host"),
            set.then_some("caller:8080")
        );
        assert_eq!(seen.fields.get("x-forwarded-proto"), set.then_some("http"));
    }
}

#[tokio::test]
async fn the_host_of_the_caller_is_kept_if_so_configured() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "keep_host = true");
    let absolute = "GET http://Named:81/ HTTP/1.1\r\nHost: named:81\r\n\r\n";
    for request in [
        &get("/")[..],
        absolute.as_bytes(),
        b"GET / HTTP/1.0\r\n\r\n",
    ] {
        assert_eq!(proxy.send(request).await.response().await.status, 200);
    }
    let hosts: Vec<_> = upstream
        .requests()
        .iter()
        .map(|seen| seen.fields.get("host").unwrap().to_owned())
        .collect();
    assert_eq!(hosts, ["caller", "Named:81", &upstream.authority()]);
}

/// RFC 9110, section 7.6.2.
#[tokio::test]
async fn max_forwards_is_counted_down_and_ends_here() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    for (method, given, status) in [
        ("OPTIONS", "2", 200),
        ("OPTIONS", "0", 200),
        ("TRACE", "1", 200),
        ("TRACE", "0", 501),
        ("GET", "0", 200),
    ] {
        let request =
            format!("{method} / HTTP/1.1\r\nHost: caller\r\nMax-Forwards: {given}\r\n\r\n");
        let response = proxy.send(request).await.response().await;
        assert_eq!(response.status, status, "{method} {given}");
    }
    let seen: Vec<_> = upstream
        .requests()
        .iter()
        .map(|seen| {
            (
                seen.method.clone(),
                seen.fields.get("max-forwards").unwrap().to_owned(),
            )
        })
        .collect();
    let expected = [("OPTIONS", "1"), ("TRACE", "0"), ("GET", "0")];
    let expected = expected.map(|(method, left)| (method.to_owned(), left.to_owned()));
    assert_eq!(seen, expected);
}

/// RFC 9110, section 7.6.1: `Connection` is not for removing what the other end
/// needs.
#[tokio::test]
async fn connection_cannot_have_fields_removed_that_are_not_its_own() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let request = "POST / HTTP/1.1\r\nHost: caller\r\nContent-Length: 2\r\nCookie: a=1\r\n\
        Authorization: Basic x\r\nX-Own: 1\r\n\
        Connection: Host, content-length, Authorization, Cookie, x-own, via\r\n\r\nhi";
    assert_eq!(proxy.send(request).await.response().await.status, 200);
    let seen = upstream.only_request();
    assert_eq!(seen.body, b"hi");
    assert_eq!(seen.fields.get("host"), Some(upstream.authority().as_str()));
    assert_eq!(seen.fields.get("content-length"), Some("2"));
    assert_eq!(seen.fields.get("authorization"), Some("Basic x"));
    assert_eq!(seen.fields.get("cookie"), Some("a=1"));
    assert_eq!(seen.fields.get("via"), Some("1.1 pacegate"));
    assert_eq!(seen.fields.get("x-own"), None);
}

/// RFC 9110, section 5.1: it has no meaning, but there are those who look.
#[tokio::test]
async fn the_case_of_names_is_kept_both_ways() {
    let answer =
        "HTTP/1.1 200 OK\r\nX-cAsE: 1\r\nx-Twice: 1\r\nX-twice: 2\r\nContent-LENGTH: 0\r\n\r\n";
    let upstream = Upstream::answering(answer).await;
    let proxy = Proxy::before(&upstream, "");
    let request = "GET / HTTP/1.1\r\nHOST: caller\r\nX-oDD: 1\r\nx-Twice: 1\r\nX-twice: 2\r\n\
        Connection: x-gone\r\nX-Gone: 1\r\nUser-agent: me\r\n\r\n";
    let mut caller = proxy.send(request).await;
    caller
        .sees("\r\nX-cAsE: 1\r\nx-Twice: 1\r\nX-twice: 2\r\n")
        .await;
    assert_eq!(caller.response().await.status, 200);
    let raw = upstream.only_request().head;
    let host = format!("\r\nHOST: {}\r\n", upstream.authority());
    assert!(raw.contains(&host), "{raw}");
    let kept = "X-oDD: 1\r\nx-Twice: 1\r\nX-twice: 2\r\nUser-agent: me\r\n";
    assert!(raw.contains(kept), "{raw}");
    // Also where pacegate reads the fields itself.
    let proxy = Proxy::before(&upstream, "dialect = \"github\"");
    let mut caller = proxy.send(get("/")).await;
    caller
        .sees("\r\nX-cAsE: 1\r\nx-Twice: 1\r\nX-twice: 2\r\n")
        .await;
}

/// RFC 9110, section 10.1.1.
#[tokio::test]
async fn expectations_that_are_not_known_are_refused() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    for fields in [
        "Expect: 200-ok",
        "Expect: 100-continue, x",
        "Expect: 100-continue\r\nExpect: x",
    ] {
        let request =
            format!("POST / HTTP/1.1\r\nHost: caller\r\n{fields}\r\nContent-Length: 2\r\n\r\n");
        let mut caller = proxy.send(request).await;
        caller.response().await.assert_refusal(417, "bad_request");
        caller.closed().await;
    }
    assert_eq!(upstream.log().opened, 0);
}

/// RFC 9110, section 6.6.1.
#[tokio::test]
async fn our_own_answers_carry_a_date() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "match = { prefix = \"/api\" }");
    for request in [&get("/")[..], b"GET / HTTP/1.1\nHost: a\n\n"] {
        let response = proxy.send(request).await.response().await;
        assert!(response.fields.get("date").is_some(), "{response:?}");
    }
}

#[tokio::test]
async fn responses_tell_the_time_in_the_queue_unless_switched_off() {
    let answer = "HTTP/1.1 200 OK\r\nServer-Timing: db;dur=5\r\nContent-Length: 0\r\n\r\n";
    let upstream = Upstream::answering(answer).await;
    let proxy = Proxy::before(&upstream, "");
    let response = proxy.get("/").await;
    let timings = response.fields.all("server-timing");
    assert_eq!(timings.len(), 2, "{timings:?}");
    assert_eq!(timings[0], "db;dur=5");
    let wait = timings[1].strip_prefix("pacegate_queue;dur=").unwrap();
    assert!(wait.parse::<f64>().unwrap() >= 0.0, "{wait}");

    let silent = Proxy::before(&upstream, "server_timing = false");
    let response = silent.get("/").await;
    assert_eq!(response.fields.all("server-timing"), ["db;dur=5"]);
}
