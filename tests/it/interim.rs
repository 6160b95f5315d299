//! Interim answers (1xx) of an upstream, before its answer (RFC 9110, section
//! 15.2; RFC 8297).

use crate::support::{Caller, Proxy, Step, Upstream, get, ok};

const HINT: &[u8] = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n";

/// An upstream that says `interim` and, when it is released, its answer.
async fn hinting(interim: impl Into<Vec<u8>>) -> Upstream {
    let interim = interim.into();
    Upstream::start(move |seen| {
        let answer = Step::Send(ok(&seen.target));
        vec![Step::Send(interim.clone()), Step::Hold, answer]
    })
    .await
}

async fn answered(caller: &mut Caller, target: &str) {
    let response = caller.response().await;
    assert_eq!((response.status, response.text()), (200, target));
}

#[tokio::test]
async fn they_reach_the_caller_before_the_answer_is_there() {
    let processing = b"HTTP/1.1 102 Processing\r\n\r\n";
    let upstream = hinting([processing, HINT, HINT].concat()).await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = proxy.send(get("/a")).await;
    assert_eq!(caller.response().await.status, 102);
    for _ in 0..2 {
        let hint = caller.response().await;
        assert_eq!(hint.status, 103);
        let link = hint.fields.get("link");
        assert_eq!(link, Some("</style.css>; rel=preload"));
    }
    upstream.release(1);
    answered(&mut caller, "/a").await;
}

/// RFC 9110, section 7.6.1; and a 100 is for us, who have asked for the body.
#[tokio::test]
async fn what_is_for_us_stays_behind() {
    let mut interim = b"HTTP/1.1 100 Continue\r\n\r\n".to_vec();
    interim.extend_from_slice(
        b"HTTP/1.1 103 Early Hints\r\nX-Case: 1\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n",
    );
    let upstream = hinting(interim).await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = proxy.send(get("/a")).await;
    caller.sees("\r\n\r\n").await;
    upstream.release(1);
    caller.sees("/a").await;
    drop(proxy);
    let all = String::from_utf8(caller.closed().await).unwrap();
    let expected = "HTTP/1.1 103 Early Hints\r\nX-Case: 1\r\n\r\nHTTP/1.1 200 OK\r\n";
    assert!(all.starts_with(expected), "{all}");
}

#[tokio::test]
async fn each_goes_before_its_own_answer_on_a_connection_with_pipelined_requests() {
    let upstream = hinting(HINT).await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = proxy.send([get("/a"), get("/b"), get("/c")].concat()).await;
    for target in ["/a", "/b", "/c"] {
        assert_eq!(caller.response().await.status, 103);
        upstream.release(1);
        answered(&mut caller, target).await;
    }
}

#[tokio::test]
async fn one_that_comes_with_its_answer_goes_before_it() {
    let upstream = Upstream::start(|seen| {
        let both = [HINT, &ok(&seen.target)].concat();
        vec![Step::Send(both)]
    })
    .await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = proxy.caller().await;
    for target in ["/a", "/b", "/c"] {
        caller.send(get(target)).await;
        assert_eq!(caller.response().await.status, 103);
        answered(&mut caller, target).await;
    }
    assert_eq!(upstream.log().opened, 1);
}

#[tokio::test]
async fn those_of_a_request_that_waited_for_its_turn_reach_its_caller() {
    let upstream = hinting(HINT).await;
    let proxy = Proxy::before(&upstream, "max_in_flight = 1");
    let mut first = proxy.send(get("/a")).await;
    assert_eq!(first.response().await.status, 103);
    let mut second = proxy.send(get("/b")).await;
    proxy.until_waiting(1).await;
    upstream.release(1);
    answered(&mut first, "/a").await;
    assert_eq!(second.response().await.status, 103);
    upstream.release(1);
    answered(&mut second, "/b").await;
}

/// RFC 9110, section 15.2: HTTP/1.0 has none.
#[tokio::test]
async fn a_caller_of_http_1_0_gets_none() {
    let upstream = hinting(HINT).await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = proxy.send("GET /a HTTP/1.0\r\n\r\n").await;
    upstream.release(1);
    answered(&mut caller, "/a").await;
}

/// A body may look like one, and so may what follows an answer.
#[tokio::test]
async fn what_is_not_before_an_answer_is_none() {
    let hint = String::from_utf8_lossy(HINT).into_owned();
    let upstream = Upstream::start(move |_| {
        let (body, length) = (hint.repeat(3), hint.len() * 3);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        let pieces = [head, body[..10].to_owned(), body[10..].to_owned()];
        pieces.map(|piece| Step::Send(piece.into())).to_vec()
    })
    .await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = proxy.caller().await;
    for _ in 0..3 {
        caller.send(get("/a")).await;
        let response = caller.response().await;
        assert_eq!(
            (response.status, response.body.len()),
            (200, HINT.len() * 3)
        );
    }
}

#[tokio::test]
async fn an_upstream_that_sends_no_end_of_them_is_cut_off() {
    let endless = [HINT.repeat(1000), vec![b'\n'; 100_000]];
    for endless in endless {
        let upstream = Upstream::answering(endless).await;
        let proxy = Proxy::before(&upstream, "");
        let mut caller = proxy.send(get("/a")).await;
        let refusal = caller.last_response().await;
        refusal.assert_refusal(502, "upstream_failed");
        assert_eq!(refusal.proxy_error(), "http_protocol_error");
        assert!(refusal.text().contains("without end"), "{refusal:?}");
    }
}

#[tokio::test]
async fn an_upstream_that_says_no_more_than_one_has_not_answered() {
    let upstream = Upstream::start(|_| vec![Step::Send(HINT.to_vec()), Step::Close]).await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = proxy.send(get("/a")).await;
    assert_eq!(caller.response().await.status, 103);
    let refusal = caller.response().await;
    refusal.assert_refusal(502, "upstream_failed");
    assert_eq!(refusal.proxy_error(), "http_response_incomplete");
}
