//! What changes in a message head on its way, and what does not.

use std::fs;

use crate::support::{Fields, Proxy, Upstream, get, ok};

/// The names of the fields whose names start with `x-`, in their order.
fn own_names(fields: &Fields) -> Vec<&str> {
    let names = fields.0.iter().map(|(name, _)| name.as_str());
    names.filter(|name| name.starts_with("x-")).collect()
}

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
