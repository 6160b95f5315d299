//! Every mix of HTTP/1.1 and HTTP/2 between a caller and an upstream, and what
//! only an HTTP/2 upstream can do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::header::HeaderMap;
use http::{Method, Request, Response, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::support::{Metrics, Modern, Proxy, Upstream, get, ok, soon};

const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

type Sent = BoxBody<Bytes, std::convert::Infallible>;

/// A connection of a caller that speaks one of the two.
enum Caller {
    Http1(http1::SendRequest<Sent>),
    Http2(http2::SendRequest<Sent>),
}

impl Caller {
    async fn connect(proxy: &Proxy, version: Version) -> Self {
        let stream = TcpStream::connect(proxy.address).await.unwrap();
        let io = TokioIo::new(stream);
        if version == Version::HTTP_2 {
            let shaken = http2::handshake(TokioExecutor::new(), io).await;
            let (sender, connection) = shaken.unwrap();
            tokio::spawn(connection);
            return Self::Http2(sender);
        }
        let (sender, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        Self::Http1(sender)
    }

    async fn send(&mut self, request: Request<Sent>) -> Response<Incoming> {
        let sent = async {
            match self {
                Self::Http1(sender) => {
                    sender.ready().await.unwrap();
                    sender.send_request(request).await
                }
                Self::Http2(sender) => {
                    sender.ready().await.unwrap();
                    sender.send_request(request).await
                }
            }
        };
        soon("a response head", sent).await.unwrap()
    }
}

fn request(method: Method, path: &str, body: Sent) -> Request<Sent> {
    // The absolute form is what HTTP/2 needs and HTTP/1.1 allows.
    let request = Request::builder().uri(format!("http://caller{path}"));
    let request = request.method(method).header("host", "caller");
    request.header("te", "trailers").body(body).unwrap()
}

fn none() -> Sent {
    Full::default().boxed()
}

pub(crate) fn before(address: SocketAddr, version: Version, more: &str) -> Proxy {
    let http2 = match version {
        Version::HTTP_2 => "\"prior-knowledge\"",
        _ => "false",
    };
    let toml = format!("[upstream.api]\nurl = \"http://{address}\"\nconnection.http2 = {http2}\n");
    Proxy::start(&format!("{toml}{more}"))
}

/// RFC 9113, section 8.1.
#[tokio::test]
async fn bodies_and_trailers_pass_both_ways_in_every_mix() {
    for theirs in VERSIONS {
        let upstream = Modern::start().await;
        let proxy = before(upstream.address, theirs, "");
        for ours in VERSIONS {
            let mut caller = Caller::connect(&proxy, ours).await;
            for length in [0, 5, 1 << 20] {
                let named = format!("{ours:?} to {theirs:?}, {length}");
                let body: Bytes = (0..length).map(|at: usize| (at * 31) as u8).collect();
                let mut sum = HeaderMap::new();
                sum.insert("x-sum", "ours".parse().unwrap());
                // A mapped body does not know its length, so it can have trailers.
                let sent = Full::new(body.clone()).map_frame(|frame| frame);
                let sent = sent.with_trailers(async { Some(Ok(sum)) });
                let mut sent = request(Method::POST, "/echo?a//b", sent.boxed());
                sent.headers_mut()
                    .insert("trailer", "x-sum".parse().unwrap());
                let (head, answer) = caller.send(sent).await.into_parts();
                assert_eq!(head.status, 200, "{named}");
                let answer = soon("a body", answer.collect()).await.unwrap();
                let trailers = answer.trailers().unwrap_or_else(|| panic!("{named}"));
                assert_eq!(trailers["x-sum"], "theirs", "{named}");
                assert!(answer.to_bytes() == body, "{named}");
                let seen = upstream.last();
                assert_eq!(seen.version, theirs);
                assert!(seen.uri.ends_with("/echo?a//b"), "{named}: {}", seen.uri);
                assert!(seen.body == body, "{named}");
                let trailers = seen.trailers.unwrap_or_else(|| panic!("{named}"));
                assert_eq!(trailers["x-sum"], "ours", "{named}");
            }
        }
    }
}

/// RFC 9110, section 6.4.1.
#[tokio::test]
async fn answers_without_a_body_have_none_in_every_mix() {
    for theirs in VERSIONS {
        let upstream = Modern::start().await;
        let proxy = before(upstream.address, theirs, "");
        for ours in VERSIONS {
            let mut caller = Caller::connect(&proxy, ours).await;
            for (method, path, status) in [
                (Method::HEAD, "/echo", 200),
                (Method::GET, "/empty", 204),
                (Method::HEAD, "/empty", 204),
                (Method::POST, "/empty", 204),
            ] {
                let named = format!("{ours:?} to {theirs:?}: {method} {path}");
                let sent = request(method.clone(), path, none());
                let (head, answer) = caller.send(sent).await.into_parts();
                assert_eq!(head.status, status, "{named}");
                let answer = soon("the end", answer.collect()).await.unwrap();
                assert!(answer.to_bytes().is_empty(), "{named}");
                // RFC 9110, section 8.6.
                let length = upstream.last().headers.get("content-length").cloned();
                assert_eq!(length.is_some(), method == Method::POST, "{named}");
            }
        }
    }
}

/// RFC 9112, section 8, and RFC 9113, section 8.1.
#[tokio::test]
async fn an_answer_that_breaks_off_has_no_end_in_any_mix() {
    for theirs in VERSIONS {
        let upstream = Modern::start().await;
        let proxy = before(upstream.address, theirs, "");
        for ours in VERSIONS {
            let named = format!("{ours:?} to {theirs:?}");
            let mut caller = Caller::connect(&proxy, ours).await;
            let answer = caller.send(request(Method::GET, "/break", none())).await;
            let mut answer = answer.into_body();
            let first = soon("the first half", answer.frame()).await.unwrap();
            assert_eq!(first.unwrap().into_data().unwrap(), "half", "{named}");
            upstream.break_off();
            let end = soon("the end", answer.frame()).await;
            assert!(end.is_some_and(|end| end.is_err()), "{named}");
        }
    }
}

#[tokio::test]
async fn what_pacegate_refuses_is_the_same_in_both_versions() {
    let upstream = Modern::start().await;
    let more = "max_body = \"1KiB\"\nmatch = { prefix = \"/echo\" }";
    let proxy = before(upstream.address, Version::HTTP_2, more);
    for ours in VERSIONS {
        let body = || Full::new(Bytes::from(vec![0; 1025])).boxed();
        for (path, body, status) in [("/none", none(), 404), ("/echo", body(), 413)] {
            let mut caller = Caller::connect(&proxy, ours).await;
            let answer = caller.send(request(Method::POST, path, body)).await;
            assert_eq!(answer.status(), status, "{ours:?} {path}");
            assert!(answer.headers().contains_key("proxy-status"));
            let kind = &answer.headers()["content-type"];
            assert_eq!(kind, "application/problem+json");
        }
    }
}

/// RFC 8441: not offered, so that nobody is to try it.
#[tokio::test]
async fn extended_connect_is_refused() {
    let upstream = Modern::start().await;
    let proxy = before(upstream.address, Version::HTTP_11, "");
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut sender = soon("the settings", sender.ready()).await.unwrap();
    assert!(!sender.is_extended_connect_protocol_enabled());
    let request = Request::connect("caller:80").body(()).unwrap();
    let (answer, _) = sender.send_request(request, true).unwrap();
    let answer = soon("an answer", answer).await.unwrap();
    assert_eq!(answer.status(), 501);
}

/// HTTP/2 has no upgrades (RFC 9113, section 8.6).
#[tokio::test]
async fn an_upgrade_gets_an_http_1_1_connection_where_the_upstream_speaks_http_2() {
    let upstream = Modern::start().await;
    let proxy = before(upstream.address, Version::HTTP_2, "limits = [\"9/h\"]");
    assert_eq!(proxy.get("/echo").await.status, 200);
    assert_eq!(upstream.last().version, Version::HTTP_2);
    let asks = "GET /upgrade HTTP/1.1\r\nHost: caller\r\nConnection: upgrade\r\n\
        Upgrade: websocket\r\n\r\n";
    let mut caller = proxy.send(asks).await;
    assert_eq!(caller.response().await.status, 101);
    assert_eq!(upstream.last().version, Version::HTTP_11);
    caller.send("there and back").await;
    caller.sees("there and back").await;
    assert_eq!(proxy.metrics().await.available(), 7.0);
}

/// A request as an HTTP/2 upstream gets it, and where to answer.
pub(crate) type Call = (
    Request<h2::RecvStream>,
    h2::server::SendResponse<Bytes>,
    usize,
);

/// An HTTP/2 upstream that allows `streams` at once and does with each request
/// what `script` says; with the number of the request.
pub(crate) async fn scripted<F>(
    streams: u32,
    script: impl Fn(Call) -> F + Send + Sync + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (script, count) = (Arc::new(script), Arc::new(AtomicUsize::new(0)));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (script, count) = (Arc::clone(&script), Arc::clone(&count));
            tokio::spawn(async move {
                let mut builder = h2::server::Builder::new();
                builder.max_concurrent_streams(streams);
                let mut connection = builder.handshake(stream).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    let number = count.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(script((request, respond, number)));
                }
            });
        }
    });
    address
}

pub(crate) fn answer_ok(mut respond: h2::server::SendResponse<Bytes>) {
    respond.send_response(Response::new(()), true).unwrap();
}

/// RFC 9113, section 8.7: a refused stream was not processed.
#[tokio::test]
async fn a_request_that_the_upstream_refused_unprocessed_is_sent_again() {
    let script = |(_, mut respond, number): Call| async move {
        match number {
            0 => respond.send_reset(h2::Reason::REFUSED_STREAM),
            _ => answer_ok(respond),
        }
    };
    let address = scripted(100, script).await;
    let proxy = before(address, Version::HTTP_2, "limits = [\"9/h\"]");
    let request = "POST / HTTP/1.1\r\nHost: caller\r\nContent-Length: 4\r\n\r\nbody";
    let response = proxy.send(request).await.response().await;
    assert_eq!(response.status, 200);
    assert_eq!(proxy.metrics().await.available(), 7.0);
    assert_only_unsent(&proxy).await;
}

/// The request went for another turn once, because nothing of it was taken.
async fn assert_only_unsent(proxy: &Proxy) {
    let metrics = proxy.metrics().await;
    let unsent = "pacegate_retries_total{upstream=\"api\",reason=\"unsent\"}";
    assert_eq!(metrics.value(unsent), 1.0);
    assert_eq!(metrics.sum("pacegate_retries_total"), 1.0);
}

/// RFC 9113, section 8.7.
#[tokio::test]
async fn a_request_that_the_upstream_resets_is_a_bad_gateway_and_sent_once() {
    let numbers = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&numbers);
    let script = move |(_, mut respond, number): Call| {
        seen.store(number + 1, Ordering::SeqCst);
        async move { respond.send_reset(h2::Reason::INTERNAL_ERROR) }
    };
    let address = scripted(100, script).await;
    let proxy = before(address, Version::HTTP_2, "retry.attempts = 1");
    let response = proxy.get("/").await;
    response.assert_refusal(502, "upstream_failed");
    assert_eq!(response.proxy_error(), "http_protocol_error");
    assert_eq!(numbers.load(Ordering::SeqCst), 1);
}

/// Reads frames (RFC 9113, section 4.1) up to the first HEADERS.
async fn until_request(stream: &mut TcpStream) {
    let mut head = [0; 9];
    while head[3] != 1 {
        stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await.unwrap();
    }
}

/// RFC 9113, section 6.8: what GOAWAY leaves out was not processed.
#[tokio::test]
async fn a_request_that_goaway_leaves_out_is_sent_again() {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&SETTINGS).await.unwrap();
        stream.read_exact(&mut [0; 24]).await.unwrap();
        until_request(&mut stream).await;
        stream.write_all(&GOAWAY).await.unwrap();
        let (second, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(second).await.unwrap();
        while let Some(Ok((_, respond))) = connection.accept().await {
            answer_ok(respond);
        }
    });
    let proxy = before(address, Version::HTTP_2, "");
    let request = "POST / HTTP/1.1\r\nHost: caller\r\nContent-Length: 4\r\n\r\nbody";
    let response = proxy.send(request).await.response().await;
    assert_eq!(response.status, 200);
    assert_only_unsent(&proxy).await;
}

/// RFC 9113, section 5.1.2.
#[tokio::test]
async fn an_upstream_never_has_more_streams_than_it_allows() {
    let (held, most) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (holds, came) = (Arc::clone(&held), Arc::new(Semaphore::new(0)));
    let (arrives, counted) = (Arc::clone(&came), Arc::clone(&most));
    let script = move |(request, respond, _): Call| {
        let (held, came) = (Arc::clone(&holds), Arc::clone(&arrives));
        // Streams are numbered 1, 3, 5, ...: the third is the fifth.
        let id = u32::from(request.body().stream_id()) as usize;
        counted.fetch_max(id.div_ceil(2), Ordering::SeqCst);
        async move {
            came.add_permits(1);
            held.acquire().await.unwrap().forget();
            answer_ok(respond);
        }
    };
    let address = scripted(2, script).await;
    let proxy = Arc::new(before(address, Version::HTTP_2, ""));
    let mut callers = JoinSet::new();
    for _ in 0..6 {
        let proxy = Arc::clone(&proxy);
        callers.spawn(async move { proxy.send(get("/")).await.response().await.status });
    }
    // All six at once, on connections with two each.
    let all = came.acquire_many(6);
    soon("six requests", all).await.unwrap().forget();
    assert_eq!(most.load(Ordering::SeqCst), 2);
    held.add_permits(6);
    assert_eq!(callers.join_all().await, [200; 6]);
}

/// RFC 9113, section 8.1: only END_STREAM ends a message, not a reset without an
/// error.
#[tokio::test]
async fn an_answer_that_is_reset_without_an_error_is_not_passed_off_as_whole() {
    for announced in [None, Some(10)] {
        let half_read = Arc::new(Semaphore::new(0));
        let seen = Arc::clone(&half_read);
        let script = move |(_, mut respond, _): Call| {
            let half_read = Arc::clone(&seen);
            async move {
                let mut head = Response::builder();
                if let Some(length) = announced {
                    head = head.header("content-length", length);
                }
                let head = head.body(()).unwrap();
                let mut body = respond.send_response(head, false).unwrap();
                body.send_data(Bytes::from_static(b"half"), false).unwrap();
                half_read.acquire().await.unwrap().forget();
                body.send_reset(h2::Reason::NO_ERROR);
            }
        };
        let address = scripted(100, script).await;
        let proxy = before(address, Version::HTTP_2, "");
        let mut caller = proxy.send(get("/")).await;
        caller.sees("half").await;
        half_read.add_permits(1);
        let rest = caller.closed().await;
        assert!(rest.trim_ascii_end().ends_with(b"half"), "{rest:?}");
        let mut caller = Caller::connect(&proxy, Version::HTTP_2).await;
        let answer = caller.send(request(Method::GET, "/", none())).await;
        let mut answer = answer.into_body();
        soon("half of it", answer.frame()).await.unwrap().unwrap();
        half_read.add_permits(1);
        assert!(soon("its end", answer.frame()).await.unwrap().is_err());
        let aborted = proxy.metrics().await.ended("api", "aborted");
        assert_eq!(aborted, 2.0, "{announced:?}");
    }
}

/// RFC 9113, section 8.1: the end may come in a frame of its own. A caller of HTTP/1.1
/// does not wait for it, and its request counted as aborted.
#[tokio::test]
async fn an_answer_is_complete_although_its_end_has_not_come_after_its_last_byte() {
    let script = |(request, mut respond, _): Call| async move {
        let status: u16 = request.uri().path()[1..].parse().unwrap();
        let mut head = Response::builder().status(status);
        if status != 204 {
            head = head.header("content-length", 2);
        }
        let head = head.body(()).unwrap();
        let mut body = respond.send_response(head, false).unwrap();
        if status == 200 && request.method() == Method::GET {
            body.send_data(Bytes::from_static(b"ok"), false).unwrap();
        }
        std::future::pending::<()>().await;
    };
    let proxy = before(scripted(100, script).await, Version::HTTP_2, "");
    // Behind an empty line it is not served as a plain one.
    for (start, method, status) in [
        ("", "HEAD", 200),
        ("", "GET", 204),
        ("", "GET", 304),
        ("", "GET", 200),
        ("\r\n", "HEAD", 200),
        ("\r\n", "GET", 204),
        ("\r\n", "GET", 304),
        ("\r\n", "GET", 200),
    ] {
        let head = format!("{start}{method} /{status} HTTP/1.1\r\nHost: caller\r\n\r\n");
        let mut caller = proxy.send(head).await;
        let response = caller.response_to(method).await;
        assert!(response.whole);
        assert_eq!(response.status, status, "{start:?} {method}");
    }
    let completed = |metrics: &Metrics| metrics.ended("api", "completed") == 8.0;
    proxy.until("all completed", completed).await;
}

/// The same of an upload.
#[tokio::test]
async fn an_upload_that_is_reset_without_an_error_is_not_passed_off_as_whole() {
    let upstream = Upstream::answering(ok("")).await;
    let proxy = Proxy::before(&upstream, "");
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut sender = soon("the settings", sender.ready()).await.unwrap();
    let request = Request::post("http://caller/").body(()).unwrap();
    let (_answer, mut body) = sender.send_request(request, false).unwrap();
    body.send_data(Bytes::from_static(b"half"), false).unwrap();
    upstream
        .until("the head", |log| log.requests.len() == 1)
        .await;
    body.send_reset(h2::Reason::NO_ERROR);
    upstream
        .until("its end", |log| log.ended == log.opened)
        .await;
    assert!(!upstream.requests()[0].whole);
}

/// As long as those that pass over HTTP/1.1.
#[tokio::test]
async fn a_long_head_of_an_answer_passes() {
    let script = |(_, mut respond, _): Call| async move {
        let mut head = Response::builder();
        for number in 0..90 {
            head = head.header(format!("x-{number}"), "v".repeat(1000));
        }
        respond.send_response(head.body(()).unwrap(), true).unwrap();
    };
    let proxy = before(scripted(100, script).await, Version::HTTP_2, "");
    let answer = proxy.get("/").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.fields.get("x-89").unwrap().len(), 1000);
}

/// RFC 9113, section 8.2.1: the upstream is not down, and does not say it better
/// when it is asked again.
#[tokio::test]
async fn an_answer_that_is_malformed_is_a_bad_gateway_and_asked_for_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        // `:status: 200` and `A: b`, then a proper answer, each on its connection.
        let wrong = [0, 0, 6, 1, 5, 0, 0, 0, 1, 0x88, 0, 1, b'A', 1, b'b'];
        let right = [0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88];
        let mut open = Vec::new();
        for answer in [&wrong[..], &right[..]] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
            stream.write_all(&settings).await.unwrap();
            stream.read_exact(&mut [0; 24]).await.unwrap();
            until_request(&mut stream).await;
            stream.write_all(answer).await.unwrap();
            open.push(stream);
        }
        std::future::pending::<()>().await;
    });
    let proxy = before(address, Version::HTTP_2, "limits = [\"9/h\"]");
    let answer = proxy.get("/").await;
    answer.assert_refusal(502, "upstream_failed");
    assert_eq!(answer.proxy_error(), "http_protocol_error");
    assert_eq!(proxy.get("/").await.status, 200);
    assert_eq!(proxy.metrics().await.available(), 7.0);
}

/// What the caller still sends has nowhere to go: the connection takes no more calls
/// and closes when the others on it have ended.
#[tokio::test]
async fn an_upload_that_was_answered_early_ends() {
    let (gone, mut went) = tokio::sync::mpsc::channel(1);
    let script = move |(request, respond, number): Call| {
        let gone = gone.clone();
        async move {
            answer_ok(respond);
            if number == 0 {
                // It opens no window, and says nothing more.
                let mut body = request.into_body();
                while let Some(Ok(_)) = body.data().await {}
                gone.send(()).await.unwrap();
            }
        }
    };
    let proxy = before(scripted(100, script).await, Version::HTTP_2, "");
    let head = "POST / HTTP/1.1\r\nHost: caller\r\nContent-Length: 10000000\r\n\r\n";
    let mut caller = proxy.send(head).await;
    caller.send_some(vec![b'a'; 1 << 20]).await;
    assert_eq!(caller.response().await.status, 200);
    soon("the end of the stream", went.recv()).await.unwrap();
    assert_eq!(proxy.get("/").await.status, 200);
}
