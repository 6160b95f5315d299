//! curl alone: what only some callers do.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;

use crate::SOON;
use crate::arrivals::{HUNDRED_A_SECOND, Limit};
use crate::daemon::Daemon;
use crate::program::{self, curl};
use crate::upstream::{Offer, Upstream, blob};

/// The second turn comes later than any test needs, and before `max_wait`.
const ONE_IN_THIRTY_SECONDS: Limit = Limit {
    count: 1,
    period: Duration::from_secs(30),
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn comes_over_a_unix_socket() {
    let upstream = Upstream::start(HUNDRED_A_SECOND, Offer::Http2).await;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("callers.sock");
    let listen = format!("unix:{}", socket.display());
    let daemon = Daemon::start_on(&listen, &upstream).await;
    let mut curl = curl();
    curl.arg("--unix-socket")
        .arg(&socket)
        .arg("http://api/job/1");
    assert_eq!(program::run(&mut curl, SOON).await, "/job/1");
    daemon.stop().await;
    assert!(!socket.exists(), "the socket's file is left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_large_bodies_over_http1() {
    bodies_are_the_same_at_both_ends(Offer::Http1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_large_bodies_over_http2() {
    bodies_are_the_same_at_both_ends(Offer::Http2).await;
}

async fn bodies_are_the_same_at_both_ends(offer: Offer) {
    let upstream = Upstream::start(HUNDRED_A_SECOND, offer).await;
    let (daemon, base) = Daemon::start(&upstream).await;
    let workplace = daemon.workplace();
    let sent = workplace.join("sent");
    let blob = blob();
    fs::write(&sent, &blob).unwrap();
    for caller in ["--http1.1", "--http2-prior-knowledge"] {
        for source in ["sent", "-"] {
            // With `-` the length is not known beforehand.
            let stdin = fs::File::open(&sent).unwrap();
            let mut upload = curl();
            upload
                .args([caller, "--fail", "--upload-file", source])
                .arg(format!("{base}/{source}"))
                .current_dir(&workplace)
                .stdin(Stdio::from(stdin));
            let answer = program::run(&mut upload, SOON).await;
            assert_eq!(answer, format!("/{source}"), "{caller}");
            same(&upstream.upload(), &blob, caller, source);
        }
        for target in ["blob", "stream"] {
            let received = workplace.join("received");
            let mut download = curl();
            download
                .args([caller, "--fail", "--output"])
                .arg(&received)
                .arg(format!("{base}/{target}"));
            program::run(&mut download, SOON).await;
            same(&read(&received), &blob, caller, target);
        }
    }
    daemon.stop().await;
}

fn read(file: &Path) -> Bytes {
    fs::read(file).unwrap().into()
}

/// Without printing 10 MiB if not.
fn same(got: &Bytes, expected: &Bytes, caller: &str, what: &str) {
    let differs = got
        .iter()
        .zip(expected)
        .position(|(got, expected)| got != expected);
    assert!(
        got == expected,
        "{caller}, {what}: got {} of {} bytes, the first wrong one: {differs:?}",
        got.len(),
        expected.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaves_the_queue_when_it_is_killed() {
    let upstream = Upstream::start(ONE_IN_THIRTY_SECONDS, Offer::Http2).await;
    let (daemon, base) = Daemon::start(&upstream).await;
    let first = program::run(curl().arg(format!("{base}/job/1")), SOON).await;
    assert_eq!(first, "/job/1");
    let mut waiting = program::spawn(curl().arg(format!("{base}/job/2")));
    daemon
        .shows(r#"pacegate_queue_requests{upstream="api"} 1"#)
        .await;
    waiting.kill().await.unwrap();
    daemon
        .shows(r#"pacegate_queue_requests{upstream="api"} 0"#)
        .await;
    daemon
        .shows(r#"pacegate_queue_bytes{upstream="api"} 0"#)
        .await;
    let abandoned = r#"pacegate_requests_total{upstream="api",outcome="abandoned"} 1"#;
    daemon.shows(abandoned).await;
    daemon.stop().await;
    assert_eq!(upstream.arrivals().total(), 1);
}
