//! Request and response bodies on their way through.

use crate::support::{Metrics, Proxy, Response, Step, Upstream, get, ok, post};

const MIB: usize = 1 << 20;

/// A body in which no part looks like another.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut all = Vec::new();
    for chunk in body.chunks(size) {
        all.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        all.extend_from_slice(chunk);
        all.extend_from_slice(b"\r\n");
    }
    all
}

async fn answer_to(method: &str, answer: &str) -> (Response, Response) {
    let upstream = Upstream::answering(answer).await;
    let proxy = Proxy::before(&upstream, "");
    let request = format!("{method} / HTTP/1.1\r\nHost: caller\r\n\r\n");
    let mut caller = proxy.send(&request).await;
    let first = caller.response_to(method).await;
    // The connection stays in step only if the first one's end was understood.
    caller.send(&request).await;
    let second = caller.response_to(method).await;
    (first, second)
}

/// RFC 9110, section 8.6: a POST says its length, even that of nothing.
#[tokio::test]
async fn an_empty_post_keeps_its_length() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    assert_eq!(proxy.send(post("/", "")).await.response().await.status, 200);
    let seen = upstream.only_request();
    assert_eq!(seen.fields.get("content-length"), Some("0"));
    assert_eq!(seen.fields.get("transfer-encoding"), None);
}

/// RFC 9110, section 8.6: without its length some servers take no empty body.
#[tokio::test]
async fn an_empty_body_of_unknown_length_gets_its_length() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = proxy.caller().await;
    for method in ["POST", "PUT", "PATCH"] {
        let head = format!("{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        caller.send(format!("{head}0\r\n\r\n")).await;
        assert_eq!(caller.response().await.status, 200);
    }
    for seen in upstream.requests() {
        assert_eq!(
            seen.fields.get("content-length"),
            Some("0"),
            "{}",
            seen.method
        );
        assert_eq!(seen.fields.get("transfer-encoding"), None);
    }
}

/// The rest may depend on the answer, as in a gRPC call of two streams.
#[tokio::test]
async fn a_body_of_unknown_length_that_pauses_is_not_waited_for() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut caller = proxy.send(format!("{head}5\r\nfirst\r\n")).await;
    let first = upstream.until("the first piece", |log| {
        log.requests
            .first()
            .is_some_and(|seen| seen.body == b"first")
    });
    first.await;
    caller.send("4\r\nlast\r\n0\r\n\r\n").await;
    assert_eq!(caller.response().await.text(), "ok");
    assert_eq!(upstream.only_request().body, b"firstlast");
}

/// RFC 9112, section 6.3: neither a length nor a coding means no body.
#[tokio::test]
async fn a_get_without_a_body_gets_none() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    assert_eq!(proxy.get("/").await.status, 200);
    let seen = upstream.only_request();
    assert_eq!(seen.fields.get("content-length"), None);
    assert_eq!(seen.fields.get("transfer-encoding"), None);
}

/// RFC 9112, section 6.2: a body of a known length.
#[tokio::test]
async fn a_long_body_streams_and_arrives_whole() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let body = pattern(MIB);
    let head = format!("POST / HTTP/1.1\r\nHost: caller\r\nContent-Length: {MIB}\r\n\r\n");
    let mut caller = proxy.send(head).await;
    let (first, second) = body.split_at(MIB / 2);
    caller.send(first).await;
    let streams = |length| {
        upstream.until("the first half", move |log| {
            log.requests
                .first()
                .is_some_and(|seen| seen.body.len() >= length)
        })
    };
    streams(MIB / 2).await;
    caller.send(second).await;
    assert_eq!(caller.response().await.text(), "ok");
    let seen = upstream.only_request();
    assert_eq!(seen.fields.get("content-length"), Some("1048576"));
    assert!(seen.whole && seen.body == body);
}

/// RFC 9112, section 7.1.
#[tokio::test]
async fn chunked_bodies_short_and_long_arrive_whole() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let lengths = [0, 5, 64 << 10, (64 << 10) + 1, MIB];
    let mut caller = proxy.caller().await;
    for length in lengths {
        let head = "POST / HTTP/1.1\r\nHost: caller\r\nTransfer-Encoding: chunked\r\n\r\n";
        caller.send(head).await;
        caller.send(chunked(&pattern(length), 10_000)).await;
        caller.send("0\r\n\r\n").await;
        assert_eq!(caller.response().await.text(), "ok");
    }
    for (seen, length) in upstream.requests().iter().zip(lengths) {
        assert!(seen.whole && seen.body == pattern(length), "{length}");
    }
}

/// RFC 9110, section 9.3.1: it has no meaning, and its framing still counts.
#[tokio::test]
async fn a_get_with_a_body_keeps_it() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let request = "GET / HTTP/1.1\r\nHost: caller\r\nContent-Length: 5\r\n\r\nquery";
    assert_eq!(proxy.send(request).await.response().await.status, 200);
    assert_eq!(upstream.only_request().body, b"query");
}

/// RFC 9112, section 9.3.2.
/// What comes after a request is kept until it is answered, however that ends.
#[tokio::test]
async fn requests_sent_ahead_are_answered_in_their_order_whatever_the_answers() {
    let answers: [&[&str]; 6] = [
        &["HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab", "cd"],
        &[
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n",
            "0\r\n\r\n",
        ],
        &["HTTP/1.1 200 OK\r\n\r\nab", "cd"],
        &["HTTP/1.1 204 No Content\r\n\r\n"],
        &["HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n"],
        &["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"],
    ];
    let upstream = Upstream::start(move |seen| {
        let number: usize = seen.target[1..].parse().unwrap();
        let pieces = answers[number % answers.len()];
        let mut steps: Vec<_> = pieces
            .iter()
            .flat_map(|piece| [Step::Send(piece.as_bytes().to_vec()), Step::Hold])
            .collect();
        steps.pop();
        if number % answers.len() == 2 {
            steps.push(Step::Close);
        }
        steps
    })
    .await;
    let proxy = Proxy::before(&upstream, "");
    upstream.release(1000);
    let all: Vec<_> = (0..60).map(|number| get(&format!("/{number}"))).collect();
    let mut caller = proxy.send(all.concat()).await;
    for number in 0..60 {
        let response = caller.response().await;
        let expected = ["abcd", "abcd", "abcd", "", "", ""][number % 6];
        assert_eq!(response.text(), expected, "{number}");
    }
}

#[tokio::test]
async fn a_response_streams_as_it_comes() {
    let pieces = [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n",
        "6\r\nsecond\r\n0\r\n\r\n",
    ];
    let steps = vec![
        Step::Send(pieces[0].into()),
        Step::Hold,
        Step::Send(pieces[1].into()),
    ];
    let upstream = Upstream::start(move |_| steps.clone()).await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = proxy.send(get("/")).await;
    caller.sees("first").await;
    upstream.release(1);
    let response = caller.response().await;
    assert_eq!(response.fields.get("transfer-encoding"), Some("chunked"));
    assert_eq!(response.text(), "firstsecond");
    proxy.until_first_end("api", "completed").await;
}

#[tokio::test]
async fn a_long_response_arrives_whole() {
    let body = pattern(4 * MIB);
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut answer = std::mem::take(&mut answer).into_bytes();
    answer.extend_from_slice(&body);
    let upstream = Upstream::answering(answer).await;
    let proxy = Proxy::before(&upstream, "");
    let response = proxy.get("/").await;
    assert!(response.body == body, "{} bytes", response.body.len());
    proxy.until_first_end("api", "completed").await;
}

/// RFC 9112, section 6.3: an answer with neither length nor coding.
#[tokio::test]
async fn a_body_that_ends_with_its_connection_is_passed_on() {
    let steps = [
        Step::Send(b"HTTP/1.1 200 OK\r\n\r\nto the end".to_vec()),
        Step::Close,
    ];
    let upstream = Upstream::start(move |_| steps.to_vec()).await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = proxy.send(get("/")).await;
    let response = caller.response().await;
    assert_eq!(response.text(), "to the end");
    assert_eq!(response.fields.get("transfer-encoding"), Some("chunked"));
    proxy.until_first_end("api", "completed").await;
}

/// RFC 9112, section 6.3: HEAD, 204 and 304, whatever length they name.
#[tokio::test]
async fn responses_without_a_body_keep_the_connection_in_step() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
    let (first, second) = answer_to("HEAD", head).await;
    for response in [first, second] {
        assert_eq!(response.status, 200);
        assert_eq!(response.fields.get("content-length"), Some("1000"));
    }
    let (first, second) = answer_to("GET", "HTTP/1.1 204 No Content\r\nX-Kept: 1\r\n\r\n").await;
    for response in [first, second] {
        assert_eq!(response.status, 204);
        assert_eq!(response.fields.get("x-kept"), Some("1"));
        assert_eq!(response.fields.get("content-length"), None);
        assert_eq!(response.fields.get("transfer-encoding"), None);
    }
    let unchanged = "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 1000\r\n\r\n";
    let (first, second) = answer_to("GET", unchanged).await;
    for response in [first, second] {
        assert_eq!(response.status, 304);
        assert_eq!(response.fields.get("etag"), Some("\"a\""));
        assert_eq!(response.fields.get("content-length"), Some("1000"));
    }
    // RFC 9110, section 15.3.6.
    let reset = "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n";
    let (first, second) = answer_to("GET", reset).await;
    for response in [first, second] {
        assert_eq!((response.status, response.text()), (205, ""));
        assert_eq!(response.fields.get("content-length"), Some("0"));
    }
    // No length is told, so none is made up.
    for (method, head) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\n"),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Type: a/b\r\n\r\n",
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
    ] {
        let (first, second) = answer_to(method, head).await;
        for response in [first, second] {
            assert_eq!(response.fields.get("content-type"), Some("a/b"), "{head:?}");
            assert_eq!(response.fields.get("content-length"), None, "{head:?}");
        }
    }
}

/// RFC 9110, section 10.1.1.
#[tokio::test]
async fn a_caller_that_waits_for_100_continue_gets_it() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let head =
        "POST / HTTP/1.1\r\nHost: caller\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let mut caller = proxy.send(head).await;
    assert_eq!(caller.response().await.status, 100);
    caller.send("body").await;
    assert_eq!(caller.response().await.status, 200);
    let seen = upstream.only_request();
    assert_eq!(
        (seen.body.as_slice(), seen.fields.get("expect")),
        (b"body".as_slice(), None)
    );
}

/// RFC 9110, section 10.1.1: a final status instead.
#[tokio::test]
async fn a_caller_that_waits_for_100_continue_is_not_asked_for_a_body_too_long() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "max_body = \"1KiB\"");
    let head =
        "POST / HTTP/1.1\r\nHost: caller\r\nExpect: 100-continue\r\nContent-Length: 2000\r\n\r\n";
    let mut caller = proxy.send(head).await;
    caller.response().await.assert_refusal(413, "too_large");
    caller.closed().await;
}

/// RFC 9110, section 6.5.
#[tokio::test]
async fn trailers_pass_in_both_directions() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
        2\r\nok\r\n0\r\nX-Sum: theirs\r\n\r\n";
    let upstream = Upstream::answering(answer).await;
    let proxy = Proxy::before(&upstream, "");
    let head = "POST / HTTP/1.1\r\nHost: caller\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\
        Trailer: X-Sum\r\n\r\n";
    for length in [4, MIB] {
        let mut caller = proxy.send(head).await;
        caller.send(chunked(&pattern(length), 10_000)).await;
        caller.send("0\r\nX-Sum: ours\r\n\r\n").await;
        let response = caller.response().await;
        assert_eq!(response.trailers.get("x-sum"), Some("theirs"));
    }
    for seen in upstream.requests() {
        assert_eq!(
            seen.trailers.get("x-sum"),
            Some("ours"),
            "{}",
            seen.body.len()
        );
        assert_eq!(seen.fields.get("te"), Some("trailers"));
    }
}

/// Nobody asks for more after trailers: such an answer counted as aborted, and its
/// connection was closed.
#[tokio::test]
async fn an_answer_with_trailers_is_complete_and_its_connection_is_used_again() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
        2\r\nok\r\n0\r\nX-Sum: theirs\r\n\r\n";
    let upstream = Upstream::answering(answer).await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = proxy.caller().await;
    for _ in 0..2 {
        let request = "GET / HTTP/1.1\r\nHost: caller\r\nTE: trailers\r\n\r\n";
        caller.send(request).await;
        let response = caller.response().await;
        assert_eq!(response.trailers.get("x-sum"), Some("theirs"));
    }
    let completed = |metrics: &Metrics| metrics.ended("api", "completed") == 2.0;
    proxy.until("both completed", completed).await;
    assert_eq!(upstream.log().opened, 1);
}

/// The same of an upload, which counted as not sent to its end: both its connections
/// were closed.
#[tokio::test]
async fn an_upload_with_trailers_that_streams_leaves_its_connections_open() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let head = "POST / HTTP/1.1\r\nHost: caller\r\nTransfer-Encoding: chunked\r\n\
        Trailer: X-Sum\r\n\r\n";
    let mut caller = proxy.caller().await;
    for _ in 0..2 {
        caller.send(head).await;
        caller.send(chunked(&pattern(MIB), 10_000)).await;
        caller.send("0\r\nX-Sum: ours\r\n\r\n").await;
        let response = caller.response().await;
        assert_eq!(response.text(), "ok");
        assert!(!response.fields.has_token("connection", "close"));
    }
    assert_eq!(upstream.log().opened, 1);
}

/// RFC 9110, section 7.5: an answer may come before its request is whole.
#[tokio::test]
async fn an_answer_that_comes_before_the_whole_body_reaches_the_caller() {
    // The caller stops in the middle: an upstream that has seen enough answers.
    let upstream = Upstream::early("HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n");
    let upstream = upstream.await;
    let proxy = Proxy::before(&upstream, "");
    let head = format!("POST / HTTP/1.1\r\nHost: caller\r\nContent-Length: {MIB}\r\n\r\n");
    let mut caller = proxy.send(head).await;
    caller.send(pattern(MIB / 2)).await;
    let response = caller.response().await;
    assert_eq!(
        (response.status, response.fields.get("proxy-status")),
        (413, None)
    );
}

/// RFC 9112, section 9.6, and RFC 9110, section 10.1.1: the upstream has seen enough
/// and says so; what the caller still sends goes nowhere and harms nobody.
#[tokio::test]
async fn an_upload_that_is_answered_early_stops_and_its_answer_is_never_lost() {
    let long = 8 * MIB;
    for more in ["", "Connection: close\r\n"] {
        let answer = format!("HTTP/1.1 413 Content Too Large\r\n{more}Content-Length: 2\r\n\r\nno");
        let upstream = Upstream::early(answer).await;
        let proxy = Proxy::before(&upstream, "");
        for head in [
            format!("Content-Length: {long}\r\n\r\n"),
            format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", long),
        ] {
            let head = format!("POST / HTTP/1.1\r\nHost: caller\r\n{head}");
            let mut caller = proxy.send(&head).await;
            caller.send(pattern(MIB)).await;
            let response = caller.response().await;
            assert_eq!((response.status, response.text()), (413, "no"));
            assert!(response.fields.has_token("connection", "close"));
            // It sends on all the same.
            caller.send_some(pattern(long - MIB)).await;
            assert!(!caller.is_reset().await);
            upstream
                .until("its end", |log| log.ended == log.opened)
                .await;
            let seen = upstream.requests().pop().unwrap();
            assert!(!seen.whole && seen.body.len() < long);
            // And one that looks only when it has sent everything.
            let mut caller = proxy.send(&head).await;
            caller.send_some(pattern(long)).await;
            let response = caller.response().await;
            assert_eq!((response.status, response.text()), (413, "no"));
            upstream
                .until("its end too", |log| log.ended == log.opened)
                .await;
        }
        let completed = |metrics: &Metrics| metrics.ended("api", "completed") == 4.0;
        proxy.until("all completed", completed).await;
    }
}
