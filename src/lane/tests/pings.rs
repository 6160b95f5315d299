//! HTTP/2 connections whose other end is gone without a word (RFC 9113, section
//! 6.7): a ping every 20 s, and 20 s for its answer.

use std::time::Duration;

use ::http::Response;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::rig::Rig;
use crate::outcome::{Break, Outcome};

type Server = h2::server::Connection<DuplexStream, bytes::Bytes>;

const SETTINGS: &str = "connection = { http2 = \"prior-knowledge\" }\n\
    timeouts = { response = \"10min\" }\n";

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
async fn a_dead_connection_is_found_before_a_request_is_sent_on_it() {
    let (connections, mut accepted) = mpsc::channel(16);
    let rig = Rig::before(SETTINGS, Duration::ZERO, connections);
    let _dead = answered(&mut accepted, &rig).await;
    assert_eq!(rig.snapshot().connections(), 1);
    sleep(Duration::from_secs(41)).await;
    assert_eq!(rig.snapshot().connections(), 0);
    drop(answered(&mut accepted, &rig).await);
}

#[tokio::test(start_paused = true)]
async fn a_call_on_a_dead_connection_ends_long_before_its_time() {
    let (connections, mut accepted) = mpsc::channel(16);
    let rig = Rig::before(SETTINGS, Duration::ZERO, connections);
    let mut server = answered(&mut accepted, &rig).await;
    let start = Instant::now();
    let call = rig.send("/");
    let (_request, _respond) = server.accept().await.unwrap().unwrap();
    assert_eq!(call.await.unwrap().0, 502);
    assert!(
        start.elapsed() < Duration::from_secs(41),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(rig.ended(Outcome::UpstreamFailed(Break::Unanswered)), 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_answers_pings_is_kept() {
    let (connections, mut accepted) = mpsc::channel(16);
    let rig = Rig::before(SETTINGS, Duration::ZERO, connections);
    let mut server = answered(&mut accepted, &rig).await;
    tokio::select! {
        _ = server.accept() => unreachable!("no more requests"),
        () = sleep(Duration::from_secs(300)) => {}
    }
    assert_eq!(rig.snapshot().connections(), 1);
}
