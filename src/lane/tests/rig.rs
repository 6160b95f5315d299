//! A lane between callers and an upstream, all in memory and in virtual time.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::super::{Lane, Shared};
use crate::config::Config;
use crate::metrics::{Cells, Snapshot};
use crate::outcome::Outcome;
use crate::pacing::alarm::Alarm;
use crate::proxy::Proxy;
use crate::upstream::{Dialer, fake};

/// What the upstream saw: the path, and when, since the rig's start.
pub(super) type Seen = Arc<Mutex<Vec<(String, Duration)>>>;

/// A running lane.
pub(super) struct Rig {
    pub(super) shared: Arc<Shared>,
    pub(super) lane: Lane,
    pub(super) start: Instant,
    pub(super) seen: Seen,
    pub(super) cut: watch::Sender<bool>,
    proxy: Arc<Proxy>,
}

/// How the upstream behaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Upstream {
    /// From a request to its answer.
    pub(super) answer: Duration,
    /// For a connection to open.
    pub(super) handshake: Duration,
    /// What it does with the first requests, in order of arrival; it answers
    /// the others.
    pub(super) script: &'static [Act],
}

/// What the upstream does with a request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
    /// 200.
    Answer,
    /// 429, with these seconds in `Retry-After` if any.
    Refuse(Option<u32>),
    /// Close the connection without a word.
    Break,
}

impl Rig {
    /// `settings` are the keys of the upstream's table.
    pub(super) fn new(settings: &str, upstream: Upstream) -> Self {
        let (connections, accepted) = mpsc::channel(16);
        let rig = Self::before(settings, upstream.handshake, connections);
        let (start, seen) = (rig.start, Arc::clone(&rig.seen));
        tokio::spawn(serve(accepted, upstream, start, seen));
        rig
    }

    /// The same where the test takes the `connections` itself.
    pub(super) fn before(
        settings: &str,
        handshake: Duration,
        connections: mpsc::Sender<tokio::io::DuplexStream>,
    ) -> Self {
        let text =
            format!("listen = \"127.0.0.1:1\"\n[upstream.a]\nurl = \"http://a\"\n{settings}");
        let config = Config::parse("test", &text).unwrap();
        let settings = config.upstreams[0].clone();
        let fake = fake::Upstream {
            connections,
            handshake,
        };
        let dialer = Dialer::new(&settings).unwrap().fake(fake);
        let (cut, cutting) = watch::channel(false);
        let shared = Arc::new(Shared::new(
            settings,
            &config.client,
            dialer,
            1,
            cutting,
            [1, 2],
        ));
        let lane = Lane::new(&shared, 0, Alarm::Tokio);
        Self {
            proxy: Arc::new(Proxy::new(
                vec![lane.clone()],
                Arc::new(Cells::default()),
                false,
                100,
            )),
            shared,
            lane,
            start: Instant::now(),
            seen: Seen::default(),
            cut,
        }
    }

    /// A caller that sends one request for `path` now; its status and the time
    /// of its answer since the rig's start.
    pub(super) fn send(&self, path: &str) -> JoinHandle<(StatusCode, Duration)> {
        self.send_body(path, Bytes::new())
    }

    pub(super) fn send_body(&self, path: &str, body: Bytes) -> JoinHandle<(StatusCode, Duration)> {
        self.send_as(Method::POST, path, body)
    }

    pub(super) fn send_as(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> JoinHandle<(StatusCode, Duration)> {
        let ours = self.connect();
        let (path, start) = (path.to_owned(), self.start);
        tokio::spawn(async move {
            let io = TokioIo::new(ours);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            let exchange = async {
                let request = Request::builder()
                    .method(method)
                    .uri(path)
                    .header("host", "a")
                    .body(Full::new(body))
                    .unwrap();
                let response = sender.send_request(request).await.unwrap();
                let status = response.status();
                response.into_body().collect().await.unwrap();
                (status, start.elapsed())
            };
            let mut exchange = pin!(exchange);
            // Polled here, so that aborting this task hangs up.
            tokio::select! {
                done = &mut exchange => done,
                _ = connection => exchange.await,
            }
        })
    }

    /// A caller's connection.
    pub(super) fn connect(&self) -> tokio::io::DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let proxy = Arc::clone(&self.proxy);
        let service = service_fn(move |request: Request<Incoming>| {
            let proxy = Arc::clone(&proxy);
            async move { Ok::<_, Infallible>(proxy.handle(request, None, None).await) }
        });
        let server = hyper::server::conn::http1::Builder::new();
        tokio::spawn(server.serve_connection(TokioIo::new(theirs), service));
        ours
    }

    /// Lets everything happen that can happen without time passing.
    pub(super) async fn settle(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.shared.snapshot()
    }

    pub(super) fn ended(&self, outcome: Outcome) -> u64 {
        self.snapshot().ended(outcome)
    }

    /// The times at which requests arrived at the upstream, in ms.
    pub(super) fn arrivals(&self) -> Vec<u64> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|(_, at)| at.as_millis() as u64).collect()
    }

    /// The paths in the order in which the upstream saw them.
    pub(super) fn paths(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|(path, _)| path.clone()).collect()
    }
}

/// Does as `upstream` says, and writes down what it sees.
pub(super) async fn serve(
    mut accepted: mpsc::Receiver<tokio::io::DuplexStream>,
    upstream: Upstream,
    start: Instant,
    seen: Seen,
) {
    while let Some(stream) = accepted.recv().await {
        let seen = Arc::clone(&seen);
        let service = service_fn(move |request: Request<Incoming>| {
            let seen = Arc::clone(&seen);
            async move {
                let path = request.uri().path().to_owned();
                let nth = {
                    let mut seen = seen.lock().unwrap();
                    seen.push((path, start.elapsed()));
                    seen.len() - 1
                };
                request
                    .into_body()
                    .collect()
                    .await
                    .map_err(io::Error::other)?;
                sleep(upstream.answer).await;
                let response = Response::builder();
                let response = match upstream.script.get(nth).unwrap_or(&Act::Answer) {
                    Act::Answer => response,
                    Act::Refuse(None) => response.status(429),
                    Act::Refuse(Some(wait)) => response.status(429).header("retry-after", *wait),
                    Act::Break => return Err(io::ErrorKind::ConnectionReset.into()),
                };
                let body = Full::new(Bytes::from_static(b"ok"));
                response.body(body).map_err(io::Error::other)
            }
        });
        let server = hyper::server::conn::http1::Builder::new();
        tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
    }
}
