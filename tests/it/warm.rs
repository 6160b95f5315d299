//! `connection.warm`: connections that are there before a request needs them.

use crate::support::{Proxy, Step, Upstream, get, ok};

const OPEN: &str = "pacegate_upstream_connections";

#[tokio::test]
async fn so_many_are_open_before_the_first_request_and_requests_go_over_them() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "connection = { warm = 5 }");
    upstream.until("5 connections", |log| log.opened == 5).await;
    let open = |metrics: &crate::support::Metrics| metrics.of("api", OPEN) == 5.0;
    proxy.until("5 open", open).await;
    for _ in 0..20 {
        assert_eq!(proxy.get("/").await.status, 200);
    }
    assert_eq!(upstream.log().opened, 5);
    proxy.until("5 open", open).await;
}

#[tokio::test]
async fn one_that_the_upstream_closes_is_replaced() {
    let upstream = Upstream::start(|_| vec![Step::Send(ok("ok")), Step::Close]).await;
    let proxy = Proxy::before(&upstream, "connection = { warm = 2 }");
    upstream.until("2 connections", |log| log.opened == 2).await;
    for round in 1..=3 {
        let mut caller = proxy.send(get("/")).await;
        assert_eq!(caller.response().await.status, 200);
        let replaced = format!("{round} replaced");
        upstream
            .until(&replaced, |log| {
                log.ended == round && log.opened == 2 + round
            })
            .await;
    }
}

#[tokio::test]
async fn a_reload_may_ask_for_more() {
    let upstream = Upstream::answering(ok("ok")).await;
    let toml = |warm: u32| {
        let url = upstream.url();
        format!("[upstream.api]\nurl = \"{url}\"\nconnection = {{ warm = {warm} }}")
    };
    let proxy = Proxy::start(&toml(0));
    assert_eq!(proxy.metrics().await.of("api", OPEN), 0.0);
    assert!(proxy.reload(&toml(3)).await);
    let open = |metrics: &crate::support::Metrics| metrics.of("api", OPEN) == 3.0;
    proxy.until("3 open", open).await;
    assert_eq!(proxy.get("/").await.status, 200);
    assert_eq!(upstream.log().opened, 3);
}
