//! Answers that break off: no caller may take one for a whole one (RFC 9112,
//! section 8), and none is asked for again once it has begun.

use crate::support::{Proxy, Step, Upstream};

/// Answers that end in the middle of their bodies.
fn breaking() -> Vec<Vec<Step>> {
    let heads = [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nX-Sum: a",
    ];
    let mut all = Vec::new();
    for head in heads {
        for end in [Step::Close, Step::Reset] {
            all.push(vec![Step::Send(head.into()), Step::Hold, end]);
        }
    }
    let garbage = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    for chunk in [
        "xyz\r\n",
        "-1\r\n",
        "ffffffffffffffffff\r\n",
        "2\r\nabc\r\n",
    ] {
        let steps = [
            Step::Send(garbage.into()),
            Step::Hold,
            Step::Send(chunk.into()),
        ];
        all.push(steps.to_vec());
    }
    all
}

/// RFC 9112, section 7.1: without its last chunk.
#[tokio::test]
async fn a_caller_of_http_1_1_sees_no_end() {
    for steps in breaking() {
        let named = format!("{steps:?}");
        let upstream = Upstream::start(move |_| steps.clone()).await;
        let proxy = Proxy::before(&upstream, "");
        let mut caller = proxy.send("GET / HTTP/1.1\r\nHost: caller\r\n\r\n").await;
        caller.sees("half").await;
        upstream.release(1);
        let response = caller.broken_response().await;
        assert_eq!(response.status, 200, "{named}");
        assert!(response.text().starts_with("half"), "{named}");
        proxy.until_first_end("api", "aborted").await;
        assert_eq!(upstream.requests().len(), 1, "{named}");
    }
}

/// RFC 9112, section 6.3: the end of the connection is the end of the body, so it
/// must not be a proper one.
#[tokio::test]
async fn a_caller_of_http_1_0_sees_a_reset() {
    // The first two announce their length, so that any caller can tell.
    for steps in breaking().split_off(2) {
        let named = format!("{steps:?}");
        let upstream = Upstream::start(move |_| steps.clone()).await;
        let proxy = Proxy::before(&upstream, "");
        let mut caller = proxy.send("GET / HTTP/1.0\r\n\r\n").await;
        caller.sees("half").await;
        upstream.release(1);
        assert!(caller.is_reset().await, "{named}");
        proxy.until_first_end("api", "aborted").await;
    }
}

#[tokio::test]
async fn a_caller_of_http_1_0_gets_a_whole_answer_without_chunks_and_a_proper_end() {
    let answer =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n4\r\nrest\r\n0\r\n\r\n";
    let upstream = Upstream::answering(answer).await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = proxy.send("GET / HTTP/1.0\r\n\r\n").await;
    let response = caller.response().await;
    assert_eq!(response.text(), "halfrest");
    assert_eq!(response.fields.get("transfer-encoding"), None);
    assert!(!caller.is_reset().await);
}
