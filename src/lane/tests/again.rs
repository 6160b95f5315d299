//! Requests that need another turn: refused ones, failed ones, and those whose
//! time is over meanwhile.

use std::future::poll_fn;

use ::http::{Method, Request};
use bytes::Bytes;

use super::rig::{Act, Rig, Upstream};
use super::{MS, PROMPT};
use crate::http::body::Upload;
use crate::lane::account::Account;
use crate::lane::job;
use crate::outcome::{Break, Outcome};
use crate::pacing::Charge;
use crate::upstream::Outgoing;

/// Sends `count` requests, one after the other, and waits for all.
async fn send_all(rig: &Rig, count: usize) -> Vec<u16> {
    let mut callers = Vec::new();
    for number in 0..count {
        callers.push(rig.send(&format!("/{number}")));
        rig.settle().await;
    }
    let mut statuses = Vec::new();
    for caller in callers {
        statuses.push(caller.await.unwrap().0.as_u16());
    }
    statuses
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_goes_back_to_the_head_and_its_caller_never_knows() {
    let refusing = Upstream {
        script: &[Act::Answer, Act::Refuse(Some(3))],
        ..PROMPT
    };
    let rig = Rig::new(r#"limits = [{ rate = "10/s", burst = 1 }]"#, refusing);
    assert_eq!(send_all(&rig, 4).await, [200; 4]);
    assert_eq!(rig.paths(), ["/0", "/1", "/1", "/2", "/3"]);
    // Refused at 101, again at 3101, then the steady rate.
    assert_eq!(rig.arrivals(), [0, 101, 3101, 3202, 3302]);
    assert_eq!(rig.ended(Outcome::Completed), 4);
}

#[tokio::test(start_paused = true)]
async fn several_that_are_refused_together_are_followed_by_a_single_probe() {
    let refusing = Upstream {
        answer: 500 * MS,
        script: &[Act::Refuse(Some(1)); 3],
        ..PROMPT
    };
    let rig = Rig::new(r#"limits = ["3/s"]"#, refusing);
    assert_eq!(send_all(&rig, 6).await, [200; 6]);
    // Three refused at 500, a probe at 1502 whose answer comes at 2002.
    let arrivals = rig.arrivals();
    assert_eq!(arrivals[..3], [0; 3]);
    assert_eq!(arrivals[3], 1502);
    assert!(arrivals[4] >= 2001, "{arrivals:?}");
    assert_eq!(arrivals.len(), 9);
    let paths = ["/0", "/1", "/2", "/0", "/1", "/2", "/3", "/4", "/5"];
    assert_eq!(rig.paths(), paths);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_comes_again_and_again_reaches_the_caller_in_the_end() {
    let refusing = Upstream {
        script: &[Act::Refuse(Some(1)); 9],
        ..PROMPT
    };
    let rig = Rig::new(r#"limits = ["10/s"]"#, refusing);
    assert_eq!(send_all(&rig, 1).await, [429]);
    assert_eq!(rig.arrivals().len(), 5);
    assert_eq!(rig.ended(Outcome::Completed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_outlasts_the_deadline_reaches_the_caller_at_once() {
    let refusing = Upstream {
        script: &[Act::Refuse(Some(130))],
        ..PROMPT
    };
    let rig = Rig::new(r#"limits = ["10/s"]"#, refusing);
    assert_eq!(send_all(&rig, 1).await, [429]);
    assert_eq!(rig.arrivals(), [0]);
}

#[tokio::test(start_paused = true)]
async fn without_a_time_the_pause_doubles_with_each_refused_probe() {
    let refusing = Upstream {
        script: &[Act::Refuse(None); 3],
        ..PROMPT
    };
    let rig = Rig::new(r#"limits = ["10/s"]"#, refusing);
    assert_eq!(send_all(&rig, 1).await, [200]);
    let arrivals = rig.arrivals();
    let pauses: Vec<_> = arrivals.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (pause, least) in pauses.iter().zip([1000, 2000, 4000]) {
        assert!((least..least * 5 / 4 + 2).contains(pause), "{pauses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_may_be_repeated_is_sent_again_after_a_failure() {
    let breaking = Upstream {
        script: &[Act::Break, Act::Break],
        ..PROMPT
    };
    let rig = Rig::new(r#"limits = [{ rate = "10/s", burst = 1 }]"#, breaking);
    let put = rig.send_as(Method::PUT, "/put", Bytes::from_static(b"body"));
    assert_eq!(put.await.unwrap().0, 200);
    // Each try pays for its own turn.
    assert_eq!(rig.arrivals(), [0, 101, 201]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_may_not_be_repeated_is_not() {
    let breaking = Upstream {
        script: &[Act::Break],
        ..PROMPT
    };
    let rig = Rig::new(r#"limits = [{ rate = "10/s", burst = 1 }]"#, breaking);
    assert_eq!(send_all(&rig, 1).await, [502]);
    assert_eq!(rig.arrivals(), [0]);
    assert_eq!(rig.ended(Outcome::UpstreamFailed(Break::Unanswered)), 1);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_is_down_is_probed_while_the_others_wait() {
    let breaking = Upstream {
        script: &[Act::Break; 7],
        ..PROMPT
    };
    let rig = Rig::new(r#"limits = ["100/s"]"#, breaking);
    let statuses = send_all(&rig, 20).await;
    // Five failures in a row are enough; then one probe at a time.
    assert_eq!(statuses.iter().filter(|status| **status == 502).count(), 7);
    let arrivals = rig.arrivals();
    assert!(
        arrivals[5] >= 1000 && arrivals[6] >= arrivals[5] + 2000,
        "{arrivals:?}"
    );
    assert!(arrivals[7] >= arrivals[6] + 4000, "{arrivals:?}");
}

/// Found by walking a request whose time is over while its refusal is read: it
/// went back into the line with nobody left to end it.
#[tokio::test(start_paused = true)]
async fn a_call_that_comes_back_after_its_time_is_over_ends_at_once() {
    let rig = Rig::new(r#"limits = ["1/h"]"#, PROMPT);
    let mut account = Account::new(&rig.lane.0, Charge::ONE, None, rig.lane.dress());
    account.admit();
    let request = Outgoing::Parsed(Box::new(Request::new(Upload::default())));
    let (job, mut ticket) = job::pair(request, account, None);
    let (request, account, reply) = job.take().unwrap().open();
    assert!(!ticket.end(Outcome::Expired), "its turn has come");
    job.put_back(&rig.shared, (request, account), reply);
    let ended = poll_fn(|cx| ticket.poll_reply(cx));
    let ended = tokio::time::timeout(MS, ended).await.unwrap();
    assert!(matches!(ended, Err(Outcome::Expired)));
    assert_eq!((rig.shared.waiting(), rig.ended(Outcome::Expired)), (0, 1));
}

/// `cooldown.per`: a refusal of one key pauses all, or that key alone.
#[tokio::test(start_paused = true)]
async fn a_refusal_pauses_the_lane_or_its_key() {
    let refusing = Upstream {
        script: &[Act::Refuse(Some(5))],
        ..PROMPT
    };
    for (per, other) in [("lane", 5), ("key", 0)] {
        let limits = "limits = [{ rate = \"100/s\", per = \"segment:1\" }]";
        let rig = Rig::new(&format!("{limits}\ncooldown.per = \"{per}\""), refusing);
        let refused = rig.send("/a");
        rig.settle().await;
        let at = rig.send("/b").await.unwrap().1.as_secs();
        assert_eq!(at, other, "{per}");
        assert_eq!(refused.await.unwrap().0, 200);
    }
}

/// `retry.budget`: so many more turns for failures as requests have earned.
#[tokio::test(start_paused = true)]
async fn failures_are_sent_again_as_long_as_the_budget_lasts() {
    let breaking = Upstream {
        script: &[Act::Break; 100],
        ..PROMPT
    };
    let rig = Rig::new("retry = { budget = \"20%\", hold = \"0s\" }", breaking);
    let many = 50;
    for number in 0..many {
        let call = rig.send_as(Method::GET, &format!("/{number}"), Bytes::new());
        assert_eq!(call.await.unwrap().0, 502);
    }
    // Where nothing is held, nothing pauses either.
    assert!(rig.start.elapsed() < MS);
    let again = rig.paths().len() - many;
    // A fifth of them, and the few that are there from the start.
    assert!((10..=25).contains(&again), "{again}");
}
