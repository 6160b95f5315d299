//! Changes to another protocol (RFC 9110, section 7.8) and the tunnels that
//! follow.

use pacegate::daemon::Stopped;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Caller, Proxy, Step, Upstream, get, ok, soon};

const ASKS: &str = "GET /chat?room=1 HTTP/1.1\r\nHost: caller\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Key: a2V5\r\nSec-WebSocket-Version: 13\r\n\r\n";

const CHANGES: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
    Upgrade: WebSocket\r\nSec-WebSocket-Accept: YWNjZXB0\r\n\r\n";

/// Changes the protocol, sends `first` with the 101, and then what comes.
async fn echoing(first: &str) -> Upstream {
    let answer = format!("{CHANGES}{first}").into_bytes();
    Upstream::start(move |seen| match seen.fields.get("upgrade") {
        Some(_) => vec![Step::Send(answer.clone()), Step::Echo, Step::Close],
        None => vec![Step::Send(ok("plain"))],
    })
    .await
}

/// A tunnel through `proxy`.
async fn tunnel(proxy: &Proxy) -> Caller {
    let mut caller = proxy.send(ASKS).await;
    assert_eq!(caller.response().await.status, 101);
    caller
}

#[tokio::test]
async fn bytes_pass_both_ways_after_a_101_also_those_that_came_with_it() {
    let upstream = echoing("greeting ").await;
    let proxy = Proxy::before(&upstream, "limits = [\"5/h\"]");
    let mut caller = proxy.send(ASKS).await;
    let response = caller.response().await;
    assert_eq!(response.status, 101);
    assert_eq!(response.fields.get("upgrade"), Some("WebSocket"));
    assert!(response.fields.has_token("connection", "upgrade"));
    assert_eq!(
        response.fields.get("sec-websocket-accept"),
        Some("YWNjZXB0")
    );
    assert_eq!(response.fields.get("content-length"), None);
    caller.sees("greeting ").await;
    let binary: Vec<u8> = (0..=255).collect();
    for _ in 0..500 {
        caller.send(&binary).await;
    }
    caller.send("the end").await;
    caller.sees("the end").await;
    let metrics = proxy.metrics().await;
    assert_eq!((metrics.in_flight("api"), metrics.available()), (1.0, 4.0));

    // Half-close: the upstream hears the end and still says its last.
    caller.finish().await;
    let all = caller.closed().await;
    assert_eq!(
        all.len(),
        "greeting ".len() + 500 * binary.len() + "the end".len()
    );
    proxy.until_first_end("api", "completed").await;
    assert_eq!(proxy.metrics().await.in_flight("api"), 0.0);
    let seen = upstream.only_request();
    assert_eq!(seen.target, "/chat?room=1");
    assert_eq!(seen.fields.get("upgrade"), Some("websocket"));
    assert_eq!(seen.fields.get("connection"), Some("upgrade"));
    assert_eq!(seen.fields.get("sec-websocket-key"), Some("a2V5"));
}

#[tokio::test]
async fn bytes_that_a_caller_sends_behind_its_request_are_not_lost() {
    let upstream = echoing("").await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = proxy.send(format!("{ASKS}early")).await;
    assert_eq!(caller.response().await.status, 101);
    caller.sees("early").await;
}

#[tokio::test]
async fn any_other_answer_is_an_ordinary_one() {
    let answer = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: foo/2\r\nContent-Length: 4\r\n\r\nnope";
    let upstream = Upstream::answering(answer).await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = proxy.send(ASKS).await;
    for _ in 0..2 {
        let response = caller.response().await;
        assert_eq!((response.status, response.text()), (426, "nope"));
        caller.send(ASKS).await;
    }
    assert_eq!(caller.response().await.status, 426);
}

/// RFC 9113, section 3.1: `h2c` is obsolete, and between us and the caller alone.
#[tokio::test]
async fn an_upgrade_to_http_2_or_one_that_connection_does_not_name_is_not_passed_on() {
    let upstream = echoing("").await;
    let proxy = Proxy::before(&upstream, "");
    let h2c = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
    for fields in [h2c, "Upgrade: websocket\r\n"] {
        let request = format!("GET / HTTP/1.1\r\nHost: caller\r\n{fields}\r\n");
        let response = proxy.send(request).await.response().await;
        assert_eq!((response.status, response.text()), (200, "plain"));
    }
    for seen in upstream.requests() {
        assert_eq!(seen.fields.get("upgrade"), None);
        assert_eq!(seen.fields.get("connection"), None);
        assert_eq!(seen.fields.get("http2-settings"), None);
    }
}

#[tokio::test]
async fn upgrades_leave_calls_to_other_requests() {
    let upstream = echoing("").await;
    let proxy = Proxy::before(&upstream, "max_in_flight = 2");
    let mut first = tunnel(&proxy).await;
    let refused = proxy.send(ASKS).await.response().await;
    refused.assert_refusal(503, "upgrades_full");
    assert_eq!(proxy.get("/").await.text(), "plain");

    first.finish().await;
    first.closed().await;
    let freed = |metrics: &crate::support::Metrics| metrics.in_flight("api") == 0.0;
    proxy.until("the tunnel's end", freed).await;
    tunnel(&proxy).await;
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.ended("api", "upgrades_full"), 1.0);
}

#[tokio::test]
async fn without_a_seat_for_upgrades_the_request_goes_on_without_one() {
    let upstream = echoing("").await;
    let proxy = Proxy::before(&upstream, "max_in_flight = 1");
    let response = proxy.send(ASKS).await.response().await;
    assert_eq!((response.status, response.text()), (200, "plain"));
    assert_eq!(upstream.only_request().fields.get("upgrade"), None);
}

#[tokio::test]
async fn a_tunnel_in_which_nothing_moves_is_closed_on_both_sides() {
    let upstream = echoing("").await;
    let proxy = Proxy::before(&upstream, "timeouts.tunnel_idle = \"100ms\"");
    let mut caller = tunnel(&proxy).await;
    assert_eq!(caller.closed().await, b"");
    proxy.until_first_end("api", "aborted").await;
    upstream.until("its end", |log| log.ended == 1).await;
}

#[tokio::test]
async fn a_tunnel_ends_when_either_side_goes() {
    let upstream = echoing("").await;
    let proxy = Proxy::before(&upstream, "");
    drop(tunnel(&proxy).await);
    upstream
        .until("the caller's end", |log| log.ended == 1)
        .await;

    let steps = [Step::Send(CHANGES.into()), Step::Hold, Step::Reset];
    let upstream = Upstream::start(move |_| steps.to_vec()).await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = tunnel(&proxy).await;
    upstream.release(1);
    caller.closed().await;
    proxy.until_first_end("api", "aborted").await;
}

/// RFC 9110, section 15.2.2: a server changes to what the client asked for.
#[tokio::test]
async fn a_101_that_nobody_asked_for_is_a_bad_gateway() {
    let other = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n";
    let unnamed = "HTTP/1.1 101 Switching Protocols\r\n\r\n";
    let asked = ASKS.as_bytes().to_vec();
    for (request, answer) in [
        (get("/"), CHANGES),
        (asked.clone(), other),
        (asked, unnamed),
    ] {
        let upstream = Upstream::answering(answer).await;
        let proxy = Proxy::before(&upstream, "");
        let response = proxy.send(request).await.response().await;
        response.assert_refusal(502, "upstream_failed");
        assert_eq!(response.proxy_error(), "http_upgrade_failed");
        upstream.until("its end", |log| log.ended == 1).await;
        assert_eq!(proxy.metrics().await.in_flight("api"), 0.0);
    }
}

#[tokio::test]
async fn a_stop_waits_for_a_tunnel_and_closes_it_when_the_drain_is_over() {
    let upstream = echoing("").await;
    let proxy = Proxy::before(&upstream, "[shutdown]\ndrain = \"1h\"");
    let mut caller = tunnel(&proxy).await;
    proxy.tell_to_stop().await;
    proxy.until_draining().await;
    caller.send("still here").await;
    caller.sees("still here").await;
    caller.finish().await;
    caller.closed().await;
    let finished = Stopped {
        finished: 1,
        cut: 0,
    };
    assert_eq!(proxy.stopped().await, finished);

    // Not a WebSocket: nothing is known that could be said to its ends.
    let other = CHANGES.replace("Upgrade: WebSocket", "Upgrade: chat/2");
    let answer = vec![Step::Send(other.into()), Step::Echo, Step::Close];
    let upstream = Upstream::start(move |_| answer.clone()).await;
    let proxy = Proxy::before(&upstream, "[shutdown]\ndrain = \"100ms\"");
    let mut caller = proxy.send(ASKS.replace("websocket", "chat/2")).await;
    assert_eq!(caller.response().await.status, 101);
    let stopped = proxy.stop().await;
    assert_eq!(caller.closed().await, b"");
    upstream.until("its end", |log| log.ended == 1).await;
    let cut = Stopped {
        finished: 0,
        cut: 1,
    };
    assert_eq!(stopped, cut);
}

/// A close frame that says "going away" (RFC 6455, sections 5.2 and 7.4.1).
const GOING_AWAY: &[u8] = &[0x88, 2, 0x03, 0xE9];

/// The upstream's end of a WebSocket, and the caller's.
async fn websocket(drain: &str) -> (Proxy, TcpStream, Caller) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let proxy = Proxy::start(&format!(
        "[upstream.api]\nurl = \"{url}\"\n[shutdown]\ndrain = \"{drain}\""
    ));
    let mut caller = proxy.send(ASKS).await;
    let (mut upstream, _) = soon("a connection", listener.accept()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        soon("a head", upstream.read_buf(&mut head)).await.unwrap();
    }
    upstream.write_all(CHANGES.as_bytes()).await.unwrap();
    assert_eq!(caller.response().await.status, 101);
    (proxy, upstream, caller)
}

/// Reads a masked close frame and says what is in it.
async fn read_masked_close(upstream: &mut TcpStream) -> [u8; 2] {
    let mut frame = [0; 8];
    soon("a close frame", upstream.read_exact(&mut frame))
        .await
        .unwrap();
    assert_eq!(frame[..2], [0x88, 0x82], "{frame:x?}");
    [frame[6] ^ frame[2], frame[7] ^ frame[3]]
}

async fn assert_ended(mut upstream: TcpStream) {
    let mut rest = Vec::new();
    soon("the end", upstream.read_to_end(&mut rest))
        .await
        .unwrap();
    assert_eq!(rest, b"");
}

/// RFC 6455, sections 5.5.1 and 7.1.1.
#[tokio::test]
async fn a_stop_closes_both_ends_of_a_websocket_in_its_own_way() {
    let (proxy, mut upstream, mut caller) = websocket("50ms").await;
    upstream.write_all(b"\x81\x02hi").await.unwrap();
    caller.sees("hi").await;
    caller.send(b"\x81\x82\0\0\0\0yo").await;
    let mut message = [0; 8];
    soon("a message", upstream.read_exact(&mut message))
        .await
        .unwrap();

    proxy.tell_to_stop().await;
    assert_eq!(read_masked_close(&mut upstream).await, [0x03, 0xE9]);
    caller.sees("\x02\x03").await;
    upstream.write_all(GOING_AWAY).await.unwrap();
    caller.send(b"\x88\x82\0\0\0\0\x03\xE9").await;
    assert_eq!(caller.closed().await, [b"\x81\x02hi", GOING_AWAY].concat());
    assert_ended(upstream).await;
    let finished = Stopped {
        finished: 1,
        cut: 0,
    };
    assert_eq!(proxy.stopped().await, finished);
}

/// RFC 6455, section 5.4.
#[tokio::test]
async fn a_close_frame_is_never_put_into_another_frame() {
    let (proxy, mut upstream, mut caller) = websocket("50ms").await;
    upstream.write_all(b"\x82\x0Ahalf ").await.unwrap();
    caller.sees("half ").await;
    proxy.tell_to_stop().await;
    // This direction is between two frames.
    assert_eq!(read_masked_close(&mut upstream).await, [0x03, 0xE9]);
    upstream.write_all(b"frame").await.unwrap();
    // What follows was said too late.
    upstream.write_all(b"\x82\x01!").await.unwrap();
    upstream.write_all(GOING_AWAY).await.unwrap();
    caller.send(b"\x88\x80\0\0\0\0").await;
    let came = caller.closed().await;
    assert_eq!(came, [b"\x82\x0Ahalf frame", GOING_AWAY].concat());
    assert_ended(upstream).await;
    proxy.stopped().await;
}

/// RFC 6455, section 7.1.1.
#[tokio::test]
async fn an_end_of_a_websocket_that_does_not_close_is_cut_off() {
    let (proxy, mut upstream, mut caller) = websocket("50ms").await;
    // The payload of this never comes, so the caller cannot be told.
    upstream.write_all(b"\x82\x0Ahalf").await.unwrap();
    caller.sees("half").await;
    proxy.tell_to_stop().await;
    assert_eq!(read_masked_close(&mut upstream).await, [0x03, 0xE9]);
    assert_eq!(caller.closed().await, b"\x82\x0Ahalf");
    assert_ended(upstream).await;
    let cut = Stopped {
        finished: 0,
        cut: 1,
    };
    assert_eq!(proxy.stopped().await, cut);
}
