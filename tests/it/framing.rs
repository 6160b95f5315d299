//! Where a request begins and ends: what is refused because it is malformed or
//! could be read in two ways (RFC 9112), and what is not.
//!
//! A refusal is one of our own answers, is counted, and closes the connection;
//! the upstream sees nothing of it, and what follows is not read.

use crate::support::{Proxy, Response, Upstream, get, ok};

/// The start of a request that would do harm if it were read.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: caller\r\n\r\n";

/// Sends each of `requests`, which must be refused with `status`, after a good
/// one and before one that must not be read.
async fn refused(status: u16, requests: &[(&str, &str)]) {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    for (why, request) in requests {
        let mut caller = proxy.send(get("/good")).await;
        assert_eq!(caller.response().await.status, 200, "{why}");
        caller.send(format!("{request}{SMUGGLED}")).await;
        let method = if request.starts_with("HEAD ") {
            "HEAD"
        } else {
            "GET"
        };
        let response = caller.response_to(method).await;
        assert_eq!(response.status, status, "{why}: {response:?}");
        if method != "HEAD" {
            response.assert_refusal(status, "bad_request");
        }
        assert!(response.fields.has_token("connection", "close"), "{why}");
        let rest = caller.closed().await;
        assert!(rest.is_empty(), "{why}: {}", String::from_utf8_lossy(&rest));
    }
    let good = requests.len();
    let targets = upstream.targets();
    assert_eq!(targets, vec!["/good"; good], "{targets:?}");
    let ended = proxy.metrics().await.ended("", "bad_request")
        + proxy.metrics().await.ended("api", "bad_request");
    assert_eq!(ended, good as f64);
}

/// Sends each of `requests`, which must pass, and then a good one on the same
/// connection.
async fn accepted(requests: &[(&str, &str)]) {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    for (why, request) in requests {
        let mut caller = proxy.send(request).await;
        let method = if request.starts_with("HEAD ") {
            "HEAD"
        } else {
            "GET"
        };
        assert_eq!(caller.response_to(method).await.status, 200, "{why}");
        caller.send(get("/next")).await;
        assert_eq!(caller.response().await.status, 200, "after {why}");
    }
    assert_eq!(upstream.targets().len(), 2 * requests.len());
}

fn with(fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: caller\r\n{fields}\r\n")
}

async fn fields_refused(status: u16, cases: &[(&str, &str)]) {
    let requests: Vec<_> = cases
        .iter()
        .map(|(why, fields)| (*why, with(fields)))
        .collect();
    let requests: Vec<_> = requests
        .iter()
        .map(|(why, request)| (*why, request.as_str()))
        .collect();
    refused(status, &requests).await;
}

/// RFC 9112, section 3.
#[tokio::test]
async fn a_malformed_request_line_is_refused() {
    refused(
        400,
        &[
            ("HTTP/0.9", "GET /\r\n"),
            ("no target", "GET HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("an empty target", "GET  HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
            (
                "two spaces before the version",
                "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            ("a space at the end", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
            ("a space at the start", " GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("a tab", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
            (
                "a method that is no token",
                "GE(T / HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            (
                "a space in the target",
                "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            (
                "a version in lower case",
                "GET / http/1.1\r\nHost: a\r\n\r\n",
            ),
            ("a longer version", "GET / HTTP/1.10\r\nHost: a\r\n\r\n"),
            ("a version of one part", "GET / HTTP/3\r\nHost: a\r\n\r\n"),
            ("another protocol", "GET / ICAP/1.0\r\nHost: a\r\n\r\n"),
            ("a bare LF", "GET / HTTP/1.1\nHost: a\r\n\r\n"),
            ("a bare CR", "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("a NUL", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("TLS", "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n"),
            (
                "five empty lines",
                "\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            (
                "an empty line with LF only",
                "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
        ],
    )
    .await;
}

/// RFC 9110, section 2.5: only what we can speak.
#[tokio::test]
async fn other_versions_are_refused() {
    refused(
        505,
        &[
            ("2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
            ("1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
            ("0.9", "GET / HTTP/0.9\r\nHost: a\r\n\r\n"),
            ("9.9", "GET / HTTP/9.9\r\nHost: a\r\n\r\n"),
        ],
    )
    .await;
}

/// RFC 9112, section 5.
#[tokio::test]
async fn malformed_fields_are_refused() {
    fields_refused(
        400,
        &[
            ("5.1: a space before the colon", "X-A : 1\r\n"),
            ("5.1: a tab before the colon", "X-A\t: 1\r\n"),
            (
                "5.1: a space before the colon of a length",
                "Content-Length : 0\r\n",
            ),
            ("5.1: no colon", "X-A\r\n"),
            ("5.1: no name", ": 1\r\n"),
            ("5.1: a name that is no token", "X(A): 1\r\n"),
            ("5.1: a name that is not ASCII", "X-\u{e9}: 1\r\n"),
            ("5.1: a NUL in a name", "X\0A: 1\r\n"),
            ("5.2: a folded line", "X-A: 1\r\n 2\r\n"),
            ("5.2: a line folded by a tab", "X-A: 1\r\n\t2\r\n"),
            ("2.2: a bare CR in a value", "X-A: 1\r2\r\n"),
            ("2.2: a bare CR before the end", "X-A: 1\r\r\n"),
            ("2.2: a bare LF", "X-A: 1\nX-B: 2\r\n"),
            ("RFC 9110, 5.5: a NUL in a value", "X-A: 1\x002\r\n"),
            (
                "RFC 9110, 5.5: a control byte in a value",
                "X-A: 1\x012\r\n",
            ),
            ("RFC 9110, 5.5: a vertical tab in a value", "X-A: \x0b1\r\n"),
            ("RFC 9110, 5.5: a DEL in a value", "X-A: \x7f\r\n"),
        ],
    )
    .await;
    refused(
        400,
        &[
            (
                "2.2: a space before the first field",
                "GET / HTTP/1.1\r\n Host: caller\r\n\r\n",
            ),
            (
                "2.2: LF only at the end of the head",
                "GET / HTTP/1.1\r\nHost: caller\r\n\n",
            ),
        ],
    )
    .await;
}

/// RFC 9112, section 6.3.
#[tokio::test]
async fn a_length_that_is_not_one_number_is_refused() {
    fields_refused(
        400,
        &[
            (
                "two that differ",
                "Content-Length: 0\r\nContent-Length: 1\r\n",
            ),
            (
                "two that are equal",
                "Content-Length: 0\r\nContent-Length: 0\r\n",
            ),
            ("a list", "Content-Length: 0, 0\r\n"),
            ("a sign", "Content-Length: +0\r\n"),
            ("a minus", "Content-Length: -1\r\n"),
            ("none", "Content-Length:\r\n"),
            ("only space", "Content-Length:  \t\r\n"),
            ("hexadecimal", "Content-Length: 0x0\r\n"),
            ("a fraction", "Content-Length: 0.0\r\n"),
            ("an exponent", "Content-Length: 1e0\r\n"),
            ("a space inside", "Content-Length: 1 0\r\n"),
            ("another script", "Content-Length: \u{661}\r\n"),
            ("2^64", "Content-Length: 18446744073709551616\r\n"),
            (
                "more than anybody holds",
                "Content-Length: 9223372036854775808\r\n",
            ),
        ],
    )
    .await;
}

/// RFC 9112, section 6.1.
#[tokio::test]
async fn a_coding_and_a_length_or_two_codings_are_refused() {
    fields_refused(
        400,
        &[
            (
                "both",
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            ),
            (
                "both, the other way round",
                "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            ),
            (
                "twice",
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            ),
        ],
    )
    .await;
    let old = "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    refused(400, &[("in HTTP/1.0", old)]).await;
}

/// RFC 9112, section 6.1.
#[tokio::test]
async fn codings_other_than_exactly_chunked_are_refused() {
    fields_refused(
        501,
        &[
            ("another before it", "Transfer-Encoding: gzip, chunked\r\n"),
            (
                "another after it",
                "Transfer-Encoding: chunked, identity\r\n",
            ),
            ("only another", "Transfer-Encoding: identity\r\n"),
            ("twice", "Transfer-Encoding: chunked, chunked\r\n"),
            ("a comma", "Transfer-Encoding: ,chunked\r\n"),
            ("a parameter", "Transfer-Encoding: chunked;q=1\r\n"),
            ("in quotes", "Transfer-Encoding: \"chunked\"\r\n"),
            ("almost", "Transfer-Encoding: xchunked\r\n"),
            ("none", "Transfer-Encoding:\r\n"),
            (
                "another first",
                "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
            ),
        ],
    )
    .await;
}

/// RFC 9112, section 7.1.
#[tokio::test]
async fn malformed_chunks_are_refused_and_never_passed_off_as_a_body() {
    let bodies = [
        ("0x", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("a sign", "+5\r\nhello\r\n0\r\n\r\n"),
        ("a minus", "-5\r\nhello\r\n0\r\n\r\n"),
        ("a space before", " 5\r\nhello\r\n0\r\n\r\n"),
        ("a space after", "5 \r\nhello\r\n0\r\n\r\n"),
        ("no size", "\r\nhello\r\n0\r\n\r\n"),
        ("no digit", "g\r\nhello\r\n0\r\n\r\n"),
        ("17 digits", "00000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("2^64", "10000000000000000\r\nhello\r\n0\r\n\r\n"),
        ("2^63", "8000000000000000\r\nhello\r\n0\r\n\r\n"),
        ("too short", "4\r\nhello\r\n0\r\n\r\n"),
        ("too long", "6\r\nhello\r\n0\r\n\r\n"),
        ("LF after the size", "5\nhello\r\n0\r\n\r\n"),
        ("CR after the size", "5\rhello\r\n0\r\n\r\n"),
        ("LF after the data", "5\r\nhello\n0\r\n\r\n"),
        ("LF after the last size", "5\r\nhello\r\n0\n\r\n"),
        ("LF at the end", "5\r\nhello\r\n0\r\n\n"),
        ("an empty extension", "5;\r\nhello\r\n0\r\n\r\n"),
        (
            "an extension that is no token",
            "5;a(b)\r\nhello\r\n0\r\n\r\n",
        ),
        ("an extension without value", "5;a=\r\nhello\r\n0\r\n\r\n"),
        ("an open quote", "5;a=\"b\r\nhello\r\n0\r\n\r\n"),
        ("an LF in an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
        ("a CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ("a NUL in an extension", "5;a=\"\0\"\r\nhello\r\n0\r\n\r\n"),
        (
            "6.5.1: a length as a trailer",
            "0\r\nContent-Length: 5\r\n\r\n",
        ),
        (
            "6.5.1: a coding as a trailer",
            "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        ("6.5.1: a host as a trailer", "0\r\nHost: evil\r\n\r\n"),
        ("a trailer without colon", "0\r\nX-A\r\n\r\n"),
        ("a space before a trailer's colon", "0\r\nX-A : 1\r\n\r\n"),
        ("a folded trailer", "0\r\nX-A: 1\r\n 2\r\n\r\n"),
        ("an LF after a trailer", "0\r\nX-A: 1\n\r\n"),
        ("a NUL in a trailer", "0\r\nX-A: \0\r\n\r\n"),
        (
            "a request where trailers end",
            "0\r\nGET / HTTP/1.1\r\n\r\n",
        ),
    ];
    let requests: Vec<_> = bodies
        .iter()
        .map(|(why, body)| (*why, with("Transfer-Encoding: chunked\r\n") + body))
        .collect();
    let requests: Vec<_> = requests
        .iter()
        .map(|(why, request)| (*why, request.as_str()))
        .collect();
    refused(400, &requests).await;
}

/// The upstream has seen the head of a body that streams; it must not see its end.
#[tokio::test]
async fn a_body_that_streams_and_turns_out_malformed_ends_the_call() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "buffer_body = \"1B\"");
    let mut caller = proxy
        .send(with("Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n")
        .await;
    upstream
        .until("the start of the body", |log| {
            log.requests
                .first()
                .is_some_and(|seen| seen.body == b"hello")
        })
        .await;
    caller.send("zz\r\n").await;
    caller.response().await.assert_refusal(400, "bad_request");
    caller.closed().await;
    upstream
        .until("the end of the connection", |log| log.ended == 1)
        .await;
    assert!(!upstream.only_request().whole);
    proxy.until_first_end("api", "bad_request").await;
}

/// What looks odd and is in order.
#[tokio::test]
async fn what_is_in_order_passes() {
    accepted(&[
        ("2.2: an empty line before", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("3.1: a method of its own", "BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("3.1: a method in lower case", "get / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("3.1: a method of signs", "M-SEARCH!#$%&'*+.^_`|~ / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("5.1: no space after the colon", "GET / HTTP/1.1\r\nHost:a\r\n\r\n"),
        ("5.1: much space around a value", "GET / HTTP/1.1\r\nHost: \t a \t \r\n\r\n"),
        ("5.5: a tab in a value", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\t2\r\n\r\n"),
        ("5.5: bytes beyond ASCII", "GET / HTTP/1.1\r\nHost: a\r\nX-A: \u{e9}\r\n\r\n"),
        ("6.1: a coding in capitals", "POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n0\r\n\r\n"),
        ("6.2: a body of a GET", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"),
        ("6.2: a length with zeros before", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 002\r\n\r\nhi"),
        ("7.1: sizes of all kinds", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0A\r\n0123456789\r\n00000b\r\n0123456789a\r\n000\r\n\r\n"),
        ("7.1.1: extensions", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;a;b=c;d=\"e \\\" f\"\r\nhi\r\n0;x\r\n\r\n"),
        ("7.1.1: space around them", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2 ; a = b\r\nhi\r\n0\r\n\r\n"),
        ("7.1.2: trailers", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: 1\r\nX-B:\r\n\r\n"),
    ])
    .await;
}

/// RFC 9112, section 9.3: what does not come to its end is not sent on.
#[tokio::test]
async fn a_refusal_comes_after_the_answers_of_the_requests_before_it() {
    let upstream = Upstream::holding().await;
    let proxy = Proxy::before(&upstream, "");
    let bad = "GET / HTTP/1.1\r\nHost: caller\r\nX A: 1\r\n\r\n";
    let requests = [get("/1"), get("/2"), bad.into(), get("/3")].concat();
    let mut caller = proxy.send(requests).await;
    upstream.until_requests(1).await;
    upstream.release(2);
    assert_eq!(caller.response().await.status, 200);
    assert_eq!(caller.response().await.status, 200);
    caller.response().await.assert_refusal(400, "bad_request");
    assert_eq!(caller.closed().await, b"");
    assert_eq!(upstream.targets(), ["/1", "/2"]);
}

/// RFC 9112, section 9.6.
#[tokio::test]
async fn nothing_is_read_after_a_request_that_closes() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    for last in [
        "GET /last HTTP/1.1\r\nHost: caller\r\nConnection: close\r\n\r\n",
        "GET /last HTTP/1.1\r\nHost: caller\r\nConnection: x, Close\r\n\r\n",
        "GET /last HTTP/1.0\r\nHost: caller\r\n\r\n",
    ] {
        let mut caller = proxy.send(format!("{last}{SMUGGLED}")).await;
        assert_eq!(caller.response().await.status, 200, "{last}");
        assert_eq!(caller.closed().await, b"", "{last}");
    }
    assert_eq!(upstream.targets(), ["/last"; 3]);
}

/// RFC 9112, section 2.2.
#[tokio::test]
async fn a_head_passes_in_any_pieces() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let request = "POST /p HTTP/1.1\r\nHost: caller\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n\
        2;a=\"b\"\r\nhi\r\n0\r\nX-T: 1\r\n\r\n";
    let mut caller = proxy.caller().await;
    for byte in request.bytes() {
        caller.send([byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(caller.response().await.status, 200);
    let seen = upstream.only_request();
    assert_eq!((seen.target.as_str(), &seen.body[..]), ("/p", &b"hi"[..]));
}

/// RFC 9112, section 9.6.
/// An answer must not be overtaken by a reset, which an unread body would cause.
#[tokio::test]
async fn a_refusal_reaches_a_caller_that_is_still_sending() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "max_body = \"1KiB\"");
    let length = 8 << 20;
    let head = format!("POST / HTTP/1.1\r\nHost: caller\r\nContent-Length: {length}\r\n\r\n");
    let malformed = "POST / HTTP/1.1\r\nHost: caller\r\nX A: 1\r\n\r\n".to_owned();
    for (head, status) in [(head, 413), (malformed, 400)] {
        let mut caller = proxy.send(head).await;
        // All of it, although the answer is there already.
        caller.send(vec![b'x'; length]).await;
        let response: Response = caller.response().await;
        assert_eq!(response.status, status);
        assert_eq!(caller.closed().await, b"");
    }
}
