//! HTTP/2 connections whose other end may be gone without a word.

use std::time::Duration;

use ::http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::rig::Rig;
type Server = h2::server::Connection<DuplexStream, bytes::Bytes>;

const SETTINGS: &str = "connection = { http2 = \"prior-knowledge\", idle_timeout = \"9min\" }\n\
    timeouts = { response = \"10s\" }\n";

/// A lane before an upstream that has answered one request, and its end of the
/// connection, on which nothing happens unless the test drives it.
async fn answered(accepted: &mut mpsc::Receiver<DuplexStream>, rig: &Rig) -> Server {
    let call = rig.send("/");
    let stream = accepted.recv().await.unwrap();
    let mut server = h2::server::handshake(stream).await.unwrap();
    let (_, mut respond) = server.accept().await.unwrap().unwrap();
    respond.send_response(Response::new(()), true).unwrap();
    tokio::select! {
        call = call => assert_eq!(call.unwrap().0, 200),
        _ = server.accept() => unreachable!("one request"),
    }
    server
}

#[tokio::test(start_paused = true)]
async fn no_call_joins_a_connection_on_which_one_got_no_answer_in_time() {
    let (connections, mut accepted) = mpsc::channel(16);
    let rig = Rig::before(SETTINGS, Duration::ZERO, connections);
    let mut dead = answered(&mut accepted, &rig).await;
    let before = rig.send("/");
    let (_, mut respond) = dead.accept().await.unwrap().unwrap();
    sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    let silent = rig.send("/");
    let _unanswered = dead.accept().await.unwrap().unwrap();
    respond.send_response(Response::new(()), true).unwrap();
    tokio::select! {
        call = before => assert_eq!(call.unwrap().0, 200),
        _ = dead.accept() => unreachable!("no more requests"),
    }
    assert_eq!(silent.await.unwrap().0, 504);
    assert_eq!(start.elapsed(), Duration::from_secs(10));
    drop(answered(&mut accepted, &rig).await);
}

/// The kind of the next frame (RFC 9113, section 4.1).
async fn frame(stream: &mut DuplexStream) -> u8 {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await.unwrap();
    head[3]
}

/// gRPC servers close a connection after the third ping that comes less than five
/// minutes after the one before it.
#[tokio::test(start_paused = true)]
async fn an_upstream_that_is_silent_gets_no_pings() {
    const NO_SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const STATUS_200: [u8; 10] = [0, 0, 1, HEADERS, 5, 0, 0, 0, 1, 0x88];
    const HEADERS: u8 = 1;
    const PING: u8 = 6;
    let (connections, mut accepted) = mpsc::channel(16);
    let rig = Rig::before(SETTINGS, Duration::ZERO, connections);
    let call = rig.send("/");
    let mut stream = accepted.recv().await.unwrap();
    stream.write_all(&NO_SETTINGS).await.unwrap();
    stream.read_exact(&mut [0; 24]).await.unwrap();
    while frame(&mut stream).await != HEADERS {}
    stream.write_all(&STATUS_200).await.unwrap();
    assert_eq!(call.await.unwrap().0, 200);
    let pinged = async { while frame(&mut stream).await != PING {} };
    let pinged = timeout(Duration::from_secs(300), pinged).await;
    assert!(pinged.is_err());
}
