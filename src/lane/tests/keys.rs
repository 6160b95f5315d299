//! Requests that differ in what they cost, and whom.

use ::http::StatusCode;
use tokio::task::JoinHandle;

use super::*;
use crate::config::Config;

const SECOND: Duration = Duration::from_secs(1);

/// Sends these in order; each is taken in hand before the next.
async fn send_in_order(rig: &Rig, paths: &[String]) -> Vec<JoinHandle<(StatusCode, Duration)>> {
    let mut callers = Vec::new();
    for path in paths {
        callers.push(rig.send(path));
        rig.settle().await;
    }
    callers
}

fn numbered(start: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("{start}/{number}"))
        .collect()
}

/// When those whose path begins so arrived, in ms.
fn arrivals(rig: &Rig, start: &str) -> Vec<u64> {
    let seen = rig.paths().into_iter().zip(rig.arrivals());
    seen.filter(|(path, _)| path.starts_with(start))
        .map(|(_, at)| at)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_key_that_must_wait_delays_no_other() {
    let settings = r#"limits = [{ rate = "2/s", burst = 1, per = "segment:1" }]"#;
    let alone = Rig::new(settings, PROMPT);
    for caller in send_in_order(&alone, &numbered("/b", 5)).await {
        caller.await.unwrap();
    }
    let rig = Rig::new(settings, PROMPT);
    let paths = [numbered("/a", 20), numbered("/b", 5)].concat();
    for caller in send_in_order(&rig, &paths).await {
        assert_eq!(caller.await.unwrap().0, 200);
    }
    assert_eq!(arrivals(&rig, "/b"), arrivals(&alone, "/"));
    assert_eq!(arrivals(&rig, "/a")[..5], arrivals(&alone, "/"));
}

#[tokio::test(start_paused = true)]
async fn a_heavy_request_goes_in_its_order_among_light_ones() {
    let settings = r#"limits = ["10/s"]
        costs = [{ path = "/heavy/*", cost = 5 }]"#;
    let rig = Rig::new(settings, PROMPT);
    let paths = [
        numbered("/light", 17),
        numbered("/heavy", 1),
        numbered("/then", 30),
    ];
    let paths = paths.concat();
    for caller in send_in_order(&rig, &paths).await {
        assert_eq!(caller.await.unwrap().0, 200);
    }
    assert_eq!(rig.paths(), paths);
    // In the second window 7 had gone and 3 were left: it waited, and so did
    // those behind it.
    let heavy = arrivals(&rig, "/heavy")[0];
    assert!((2000..2100).contains(&heavy), "{heavy}");
    assert_eq!(arrivals(&rig, "/then")[..5], [heavy; 5]);
    assert!(arrivals(&rig, "/then")[5] >= heavy + 1000);
}

#[tokio::test(start_paused = true)]
async fn a_key_cannot_keep_another_out_of_the_queue() {
    let settings = r#"limits = [{ rate = "1/s", burst = 1, per = "segment:1" }]
        keys.max_waiting = 2
        queue.max_requests = 3"#;
    let rig = Rig::new(settings, PROMPT);
    let many = send_in_order(&rig, &numbered("/a", 8)).await;
    assert_eq!(rig.shared.waiting(), 2);
    for (caller, expected) in send_in_order(&rig, &numbered("/b", 2))
        .await
        .into_iter()
        .zip(0..)
    {
        let (status, at) = caller.await.unwrap();
        assert_eq!((status.as_u16(), at.as_secs()), (200, expected));
    }
    for caller in many {
        assert_eq!(caller.await.unwrap().0, 200);
    }
    let in_order: Vec<_> = rig.paths();
    let in_order: Vec<_> = in_order
        .iter()
        .filter(|path| path.starts_with("/a"))
        .collect();
    assert!(in_order.is_sorted(), "{in_order:?}");
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_its_key_is_not_ahead_of_others() {
    let settings = r#"limits = [{ rate = "1/s", burst = 1 }, { rate = "1/h", burst = 1, per = "segment:1" }]
        queue.max_wait = "2h""#;
    let rig = Rig::new(settings, PROMPT);
    let mut waiting = Vec::new();
    for key in 0..30 {
        rig.send(&format!("/{key}/first")).await.unwrap();
        waiting.push(rig.send(&format!("/{key}/second")));
        rig.settle().await;
    }
    assert_eq!(rig.shared.waiting(), 30);
    let charge = |key| Charge::new(Charge::ONE.cost, [key].into(), 0);
    assert!(rig.shared.wait(&charge(7)) < 3 * SECOND);
    let before = rig.start.elapsed();
    let (status, at) = rig.send("/new").await.unwrap();
    assert_eq!(status, 200);
    assert!(at - before < 2 * SECOND, "{before:?} {at:?}");
    waiting.iter().for_each(JoinHandle::abort);
}

/// The worker that gave the first of those who waited its turn panicked, and they
/// were lost.
#[tokio::test(start_paused = true)]
async fn those_who_wait_go_on_when_requests_are_told_apart_by_more() {
    let one = r#"{ rate = "1/s", burst = 1, per = "segment:1" }"#;
    let two = r#"{ rate = "1/s", burst = 1, per = "segment:2" }"#;
    let rig = Rig::new(&format!("limits = [{one}]"), PROMPT);
    let callers = send_in_order(&rig, &numbered("/a", 4)).await;
    for limits in [format!("{two}, {one}"), two.to_owned()] {
        let text = format!(
            "listen = \"127.0.0.1:1\"\n[upstream.a]\nurl = \"http://a\"\nlimits = [{limits}]"
        );
        let settings = Config::parse("test", &text).unwrap().upstreams.remove(0);
        rig.shared.reconfigure(settings, None);
        tokio::time::sleep(SECOND * 3 / 2).await;
    }
    let later = rig.send("/b/0");
    for (caller, expected) in callers.into_iter().zip(0..) {
        let (status, at) = caller.await.unwrap();
        assert_eq!((status.as_u16(), at.as_secs()), (200, expected));
    }
    assert_eq!(later.await.unwrap().0, 200);
}

#[tokio::test(start_paused = true)]
async fn what_one_key_has_too_many_of_is_refused_where_the_queue_refuses() {
    let settings = r#"limits = [{ rate = "1/s", burst = 1, per = "segment:1" }]
        keys.max_waiting = 2
        queue.when_full = "reject""#;
    let rig = Rig::new(settings, PROMPT);
    let paths = [numbered("/a", 4), numbered("/b", 1)].concat();
    let mut statuses = Vec::new();
    for caller in send_in_order(&rig, &paths).await {
        statuses.push(caller.await.unwrap().0.as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 503, 200]);
    assert_eq!(rig.ended(Outcome::QueueFull), 1);
}

#[tokio::test(start_paused = true)]
async fn the_projected_wait_is_that_of_the_key() {
    let settings = r#"limits = [{ rate = "1/s", burst = 1, per = "segment:1" }]
        queue.max_wait = "2500ms""#;
    let rig = Rig::new(settings, PROMPT);
    let paths = [numbered("/a", 4), numbered("/b", 3)].concat();
    let mut statuses = Vec::new();
    for caller in send_in_order(&rig, &paths).await {
        statuses.push(caller.await.unwrap().0.as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 503, 200, 200, 200]);
    assert_eq!(rig.ended(Outcome::WaitTooLong), 1);
}

/// A dear request at the head holds those behind it; when it goes, they go.
#[tokio::test(start_paused = true)]
async fn those_behind_a_dear_request_go_at_once_when_it_leaves_the_line() {
    let settings = r#"limits = ["100/min"]
        costs = [{ path = "/dear", cost = 51 }]
        queue.max_wait = "10min""#;
    let rig = Rig::new(settings, PROMPT);
    for caller in send_in_order(&rig, &numbered("/some", 50)).await {
        caller.await.unwrap();
    }
    let dear = send_in_order(&rig, &["/dear".to_owned()]).await.remove(0);
    sleep(MS * 1000).await;
    let cheap = send_in_order(&rig, &["/cheap".to_owned()]).await.remove(0);
    dear.abort();
    let left = rig.start.elapsed();
    let (status, at) = cheap.await.unwrap();
    assert_eq!(status, 200);
    assert!(at < left + MS * 10, "{at:?} {left:?}");
}

/// It shares its first key with those that go before, and the other with none.
#[tokio::test(start_paused = true)]
async fn a_heavy_request_that_has_waited_for_long_is_passed_by_nobody_until_it_leaves() {
    let settings = r#"limits = [{ rate = "10/s", per = "segment:1" }, { rate = "10/s", per = "segment:2" }]
        costs = [{ path = "/a/heavy", cost = 10 }]"#;
    for leaves in [false, true] {
        let rig = Rig::new(settings, PROMPT);
        rig.send("/a/first").await.unwrap();
        let heavy = rig.send("/a/heavy");
        let mut light = Vec::new();
        for path in numbered("/a", 20) {
            light.push(rig.send(&path));
            sleep(MS * 200).await;
            // By now the one just sent has to wait.
            if leaves && light.len() == 9 {
                heavy.abort();
            }
            sleep(MS * 300).await;
        }
        let went = arrivals(&rig, "/a/heavy");
        assert_eq!(went.len(), usize::from(!leaves));
        assert!(went.iter().all(|at| *at < 5000), "{went:?}");
        for (caller, sent) in light.into_iter().zip(0..) {
            let waited = caller.await.unwrap().1 - MS * 500 * sent;
            let most = match (sent, leaves) {
                (8, true) => 210,
                (8..12, false) => 1600,
                _ => 10,
            };
            assert!(waited < MS * most, "{sent}: {waited:?}");
        }
    }
}
