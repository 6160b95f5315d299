//! An upstream that speaks HTTP/1.1 and HTTP/2 without TLS on one port, and
//! answers by path:
//!
//! - `/echo`: the request's body, with the trailer `x-sum: theirs`
//! - `/empty`: nothing, with status 204
//! - `/break`: half a body, and when the test says so, that there is no more
//! - `/upgrade`: changes to the protocol asked for and sends back what comes

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{copy, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// What is half of an answer here.
#[derive(Debug)]
pub(crate) struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken off as told")
    }
}

impl std::error::Error for Broken {}

/// Half a body; it breaks when `broken` is ready.
struct Half {
    half: Option<Bytes>,
    broken: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
}

impl Body for Half {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(half) = self.half.take() {
            return Poll::Ready(Some(Ok(Frame::data(half))));
        }
        ready!(self.broken.as_mut().poll(cx));
        Poll::Ready(Some(Err(Broken)))
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) version: Version,
    pub(crate) uri: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

type Arrivals = Arc<Mutex<Vec<Arrival>>>;

#[derive(Debug, Clone)]
struct Host {
    arrivals: Arrivals,
    breaks: Arc<Semaphore>,
}

/// The upstream's handle.
#[derive(Debug)]
pub(crate) struct Modern {
    pub(crate) address: SocketAddr,
    host: Host,
}

impl Modern {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let host = Host {
            arrivals: Arrivals::default(),
            breaks: Arc::new(Semaphore::new(0)),
        };
        let hosts = host.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                tokio::spawn(serve(stream, hosts.clone()));
            }
        });
        Self { address, host }
    }

    /// Breaks one answer off.
    pub(crate) fn break_off(&self) {
        self.host.breaks.add_permits(1);
    }

    /// The last request that came.
    pub(crate) fn last(&self) -> Arrival {
        self.host.arrivals.lock().unwrap().last().unwrap().clone()
    }
}

async fn serve(stream: TcpStream, host: Host) {
    let mut first = [0; 3];
    // The preface begins so, and no method does.
    let is_http2 = stream.peek(&mut first).await.is_ok() && &first == b"PRI";
    let service = service_fn(move |request| {
        let host = host.clone();
        async move { Ok::<_, Infallible>(answer(request, host).await) }
    });
    let io = TokioIo::new(stream);
    // An answer that breaks off ends the connection with an error.
    if is_http2 {
        let builder = http2::Builder::new(TokioExecutor::new());
        let _ = builder.serve_connection(io, service).await;
    } else {
        let connection = http1::Builder::new().serve_connection(io, service);
        let _ = connection.with_upgrades().await;
    }
}

async fn answer(mut request: Request<Incoming>, host: Host) -> Response<BoxBody<Bytes, Broken>> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned();
    let body = body.to_bytes();
    host.arrivals.lock().unwrap().push(Arrival {
        version: head.version,
        uri: head.uri.to_string(),
        headers: head.headers.clone(),
        body: body.clone(),
        trailers,
    });
    let none = || Full::default().map_err(|never| match never {}).boxed();
    match head.uri.path() {
        "/empty" => {
            let mut response = Response::new(none());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        "/break" => {
            let broken = async move { host.breaks.acquire().await.unwrap().forget() };
            let half = Half {
                half: Some(Bytes::from("half")),
                broken: Box::pin(broken),
            };
            Response::new(half.boxed())
        }
        "/upgrade" => {
            tokio::spawn(async move {
                let (mut from, mut to) = split(TokioIo::new(upgrade.await.unwrap()));
                copy(&mut from, &mut to).await.unwrap();
            });
            let mut response = Response::new(none());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let protocol = head.headers[UPGRADE].clone();
            response.headers_mut().insert(UPGRADE, protocol);
            let upgrade = HeaderValue::from_static("upgrade");
            response.headers_mut().insert(CONNECTION, upgrade);
            response
        }
        _ => {
            let mut sum = HeaderMap::new();
            sum.insert("x-sum", HeaderValue::from_static("theirs"));
            // A mapped body does not know its length, so it can have trailers.
            let body = Full::new(body).map_frame(|frame| frame);
            let body = body.with_trailers(async { Some(Ok(sum)) });
            let mut response = Response::new(body.map_err(|never| match never {}).boxed());
            let names = HeaderValue::from_static("x-sum");
            response.headers_mut().insert("trailer", names);
            response
        }
    }
}
