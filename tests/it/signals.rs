//! Refusals that only the text of their bodies tells, however that is framed and
//! coded; and answers that are looked into for that and are none.

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use crate::support::{Proxy, Seen, Step, Upstream, ok};

const SETTINGS: &str =
    "cooldown = { first = \"20ms\", signals = [{ status = 403, body = \"rate limit\" }] }";
const REFUSAL: &str = "{\"message\": \"API Rate Limit exceeded\"}";
const GET: &str = "GET / HTTP/1.1\r\nHost: caller\r\nTE: trailers\r\nConnection: TE\r\n\r\n";

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut to = GzEncoder::new(Vec::new(), Compression::default());
    to.write_all(text).unwrap();
    to.finish().unwrap()
}

fn deflate(text: &[u8]) -> Vec<u8> {
    let mut to = ZlibEncoder::new(Vec::new(), Compression::default());
    to.write_all(text).unwrap();
    to.finish().unwrap()
}

/// A 403 with these fields and that body, of which the length is told.
fn whole(fields: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {length}\r\n{fields}\r\n");
    [head.as_bytes(), body].concat()
}

/// The same in chunks of so many bytes, with these trailers.
fn chunked(fields: &str, body: &[u8], length: usize, trailers: &str) -> Vec<u8> {
    let head = format!("HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n{fields}\r\n");
    let mut answer = head.into_bytes();
    for chunk in body.chunks(length) {
        write!(answer, "{:x}\r\n", chunk.len()).unwrap();
        answer.extend([chunk, b"\r\n"].concat());
    }
    write!(answer, "0\r\n{trailers}\r\n").unwrap();
    answer
}

/// An upstream that does `first` with the first request and answers the others.
async fn first(first: Vec<Step>) -> Upstream {
    Upstream::start(move |seen: &Seen| match seen.connection + seen.nth {
        0 => first.clone(),
        _ => vec![Step::Send(ok("ok"))],
    })
    .await
}

#[tokio::test]
async fn a_refusal_is_known_by_its_text_however_it_is_framed_and_coded() {
    let text = REFUSAL.as_bytes();
    let send = |answer| vec![Step::Send(answer)];
    let coded = "Content-Encoding: gzip\r\n";
    let until_close = format!("HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n{REFUSAL}");
    let broken = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: 999\r\n\r\n{REFUSAL}");
    for refusal in [
        send(whole("", text)),
        send(chunked("", text, 3, "")),
        send(chunked("Trailer: x-a\r\n", text, 100, "x-a: b\r\n")),
        send(whole(coded, &gzip(text))),
        send(chunked(coded, &gzip(text), 10, "")),
        send(whole("Content-Encoding: deflate\r\n", &deflate(text))),
        vec![Step::Send(until_close.into_bytes()), Step::Close],
        vec![Step::Send(broken.into_bytes()), Step::Close],
    ] {
        let named = format!("{refusal:?}");
        let upstream = first(refusal).await;
        let proxy = Proxy::before(&upstream, SETTINGS);
        let response = proxy.get("/").await;
        assert_eq!((response.status, response.text()), (200, "ok"), "{named}");
        assert_eq!(upstream.requests().len(), 2, "{named}");
        let metrics = proxy.metrics().await;
        let throttled = "pacegate_upstream_throttled_total{upstream=\"api\"}";
        assert_eq!(metrics.value(throttled), 1.0, "{named}");
        let refused = "pacegate_retries_total{upstream=\"api\",reason=\"refused\"}";
        assert_eq!(metrics.value(refused), 1.0, "{named}");
    }
}

#[tokio::test]
async fn what_was_looked_into_and_is_no_refusal_goes_on_unchanged() {
    let short = b"you may not do this".to_vec();
    // Longer than what is looked into, and longer than what is read at once.
    let long: Vec<u8> = (0..400_000_u32).map(|n| b'a' + (n % 23) as u8).collect();
    // Beyond what is looked into.
    let far = [&b" ".repeat(20_000), REFUSAL.as_bytes()].concat();
    for body in [Vec::new(), short.clone(), long, far, gzip(&short)] {
        for length in [100, 50_000] {
            let fields = "Trailer: x-sum\r\nX-A: b\r\n";
            let answer = chunked(fields, &body, length, "x-sum: 7\r\n");
            let upstream = Upstream::answering(answer).await;
            let proxy = Proxy::before(&upstream, SETTINGS);
            let mut caller = proxy.send(GET).await;
            let response = caller.response().await;
            assert_eq!(response.status, 403);
            assert!(response.body == body, "{} bytes", body.len());
            assert_eq!(response.fields.get("x-a"), Some("b"));
            assert_eq!(response.fields.get("content-length"), None);
            assert_eq!(response.trailers.get("x-sum"), Some("7"));
            proxy.until_first_end("api", "completed").await;
        }
        let upstream = Upstream::answering(whole("X-A: b\r\n", &body)).await;
        let proxy = Proxy::before(&upstream, SETTINGS);
        for _ in 0..2 {
            let response = proxy.get("/").await;
            assert_eq!(response.status, 403);
            assert!(response.body == body, "{} bytes", body.len());
            let length = body.len().to_string();
            let told = response.fields.get("content-length");
            assert_eq!(told, Some(length.as_str()));
        }
        let metrics = proxy.metrics().await;
        assert_eq!(metrics.ended("api", "completed"), 2.0);
    }
}

/// The break was swallowed with what was read, and the answer looked whole.
#[tokio::test]
async fn what_breaks_off_while_it_is_looked_into_breaks_off_for_the_caller() {
    for head in [
        "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "Content-Length: 10\r\n\r\nhalf",
    ] {
        for end in [Step::Close, Step::Reset] {
            let answer = format!("HTTP/1.1 403 Forbidden\r\n{head}");
            let steps = vec![Step::Send(answer.into_bytes()), end];
            let upstream = Upstream::start(move |_| steps.clone()).await;
            let proxy = Proxy::before(&upstream, SETTINGS);
            let mut caller = proxy.send(GET).await;
            // What came of it may not be sent on any more.
            let seen = String::from_utf8(caller.closed().await).unwrap();
            assert!(
                seen.is_empty() || seen.starts_with("HTTP/1.1 403 "),
                "{seen}"
            );
            assert!(
                seen.is_empty() || seen.ends_with("half\r\n") || seen.ends_with("half"),
                "{seen}"
            );
            proxy.until_first_end("api", "aborted").await;
        }
    }
}

#[tokio::test]
async fn what_does_not_come_soon_is_not_waited_for() {
    let head = "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    let steps = vec![
        Step::Send(head.into()),
        Step::Hold,
        Step::Send("4\r\nrest\r\n0\r\n\r\n".into()),
    ];
    let upstream = Upstream::start(move |_| steps.clone()).await;
    let proxy = Proxy::before(&upstream, SETTINGS);
    let mut caller = proxy.send(GET).await;
    caller.sees("half").await;
    upstream.release(1);
    let response = caller.response().await;
    assert_eq!((response.status, response.text()), (403, "halfrest"));
}

/// What is looked into and then breaks off is told as a break, with nothing of ours
/// within the length that was announced (RFC 9112, section 8).
#[tokio::test]
async fn an_answer_that_breaks_off_while_it_is_looked_into_stays_broken() {
    let cut = "HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nabcd";
    let upstream = Upstream::start(|_| vec![Step::Send(cut.into()), Step::Close]).await;
    let proxy = Proxy::before(&upstream, SETTINGS);
    for head in ["", "\r\n"] {
        let mut caller = proxy
            .send(format!("{head}GET / HTTP/1.1\r\nHost: caller\r\n\r\n"))
            .await;
        let response = caller.broken_response().await;
        assert_eq!((response.status, response.text()), (403, "abcd"));
    }
}
