//! Interim answers (1xx) and the time for an answer.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::rig::Rig;
use crate::http::plain::request::{Head, Rewrite};
use crate::outcome::Outcome;
use crate::timer::Timer;

const SETTINGS: &str = "timeouts.response = \"100s\"\nretry.attempts = 1";

/// Sends an interim answer every ten seconds, and never another.
async fn stall(mut stream: DuplexStream) {
    let mut request = [0; 1024];
    assert!(stream.read(&mut request).await.unwrap() > 0);
    while stream
        .write_all(b"HTTP/1.1 102 Processing\r\n\r\n")
        .await
        .is_ok()
    {
        sleep(Duration::from_secs(10)).await;
    }
}

fn start() -> Rig {
    let (connections, mut accepted) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Some(stream) = accepted.recv().await {
            tokio::spawn(stall(stream));
        }
    });
    Rig::before(SETTINGS, Duration::ZERO, connections)
}

#[tokio::test(start_paused = true)]
async fn they_give_an_upstream_no_more_time() {
    let (status, at) = start().send("/").await.unwrap();
    assert_eq!((status.as_u16(), at.as_secs()), (504, 100));
}

#[tokio::test(start_paused = true)]
async fn nor_in_answer_to_a_plain_request() {
    let rig = start();
    let head = Head::read(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let rewrite = Rewrite::new(0, None, false, false, &[]).unwrap();
    let (mut timer, begin) = (Timer::default(), Instant::now());
    let request = head.request(&rewrite, b"");
    let dress = rig.lane.dress();
    let reply = rig.lane.call_plain(request, dress, None, &mut timer, None);
    assert_eq!(reply.await.err(), Some(Outcome::UpstreamTimeout));
    assert_eq!(begin.elapsed().as_secs(), 100);
}
