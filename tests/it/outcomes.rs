//! Every way a request can end, as its caller sees it, and its count.
//!
//! `completed` and `draining` are seen here too, but mostly elsewhere: nearly
//! every test has the first, `stop` has the second.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

use crate::support::{Metrics, Proxy, Step, Upstream, get, ok, post};

/// One call at a time, and no place for more than one that waits.
const NARROW: &str = r#"
max_in_flight = 1
queue = { max_requests = 1, when_full = "reject" }
"#;

#[tokio::test]
async fn an_answer_of_any_status_completes_its_request() {
    let answer = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";
    let upstream = Upstream::answering(answer).await;
    let proxy = Proxy::before(&upstream, "");
    let response = proxy.get("/").await;
    assert_eq!((response.status, response.text()), (503, "busy"));
    assert_eq!(response.fields.get("proxy-status"), None);
    proxy.until_first_end("api", "completed").await;
    let metrics = proxy.metrics().await;
    let class = "pacegate_upstream_responses_total{upstream=\"api\",status=\"5xx\"}";
    assert_eq!(metrics.value(class), 1.0);
    assert_eq!(metrics.admitted("api"), 1.0);
}

#[tokio::test]
async fn without_a_place_a_request_is_refused_at_once() {
    let upstream = Upstream::holding().await;
    let proxy = Proxy::before(&upstream, NARROW);
    let mut first = proxy.send(get("/first")).await;
    upstream.until_requests(1).await;
    let mut second = proxy.send(get("/second")).await;
    proxy.until_waiting(1).await;

    proxy.get("/third").await.assert_refusal(503, "queue_full");
    proxy.until_first_end("api", "queue_full").await;
    upstream.release(2);
    assert_eq!(first.response().await.status, 200);
    assert_eq!(second.response().await.status, 200);
    assert_eq!(upstream.targets(), ["/first", "/second"]);
}

#[tokio::test]
async fn a_wait_that_would_be_too_long_is_refused_at_once_with_the_time_to_come_back() {
    for bound in ["queue.max_wait = \"20s\"", "timeouts.total = \"20s\""] {
        let upstream = Upstream::answering(ok("ok")).await;
        let proxy = Proxy::before(&upstream, &format!("limits = [\"1/min\"]\n{bound}"));
        assert_eq!(proxy.get("/first").await.status, 200);

        let response = proxy.get("/second").await;
        response.assert_refusal(503, "wait_too_long");
        let seconds = response.retry_after().unwrap();
        // The turn comes after a minute, and as much as the upstream's clock may be slow;
        // who comes 41 seconds later waits no more than 20.
        assert!((30..=41).contains(&seconds), "{seconds}");
        let metrics = proxy.metrics().await;
        assert_eq!(metrics.ended("api", "wait_too_long"), 1.0);
        assert_eq!(upstream.targets(), ["/first"]);
    }
}

#[tokio::test]
async fn a_request_whose_time_runs_out_in_the_queue_expires() {
    let upstream = Upstream::holding().await;
    let proxy = Proxy::before(&upstream, "max_in_flight = 1\nqueue.max_wait = \"100ms\"");
    let mut first = proxy.send(get("/first")).await;
    upstream.until_requests(1).await;

    proxy.get("/second").await.assert_refusal(504, "expired");
    proxy.until_first_end("api", "expired").await;
    let metrics = proxy.metrics().await;
    assert_eq!(
        (metrics.waiting("api"), metrics.in_flight("api")),
        (0.0, 1.0)
    );
    upstream.release(1);
    assert_eq!(first.response().await.status, 200);
    assert_eq!(upstream.targets(), ["/first"]);
}

#[tokio::test]
async fn a_caller_that_hangs_up_while_it_waits_gives_everything_back_and_costs_no_turn() {
    let upstream = Upstream::holding().await;
    let limits = format!("limits = [\"2/h\"]\n{NARROW}");
    let proxy = Proxy::before(&upstream, &limits);
    let mut first = proxy.send(get("/first")).await;
    upstream.until_requests(1).await;
    let second = proxy.send(post("/second", &"x".repeat(1000))).await;
    let metrics = proxy.until("a body waiting", |metrics| {
        metrics.waiting("api") == 1.0 && metrics.of("api", "pacegate_queue_bytes") >= 1000.0
    });
    assert_eq!(metrics.await.available(), 1.0);

    drop(second);
    proxy.until_first_end("api", "abandoned").await;
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.waiting("api"), 0.0);
    assert_eq!(metrics.of("api", "pacegate_queue_bytes"), 0.0);
    assert_eq!(metrics.available(), 1.0);
    // The only place is free again, and so is the turn.
    let mut third = proxy.send(get("/third")).await;
    proxy.until_waiting(1).await;
    upstream.release(2);
    assert_eq!(first.response().await.status, 200);
    assert_eq!(third.response().await.status, 200);
    assert_eq!(upstream.targets(), ["/first", "/third"]);
}

/// What a caller has sent ahead hid its end from us. One that ends only its half
/// has hung up as well: the two look the same.
#[tokio::test]
async fn a_caller_that_has_sent_more_and_hangs_up_is_noticed() {
    let upstream = Upstream::holding().await;
    let proxy = Proxy::before(&upstream, "max_in_flight = 1");
    let mut first = proxy.send(get("/first")).await;
    upstream.until_requests(1).await;
    let mut gone = 0.0;
    for more in [
        get("/more"),
        b"\r\n".to_vec(),
        b"GET /half".to_vec(),
        Vec::new(),
    ] {
        for half in [false, true] {
            let mut caller = proxy.send([get("/second"), more.clone()].concat()).await;
            proxy.until_waiting(1).await;
            if half {
                caller.finish().await;
                assert_eq!(caller.closed().await, b"");
            }
            drop(caller);
            gone += 1.0;
            let abandoned = |metrics: &Metrics| metrics.ended("api", "abandoned") == gone;
            proxy.until("one more gone", abandoned).await;
        }
    }
    upstream.release(1);
    assert_eq!(first.response().await.status, 200);
    assert_eq!(upstream.targets(), ["/first"]);
}

/// A port that is taken, so that nobody else gets it, and where nobody listens.
fn deaf_port() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn an_upstream_that_nobody_listens_for_is_a_bad_gateway_and_costs_no_turn() {
    let (_socket, address) = deaf_port();
    let toml = format!(
        "[upstream.api]\nurl = \"http://{address}\"\nlimits = [\"2/h\"]\nretry.hold = \"0s\""
    );
    let proxy = Proxy::start(&toml);
    proxy.get("/").await.assert_refusal(502, "connect_failed");
    proxy.until_first_end("api", "connect_failed").await;
    assert_eq!(proxy.metrics().await.available(), 2.0);
}

#[tokio::test]
async fn an_upstream_that_breaks_before_its_head_is_a_bad_gateway() {
    let breaks = [
        vec![Step::Close],
        vec![Step::Reset],
        vec![
            Step::Send(b"HTTP/1.1 200 OK\r\nContent-".to_vec()),
            Step::Close,
        ],
        vec![Step::Send(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()), Step::Hold],
    ];
    for steps in breaks {
        let named = format!("{steps:?}");
        let upstream = Upstream::start(move |_| steps.clone()).await;
        let proxy = Proxy::before(&upstream, "limits = [\"2/h\"]\nretry.attempts = 1");
        println!("{named}");
        proxy.get("/").await.assert_refusal(502, "upstream_failed");
        proxy.until_first_end("api", "upstream_failed").await;
        assert_eq!(proxy.metrics().await.available(), 1.0);
        upstream
            .until("the end of the connection", |log| log.ended == 1)
            .await;
        assert_eq!(upstream.only_request().target, "/");
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_in_time_is_given_up() {
    let upstream = Upstream::holding().await;
    let settings = "limits = [\"2/h\"]\ntimeouts.response = \"100ms\"\nretry.attempts = 1";
    let proxy = Proxy::before(&upstream, settings);
    proxy.get("/").await.assert_refusal(504, "upstream_timeout");
    proxy.until_first_end("api", "upstream_timeout").await;
    let metrics = proxy.metrics().await;
    assert_eq!((metrics.available(), metrics.in_flight("api")), (1.0, 0.0));
    upstream
        .until("the end of the connection", |log| log.ended == 1)
        .await;
}

#[tokio::test]
async fn a_response_that_breaks_off_is_cut_off_for_the_caller_too() {
    let halves = [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf ",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhalf \r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf ",
    ];
    for half in halves {
        for end in [Step::Close, Step::Reset] {
            let steps = vec![Step::Send(half.into()), Step::Hold, end];
            let upstream = Upstream::start(move |_| steps.clone()).await;
            let proxy = Proxy::before(&upstream, "");
            let mut caller = proxy.send(get("/")).await;
            caller.sees("half ").await;
            upstream.release(1);
            let response = caller.broken_response().await;
            assert_eq!((response.status, response.text()), (200, "half "));
            proxy.until_first_end("api", "aborted").await;
        }
    }
}

#[tokio::test]
async fn a_response_that_stalls_is_cut_off() {
    let half = ok("whole")[..42].to_vec();
    let upstream = Upstream::start(move |_| vec![Step::Send(half.clone()), Step::Hold]).await;
    let proxy = Proxy::before(&upstream, "timeouts.stall = \"100ms\"");
    proxy.send(get("/")).await.broken_response().await;
    proxy.until_first_end("api", "aborted").await;
    upstream
        .until("the end of the connection", |log| log.ended == 1)
        .await;
}

#[tokio::test]
async fn a_caller_that_hangs_up_while_its_response_streams_ends_the_call() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf ".to_vec();
    let upstream = Upstream::start(move |_| vec![Step::Send(head.clone()), Step::Hold]).await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = proxy.send(get("/")).await;
    caller.sees("half ").await;
    drop(caller);
    proxy.until_first_end("api", "aborted").await;
    assert_eq!(proxy.metrics().await.in_flight("api"), 0.0);
    upstream
        .until("the end of the connection", |log| log.ended == 1)
        .await;
}

#[tokio::test]
async fn a_caller_that_hangs_up_before_its_answer_ends_the_call() {
    let upstream = Upstream::holding().await;
    let proxy = Proxy::before(&upstream, "");
    let caller = proxy.send(get("/")).await;
    upstream.until_requests(1).await;
    drop(caller);
    proxy.until_first_end("api", "aborted").await;
    upstream
        .until("the end of the connection", |log| log.ended == 1)
        .await;
}

#[tokio::test]
async fn a_body_announced_too_long_is_refused_before_it_is_read() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "max_body = \"1KiB\"");
    let head = "POST / HTTP/1.1\r\nHost: caller\r\nContent-Length: 1025\r\n\r\n";
    let mut caller = proxy.send(head).await;
    let response = caller.response().await;
    response.assert_refusal(413, "too_large");
    assert!(response.fields.has_token("connection", "close"));
    caller.closed().await;
    proxy.until_first_end("api", "too_large").await;
    assert_eq!(upstream.log().opened, 0);
}

#[tokio::test]
async fn a_chunked_body_is_refused_where_it_becomes_too_long() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "max_body = \"1KiB\"");
    let head = "POST / HTTP/1.1\r\nHost: caller\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut caller = proxy.send(head).await;
    caller
        .send(format!("400\r\n{}\r\n", "x".repeat(1024)))
        .await;
    caller.send("1\r\nx\r\n").await;
    caller.response().await.assert_refusal(413, "too_large");
    proxy.until_first_end("api", "too_large").await;
    assert_eq!(upstream.log().opened, 0);
}

#[tokio::test]
async fn a_chunked_body_that_becomes_too_long_while_it_streams_is_not_passed_on_as_whole() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "buffer_body = \"1KiB\"\nmax_body = \"4KiB\"");
    let head = "POST / HTTP/1.1\r\nHost: caller\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut caller = proxy.send(head).await;
    let chunk = format!("800\r\n{}\r\n", "x".repeat(2048));
    caller.send(&chunk).await;
    upstream
        .until("the first chunk", |log| {
            log.requests
                .first()
                .is_some_and(|seen| seen.body.len() == 2048)
        })
        .await;
    caller.send(format!("{chunk}1\r\nx\r\n")).await;
    caller.response().await.assert_refusal(413, "too_large");
    proxy.until_first_end("api", "too_large").await;
    upstream
        .until("the end of the connection", |log| log.ended == 1)
        .await;
    assert!(!upstream.only_request().whole);
}

#[tokio::test]
async fn a_request_that_no_upstream_takes_is_not_found() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "match = { prefix = \"/api\" }");
    for path in ["/other", "/apis", "/"] {
        proxy.get(path).await.assert_refusal(404, "no_route");
    }
    assert_eq!(proxy.get("/api").await.status, 200);
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.ended("", "no_route"), 3.0);
    assert_eq!(metrics.admitted(""), 3.0);
}

#[tokio::test]
async fn requests_that_are_malformed_or_not_for_a_gateway_are_refused() {
    let upstream = Upstream::answering(ok("ok")).await;
    let cases = [
        (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        (400, "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (501, "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
        (
            417,
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nContent-Length: 1\r\n\r\nx",
        ),
        (
            501,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        ),
    ];
    for (status, request) in cases {
        let proxy = Proxy::before(&upstream, "");
        println!("{request}");
        let mut caller = proxy.send(request).await;
        caller
            .response()
            .await
            .assert_refusal(status, "bad_request");
        // The rest of what it sends cannot be trusted.
        caller.closed().await;
        proxy.until_first_end("", "bad_request").await;
    }
    assert_eq!(upstream.log().opened, 0);
}

#[tokio::test]
async fn ambiguous_framing_is_refused_and_the_connection_closed() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let cases = [
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: +3\r\n",
        "Content-Length : 3\r\n",
    ];
    for fields in cases {
        println!("{fields}");
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n0\r\n\r\n");
        let mut caller = proxy.send(request).await;
        let response = caller.response().await;
        assert!(matches!(response.status, 400 | 501), "{response:?}");
        caller.closed().await;
    }
    assert_eq!(upstream.log().opened, 0);
}

/// RFC 9112, section 6.1: the coding decides, the length is not passed on, and
/// nothing more is read from that connection.
#[tokio::test]
async fn a_coding_and_a_length_together_never_reach_the_upstream() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked";
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut caller = proxy
        .send(format!("{head}\r\n\r\n0\r\n\r\n{smuggled}"))
        .await;
    caller.closed().await;
    for seen in upstream.requests() {
        assert_eq!(seen.target, "/");
        assert_eq!(seen.fields.all("transfer-encoding"), Vec::<&str>::new());
        assert_ne!(seen.fields.get("content-length"), Some("3"));
        assert_eq!(seen.body, b"");
    }
}
