//! Callers that send nothing, too little or too much, or take nothing.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::{Proxy, Step, Upstream, get, ok, soon};

const IMPATIENT: &str = "[client]\nheader_timeout = \"200ms\"\n";

/// RFC 9112, section 9.5.
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

/// It was told so as if its method were that of the request before it.
#[tokio::test]
async fn a_head_that_is_late_gets_an_answer_for_its_own_method() {
    let upstream = Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let proxy = Proxy::before(&upstream, IMPATIENT);
    for (first, late) in [("HEAD", "GET"), ("GET", "HEAD")] {
        // Behind an empty line it is not served as a plain one.
        let head = format!("\r\n{first} / HTTP/1.1\r\nHost: caller\r\n\r\n");
        let mut caller = proxy.send(head).await;
        assert_eq!(caller.response_to(first).await.status, 200);
        caller.send(format!("{late} / HTTP/1.1\r\nHost: cal")).await;
        let response = caller.response_to(late).await;
        assert_eq!(response.status, 408);
        assert!(response.whole, "{response:?}");
        assert_eq!(response.body.is_empty(), late == "HEAD");
        assert_eq!(caller.closed().await, b"", "{late}");
    }
}

/// RFC 9112, section 9.5: what bounds the head is not each pause in it.
#[tokio::test]
async fn a_caller_that_dribbles_its_head_is_cut_off() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, IMPATIENT);
    let mut caller = TcpStream::connect(proxy.address).await.unwrap();
    let head = caller.write_all(b"GET / HTTP/1.1\r\nX-Long: ").await;
    head.unwrap();
    let refused = async {
        while caller.write_all(b"x").await.is_ok() {
            // One byte for each answer of another listener: far fewer than a head may
            // have, and far more often than its time is long.
            proxy.metrics().await;
        }
    };
    soon("the connection to be cut off", refused).await;
    proxy.until_connections(0).await;
    assert_eq!(upstream.log().opened, 0);
}

/// RFC 9112, section 9.5.
#[tokio::test]
async fn an_idle_connection_is_cut_off() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "[client]\nidle_timeout = \"200ms\"\n");
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
    // Cut off by the same bound, so that is over for the first one as well.
    proxy.send("G").await.closed().await;
    upstream.release(1);
    assert_eq!(caller.response().await.status, 200);
}

/// RFC 6585, section 5.
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

/// RFC 6585, section 5.
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

/// RFC 6585, section 5, by the bounds that hold without any setting.
#[tokio::test]
async fn ten_thousand_fields_or_a_line_of_a_mebibyte_are_refused() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let long = "x".repeat(1 << 20);
    for (target, fields, status) in [
        ("/", "X: 1\r\n".repeat(10_000), 431),
        ("/", format!("X: {long}\r\n"), 431),
        (&*format!("/{long}"), String::new(), 414),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: caller\r\n{fields}\r\n");
        let mut caller = proxy.caller().await;
        caller.send_some(head).await;
        assert_eq!(caller.response().await.status, status);
        caller.closed().await;
    }
    proxy.until_connections(0).await;
    assert_eq!(upstream.log().opened, 0);
}

/// RFC 9112, section 9.5.
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
    let upstream = Upstream::holding().await;
    let proxy = Proxy::before(&upstream, "[client]\nmax_connections = 1\n");
    let first = proxy.send(get("/0")).await;
    upstream.until_requests(1).await;
    let mut others = Vec::new();
    for number in 1..=8 {
        others.push(proxy.send(get(&format!("/{number}"))).await);
    }
    proxy.until_connections(1).await;
    assert_eq!(upstream.targets(), ["/0"]);
    drop(first);
    // One more: the first may still take one before it is seen to be gone.
    upstream.release(9);
    // The system spreads them over the cores; each goes when it has its answer.
    let mut answers = tokio::task::JoinSet::new();
    for mut caller in others {
        answers.spawn(async move { caller.response().await.status });
    }
    assert_eq!(answers.join_all().await, [200; 8]);
}

#[tokio::test]
async fn the_oldest_idle_connections_make_room_for_new_ones() {
    let upstream = Upstream::start(|seen| match seen.target.as_str() {
        "/busy" => vec![Step::Hold, Step::Send(ok("busy"))],
        _ => vec![Step::Send(ok("ok"))],
    })
    .await;
    let proxy = Proxy::before(&upstream, "[client]\nmax_connections = 4\n");
    let mut busy = proxy.send(get("/busy")).await;
    upstream.until_requests(1).await;
    // It has sent nothing, which is as idle as can be.
    let mut silent = proxy.caller().await;
    proxy.until_connections(2).await;
    let mut idle = Vec::new();
    for _ in 0..2 {
        let mut caller = proxy.send(get("/")).await;
        assert_eq!(caller.response().await.status, 200);
        idle.push(caller);
    }
    let mut new = proxy.send(get("/new")).await;
    assert_eq!(new.response().await.status, 200);
    assert_eq!(silent.closed().await, b"");
    let mut newer = proxy.send(get("/newer")).await;
    assert_eq!(newer.response().await.status, 200);
    assert_eq!(idle.remove(0).closed().await, b"");
    // Those that were in use or are younger are still there.
    upstream.release(1);
    assert_eq!(busy.response().await.status, 200);
    for caller in [&mut idle[0], &mut new, &mut newer] {
        caller.send(get("/again")).await;
        assert_eq!(caller.response().await.status, 200);
    }
}
