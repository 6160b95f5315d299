//! What is sent again after a broken connection, and what never is.
//!
//! An upstream may close an unused connection at any moment, also while the
//! next request is on its way. What may be repeated (RFC 9110, section 9.2.2)
//! goes over another connection then, and nobody notices.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::{Caller, Log, Proxy, Step, Upstream, get, ok, post, soon};

/// An upstream that takes the second request of each connection and ends the
/// connection instead of answering it.
async fn closing(end: Step) -> Upstream {
    Upstream::start(move |seen| match seen.nth {
        0 => vec![Step::Send(ok("ok"))],
        _ => vec![end.clone()],
    })
    .await
}

/// A connection to the upstream has carried a request.
async fn used(proxy: &Proxy) -> Caller {
    let mut caller = proxy.send(get("/first")).await;
    assert_eq!(caller.response().await.status, 200);
    caller
}

/// RFC 9110, section 9.2.2.
#[tokio::test]
async fn what_may_be_repeated_goes_over_another_connection_when_one_closes() {
    let requests = [
        get("/second"),
        b"DELETE /second HTTP/1.1\r\nHost: caller\r\n\r\n".to_vec(),
        b"PUT /second HTTP/1.1\r\nHost: caller\r\nContent-Length: 4\r\n\r\nbody".to_vec(),
    ];
    for request in requests {
        for end in [Step::Close, Step::Reset] {
            let upstream = closing(end).await;
            let proxy = Proxy::before(&upstream, "");
            let mut caller = used(&proxy).await;
            caller.send(&request).await;
            assert_eq!(caller.response().await.status, 200);
            assert_eq!(upstream.targets(), ["/first", "/second", "/second"]);
            let seen = upstream.requests();
            assert_eq!(seen[1].fields, seen[2].fields);
            assert_eq!(seen[1].body, seen[2].body);
            let metrics = proxy.metrics().await;
            assert_eq!(metrics.ended("api", "completed"), 2.0);
            assert_eq!(metrics.admitted("api"), 2.0);
        }
    }
}

/// A connection counted as alive when it had rested for less than a millisecond,
/// which on a busy machine is less than the upstream saw: one GET in some
/// thousand failed.
#[tokio::test]
async fn a_connection_may_close_right_after_its_answer() {
    let upstream = closing(Step::Close).await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = proxy.caller().await;
    for number in 0..20 {
        caller.send(get(&format!("/{number}"))).await;
        assert_eq!(caller.response().await.status, 200, "{number}");
    }
}

#[tokio::test]
async fn a_repeated_request_pays_for_each_turn() {
    let upstream = closing(Step::Close).await;
    let proxy = Proxy::before(&upstream, "limits = [\"5/h\"]");
    let mut caller = used(&proxy).await;
    caller.send(get("/second")).await;
    assert_eq!(caller.response().await.status, 200);
    assert_eq!(proxy.metrics().await.available(), 2.0);
}

/// A connection that the upstream has closed is seen to be closed before anything
/// is sent on it.
#[tokio::test]
async fn what_may_not_be_repeated_is_not_sent_over_a_closed_connection() {
    let steps = [Step::Send(ok("ok")), Step::Close];
    let upstream = Upstream::start(move |_| steps.to_vec()).await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = proxy.caller().await;
    for number in 1..=20 {
        caller.send(post(&format!("/{number}"), "body")).await;
        assert_eq!(caller.response().await.status, 200, "{number}");
        let closed = |log: &Log| log.ended == number;
        upstream.until("the connection to be closed", closed).await;
    }
    assert_eq!(upstream.log().requests.len(), 20);
}

/// `connection.max_age`, while the connection is in use.
#[tokio::test]
async fn a_connection_that_has_become_too_old_is_replaced() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "connection = { max_age = \"200ms\" }");
    let mut caller = proxy.caller().await;
    let began = Instant::now();
    let replaced = async {
        while upstream.log().opened < 2 {
            caller.send(post("/", "body")).await;
            assert_eq!(caller.response().await.status, 200);
        }
    };
    soon("another connection", replaced).await;
    assert!(began.elapsed() >= Duration::from_millis(200));
}

/// RFC 9110, section 9.2.2.
#[tokio::test]
async fn what_may_not_be_repeated_is_sent_once() {
    let chunk = "POST /second HTTP/1.1\r\nHost: caller\r\nTransfer-Encoding: chunked\r\n\r\n";
    let requests = [
        post("/second", ""),
        post("/second", "body"),
        format!("{chunk}4\r\nbody\r\n0\r\n\r\n").into_bytes(),
        b"PATCH /second HTTP/1.1\r\nHost: caller\r\nContent-Length: 4\r\n\r\nbody".to_vec(),
    ];
    for request in requests {
        for end in [Step::Close, Step::Reset] {
            let upstream = closing(end).await;
            let proxy = Proxy::before(&upstream, "");
            let mut caller = used(&proxy).await;
            caller.send(&request).await;
            caller
                .response()
                .await
                .assert_refusal(502, "upstream_failed");
            assert_eq!(upstream.targets(), ["/first", "/second"]);
        }
    }
}

#[tokio::test]
async fn gets_never_fail_however_soon_the_upstream_closes_after_its_answer() {
    // At once, just before the next request, or just after it.
    for [held, after] in [[false, false], [true, false], [true, true]] {
        let mut steps = vec![Step::Send(ok("ok")), Step::Hold, Step::Close];
        steps.retain(|step| held || !matches!(step, Step::Hold));
        let upstream = Upstream::start(move |_| steps.clone()).await;
        let proxy = Proxy::before(&upstream, "");
        let mut caller = proxy.caller().await;
        for number in 0..60 {
            let release = usize::from(held && number > 0);
            upstream.release(if after { 0 } else { release });
            caller.send(get(&format!("/{number}"))).await;
            upstream.release(if after { release } else { 0 });
            let response = caller.response().await;
            assert_eq!(
                response.status, 200,
                "{number}, {held} {after}: {response:?}"
            );
            // The next one now races with the close, now comes after it.
            if number % 3 == 0 && !held {
                let closed = |log: &Log| log.ended > number;
                upstream.until("the connection to be closed", closed).await;
            }
        }
    }
}

/// `retry.hold`: requests wait for an API that cannot be reached, and go when it can.
#[tokio::test]
async fn requests_are_held_until_the_upstream_is_back() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    // Refuses connections until it listens.
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let proxy = Proxy::start(&format!("[upstream.api]\nurl = \"http://{address}\"\n"));
    let mut callers = Vec::new();
    for number in 0..3 {
        callers.push(proxy.send(get(&format!("/{number}"))).await);
    }
    proxy.until_waiting(3).await;
    let listener = socket.listen(16).unwrap();
    let upstream = Upstream::on(listener, |_| vec![Step::Send(ok("back"))]);
    for caller in &mut callers {
        assert_eq!(caller.response().await.text(), "back");
    }
    assert_eq!(upstream.requests().len(), 3);
    assert_eq!(proxy.metrics().await.ended("api", "completed"), 3.0);
}
