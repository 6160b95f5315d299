//! `Expect: 100-continue` (RFC 9110, section 10.1.1): a body is asked for when
//! there is room for it, and never for a request that is refused.

use crate::support::{Caller, Proxy, Seen, Upstream, get, ok};

fn asking(path: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: caller\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// The request is refused at once, its body is not asked for, and nothing that
/// comes after it is taken for a request.
async fn assert_refused(caller: &mut Caller, status: u16, outcome: &str) {
    let response = caller.response().await;
    response.assert_refusal(status, outcome);
    assert!(
        response.fields.has_token("connection", "close"),
        "{response:?}"
    );
    assert_eq!(caller.closed().await, b"");
}

#[tokio::test]
async fn a_request_that_is_refused_is_not_asked_for_its_body() {
    let upstream = Upstream::holding().await;
    let settings = "match = { prefix = \"/api\" }\nmax_body = \"1KiB\"\nmax_in_flight = 1\n\
        queue = { max_requests = 1, when_full = \"reject\" }";
    let proxy = Proxy::before(&upstream, settings);
    assert_refused(&mut proxy.send(asking("/none", 4)).await, 404, "no_route").await;
    assert_refused(
        &mut proxy.send(asking("/api", 1025)).await,
        413,
        "too_large",
    )
    .await;
    let twice = asking("/api", 4).replace("Host: caller", "Host: caller\r\nHost: other");
    assert_refused(&mut proxy.send(twice).await, 400, "bad_request").await;

    let mut first = proxy.send(get("/api/first")).await;
    upstream.until_requests(1).await;
    let mut second = proxy.send(get("/api/second")).await;
    proxy.until_waiting(1).await;
    assert_refused(&mut proxy.send(asking("/api", 4)).await, 503, "queue_full").await;
    upstream.release(2);
    assert_eq!(first.response().await.status, 200);
    assert_eq!(second.response().await.status, 200);
}

#[tokio::test]
async fn a_request_that_would_wait_too_long_is_not_asked_for_its_body() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "limits = [\"1/h\"]\nqueue.max_wait = \"1s\"");
    assert_eq!(proxy.get("/").await.status, 200);
    assert_refused(&mut proxy.send(asking("/", 4)).await, 503, "wait_too_long").await;
}

/// A short body has its place in the queue before it is asked for, and a long one,
/// which streams, its turn.
#[tokio::test]
async fn a_body_is_asked_for_when_there_is_room_for_it() {
    let upstream = Upstream::holding().await;
    let settings = "max_in_flight = 1\nbuffer_body = \"1KiB\"\n\
        queue = { max_requests = 1, when_full = \"wait\" }";
    let proxy = Proxy::before(&upstream, settings);
    let mut first = proxy.send(get("/first")).await;
    upstream.until_requests(1).await;
    let mut short = proxy.send(asking("/short", 4)).await;
    assert_eq!(short.response().await.status, 100);
    short.send("body").await;
    proxy.until_waiting(1).await;
    // No place: nothing is asked for until the short one has had its turn.
    let mut second = proxy.send(asking("/second", 4)).await;
    proxy.until_connections(3).await;
    second.has_nothing();
    upstream.release(1);
    assert_eq!(first.response().await.status, 200);
    assert_eq!(second.response().await.status, 100);
    upstream.release(1);
    assert_eq!(short.response().await.status, 200);
    second.send("body").await;
    upstream.release(1);
    assert_eq!(second.response().await.status, 200);

    let mut long = proxy.send(asking("/long", 2000)).await;
    assert_eq!(long.response().await.status, 100);
    long.send("x".repeat(2000)).await;
    upstream.release(1);
    assert_eq!(long.response().await.status, 200);
    assert_eq!(upstream.targets(), ["/first", "/short", "/second", "/long"]);
    let expects = |seen: &&Seen| seen.fields.get("expect").is_some();
    assert_eq!(upstream.requests().iter().filter(expects).count(), 0);
}
