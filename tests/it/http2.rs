//! Callers that speak HTTP/2, with prior knowledge and without TLS.

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{Metrics, Proxy, Step, Upstream, ok, soon};

type Sender = SendRequest<Full<Bytes>>;

async fn connect(proxy: &Proxy) -> Sender {
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = soon("a handshake", shaken).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn get(path: &str) -> Request<Full<Bytes>> {
    let uri = Uri::builder()
        .scheme("http")
        .authority("caller")
        .path_and_query(path);
    Request::get(uri.build().unwrap())
        .body(Full::default())
        .unwrap()
}

async fn answer(mut sender: Sender, request: Request<Full<Bytes>>) -> Response<Bytes> {
    let sent = async {
        sender.ready().await.unwrap();
        let response: Response<Incoming> = sender.send_request(request).await.unwrap();
        let (head, body) = response.into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    };
    soon("a response", sent).await
}

/// RFC 9113, section 5.1.2.
#[tokio::test]
async fn requests_of_one_connection_are_answered_side_by_side() {
    let upstream = Upstream::start(|seen| vec![Step::Hold, Step::Send(ok(&seen.target))]).await;
    let proxy = Proxy::before(&upstream, "");
    let sender = connect(&proxy).await;
    let mut answers = JoinSet::new();
    for number in 0..20 {
        let (sender, path) = (sender.clone(), format!("//a%2fb;c?x=/?&&{number}"));
        answers.spawn(async move { (answer(sender, get(&path)).await, path) });
    }
    upstream.until_requests(20).await;
    assert_eq!(
        proxy.metrics().await.value("pacegate_client_connections"),
        1.0
    );
    upstream.release(20);
    for (response, path) in answers.join_all().await {
        assert_eq!(response.status(), 200);
        assert_eq!(response.body(), path.as_bytes());
        assert!(response.headers().contains_key("server-timing"));
    }
    let authority = upstream.authority();
    for seen in upstream.requests() {
        assert_eq!(seen.fields.get("host"), Some(authority.as_str()));
    }
}

/// RFC 9113, section 8.1.
#[tokio::test]
async fn a_body_arrives_whole() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let body: Vec<u8> = (0..1 << 20).map(|at: usize| (at * 31) as u8).collect();
    let mut request = get("/");
    *request.method_mut() = http::Method::POST;
    *request.body_mut() = Full::from(body.clone());
    assert_eq!(answer(connect(&proxy).await, request).await.status(), 200);
    let seen = upstream.only_request();
    assert!(seen.whole && seen.body == body);
}

/// RFC 9113, section 6.4.
#[tokio::test]
async fn a_stream_that_is_reset_while_it_waits_gives_its_place_back() {
    let upstream = Upstream::holding().await;
    let settings = "max_in_flight = 1\nqueue = { max_requests = 1, when_full = \"reject\" }";
    let proxy = Proxy::before(&upstream, settings);
    let sender = connect(&proxy).await;
    let first = tokio::spawn(answer(sender.clone(), get("/first")));
    upstream.until_requests(1).await;
    let second = tokio::spawn(answer(sender.clone(), get("/second")));
    proxy.until_waiting(1).await;

    second.abort();
    proxy.until_first_end("api", "abandoned").await;
    let third = tokio::spawn(answer(sender, get("/third")));
    proxy.until_waiting(1).await;
    upstream.release(2);
    assert_eq!(first.await.unwrap().status(), 200);
    assert_eq!(third.await.unwrap().status(), 200);
    assert_eq!(upstream.targets(), ["/first", "/third"]);
}

/// RFC 9113, section 8.1: an answer before the request is whole.
#[tokio::test]
async fn a_refusal_leaves_the_connection_to_other_requests() {
    let upstream = Upstream::answering(ok("ok")).await;
    let settings = "match = { host = \"caller\", prefix = \"/api\" }\nmax_body = \"1KiB\"";
    let proxy = Proxy::before(&upstream, settings);
    let sender = connect(&proxy).await;
    let response = answer(sender.clone(), get("/none")).await;
    assert_eq!(response.status(), 404);
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    assert!(response.headers().contains_key("proxy-status"));
    let mut request = get("/api");
    *request.method_mut() = http::Method::POST;
    *request.body_mut() = Full::from(vec![0; 1025]);
    assert_eq!(answer(sender.clone(), request).await.status(), 413);
    assert_eq!(answer(sender, get("/api")).await.status(), 200);
}

/// RFC 9113, section 8.2.3: callers may split `Cookie`; for HTTP/1.1 it is put
/// together again.
#[tokio::test]
async fn a_cookie_in_pieces_arrives_as_one() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let mut request = get("/");
    for crumb in ["a=1", "b=2", "c=3"] {
        request
            .headers_mut()
            .append("cookie", crumb.parse().unwrap());
    }
    assert_eq!(answer(connect(&proxy).await, request).await.status(), 200);
    assert_eq!(
        upstream.only_request().fields.all("cookie"),
        ["a=1; b=2; c=3"]
    );
}

/// RFC 9113, section 6.8.
#[tokio::test]
async fn a_stop_lets_the_streams_end_that_were_there() {
    let upstream = Upstream::holding().await;
    let proxy = Proxy::before(&upstream, "max_in_flight = 1");
    let sender = connect(&proxy).await;
    let first = tokio::spawn(answer(sender.clone(), get("/first")));
    upstream.until_requests(1).await;
    let second = tokio::spawn(answer(sender, get("/second")));
    proxy.until_waiting(1).await;
    proxy.tell_to_stop().await;
    proxy.until_draining().await;
    upstream.release(2);
    assert_eq!(first.await.unwrap().status(), 200);
    assert_eq!(second.await.unwrap().status(), 200);
    let stopped = proxy.stopped().await;
    assert_eq!((stopped.finished, stopped.cut), (2, 0));
}

/// Speaks HTTP/2 in bytes: the preface, our settings, and what `frames` say.
async fn raw(proxy: &Proxy, frames: &[u8]) -> TcpStream {
    use tokio::io::AsyncWriteExt;
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend_from_slice(frames);
    // It may be closed before all of it is taken, which is what some tests want.
    let _ = soon("bytes to be taken", stream.write_all(&bytes)).await;
    stream
}

/// RFC 9113, section 4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A field that is in no table (RFC 7541, section 6.2.2), up to 126 bytes a part.
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0, name.len() as u8];
    field.extend_from_slice(name.as_bytes());
    field.push(value.len() as u8);
    field.extend_from_slice(value.as_bytes());
    field
}

fn headers(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    let block: Vec<u8> = fields
        .iter()
        .flat_map(|(name, value)| field(name, value))
        .collect();
    // END_STREAM and END_HEADERS.
    frame(1, 5, stream, &block)
}

const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "caller"),
];

/// Waits for the head of a response, a reset or the end of the connection.
async fn until_answered(stream: &mut TcpStream) {
    while let Some(kind) = next_frame(stream).await
        && !matches!(kind, 1 | 3 | 7)
    {}
}

/// The kind of the next frame, `None` at the end of the connection.
async fn next_frame(stream: &mut TcpStream) -> Option<u8> {
    use tokio::io::AsyncReadExt;
    let mut head = [0; 9];
    soon("a frame", stream.read_exact(&mut head)).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some(head[3])
}

/// RFC 9113, sections 8.1.1, 8.2.2 and 8.3.1: answered 400 or reset, and never sent
/// on.
#[tokio::test]
async fn malformed_and_ambiguous_requests_reach_no_upstream() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let plus = |extra: &[(&'static str, &'static str)]| [&GET[..], extra].concat();
    let cases = [
        plus(&[("host", "evil")]),
        plus(&[("host", "caller"), ("host", "caller")]),
        plus(&[("connection", "close")]),
        plus(&[("transfer-encoding", "chunked")]),
        plus(&[("keep-alive", "1")]),
        plus(&[("upgrade", "websocket")]),
        plus(&[("te", "gzip")]),
        plus(&[("X-Upper", "1")]),
        plus(&[("x-a", "1\r\nx-b: 2")]),
        plus(&[("x a", "1")]),
        plus(&[("content-length", "5")]),
        plus(&[("content-length", "0"), ("content-length", "0")]),
        plus(&[(":path", "/again")]),
        plus(&[("expect", "tea")]),
        GET[..3].to_vec(),
        [&GET[..2], &GET[3..]].concat(),
        [&GET[..3], &[(":authority", "user@caller")][..]].concat(),
        [&GET[..2], &[(":path", "relative")], &GET[3..]].concat(),
        [&GET[..2], &[(":path", "/\u{e9}")], &GET[3..]].concat(),
        vec![(":method", "CONNECT"), (":authority", "caller:443")],
        [
            &[(":method", "CONNECT"), (":protocol", "websocket")],
            &GET[1..],
        ]
        .concat(),
    ];
    for fields in &cases {
        let mut stream = raw(&proxy, &headers(1, fields)).await;
        soon("an answer", until_answered(&mut stream)).await;
    }
    assert_eq!(upstream.targets(), Vec::<String>::new());
}

/// RFC 9113, section 10.5.
/// Requests that are taken back at once cost neither memory nor other callers.
#[tokio::test]
async fn requests_that_are_reset_at_once_do_not_slow_others() {
    let upstream = Upstream::holding().await;
    let proxy = Proxy::before(&upstream, "max_in_flight = 1");
    let busy = tokio::spawn(answer(connect(&proxy).await, get("/busy")));
    upstream.until_requests(1).await;
    let resets: Vec<u8> = (0..10_000)
        .flat_map(|number| {
            let stream = 2 * number + 1;
            [
                headers(stream, &GET),
                frame(3, 0, stream, &8u32.to_be_bytes()),
            ]
            .concat()
        })
        .collect();
    let _hostile = raw(&proxy, &resets).await;
    upstream.release(2);
    assert_eq!(busy.await.unwrap().status(), 200);
    assert_eq!(answer(connect(&proxy).await, get("/")).await.status(), 200);
    proxy
        .until("nobody is left", |metrics| metrics.waiting("api") == 0.0)
        .await;
}

/// RFC 9113, section 10.5.1.
/// CONTINUATION without end, and a list of fields beyond the bound.
#[tokio::test]
async fn an_endless_head_is_cut_off() {
    use tokio::io::AsyncReadExt;
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let block: Vec<u8> = (0..100)
        .flat_map(|_| field("x-a", &"x".repeat(100)))
        .collect();
    let mut frames = frame(1, 1, 1, &block);
    for _ in 0..1000 {
        frames.extend(frame(9, 0, 1, &block));
    }
    let mut stream = raw(&proxy, &frames).await;
    let mut rest = Vec::new();
    // Closed or reset, whichever comes first.
    let _ = soon("the end", stream.read_to_end(&mut rest)).await;
    proxy.until_connections(0).await;
    assert_eq!(upstream.log().opened, 0);
}

/// RFC 9113, section 5.2.1: the caller's window for the stream stays closed, while
/// its connection is well.
#[tokio::test]
async fn an_answer_that_its_caller_does_not_read_gives_back_what_it_holds() {
    let upstream = Upstream::answering(ok(&"x".repeat(4 << 20))).await;
    let settings = "max_in_flight = 1\n[client]\nstall_timeout = \"200ms\"\n";
    let proxy = Proxy::before(&upstream, settings);
    let mut unread = raw(&proxy, &headers(1, &GET)).await;
    until_answered(&mut unread).await;
    assert_eq!(proxy.get("/").await.status, 200);
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.ended("api", "aborted"), 1.0);
    assert_eq!(metrics.in_flight("api"), 0.0);
    upstream
        .until("the end of its connection", |log| log.ended == 1)
        .await;
}

/// RFC 9113, section 8.1.
/// What still comes of uploads that were refused: the library counts it, and closes a
/// connection on which there was too much.
#[tokio::test]
async fn callers_whose_uploads_are_refused_keep_their_connection() {
    use tokio::io::AsyncWriteExt;
    let upstream = Upstream::answering(ok("")).await;
    let proxy = Proxy::before(&upstream, "max_body = \"1KiB\"");
    let mut caller = raw(&proxy, &[]).await;
    let (mut post, part) = (GET.to_vec(), [b'a'; 4096]);
    post[0] = (":method", "POST");
    post.push(("content-length", "8192"));
    for round in 0..8 {
        let mut uploads = Vec::new();
        let streams = || (1 + 200 * round..).step_by(2).take(100);
        // All heads first: they are refused before the bodies come.
        for stream in streams() {
            let mut head = headers(stream, &post);
            head[4] = 4;
            uploads.extend(head);
        }
        caller.write_all(&uploads).await.unwrap();
        let mut answered = 0;
        while answered < 100 {
            match next_frame(&mut caller).await {
                Some(1) => answered += 1,
                Some(7) | None => panic!("closed in round {round}"),
                Some(_) => {}
            }
        }
        let bodies = streams().flat_map(|stream| {
            let (more, last) = (frame(0, 0, stream, &part), frame(0, 1, stream, &part));
            [more, last].concat()
        });
        caller.write_all(&bodies.collect::<Vec<_>>()).await.unwrap();
    }
    assert_eq!(proxy.metrics().await.ended("api", "too_large"), 800.0);
    caller.write_all(&headers(1601, &GET)).await.unwrap();
    let answered = |metrics: &Metrics| metrics.ended("api", "completed") == 1.0;
    proxy.until("it is answered", answered).await;
}

/// RFC 9113, section 3.4: the preface is the first that a caller sends.
#[tokio::test]
async fn a_connection_of_http_1_does_not_become_one_of_http_2() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = proxy.send("GET / HTTP/1.1\r\nHost: caller\r\n\r\n").await;
    assert_eq!(caller.response().await.status, 200);
    caller.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(caller.response().await.status, 505);
}
