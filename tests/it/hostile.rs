//! Callers that send nothing, too little or too much, or take nothing.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::{Proxy, Upstream, get, ok};

const IMPATIENT: &str = "[client]\nheader_timeout = \"200ms\"\n";

#[tokio::test]
async fn a_caller_that_does_not_finish_its_head_is_cut_off() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, IMPATIENT);
    let starts = [
        "",
        "G",
        "GET / HTTP/1.1\r\nHost: cal",
        "PRI * HTTP/2.0\r\n\r\nS",
    ];
    for start in starts {
        let began = Instant::now();
        let mut caller = proxy.send(start).await;
        caller.closed().await;
        let took = began.elapsed();
        assert!(
            took >= Duration::from_millis(190),
            "`{start}` was cut off after {took:?}"
        );
        proxy.until_connections(0).await;
    }
    assert_eq!(upstream.log().opened, 0);
}

#[tokio::test]
async fn an_idle_connection_is_cut_off() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, IMPATIENT);
    let mut caller = proxy.send(get("/")).await;
    assert_eq!(caller.response().await.status, 200);
    assert_eq!(caller.closed().await, b"");
}

#[tokio::test]
async fn the_bound_on_the_head_does_not_bound_the_answer() {
    let upstream = Upstream::holding().await;
    let proxy = Proxy::before(&upstream, IMPATIENT);
    let mut caller = proxy.send(get("/")).await;
    upstream.until_requests(1).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    upstream.release(1);
    assert_eq!(caller.response().await.status, 200);
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "[client]\nmax_header_bytes = \"8KiB\"\n");
    let long = format!(
        "GET / HTTP/1.1\r\nHost: caller\r\nX-Long: {}\r\n\r\n",
        "x".repeat(16 << 10)
    );
    let mut caller = proxy.caller().await;
    caller.send_some(long).await;
    assert_eq!(caller.response().await.status, 431);
    caller.closed().await;
    assert_eq!(upstream.log().opened, 0);
}

#[tokio::test]
async fn a_head_with_too_many_fields_is_refused() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "[client]\nmax_headers = 10\n");
    for (fields, status) in [(9, 200), (10, 431)] {
        let many: String = (0..fields)
            .map(|number| format!("X-{number}: 1\r\n"))
            .collect();
        let head = format!("GET / HTTP/1.1\r\nHost: caller\r\n{many}\r\n");
        let mut caller = proxy.send(head).await;
        assert_eq!(caller.response().await.status, status, "{fields}");
    }
}

#[tokio::test]
async fn garbage_is_answered_400_and_the_connection_closed() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    for garbage in [
        "\u{16}\u{3}\u{1}\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
    ] {
        let mut caller = proxy.caller().await;
        caller.send_some(garbage).await;
        let rest = String::from_utf8(caller.closed().await).unwrap();
        assert!(
            rest.is_empty() || rest.starts_with("HTTP/1.1 400 "),
            "{rest}"
        );
    }
    assert_eq!(proxy.get("/").await.status, 200);
}

#[tokio::test]
async fn a_caller_that_stops_in_the_middle_of_its_body_is_cut_off() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "[client]\nstall_timeout = \"200ms\"\n");
    let head = "POST / HTTP/1.1\r\nHost: caller\r\nContent-Length: 10\r\n\r\nhalf ";
    let mut caller = proxy.send(head).await;
    caller.closed().await;
    proxy
        .until("nobody is left", |metrics| metrics.waiting("api") == 0.0)
        .await;
    assert_eq!(upstream.log().opened, 0);
}

#[tokio::test]
async fn a_caller_that_takes_nothing_of_its_response_is_cut_off() {
    // More than the buffers on its way hold.
    let long = ok(&"x".repeat(64 << 20));
    let upstream = Upstream::answering(long).await;
    let proxy = Proxy::before(&upstream, "[client]\nstall_timeout = \"200ms\"\n");
    let _caller = proxy.send(get("/")).await;
    proxy
        .until("the call to end", |metrics| {
            metrics.ended("api", "aborted") == 1.0
        })
        .await;
    upstream
        .until("the end of the connection", |log| log.ended == 1)
        .await;
}

#[tokio::test]
async fn no_more_connections_are_served_than_allowed_and_each_core_gets_its_share() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "[client]\nmax_connections = 1\n");
    let mut first = proxy.send(get("/0")).await;
    assert_eq!(first.response().await.status, 200);
    let mut others = Vec::new();
    for number in 1..=8 {
        others.push(proxy.send(get(&format!("/{number}"))).await);
    }
    proxy.until_connections(1).await;
    assert_eq!(upstream.targets(), ["/0"]);
    drop(first);
    // The system spreads them over the cores; each goes when it has its answer.
    let mut answers = tokio::task::JoinSet::new();
    for mut caller in others {
        answers.spawn(async move { caller.response().await.status });
    }
    assert_eq!(answers.join_all().await, [200; 8]);
}
