//! Upstreams that answer wrongly, in two senses, too early or without being
//! asked. No caller may get what was not meant for it, and nobody behind us may
//! read an answer in another way than we do.

use crate::support::{Proxy, Response, Step, Upstream, get, ok, post};

/// The answer to a GET when the upstream says `answer` and closes.
async fn after(answer: &[u8]) -> Response {
    let steps = [Step::Send(answer.to_vec()), Step::Close];
    let upstream = Upstream::start(move |_| steps.to_vec()).await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = proxy.send(get("/")).await;
    caller.response().await
}

async fn assert_bad_gateway(error: &str, answers: &[&str]) {
    for answer in answers {
        let response = after(answer.as_bytes()).await;
        assert_eq!(response.status, 502, "{answer:?}: {response:?}");
        response.assert_refusal(502, "upstream_failed");
        assert_eq!(response.proxy_error(), error, "{answer:?}");
    }
}

/// RFC 9112, section 6.3: what could be framed in two ways.
#[tokio::test]
async fn an_answer_with_two_lengths_is_a_bad_gateway() {
    let two = [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ];
    assert_bad_gateway("http_protocol_error", &two).await;
}

/// RFC 9110, section 8.6: a recipient may take equal lengths for one.
#[tokio::test]
async fn equal_lengths_are_one() {
    for lengths in [
        "Content-Length: 3\r\nContent-Length: 3",
        "Content-Length: 3, 3",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\nabc");
        let response = after(answer.as_bytes()).await;
        assert_eq!((response.status, response.text()), (200, "abc"));
        assert_eq!(response.fields.get("content-length"), Some("3"));
    }
}

/// RFC 9112, section 6.1: a coding that we would take off without undoing it.
#[tokio::test]
async fn an_answer_coded_otherwise_than_chunked_is_a_bad_gateway() {
    let codings = [
        "gzip, chunked",
        "gzip",
        "identity",
        "chunked, chunked",
        "xchunked",
    ];
    for coding in codings {
        let answer =
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        assert_bad_gateway("http_response_transfer_coding", &[&answer]).await;
    }
    let twice = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\nabc\r\n0\r\n\r\n";
    assert_bad_gateway("http_response_transfer_coding", &[twice]).await;
}

/// RFC 9112, sections 2.2, 4 and 5.
#[tokio::test]
async fn what_is_not_http_is_a_bad_gateway() {
    let not_http = [
        "<html>HTTP/0.9</html>",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/3.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
    ];
    assert_bad_gateway("http_protocol_error", &not_http).await;
}

/// RFC 9112, section 5.1: a gateway removes it.
#[tokio::test]
async fn space_before_a_colon_is_taken_away() {
    let response = after(b"HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nabcdef").await;
    assert_eq!((response.status, response.text()), (200, "abc"));
    assert_eq!(response.fields.get("content-length"), Some("3"));
}

#[tokio::test]
async fn a_head_that_is_too_long_or_has_too_many_fields_is_a_bad_gateway() {
    let many = "X-A: b\r\n".repeat(101);
    let long = "a".repeat(1 << 20);
    let heads = [
        format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
        format!("HTTP/1.1 200 OK\r\nX-A: {long}\r\n\r\n"),
    ];
    for head in heads {
        assert_bad_gateway("http_response_header_section_size", &[&head]).await;
    }
}

/// RFC 9209, sections 2.3.11 and 2.3.14.
#[tokio::test]
async fn a_silent_close_is_told_from_a_broken_head() {
    for end in [Step::Close, Step::Reset] {
        for (answer, error) in [
            ("", "connection_terminated"),
            ("HTTP/1.1 200 OK\r\nContent-Le", "http_response_incomplete"),
            (
                "HTTP/1.1 103 Early Hints\r\n\r\n",
                "http_response_incomplete",
            ),
        ] {
            let mut steps = vec![Step::Send(answer.into()), Step::Hold, end.clone()];
            steps.retain(|step| !matches!(step, Step::Send(bytes) if bytes.is_empty()));
            let upstream = Upstream::start(move |_| steps.clone()).await;
            let proxy = Proxy::before(&upstream, "retry.attempts = 1");
            let mut caller = proxy.send(get("/")).await;
            upstream.until_requests(1).await;
            upstream.release(1);
            let response = caller.last_response().await;
            response.assert_refusal(502, "upstream_failed");
            // A reset may overtake the bytes before it.
            if matches!(end, Step::Close) || answer.is_empty() {
                assert_eq!(response.proxy_error(), error, "{answer:?}");
            }
        }
    }
}

/// RFC 9112, section 9.5: what nobody asked for is the answer to no request.
#[tokio::test]
async fn bytes_behind_an_answer_are_never_given_to_the_next_request() {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let heads = [
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ),
        ("GET", "HTTP/1.1 304 Not Modified\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"),
    ];
    for (method, head) in heads {
        let answer = format!("{head}{evil}").into_bytes();
        let upstream = Upstream::start(move |seen| match seen.target.as_str() {
            "/first" => vec![Step::Send(answer.clone())],
            _ => vec![Step::Send(ok("good"))],
        })
        .await;
        let proxy = Proxy::before(&upstream, "");
        for number in 0..5 {
            let first = format!("{method} /first HTTP/1.1\r\nHost: caller\r\n\r\n");
            let mut caller = proxy.send(first).await;
            caller.response_to(method).await;
            caller.send(post(&format!("/{number}"), "")).await;
            assert_eq!(caller.response().await.text(), "good", "{method} {head:?}");
        }
        let mut poisoned = std::collections::HashSet::new();
        for seen in upstream.requests() {
            assert!(!poisoned.contains(&seen.connection), "{method} {head:?}");
            if seen.target == "/first" {
                poisoned.insert(seen.connection);
            }
        }
    }
}

/// RFC 9112, section 9.2: what nobody asked for is no answer.
#[tokio::test]
async fn bytes_on_an_idle_connection_close_it() {
    let late = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlate";
    let steps = [Step::Send(ok("ok")), Step::Hold, Step::Send(late.into())];
    let upstream = Upstream::start(move |seen| match seen.connection {
        0 => steps.to_vec(),
        _ => vec![Step::Send(ok("good"))],
    })
    .await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = proxy.send(get("/")).await;
    assert_eq!(caller.response().await.text(), "ok");
    upstream.release(1);
    upstream
        .until("the connection's end", |log| log.ended == 1)
        .await;
    caller.send(post("/", "")).await;
    assert_eq!(caller.response().await.text(), "good");
}

/// RFC 9110, section 15.5.9: it was said before the request came.
#[tokio::test]
async fn a_408_that_met_a_request_which_may_be_repeated_is_not_its_answer() {
    let late = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let upstream = Upstream::start(move |seen| match (seen.connection, seen.nth) {
        (0, 1) => vec![Step::Send(late.into()), Step::Close],
        _ => vec![Step::Send(ok("ok"))],
    })
    .await;
    let proxy = Proxy::before(&upstream, "limits = [\"9/h\"]");
    let mut caller = proxy.send(get("/")).await;
    assert_eq!(caller.response().await.status, 200);
    caller.send(get("/")).await;
    assert_eq!(caller.response().await.status, 200);
    assert_eq!(proxy.metrics().await.available(), 6.0);
}

/// RFC 9110, section 2.5.
#[tokio::test]
async fn an_answer_of_http_1_0_is_passed_on_as_one_of_http_1_1() {
    let response = after(b"HTTP/1.0 200 OK\r\nX-A: b\r\n\r\nto the end").await;
    assert_eq!((response.status, response.text()), (200, "to the end"));
    assert_eq!(response.fields.get("transfer-encoding"), Some("chunked"));
    let response = after(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc").await;
    assert_eq!(response.text(), "abc");
}

/// It paused the whole lane, as if the upstream were down.
#[tokio::test]
async fn an_answer_that_is_not_http_is_not_asked_for_again_and_holds_nobody_up() {
    let upstream = Upstream::start(|seen| match seen.target.as_str() {
        "/good" => vec![Step::Send(ok("good"))],
        _ => vec![Step::Send(b"HTTP/1.1 2x0 OK\r\n\r\n".to_vec()), Step::Close],
    })
    .await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = proxy.send(get("/bad")).await;
    caller
        .response()
        .await
        .assert_refusal(502, "upstream_failed");
    assert_eq!(proxy.get("/good").await.text(), "good");
    assert_eq!(upstream.targets(), ["/bad", "/good"]);
}
