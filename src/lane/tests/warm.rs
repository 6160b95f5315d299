//! Connections that are there before a request needs them.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::rig::{Rig, Upstream};

/// A handshake takes a second, an answer no time.
const FAR: Upstream = Upstream {
    answer: Duration::ZERO,
    handshake: Duration::from_secs(1),
    script: &[],
};

#[tokio::test(start_paused = true)]
async fn they_are_kept_however_long_they_are_unused_and_replaced_when_they_are_old() {
    let rig = Rig::new("connection = { warm = 2, max_age = \"10min\" }", FAR);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(rig.snapshot().connections(), 2);
    for minutes in [1, 5, 9, 11, 30] {
        let at = Duration::from_secs(minutes * 60);
        sleep(at - rig.start.elapsed()).await;
        assert_eq!(rig.snapshot().connections(), 2, "after {minutes} min");
        let (status, answered) = rig.send("/").await.unwrap();
        assert_eq!(status, 200);
        assert!(answered - at < Duration::from_millis(10), "{answered:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_than_those_outlive_the_idle_timeout() {
    let rig = Rig::new("connection = { warm = 2 }", FAR);
    sleep(Duration::from_secs(3)).await;
    let calls: Vec<_> = (0..8).map(|_| rig.send("/")).collect();
    for call in calls {
        call.await.unwrap();
    }
    assert!(rig.snapshot().connections() > 2);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.snapshot().connections(), 2);
}

/// An upstream that is down, or closes what nobody uses, is not hammered.
#[tokio::test(start_paused = true)]
async fn where_none_lasts_the_tries_become_rare_and_short_again_when_one_does() {
    let (connections, mut accepted) = mpsc::channel(16);
    let rig = Rig::before("connection = { warm = 1 }", Duration::ZERO, connections);
    let mut seen = 0;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(600) {
        drop(accepted.recv().await.unwrap());
        seen += 1;
    }
    assert!((15..40).contains(&seen), "{seen} tries in ten minutes");
    let stream = accepted.recv().await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.snapshot().connections(), 1);
    drop(stream);
    let closed = Instant::now();
    let _kept = accepted.recv().await.unwrap();
    assert!(
        closed.elapsed() < Duration::from_secs(1),
        "{:?}",
        closed.elapsed()
    );
}
