//! How each kind of unfinished work ends at a stop.
//!
//! Where a test is about a stop that is over at once, the drain time is longer
//! than any wait of a test.

use std::time::Duration;

use pacegate::daemon::Stopped;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::{Proxy, Response, Step, Upstream, get, ok, soon};

const SHORT: &str = "max_in_flight = 1\n[shutdown]\ndrain = \"200ms\"\n";
const LONG: &str = "max_in_flight = 1\n[shutdown]\ndrain = \"1h\"\n";

const NOTHING: Stopped = Stopped {
    finished: 0,
    cut: 0,
};

#[track_caller]
fn assert_draining(response: &Response) {
    response.assert_refusal(503, "draining");
    assert!(
        response.fields.has_token("connection", "close"),
        "{response:?}"
    );
}

#[tokio::test]
async fn idle_connections_are_closed_at_once() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, LONG);
    let mut fresh = proxy.caller().await;
    let mut used = proxy.send(get("/")).await;
    assert_eq!(used.response().await.status, 200);
    proxy.until_connections(2).await;
    assert_eq!(proxy.stop().await, NOTHING);
    assert_eq!(fresh.closed().await, b"");
    assert_eq!(used.closed().await, b"");
}

#[tokio::test]
async fn calls_in_flight_and_waiting_requests_finish_within_the_drain() {
    let upstream = Upstream::holding().await;
    let proxy = Proxy::before(&upstream, LONG);
    let mut first = proxy.send(get("/first")).await;
    upstream.until_requests(1).await;
    let mut second = proxy.send(get("/second")).await;
    proxy.until_waiting(1).await;
    proxy.tell_to_stop().await;
    proxy.until_draining().await;

    upstream.release(1);
    let response = first.response().await;
    assert_eq!(response.status, 200);
    assert!(
        response.fields.has_token("connection", "close"),
        "{response:?}"
    );
    first.closed().await;
    upstream.release(1);
    assert_eq!(second.response().await.status, 200);
    let expected = Stopped {
        finished: 2,
        cut: 0,
    };
    assert_eq!(proxy.stopped().await, expected);
    assert_eq!(upstream.targets(), ["/first", "/second"]);
}

#[tokio::test]
async fn a_response_that_streams_goes_on_to_its_end() {
    let steps = [
        Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst".to_vec()),
        Step::Hold,
        Step::Send(b"after".to_vec()),
    ];
    let upstream = Upstream::start(move |_| steps.to_vec()).await;
    let proxy = Proxy::before(&upstream, LONG);
    let mut caller = proxy.send(get("/")).await;
    caller.sees("first").await;
    proxy.tell_to_stop().await;
    proxy.until_draining().await;
    upstream.release(1);
    assert_eq!(caller.response().await.text(), "firstafter");
    let expected = Stopped {
        finished: 1,
        cut: 0,
    };
    assert_eq!(proxy.stopped().await, expected);
}

#[tokio::test]
async fn a_request_that_is_half_sent_may_be_sent_to_its_end() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, LONG);
    let head = "POST / HTTP/1.1\r\nHost: caller\r\nContent-Length: 10\r\n\r\nfirst";
    let mut caller = proxy.send(head).await;
    proxy
        .until("it is admitted", |metrics| metrics.admitted("api") == 1.0)
        .await;
    proxy.tell_to_stop().await;
    proxy.until_draining().await;
    caller.send("after").await;
    assert_eq!(caller.response().await.status, 200);
    assert_eq!(upstream.only_request().body, b"firstafter");
    assert_eq!(proxy.stopped().await.finished, 1);
}

#[tokio::test]
async fn what_is_left_after_the_drain_is_told_so() {
    let upstream = Upstream::holding().await;
    let proxy = Proxy::before(&upstream, SHORT);
    let mut in_flight = proxy.send(get("/first")).await;
    upstream.until_requests(1).await;
    let mut waiting = proxy.send(get("/second")).await;
    proxy.until_waiting(1).await;
    let half = "POST / HTTP/1.1\r\nHost: caller\r\nContent-Length: 10\r\n\r\nhalf";
    let mut half_sent = proxy.send(half).await;
    proxy
        .until("all are admitted", |metrics| metrics.admitted("api") == 3.0)
        .await;

    let stopped = proxy.stop().await;
    assert_draining(&in_flight.response().await);
    assert_draining(&waiting.response().await);
    assert_draining(&half_sent.response().await);
    let expected = Stopped {
        finished: 0,
        cut: 3,
    };
    assert_eq!(stopped, expected);
    assert_eq!(upstream.targets(), ["/first"]);
}

#[tokio::test]
async fn callers_held_back_from_a_full_queue_are_told_so_after_the_drain() {
    let upstream = Upstream::holding().await;
    let queue = "queue = { max_requests = 1, when_full = \"wait\" }";
    let proxy = Proxy::before(&upstream, &format!("{queue}\n{SHORT}"));
    let mut callers = vec![proxy.send(get("/first")).await];
    upstream.until_requests(1).await;
    for _ in 0..3 {
        callers.push(proxy.send(get("/")).await);
    }
    proxy.until_waiting(1).await;
    proxy.until_connections(4).await;
    let stopped = proxy.stop().await;
    for caller in &mut callers {
        assert_draining(&caller.response().await);
    }
    assert_eq!(stopped.cut, 4);
}

#[tokio::test]
async fn a_response_that_still_streams_after_the_drain_is_cut_off() {
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf ".to_vec();
    let upstream = Upstream::start(move |_| vec![Step::Send(half.clone()), Step::Hold]).await;
    let proxy = Proxy::before(&upstream, SHORT);
    let mut caller = proxy.send(get("/")).await;
    caller.sees("half ").await;
    let stopped = proxy.stop().await;
    assert_eq!(caller.broken_response().await.text(), "half ");
    let expected = Stopped {
        finished: 0,
        cut: 1,
    };
    assert_eq!(stopped, expected);
}

#[tokio::test]
async fn a_second_stop_ends_the_drain_at_once() {
    let upstream = Upstream::holding().await;
    let proxy = Proxy::before(&upstream, LONG);
    let mut in_flight = proxy.send(get("/first")).await;
    upstream.until_requests(1).await;
    let mut waiting = proxy.send(get("/second")).await;
    proxy.until_waiting(1).await;
    proxy.tell_to_stop().await;
    proxy.until_draining().await;
    let stopped = proxy.stop().await;
    assert_draining(&in_flight.response().await);
    assert_draining(&waiting.response().await);
    assert_eq!(stopped.cut, 2);
}

#[tokio::test]
async fn new_connections_are_refused_once_the_stop_has_begun() {
    let upstream = Upstream::holding().await;
    let proxy = Proxy::before(&upstream, LONG);
    let mut caller = proxy.send(get("/")).await;
    upstream.until_requests(1).await;
    proxy.tell_to_stop().await;
    let refused = async {
        // Each core closes its listener when it hears of the stop.
        while TcpStream::connect(proxy.address).await.is_ok() {}
    };
    soon("connections to be refused", refused).await;
    upstream.release(1);
    assert_eq!(caller.response().await.status, 200);
    proxy.stopped().await;
}

#[tokio::test]
async fn what_was_sent_before_the_stop_is_answered() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let mut callers = Vec::new();
    for _ in 0..50 {
        callers.push(proxy.send(get("/")).await);
    }
    // Some of them are not even accepted yet.
    proxy.tell_to_stop().await;
    for caller in &mut callers {
        assert_eq!(caller.response().await.status, 200);
    }
    assert_eq!(proxy.stopped().await.cut, 0);
}

#[tokio::test]
async fn a_stop_with_nothing_to_do_takes_no_time() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, LONG);
    assert_eq!(proxy.get("/").await.status, 200);
    let began = Instant::now();
    assert_eq!(proxy.stop().await, NOTHING);
    // The wait for the last answers is a second, which nobody needs here.
    let took = began.elapsed();
    assert!(took < Duration::from_millis(900), "{took:?}");
}

/// A head that has begun to come is waited for, as the rest of a body is.
#[tokio::test]
async fn a_request_of_which_half_the_head_has_come_is_answered() {
    let upstream = Upstream::answering(ok("whole")).await;
    let proxy = Proxy::before(&upstream, "");
    // Who answers the whole request has read the half behind it. The second begins
    // with an empty line, so that it is parsed.
    let mut callers = Vec::new();
    for before in ["", "\r\n"] {
        let whole = "GET / HTTP/1.1\r\nHost: caller\r\n\r\n";
        let requests = format!("{before}{whole}GET /again HTTP/1.1\r\nHo");
        let mut caller = proxy.send(requests).await;
        assert_eq!(caller.response().await.status, 200);
        callers.push(caller);
    }
    proxy.tell_to_stop().await;
    proxy.until_draining().await;
    for mut caller in callers {
        caller.send("st: caller\r\n\r\n").await;
        let response = caller.response().await;
        assert_eq!((response.status, response.text()), (200, "whole"));
        assert!(response.fields.has_token("connection", "close"));
    }
    assert_eq!(proxy.stopped().await.cut, 0);
}
