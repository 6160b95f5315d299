//! What the operator sees while it runs.

use crate::support::{Caller, Metrics, Proxy, Upstream, get, ok};

#[tokio::test]
async fn it_lives_and_is_ready_until_it_drains() {
    let upstream = Upstream::holding().await;
    let proxy = Proxy::before(&upstream, "");
    assert_eq!(proxy.admin("/livez").await.status, 200);
    assert_eq!(proxy.admin("/readyz").await.status, 200);
    let mut caller = proxy.send(get("/")).await;
    upstream.until_requests(1).await;

    proxy.tell_to_stop().await;
    proxy.until_draining().await;
    let response = proxy.admin("/readyz").await;
    assert_eq!(response.status, 503);
    assert!(response.text().contains("draining"), "{}", response.text());
    assert_eq!(proxy.admin("/livez").await.status, 200);
    assert_eq!(proxy.metrics().await.in_flight("api"), 1.0);
    upstream.release(1);
    assert_eq!(caller.response().await.status, 200);
    proxy.stopped().await;
}

#[tokio::test]
async fn every_metric_is_there_under_its_name() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "limits = [\"10/s\", \"100/min\"]");
    assert_eq!(proxy.get("/").await.status, 200);
    let metrics = proxy.metrics().await;
    let names = [
        "pacegate_requests_admitted_total{upstream=\"api\"}",
        "pacegate_requests_total{upstream=\"api\",outcome=\"completed\"}",
        "pacegate_queue_requests{upstream=\"api\"}",
        "pacegate_queue_bytes{upstream=\"api\"}",
        "pacegate_in_flight_requests{upstream=\"api\"}",
        "pacegate_upstream_connections{upstream=\"api\"}",
        "pacegate_queue_wait_seconds_bucket{le=\"60.0\",upstream=\"api\"}",
        "pacegate_queue_wait_seconds_bucket{le=\"+Inf\",upstream=\"api\"}",
        "pacegate_queue_wait_seconds_sum{upstream=\"api\"}",
        "pacegate_queue_wait_seconds_count{upstream=\"api\"}",
        "pacegate_upstream_duration_seconds_count{upstream=\"api\"}",
        "pacegate_upstream_responses_total{upstream=\"api\",status=\"2xx\"}",
        "pacegate_upstream_throttled_total{upstream=\"api\"}",
        "pacegate_retries_total{upstream=\"api\",reason=\"refused\"}",
        "pacegate_retries_total{upstream=\"api\",reason=\"failed\"}",
        "pacegate_retries_total{upstream=\"api\",reason=\"closing\"}",
        "pacegate_retries_total{upstream=\"api\",reason=\"unsent\"}",
        "pacegate_limit_capacity{upstream=\"api\",limit=\"10/s\"}",
        "pacegate_limit_wait_seconds{upstream=\"api\",limit=\"10/s\"}",
        "pacegate_limit_binding{upstream=\"api\",limit=\"100/min\"}",
        "pacegate_keys{upstream=\"api\"}",
        "pacegate_limit_available{upstream=\"api\",limit=\"10/s\"}",
        "pacegate_limit_available{upstream=\"api\",limit=\"100/min\"}",
        "pacegate_held_seconds_total{upstream=\"api\",by=\"limit\"}",
        "pacegate_held_seconds_total{upstream=\"api\",by=\"workers\"}",
        "pacegate_held_seconds_total{upstream=\"api\",by=\"connection\"}",
        "pacegate_client_connections",
        "pacegate_build_info{version=",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_open_fds",
    ];
    let missing: Vec<_> = names
        .into_iter()
        .filter(|name| !metrics.has(name))
        .collect();
    assert!(missing.is_empty(), "{missing:#?} not in {metrics:#?}");
    let wait = "pacegate_queue_wait_seconds_count";
    assert_eq!(metrics.of("api", wait), 1.0);
}

#[tokio::test]
async fn the_cooldown_has_its_metrics() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let metrics = proxy.metrics().await;
    assert!(
        metrics.has("pacegate_cooldown_seconds{upstream=\"api\"}"),
        "{metrics:#?}"
    );
    let held = "pacegate_held_seconds_total{upstream=\"api\",by=\"cooldown\"}";
    assert!(metrics.has(held), "{metrics:#?}");
}

#[tokio::test]
async fn the_status_says_which_limit_binds_and_until_when() {
    let upstream = Upstream::answering(ok("ok")).await;
    let settings = r#"limits = ["1/h", "100/min", { rate = "5/s", per = "address" }]
        queue.max_wait = "2h""#;
    let proxy = Proxy::before(&upstream, settings);
    assert_eq!(proxy.get("/").await.status, 200);
    let _waits = proxy.send(get("/")).await;
    let binding = "pacegate_limit_binding{upstream=\"api\",limit=\"1/h\"}";
    let binds = |metrics: &Metrics| metrics.value(binding) == 1.0;
    proxy.until("the limit to bind", binds).await;
    let response = proxy.admin("/status").await;
    assert_eq!(
        response.fields.get("content-type"),
        Some("application/json")
    );
    let status: serde_json::Value = serde_json::from_str(response.text()).unwrap();
    assert_eq!(status["state"], "serving");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    let lane = &status["upstreams"][0];
    assert_eq!(
        (&lane["name"], &lane["waiting"], &lane["keys"]),
        (&"api".into(), &1.into(), &1.into())
    );
    assert_eq!(
        (&lane["in_flight"], &lane["outage_ms"]),
        (&0.into(), &serde_json::Value::Null)
    );
    assert_eq!(lane["cooldown"]["left_ms"], 0);
    assert_eq!(lane["cooldown"]["probing"], false);
    assert!(lane["guard_ms"].as_u64() > Some(0), "{lane}");
    assert_eq!(lane["floor_ms"], 0, "after a few answers nothing is known");
    let limits = lane["limits"].as_array().unwrap();
    let binding: Vec<_> = limits.iter().map(|limit| &limit["binding"]).collect();
    assert_eq!(binding, [true, false, false, false], "{lane}");
    assert_eq!(
        (
            &limits[0]["limit"],
            &limits[0]["left"],
            &limits[0]["capacity"]
        ),
        (&"1/h".into(), &0.into(), &1.into())
    );
    let wait = limits[0]["wait_ms"].as_u64().unwrap();
    assert!((3_000_000..=3_700_000).contains(&wait), "{lane}");
    assert_eq!(limits[2]["limit"], "5/s per address");
    assert_eq!(limits[3]["limit"], "max_in_flight");
}

#[tokio::test]
async fn the_most_calls_at_once_are_a_limit_that_binds_if_no_other_does() {
    for (rate, binding) in [("100/s", "max_in_flight"), ("2/h", "2/h")] {
        let upstream = Upstream::holding().await;
        let settings = format!("max_in_flight = 2\nlimits = [\"{rate}\"]\nqueue.max_wait = \"2h\"");
        let proxy = Proxy::before(&upstream, &settings);
        let of = |metrics: &Metrics, name: &str, limit: &str| {
            let labels = format!("{{upstream=\"api\",limit=\"{limit}\"}}");
            metrics.value(&format!("pacegate_limit_{name}{labels}"))
        };
        let _first = proxy.send(get("/")).await;
        let one = |metrics: &Metrics| of(metrics, "available", "max_in_flight") == 1.0;
        let metrics = proxy.until("one to be in flight", one).await;
        let most = |name| of(&metrics, name, "max_in_flight");
        assert_eq!((most("capacity"), most("binding")), (2.0, 0.0));
        let _others = [proxy.send(get("/")).await, proxy.send(get("/")).await];
        let binds = |metrics: &Metrics| of(metrics, "binding", binding) == 1.0;
        let metrics = proxy.until("it to bind", binds).await;
        let bind = ["max_in_flight", rate].map(|limit| of(&metrics, "binding", limit));
        assert_eq!(bind.iter().sum::<f64>(), 1.0);
        assert_eq!(of(&metrics, "available", "max_in_flight"), 0.0);
    }
}

#[tokio::test]
async fn throttled_answers_are_counted() {
    let answer = "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n";
    let upstream = Upstream::answering(answer).await;
    let proxy = Proxy::before(&upstream, "queue.max_wait = \"100ms\"");
    proxy.get("/").await;
    let throttled = "pacegate_upstream_throttled_total";
    assert!(proxy.metrics().await.of("api", throttled) >= 1.0);
}

#[tokio::test]
async fn metrics_are_openmetrics_text() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let response = proxy.admin("/metrics").await;
    let kind = response.fields.get("content-type").unwrap();
    assert!(
        kind.starts_with("application/openmetrics-text; version=1.0.0"),
        "{kind}"
    );
    assert!(response.text().ends_with("# EOF\n"), "{}", response.text());
}

#[tokio::test]
async fn what_it_does_not_know_is_not_found_and_nothing_can_be_changed() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    assert_eq!(proxy.admin("/unheard-of").await.status, 404);
    for method in ["POST", "PUT", "DELETE"] {
        let mut caller = Caller::connect(proxy.admin).await;
        let head = format!("{method} /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        caller.send(head).await;
        let response = caller.response().await;
        assert_eq!(response.status, 405);
        assert!(response.fields.has_token("allow", "GET"), "{response:?}");
    }
    // The operator's paths are not the callers'.
    assert_eq!(proxy.get("/metrics").await.text(), "ok");
}
