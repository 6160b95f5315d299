//! No request is lost: under a storm of callers that stay, leave and wait too
//! long, the counts add up in every scrape, and in the end they are what the
//! callers saw.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{Metrics, Proxy, Step, Upstream, get, ok};

const REQUESTS: usize = 200;

/// How a caller's request ended, seen from its side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    HungUp,
    Answered(u16),
}

#[track_caller]
fn assert_adds_up(metrics: &Metrics) {
    for upstream in ["api", ""] {
        let ends = metrics.sum(&format!("pacegate_requests_total{{upstream=\"{upstream}\""));
        let here = metrics.waiting(upstream) + metrics.in_flight(upstream);
        let admitted = metrics.admitted(upstream);
        assert_eq!(admitted, ends + here, "of `{upstream}`: {metrics:#?}");
    }
}

/// Every fourth caller hangs up, when the upstream has seen some requests, sooner
/// or later; every tenth asks for what no upstream has.
async fn call(proxy: &Proxy, upstream: &Upstream, number: usize) -> End {
    let path = if number.is_multiple_of(10) {
        "/none"
    } else {
        "/api"
    };
    let mut caller = proxy.send(get(path)).await;
    if number % 4 == 1 {
        upstream.until_requests(number % 40).await;
        return End::HungUp;
    }
    End::Answered(caller.response().await.status)
}

#[tokio::test]
async fn the_counts_add_up_in_every_scrape_of_a_storm() {
    let upstream = Upstream::start(|seen| {
        let close = if seen.nth == 4 {
            vec![Step::Close]
        } else {
            vec![]
        };
        [vec![Step::Hold, Step::Send(ok("ok"))], close].concat()
    });
    let settings = r#"
        match = { prefix = "/api" }
        limits = ["80/s"]
        max_in_flight = 4
        queue = { max_requests = 100, max_wait = "800ms", when_full = "reject" }
    "#;
    let upstream = std::sync::Arc::new(upstream.await);
    let proxy = std::sync::Arc::new(Proxy::before(&upstream, settings));
    let mut callers = JoinSet::new();
    for number in 0..REQUESTS {
        let proxy = std::sync::Arc::clone(&proxy);
        let upstream = std::sync::Arc::clone(&upstream);
        callers.spawn(async move { call(&proxy, &upstream, number).await });
    }
    let mut ends = Vec::new();
    let mut scrapes = 0;
    let start = Instant::now();
    while !callers.is_empty() {
        assert_adds_up(&proxy.metrics().await);
        scrapes += 1;
        // One by one, so that calls are in flight in each; then none for so long that
        // who still waits for them has waited too long.
        if scrapes <= 40 || start.elapsed() > Duration::from_secs(1) {
            upstream.release(1);
        }
        while let Some(end) = callers.try_join_next() {
            ends.push(end.unwrap());
        }
    }
    assert!(scrapes > 10, "{scrapes}");
    upstream.release(REQUESTS);
    let metrics = proxy.until("nobody is left", |metrics| {
        assert_adds_up(metrics);
        metrics.waiting("api") + metrics.in_flight("api") == 0.0
    });
    let metrics = metrics.await;

    assert_eq!(metrics.of("api", "pacegate_queue_bytes"), 0.0);
    assert_ended_as_seen(&metrics, &ends);
}

/// Every end was counted once, as what the callers saw.
#[track_caller]
fn assert_ended_as_seen(metrics: &Metrics, ends: &[End]) {
    let seen = |end| ends.iter().filter(|other| **other == end).count() as f64;
    assert_eq!(seen(End::Answered(404)), metrics.ended("", "no_route"));
    let counted = |outcome| metrics.ended("api", outcome);
    assert!(
        counted("abandoned") > 0.0,
        "nobody left while it waited: {metrics:#?}"
    );
    // Whoever hung up may have been answered a moment before, or not been heard.
    let late = seen(End::HungUp) - counted("abandoned") - counted("aborted");
    let unheard = REQUESTS as f64 - metrics.admitted("") - metrics.admitted("api");
    assert!(
        (0.0..=late).contains(&unheard),
        "{unheard} were not admitted"
    );
    let refused = counted("queue_full") + counted("wait_too_long");
    let answers = [
        (200, counted("completed")),
        (504, counted("expired")),
        (503, refused),
    ];
    for (status, counted) in answers {
        let seen = seen(End::Answered(status));
        assert!(seen > 0.0, "no {status}, not a mixed storm: {metrics:#?}");
        let unseen = counted - seen;
        assert!(
            (0.0..=late).contains(&unseen),
            "{status}: {seen} of {counted} seen"
        );
    }
}
