//! What somebody tries who wants caller and upstream to disagree about where a
//! message ends or what it says, beyond the single rules that `framing`, `heads`,
//! `targets` and `answers` go through.

use crate::support::{Proxy, Step, Upstream, get, ok};

/// What is to be smuggled.
const INNER: &str = "GET /inner HTTP/1.1\r\nHost: caller\r\n\r\n";

/// Follows each request and closes.
const LAST: &str = "GET /last HTTP/1.1\r\nHost: caller\r\nConnection: close\r\n\r\n";

/// Each of `requests` is refused, or passed on whole and followed by the last: the
/// upstream never sees the inner request. How many were passed on.
async fn never_smuggled(requests: &[String]) -> usize {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    for request in requests {
        let mut caller = proxy.caller().await;
        caller.send_some(format!("{request}{LAST}")).await;
        caller.closed().await;
        let seen = upstream.targets();
        assert!(
            !seen.contains(&"/inner".to_owned()),
            "{request:?}: {seen:?}"
        );
    }
    let log = upstream.log();
    assert!(log.requests.iter().all(|seen| seen.whole), "{log:?}");
    let count = |target| {
        let seen = log.requests.iter();
        seen.filter(|seen| seen.target == target).count()
    };
    assert_eq!(count("/outer"), count("/last"));
    count("/last")
}

/// RFC 9112, section 11.2. Each hides the inner request in what one reading takes
/// for a body and another for the next request.
#[tokio::test]
async fn no_shape_of_smuggling_gets_a_second_request_through() {
    let length = INNER.len();
    let post = "POST /outer HTTP/1.1\r\nHost: caller\r\n";
    let heads = [
        // A length and a coding, in every order, spelling and disguise.
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n\r\n0\r\n\r\n"),
        format!("Content-Length: {length}\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        format!("Content-Length: {length}\r\nTransfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n"),
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n"),
        format!("Content-Length: {length}\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("Content-Length: {length}\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("Content-Length: {length}\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!(
            "Content-Length: {length}\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        format!(
            "Content-Length: {length}\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"
        ),
        format!("Content-Length: {length}\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
        format!("Content-Length: {length}\r\nTransfer-Encoding\0: chunked\r\n\r\n0\r\n\r\n"),
        format!(
            "Content-Length: {length}\r\nTransfer_Encoding: chunked\r\nContent-Length: 0\r\n\r\n"
        ),
        // Lengths that are read as less.
        format!("Content-Length: 0\r\nContent-Length: {length}\r\n\r\n"),
        format!("Content-Length: +{length}\r\n\r\n"),
        format!("Content-Length: {length} 0\r\n\r\n"),
        format!("Content-Length: 0x0\r\nX: {length}\r\n\r\n"),
        "Content-Length: 99999999999999999999\r\n\r\n".to_owned(),
        "Content-Length: 18446744073709551616\r\n\r\n".to_owned(),
        // Chunks that are read as longer or shorter.
        "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\n\r\n100000000000000000\r\n0\r\n\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\n\r\n0;a=\"\r\n\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\n\r\n0;a\n\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\n\r\n1\r\nZZ\r\n0\r\n\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\n\r\n0_1\r\nZ\r\n0\r\n\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n".to_owned(),
    ];
    let mut requests: Vec<_> = heads
        .iter()
        .map(|head| format!("{post}{head}{INNER}"))
        .collect();
    // A body where others expect none, and the other way round.
    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        let head = format!("{method} /outer HTTP/1.1\r\nHost: caller\r\n");
        requests.push(format!("{head}Content-Length: {length}\r\n\r\n{INNER}"));
        let chunks = format!("{length:x}\r\n{INNER}\r\n0\r\n\r\n");
        requests.push(format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}"));
    }
    // An upgrade that is not granted, over a body.
    requests.push(format!(
        "{post}Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: {length}\r\n\r\n{INNER}"
    ));
    requests.push(format!(
        "{post}Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n\
         Content-Length: {length}\r\n\r\n{INNER}"
    ));
    // A preface in the middle.
    requests.push(format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{INNER}"));
    // The bodies of four methods in two framings, and what asks for an upgrade.
    assert_eq!(never_smuggled(&requests).await, 10);
}

/// What `Connection` names goes, but for what the other end needs, and never the
/// framing.
#[tokio::test]
async fn connection_options_change_no_meaning() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    for options in [
        "close, te",
        "te, trailers, close",
        "host",
        "content-length, host, transfer-encoding",
        "keep-alive, close, x-a",
        ",,, close ,",
        "x-a;q=1, \"x-b\", x a",
    ] {
        let request = format!(
            "POST /p HTTP/1.1\r\nHost: caller\r\nConnection: {options}\r\nTE: gzip, trailers;q=0.5\r\n\
             X-B: kept\r\nContent-Length: 2\r\n\r\nhi"
        );
        let response = proxy.send(request).await.response().await;
        assert_eq!(response.status, 200, "{options}");
        let seen = upstream.requests().pop().unwrap();
        assert_eq!(seen.body, b"hi", "{options}");
        assert_eq!(seen.fields.get("host"), Some(&*upstream.authority()));
        assert_eq!(seen.fields.get("content-length"), Some("2"), "{options}");
        assert_eq!(seen.fields.get("x-b"), Some("kept"), "{options}");
        assert_eq!(seen.fields.get("connection"), None, "{options}");
    }
}

/// RFC 9110, section 6.4.1, and RFC 9112, section 6.3: what follows an answer that
/// has no body belongs to nobody.
#[tokio::test]
async fn a_body_where_none_can_be_is_not_the_next_answer() {
    let inner = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ninner";
    for head in [
        "HTTP/1.1 204 No Content\r\nContent-Length: 48\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 48\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    ] {
        let answer = format!("{head}{inner}").into_bytes();
        let upstream = Upstream::start(move |seen| match seen.target.as_str() {
            "/first" => vec![Step::Send(answer.clone())],
            _ => vec![Step::Send(ok("good"))],
        })
        .await;
        let proxy = Proxy::before(&upstream, "");
        let mut caller = proxy.send(get("/first")).await;
        let first = caller.last_response().await;
        assert!(
            matches!(first.status, 204 | 304 | 502),
            "{head:?}: {first:?}"
        );
        for _ in 0..3 {
            let next = proxy.get("/next").await;
            assert_eq!(next.text(), "good", "{head:?}");
        }
    }
}

/// A length that is told twice in one way, or with a coding, in an interim answer:
/// it has no body, whatever it says.
#[tokio::test]
async fn an_interim_answer_frames_nothing() {
    let upstream = Upstream::start(|seen| {
        let hint = "HTTP/1.1 103 Early Hints\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\
            Connection: close\r\nX-A: b\r\n\r\n";
        vec![Step::Send([hint.as_bytes(), &ok(&seen.target)].concat())]
    })
    .await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = proxy.caller().await;
    for target in ["/1", "/2"] {
        caller.send(get(target)).await;
        let hint = caller.response().await;
        assert_eq!((hint.status, hint.fields.get("x-a")), (103, Some("b")));
        for name in ["content-length", "transfer-encoding", "connection"] {
            assert_eq!(hint.fields.get(name), None);
        }
        assert_eq!(caller.response().await.text(), target);
    }
}

/// A caller cannot have an answer split in two by what it sends.
#[tokio::test]
async fn nothing_of_a_request_comes_back_in_a_head() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::start(&format!(
        "[upstream.api]\nurl = \"{}\"\nmatch = {{ prefix = \"/api\" }}",
        upstream.url()
    ));
    for target in ["/%0d%0aX-Evil:%201", "/%0aX-Evil:1", "/x?%0d%0aX-Evil:1"] {
        let response = proxy.get(target).await;
        response.assert_refusal(404, "no_route");
        assert_eq!(response.fields.get("x-evil"), None);
        assert!(!response.text().contains("Evil"), "{response:?}");
    }
}
