//! Callers that speak HTTP/2, with prior knowledge and without TLS.

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{Proxy, Step, Upstream, ok, soon};

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
