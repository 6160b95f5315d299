//! Other settings while it runs.

use std::fs;

use crate::support::{Caller, Proxy, Upstream, get, ok};

/// The table of `api`, which goes on with `toml`.
fn api(upstream: &Upstream, toml: &str) -> String {
    format!("[upstream.api]\nurl = \"{}\"\n{toml}\n", upstream.url())
}

#[tokio::test]
async fn the_queue_and_what_was_spent_outlive_a_reload() {
    let upstream = Upstream::answering(ok("ok")).await;
    let limits = "limits = [\"2/min\"]\nqueue.max_wait = \"3min\"";
    let proxy = Proxy::before(&upstream, limits);
    for _ in 0..2 {
        assert_eq!(proxy.get("/").await.status, 200);
    }
    let mut third = proxy.send(get("/third")).await;
    proxy.until_waiting(1).await;
    let mut fourth = proxy.send(get("/fourth")).await;
    proxy.until_waiting(2).await;
    assert!(proxy.reload(&api(&upstream, "limits = [\"3/min\"]")).await);
    // One more than was spent under the old limit, and in the old order.
    assert_eq!(third.response().await.status, 200);
    proxy.until_waiting(1).await;
    assert_eq!(upstream.targets(), ["/", "/", "/third"]);
    assert!(proxy.reload(&api(&upstream, "")).await);
    assert_eq!(fourth.response().await.status, 200);
    // Their connections go on as well.
    fourth.send(get("/fifth")).await;
    assert_eq!(fourth.response().await.status, 200);
}

#[tokio::test]
async fn settings_that_cannot_be_used_change_nothing() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, "garbage").unwrap();
    let other = "[upstream.other]\nurl = \"https://other\"\nmatch.prefix = \"/other\"\n";
    for bad in [
        String::new(),
        api(&upstream, "limits = [\"10/sek\"]"),
        format!("{}{other}tls.ca = \"{}\"", api(&upstream, ""), ca.display()),
    ] {
        assert!(!proxy.reload(&bad).await, "{bad}");
        assert_eq!(proxy.get("/other").await.status, 200);
    }
    assert_eq!(upstream.requests().len(), 3);
}

#[tokio::test]
async fn upstreams_come_and_go() {
    let (first, second) = (Upstream::holding().await, Upstream::holding().await);
    let one = api(&first, "match.prefix = \"/one\"\nlimits = [\"1/h\"]");
    let url = second.url();
    let two = format!("[upstream.two]\nurl = \"{url}\"\nmatch.prefix = \"/two\"\n");
    let proxy = Proxy::start(&one);
    proxy.get("/two").await.assert_refusal(404, "no_route");
    let mut in_flight = proxy.send(get("/one")).await;
    first.until_requests(1).await;
    assert!(proxy.reload(&format!("{one}{two}")).await);
    second.release(1);
    assert_eq!(proxy.get("/two").await.status, 200);
    assert!(proxy.reload(&two).await);
    proxy.get("/one").await.assert_refusal(404, "no_route");
    // What it has ends; then it is gone.
    assert_eq!(proxy.metrics().await.in_flight("api"), 1.0);
    first.release(1);
    assert_eq!(in_flight.response().await.status, 200);
    let name = "pacegate_in_flight_requests{upstream=\"api\"}";
    proxy
        .until("the lane to be gone", |metrics| !metrics.has(name))
        .await;
}

#[tokio::test]
async fn a_lane_that_comes_back_before_it_is_gone_is_the_same() {
    let upstream = Upstream::holding().await;
    let toml = api(&upstream, "match.prefix = \"/a\"\nlimits = [\"1/h\"]");
    let other = "[upstream.other]\nurl = \"http://other\"\n";
    let proxy = Proxy::start(&toml);
    let mut in_flight = proxy.send(get("/a")).await;
    upstream.until_requests(1).await;
    assert!(proxy.reload(other).await);
    assert!(proxy.reload(&toml).await);
    upstream.release(1);
    assert_eq!(in_flight.response().await.status, 200);
    // Its limit is spent.
    proxy.get("/a").await.assert_refusal(503, "wait_too_long");
}

#[tokio::test]
async fn a_lane_that_comes_back_when_it_was_gone_has_spent_what_it_had() {
    let upstream = Upstream::answering(ok("ok")).await;
    let toml = api(&upstream, "match.prefix = \"/a\"\nlimits = [\"2/h\"]");
    let other = "[upstream.other]\nurl = \"http://other\"\n";
    let proxy = Proxy::start(&toml);
    for _ in 0..2 {
        assert_eq!(proxy.get("/a").await.status, 200);
        assert!(proxy.reload(other).await);
        let name = "pacegate_in_flight_requests{upstream=\"api\"}";
        proxy
            .until("the lane to be gone", |metrics| !metrics.has(name))
            .await;
        assert!(proxy.reload(&toml).await);
    }
    proxy.get("/a").await.assert_refusal(503, "wait_too_long");
    // It may have more now, but has spent those.
    assert!(proxy.reload(&toml.replace("2/h", "3/h")).await);
    assert_eq!(proxy.get("/a").await.status, 200);
    proxy.get("/a").await.assert_refusal(503, "wait_too_long");
}

/// Found by a review: what waited under the old name and what came under the new one
/// were sent at the full rate each.
#[tokio::test]
async fn an_upstream_with_limits_cannot_be_renamed() {
    let upstream = Upstream::answering(ok("ok")).await;
    let toml = api(&upstream, "limits = [\"1/h\"]");
    let proxy = Proxy::start(&toml);
    let renamed = toml.replace("upstream.api", "upstream.other");
    assert!(!proxy.reload(&renamed).await);
    // With another secret it is another's.
    let anothers = format!("{renamed}headers = {{ x-key = \"1\" }}\n");
    assert!(proxy.reload(&anothers).await);
}

/// What waited in a lane that was taken out and came back with another url went to the
/// old one: the core had forgotten its part of the lane, whose workers went on.
#[tokio::test]
async fn what_waits_in_a_lane_that_comes_back_elsewhere_goes_there() {
    let old = Upstream::answering(ok("old")).await;
    let new = Upstream::answering(ok("new")).await;
    let limits = "limits = [\"1/min\"]\nqueue.max_wait = \"3min\"";
    let proxy = Proxy::before(&old, limits);
    assert_eq!(proxy.get("/").await.text(), "old");
    let mut waiting = proxy.send(get("/")).await;
    proxy.until_waiting(1).await;
    let other = "[upstream.other]\nurl = \"http://other\"\n";
    assert!(proxy.reload(other).await);
    assert!(proxy.reload(&api(&new, limits)).await);
    proxy.until_waiting(1).await;
    assert!(proxy.reload(&api(&new, "")).await);
    assert_eq!(waiting.response().await.text(), "new");
    let host = new.only_request();
    assert_eq!(host.fields.get("host"), Some(new.authority().as_str()));
    old.only_request();
}

#[tokio::test]
async fn another_url_gets_every_request_from_then_on() {
    let old = Upstream::answering(ok("old")).await;
    let new = Upstream::answering(ok("new")).await;
    let proxy = Proxy::before(&old, "");
    let mut caller = proxy.caller().await;
    caller.send(get("/")).await;
    assert_eq!(caller.response().await.text(), "old");
    assert!(proxy.reload(&api(&new, "")).await);
    caller.send(get("/")).await;
    assert_eq!(caller.response().await.text(), "new");
    let host = new.only_request();
    assert_eq!(host.fields.get("host"), Some(new.authority().as_str()));
    old.until("no connection to be left", |log| log.ended == log.opened)
        .await;
}

#[tokio::test]
async fn secrets_are_read_anew() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "before").unwrap();
    let upstream = Upstream::answering(ok("ok")).await;
    let header = format!("headers.x-token = {{ file = \"{}\" }}", file.display());
    let proxy = Proxy::before(&upstream, &header);
    proxy.get("/").await;
    fs::write(&file, "after").unwrap();
    assert!(proxy.reload(&api(&upstream, &header)).await);
    proxy.get("/").await;
    let seen = upstream.requests();
    let tokens: Vec<_> = seen.iter().map(|seen| seen.fields.get("x-token")).collect();
    assert_eq!(tokens, [Some("before"), Some("after")]);
}

/// What waited was sent with the secret, and where it was plain with the host, of the
/// settings by which it came.
#[tokio::test]
async fn what_waits_goes_by_the_settings_of_its_turn() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "old secret").unwrap();
    let old = Upstream::answering(ok("old")).await;
    let new = Upstream::answering(ok("new")).await;
    let header = format!(
        "headers.authorization = {{ file = \"{}\" }}",
        file.display()
    );
    let limited = format!("{header}\nlimits = [\"1/min\"]\nqueue.max_wait = \"3min\"");
    let proxy = Proxy::before(&old, &limited);
    assert_eq!(proxy.get("/").await.text(), "old");
    let mut plain = proxy.send(get("/plain")).await;
    proxy.until_waiting(1).await;
    let head = "POST /parsed HTTP/1.1\r\nHost: caller\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut parsed = proxy.send(format!("{head}2\r\nhi\r\n0\r\n\r\n")).await;
    proxy.until_waiting(2).await;
    fs::write(&file, "new secret").unwrap();
    assert!(proxy.reload(&api(&new, &limited)).await);
    proxy.until_waiting(2).await;
    // Only now: whoever has a turn while it reloads may still go the old way.
    assert!(proxy.reload(&api(&new, &header)).await);
    assert_eq!(plain.response().await.text(), "new");
    assert_eq!(parsed.response().await.text(), "new");
    let mut targets = new.targets();
    targets.sort();
    assert_eq!(targets, ["/parsed", "/plain"]);
    for seen in new.requests() {
        assert_eq!(seen.fields.get("host"), Some(new.authority().as_str()));
        assert_eq!(seen.fields.get("authorization"), Some("new secret"));
        assert!(!seen.head.contains("old secret"), "{}", seen.head);
        let body = if seen.target == "/plain" { "" } else { "hi" };
        assert_eq!(seen.body, body.as_bytes());
    }
    old.only_request();
}

#[tokio::test]
async fn the_bounds_of_queue_and_calls_follow() {
    let upstream = Upstream::holding().await;
    let bounds = |waiting: u32, calls: u32| {
        let queue = format!("queue = {{ max_requests = {waiting}, when_full = \"reject\" }}");
        api(&upstream, &format!("max_in_flight = {calls}\n{queue}"))
    };
    let proxy = Proxy::start(&bounds(1, 1));
    let mut callers: Vec<Caller> = vec![proxy.send(get("/")).await];
    upstream.until_requests(1).await;
    callers.push(proxy.send(get("/")).await);
    proxy.until_waiting(1).await;
    proxy.get("/").await.assert_refusal(503, "queue_full");
    assert!(proxy.reload(&bounds(2, 1)).await);
    callers.push(proxy.send(get("/")).await);
    proxy.until_waiting(2).await;
    proxy.get("/").await.assert_refusal(503, "queue_full");
    assert!(proxy.reload(&bounds(1, 2)).await);
    // One of the two that wait is called; its place is not given again.
    upstream.until_requests(2).await;
    proxy.until_waiting(1).await;
    proxy.get("/").await.assert_refusal(503, "queue_full");
    upstream.release(3);
    for mut caller in callers {
        assert_eq!(caller.response().await.status, 200);
    }
}

/// Fewer places stood in line behind the callers that waited for one, so that the
/// queue stayed as long as it was while they came.
#[tokio::test]
async fn fewer_places_count_before_those_who_wait_for_one() {
    let upstream = Upstream::holding().await;
    let bounds = |waiting: u32| {
        let queue = format!("queue.max_requests = {waiting}");
        api(&upstream, &format!("max_in_flight = 1\n{queue}"))
    };
    let proxy = Proxy::start(&bounds(3));
    let mut callers = vec![proxy.send(get("/")).await];
    upstream.until_requests(1).await;
    for waiting in 1..=3 {
        callers.push(proxy.send(get("/")).await);
        proxy.until_waiting(waiting).await;
    }
    // These find no place.
    for _ in 0..3 {
        callers.push(proxy.send(get("/")).await);
    }
    assert!(proxy.reload(&bounds(1)).await);
    for (called, waiting) in [(2, 2), (3, 1), (4, 1), (5, 1), (6, 1), (7, 0)] {
        upstream.release(1);
        upstream.until_requests(called).await;
        proxy.until_waiting(waiting).await;
    }
    upstream.release(1);
    for mut caller in callers {
        assert_eq!(caller.response().await.status, 200);
    }
}
