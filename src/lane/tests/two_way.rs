//! Calls in which both sides send at the same time, as in gRPC, and the bounds on
//! silence. `stall_timeout` and `timeouts.stall` are a minute each.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::rig::Rig;
use crate::outcome::Outcome;

const PAUSE: Duration = Duration::from_secs(40);

/// Long after each bound.
const LONG: Duration = Duration::from_secs(600);

/// A call whose request body and response body have begun: the rig, the caller's
/// stream and the upstream's.
async fn begun() -> (Rig, DuplexStream, DuplexStream) {
    let (connections, mut accepted) = mpsc::channel(16);
    let rig = Rig::before("", Duration::ZERO, connections);
    let mut caller = rig.connect();
    let head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    caller.write_all(head).await.unwrap();
    let mut upstream = accepted.recv().await.unwrap();
    chunk(&mut caller).await;
    until(&mut upstream, b"1\r\na\r\n").await;
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    upstream.write_all(head).await.unwrap();
    chunk(&mut upstream).await;
    until(&mut caller, b"1\r\na\r\n").await;
    (rig, caller, upstream)
}

async fn chunk(stream: &mut DuplexStream) {
    stream.write_all(b"1\r\na\r\n").await.unwrap();
}

/// Reads until what was read ends so.
async fn until(stream: &mut DuplexStream, end: &[u8]) {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        let more = timeout(LONG, stream.read_buf(&mut read)).await;
        assert!(
            more.unwrap().unwrap() > 0,
            "{}",
            String::from_utf8_lossy(&read)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_may_be_silent_while_it_is_answered() {
    let (rig, mut caller, mut upstream) = begun().await;
    for _ in 0..20 {
        sleep(PAUSE).await;
        chunk(&mut upstream).await;
        until(&mut caller, b"1\r\na\r\n").await;
    }
    caller.write_all(b"0\r\n\r\n").await.unwrap();
    until(&mut upstream, b"0\r\n\r\n").await;
    upstream.write_all(b"0\r\n\r\n").await.unwrap();
    until(&mut caller, b"0\r\n\r\n").await;
    assert_eq!(rig.ended(Outcome::Completed), 1);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_may_be_silent_while_its_caller_sends() {
    let (rig, mut caller, mut upstream) = begun().await;
    for _ in 0..20 {
        sleep(PAUSE).await;
        chunk(&mut caller).await;
        until(&mut upstream, b"1\r\na\r\n").await;
    }
    caller.write_all(b"0\r\n\r\n").await.unwrap();
    upstream.write_all(b"0\r\n\r\n").await.unwrap();
    until(&mut caller, b"0\r\n\r\n").await;
    assert_eq!(rig.ended(Outcome::Completed), 1);
}

#[tokio::test(start_paused = true)]
async fn where_both_are_silent_the_call_ends() {
    let (rig, mut caller, _upstream) = begun().await;
    let mut rest = Vec::new();
    let ended = timeout(Duration::from_secs(121), caller.read_to_end(&mut rest)).await;
    // By its end or by an error: it is not that of a whole response.
    assert!(ended.is_ok());
    assert!(!rest.ends_with(b"0\r\n\r\n"));
    assert_eq!(rig.ended(Outcome::Aborted), 1);
}
