//! Which connection a turn goes with, and how none has to wait for one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep_until;

use super::rig::{self, Rig, Upstream};
use super::{MS, PROMPT};

#[tokio::test(start_paused = true)]
async fn connections_are_opened_ahead_so_that_no_turn_waits_for_one() {
    let distant = Upstream {
        answer: 5 * MS,
        handshake: 40 * MS,
        ..PROMPT
    };
    let rig = Rig::new(r#"limits = [{ rate = "10/s", burst = 1 }]"#, distant);
    let callers: Vec<_> = (0..5)
        .map(|number| rig.send(&format!("/{number}")))
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(rig.arrivals(), [40, 139, 239, 339, 440]);
}

/// The one that came back stayed unused until the other was given up.
#[tokio::test(start_paused = true)]
async fn who_gets_no_connection_takes_one_that_comes_back() {
    const SLOW: Upstream = Upstream {
        answer: Duration::from_millis(1050),
        ..PROMPT
    };
    for refuses in [false, true] {
        let (connections, mut accepted) = mpsc::channel(1);
        let settings = r#"limits = [{ rate = "10/s", burst = 1 }]"#;
        let rig = Rig::before(settings, Duration::ZERO, connections.clone());
        let (to_upstream, served) = mpsc::channel(1);
        let seen = Arc::clone(&rig.seen);
        tokio::spawn(rig::serve(served, SLOW, rig.start, seen));
        let first = rig.send("/first");
        let stream = accepted.recv().await.unwrap();
        to_upstream.send(stream).await.unwrap();
        // All further ones are refused, or never open.
        let _full = connections.reserve_owned().await.unwrap();
        if refuses {
            accepted.close();
        }
        let second = rig.send("/second");
        // For longer than an outage is held.
        let more: Vec<_> = (0..38).map(|_| rig.send("/more")).collect();
        for caller in [first, second].into_iter().chain(more) {
            assert_eq!(caller.await.unwrap().0, 200);
        }
        let times: Vec<_> = (0..40).map(|nth| nth * 1050).collect();
        assert_eq!(rig.arrivals(), times);
    }
}

/// Where connections came back sooner than another opened, none ever did.
#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_waits_for_any_more_is_there_for_later_ones() {
    let distant = Upstream {
        answer: 200 * MS,
        handshake: 300 * MS,
        ..PROMPT
    };
    let rig = Rig::new(r#"limits = [{ rate = "100/s", burst = 1 }]"#, distant);
    let first = rig.send("/");
    sleep_until(rig.start + 301 * MS).await;
    // As if others had taken no time.
    rig.shared.lead_micros.store(5000, Ordering::Relaxed);
    let others: Vec<_> = (0..2).map(|_| rig.send("/")).collect();
    for caller in others.into_iter().chain([first]) {
        caller.await.unwrap();
    }
    assert_eq!(rig.arrivals(), [300, 500, 601]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_went_stale_during_a_long_wait_is_replaced_before_the_turn() {
    let distant = Upstream {
        answer: 5 * MS,
        handshake: 40 * MS,
        ..PROMPT
    };
    let settings =
        "limits = [{ rate = \"1/min\", burst = 1 }]\n[upstream.a.queue]\nmax_wait = \"5min\"";
    let rig = Rig::new(settings, distant);
    let callers: Vec<_> = (0..3)
        .map(|number| rig.send(&format!("/{number}")))
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let spaced: Vec<_> = rig
        .arrivals()
        .iter()
        .map(|at| at - rig.arrivals()[0])
        .collect();
    assert_eq!(spaced, [0, 60_066, 120_132]);
}
