//! HTTP/2's flow control (RFC 9113, section 5.2): what waits on one stream never
//! holds up another on its connection.

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::support::{Proxy, Upstream, ok, soon};
use crate::versions::{Call, answer_ok, before, scripted};

/// More of them than the library lets wait by default, as gRPC sends them.
#[tokio::test]
async fn small_frames_that_wait_for_a_slow_caller_hold_up_no_other_call() {
    /// What a caller allows at first.
    const WINDOW: usize = 65_535;
    const FRAMES: usize = 20_000;
    const FRAME: Bytes = Bytes::from_static(b"a short message here");
    let script = |(_, mut respond, number): Call| async move {
        if number > 0 {
            return answer_ok(respond);
        }
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        for _ in 1..FRAMES {
            body.send_data(FRAME, false).unwrap();
        }
        body.send_data(FRAME, true).unwrap();
    };
    let proxy = before(scripted(100, script).await, Version::HTTP_2, "");
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.data_frame_budget(FRAMES * 256);
    let shaken = builder.handshake::<_, Bytes>(stream);
    let (sender, connection) = soon("a handshake", shaken).await.unwrap();
    tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    let uri = format!("http://{}/", proxy.address);
    let request = Request::get(uri).body(()).unwrap();
    let (answer, _) = sender.send_request(request, true).unwrap();
    let mut body = soon("an answer", answer).await.unwrap().into_body();
    let mut came = 0;
    while came < WINDOW {
        came += soon("a piece", body.data()).await.unwrap().unwrap().len();
    }
    assert_eq!(proxy.get("/").await.status, 200);
    body.flow_control().release_capacity(came).unwrap();
    while let Some(piece) = soon("the rest", body.data()).await {
        let piece = piece.unwrap().len();
        came += piece;
        body.flow_control().release_capacity(piece).unwrap();
    }
    assert_eq!(came, FRAMES * FRAME.len());
}

#[tokio::test]
async fn a_body_that_waits_for_its_turn_holds_up_no_other_of_its_caller() {
    let upstream = Upstream::answering(ok("")).await;
    let proxy = Proxy::before(
        &upstream,
        &format!(
            "match = {{ prefix = \"/slow\" }}\nlimits = [\"1/30s\"]\n\
            [upstream.other]\nurl = \"{}\"\nmatch = {{ prefix = \"/other\" }}",
            upstream.url()
        ),
    );
    assert_eq!(proxy.get("/slow").await.status, 200);
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = soon("a handshake", shaken).await.unwrap();
    tokio::spawn(connection);
    let post = |path: &str, bytes: usize| {
        let uri = format!("http://{}{path}", proxy.address);
        let body = Full::new(Bytes::from(vec![b'a'; bytes]));
        Request::post(uri).body(body).unwrap()
    };
    let _waiting = tokio::spawn(sender.send_request(post("/slow", 4 << 20)));
    proxy.until_waiting(1).await;
    for _ in 0..10 {
        let answer = sender.send_request(post("/other", 10_000));
        let answer = soon("an answer", answer).await.unwrap();
        assert_eq!(answer.status(), 200);
        soon("its end", answer.into_body().collect()).await.unwrap();
    }
}
