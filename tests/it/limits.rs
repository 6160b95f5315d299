//! Limits where they count, at the upstream; lanes that do not feel each other;
//! callers that wait for a place in the queue.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::support::{Caller, Proxy, Seen, Step, Upstream, get, ok, post, soon};

/// The guard is longer than any answer takes here, so that the promise does not
/// depend on how soon this machine lets the upstream look at its clock.
const TEN_A_SECOND: &str = "limits = [\"10/s\"]\nguard = \"5s\"\n";

#[tokio::test]
async fn no_second_at_the_upstream_holds_more_than_ten_of_thirty_at_once() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = std::sync::Arc::new(Proxy::before(&upstream, TEN_A_SECOND));
    let mut callers = JoinSet::new();
    for _ in 0..30 {
        let proxy = std::sync::Arc::clone(&proxy);
        callers.spawn(async move { proxy.get("/").await.status });
    }
    let answers = soon("thirty answers", callers.join_all()).await;
    assert_eq!(answers, [200; 30]);

    let arrivals: Vec<_> = upstream.requests().iter().map(|seen| seen.at).collect();
    assert_eq!(arrivals.len(), 30);
    for eleven in arrivals.windows(11) {
        let span = eleven[10] - eleven[0];
        assert!(
            span >= Duration::from_secs(1),
            "eleven within {span:?}: {arrivals:?}"
        );
    }
    // As much as is allowed: at once, after one second, after two.
    let whole = arrivals[29] - arrivals[0];
    assert!(whole < Duration::from_secs(4), "{whole:?}");
}

#[tokio::test]
async fn each_address_of_callers_has_a_limit_of_its_own() {
    let upstream = Upstream::answering(ok("ok")).await;
    let limits = "limits = [{ rate = \"1/h\", per = \"address\" }]";
    let proxy = Proxy::before(&upstream, limits);
    for from in [[127, 0, 0, 1], [127, 0, 0, 2]] {
        let mut caller = Caller::connect_from(from, proxy.address).await;
        caller.send(get("/")).await;
        assert_eq!(caller.response().await.status, 200);
        caller.send(get("/")).await;
        let refused = caller.response().await;
        refused.assert_refusal(503, "wait_too_long");
    }
}

#[tokio::test]
async fn after_a_429_nothing_starts_before_the_time_it_names_and_no_caller_sees_it() {
    let refusal = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
    let upstream = Upstream::start(move |seen| {
        vec![Step::Send(match seen.nth {
            0 => refusal.as_bytes().to_vec(),
            _ => ok("ok"),
        })]
    })
    .await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = proxy.send(post("/", "body")).await;
    let cooldown = "pacegate_cooldown_seconds{upstream=\"api\"}";
    proxy
        .until("the pause begins", |metrics| metrics.value(cooldown) > 0.0)
        .await;
    assert_eq!(caller.response().await.status, 200);
    let seen = upstream.requests();
    assert!(
        seen[1].at - seen[0].at >= Duration::from_secs(1),
        "{seen:?}"
    );
    assert_eq!(seen[1].body, b"body");
    let held = "pacegate_held_seconds_total{upstream=\"api\",by=\"cooldown\"}";
    assert!(proxy.metrics().await.value(held) > 0.9);
}

#[tokio::test]
async fn requests_leave_in_the_order_in_which_they_came() {
    let upstream = Upstream::answering(ok("ok")).await;
    // One call at a time, so that the upstream cannot see them overtake either.
    let settings = format!("max_in_flight = 1\n{TEN_A_SECOND}");
    let proxy = Proxy::before(&upstream, &settings);
    let mut callers = Vec::new();
    for number in 0..30 {
        callers.push(proxy.send(get(&format!("/{number}"))).await);
        let admitted = f64::from(number + 1);
        proxy
            .until("it is admitted", |metrics| {
                metrics.admitted("api") == admitted
            })
            .await;
    }
    for caller in &mut callers {
        assert_eq!(caller.response().await.status, 200);
    }
    let expected: Vec<_> = (0..30).map(|number| format!("/{number}")).collect();
    assert_eq!(upstream.targets(), expected);
}

#[tokio::test]
async fn never_more_calls_are_in_flight_than_allowed_and_never_fewer_while_some_wait() {
    let upstream = Upstream::holding().await;
    let proxy = Proxy::before(&upstream, "max_in_flight = 2");
    let mut callers = Vec::new();
    for _ in 0..8 {
        callers.push(proxy.send(get("/")).await);
    }
    for done in 0..=6 {
        upstream.until_requests(done + 2).await;
        let metrics = proxy.until("two calls in flight", |metrics| {
            metrics.in_flight("api") == 2.0 && metrics.admitted("api") == 8.0
        });
        assert_eq!(metrics.await.waiting("api"), (6 - done) as f64);
        assert_eq!(upstream.log().unanswered, 2);
        upstream.release(1);
    }
    upstream.release(1);
    for caller in &mut callers {
        assert_eq!(caller.response().await.status, 200);
    }
    assert_eq!(upstream.log().most_unanswered, 2);
}

#[tokio::test]
async fn each_key_has_the_limit_and_a_key_that_waits_delays_no_other() {
    let upstream = Upstream::answering(ok("ok")).await;
    let settings = r#"limits = [{ rate = "1/h", per = "header:authorization" }]
        queue.max_wait = "2h""#;
    let proxy = Proxy::before(&upstream, settings);
    let by = |who: &str| format!("GET /{who} HTTP/1.1\r\nHost: a\r\nAuthorization: {who}\r\n\r\n");
    let status = async |who| proxy.send(by(who)).await.response().await.status;
    assert_eq!(status("a").await, 200);
    let _waits = proxy.send(by("a")).await;
    proxy.until_waiting(1).await;
    assert_eq!((status("b").await, status("c").await), (200, 200));
    assert_eq!(proxy.get("/none").await.status, 200);
    assert_eq!(proxy.metrics().await.of("api", "pacegate_keys"), 4.0);
    assert_eq!(upstream.targets(), ["/a", "/b", "/c", "/none"]);
}

#[tokio::test]
async fn a_caller_says_what_its_request_costs_in_a_field_that_is_not_passed_on() {
    let upstream = Upstream::answering(ok("ok")).await;
    let settings = "limits = [\"10/h\"]\ncosts = [{ header = \"x-cost\" }]";
    let proxy = Proxy::before(&upstream, settings);
    let request = "GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nX-Cost: 7\r\nB: 2\r\n\r\n";
    assert_eq!(proxy.send(request).await.response().await.status, 200);
    let seen = upstream.only_request();
    assert_eq!(
        (seen.fields.get("x-cost"), seen.fields.get("a")),
        (None, Some("1"))
    );
    let left = "pacegate_limit_available{upstream=\"api\",limit=\"10/h\"}";
    assert_eq!(proxy.metrics().await.value(left), 3.0);
}

#[tokio::test]
async fn a_lane_whose_upstream_hangs_does_not_delay_another() {
    let (slow, fast) = (
        Upstream::holding().await,
        Upstream::answering(ok("ok")).await,
    );
    let proxy = Proxy::start(&format!(
        "[upstream.slow]\nurl = \"{}\"\nmatch = {{ prefix = \"/slow\" }}\nmax_in_flight = 1\n\
         [upstream.fast]\nurl = \"{}\"\nmatch = {{ prefix = \"/fast\" }}\n",
        slow.url(),
        fast.url(),
    ));
    let mut waiting = Vec::new();
    for _ in 0..10 {
        waiting.push(proxy.send(get("/slow")).await);
    }
    slow.until_requests(1).await;
    proxy
        .until("nine wait", |metrics| metrics.waiting("slow") == 9.0)
        .await;
    for _ in 0..20 {
        assert_eq!(proxy.get("/fast").await.status, 200);
    }
    let metrics = proxy.metrics().await;
    assert_eq!(
        (metrics.waiting("slow"), metrics.in_flight("slow")),
        (9.0, 1.0)
    );
}

#[tokio::test]
async fn callers_without_a_place_are_held_back_and_all_answered() {
    let upstream = Upstream::holding().await;
    let settings = "max_in_flight = 1\nqueue = { max_requests = 1, when_full = \"wait\" }";
    let proxy = Proxy::before(&upstream, settings);
    let mut callers = vec![proxy.send(get("/")).await];
    upstream.until_requests(1).await;
    for _ in 0..5 {
        callers.push(proxy.send(get("/")).await);
    }
    proxy.until_connections(6).await;
    for done in 1..=5_usize {
        upstream.release(1);
        upstream.until_requests(done + 1).await;
        let metrics = proxy.metrics().await;
        assert!(metrics.waiting("api") <= 1.0, "{metrics:#?}");
    }
    upstream.release(1);
    for caller in &mut callers {
        assert_eq!(caller.response().await.status, 200);
    }
}

#[tokio::test]
async fn calls_one_after_another_share_one_connection() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = proxy.caller().await;
    for _ in 0..10 {
        caller.send(get("/")).await;
        assert_eq!(caller.response().await.status, 200);
    }
    assert_eq!(upstream.log().opened, 1);
}

/// The request went on while it came, so it cannot go again.
#[tokio::test]
async fn a_429_reaches_the_caller_whose_body_was_not_kept() {
    let refusal = "HTTP/1.1 429 Slow down\r\nRetry-After: 1\r\nContent-Length: 4\r\n\r\nslow";
    let upstream = Upstream::answering(refusal).await;
    let proxy = Proxy::before(&upstream, "buffer_body = \"1KiB\"");
    let mut caller = proxy.send(post("/", &"x".repeat(4096))).await;
    let response = caller.response().await;
    assert_eq!((response.status, response.text()), (429, "slow"));
    assert_eq!(upstream.requests().len(), 1);
    let cooldown = "pacegate_cooldown_seconds{upstream=\"api\"}";
    assert!(proxy.metrics().await.value(cooldown) > 0.0);
}

/// What an answer says is left, in the fields of a dialect.
#[tokio::test]
async fn nothing_starts_while_the_upstream_says_that_nothing_is_left() {
    let answer = |seen: &Seen| {
        let left = 1_usize.saturating_sub(seen.nth);
        format!(
            "HTTP/1.1 200 OK\r\nRateLimit-Limit: 2\r\nRateLimit-Remaining: {left}\r\n\
            RateLimit-Reset: 1\r\nContent-Length: 0\r\n\r\n"
        )
    };
    let upstream = Upstream::start(move |seen| vec![Step::Send(answer(seen).into())]).await;
    let proxy = Proxy::before(&upstream, "dialect = \"ietf\"");
    let mut caller = proxy.caller().await;
    for _ in 0..3 {
        caller.send(get("/")).await;
        assert_eq!(caller.response().await.status, 200);
    }
    let seen = upstream.requests();
    assert!(
        seen[2].at - seen[1].at >= Duration::from_secs(1),
        "{seen:?}"
    );
}
