//! The operator's side:
//!
//! - `/livez`: 200 while the process runs.
//! - `/readyz`: 200 while requests are taken, 503 and why while not.
//! - `/metrics`: every number, for Prometheus.
//! - `/status`: what the lanes do at this instant, for people (`status`).
//!
//! Runs in the daemon's own thread, apart from the callers' cores, and is the
//! last to stop. HTTP/1.1 only. No connection lives long, so that a peer that reads
//! nothing keeps no place for good.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use ::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::time::{self, Instant};

use crate::lane::Roster;
use crate::listen::Listener;
use crate::metrics::{self, Cells, Reloads, Snapshot};
use crate::server::Connections;

mod status;

/// Most connections at once; the next waits in the kernel's backlog.
const MAX_CONNECTIONS: usize = 64;

/// Longest time for a request head and for an idle connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// The age at which a connection closes after the answer under way, if any.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Longest time for the rest of that answer.
const LAST_BYTES: Duration = Duration::from_secs(10);

/// The pause after an error of `accept`.
const PAUSE: Duration = Duration::from_millis(100);

/// What the operator may look at.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) roster: watch::Receiver<Roster>,
    pub(crate) reloads: Arc<Reloads>,
    pub(crate) unrouted: Arc<Cells>,
    pub(crate) connections: Arc<Connections>,
    /// Becomes true when the daemon begins to stop.
    pub(crate) draining: watch::Receiver<bool>,
    /// When the daemon began to serve.
    pub(crate) since: Instant,
}

impl Admin {
    /// Serves on `listener` until dropped.
    ///
    /// # Errors
    ///
    /// The listener cannot be registered with this runtime.
    pub(crate) async fn run(self: Arc<Self>, listener: Listener) -> io::Result<()> {
        match listener {
            Listener::Tcp(listener) => {
                let listener = TcpListener::from_std(listener)?;
                self.accept(|cx| Poll::Ready(Ok(ready!(listener.poll_accept(cx))?.0)))
                    .await;
            }
            Listener::Unix(listener) => {
                let listener = UnixListener::from_std(listener)?;
                self.accept(|cx| Poll::Ready(Ok(ready!(listener.poll_accept(cx))?.0)))
                    .await;
            }
        }
        Ok(())
    }

    async fn accept<T>(self: Arc<Self>, accept: impl Fn(&mut Context<'_>) -> Poll<io::Result<T>>)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                return;
            };
            let Ok(stream) = poll_fn(&accept).await else {
                time::sleep(PAUSE).await;
                continue;
            };
            let admin = Arc::clone(&self);
            tokio::spawn(async move {
                admin.serve(stream).await;
                drop(permit);
            });
        }
    }

    async fn serve<T>(self: Arc<Self>, stream: T)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let service = service_fn(|request: Request<Incoming>| {
            let response = self.answer(&request);
            async move { Ok::<_, Infallible>(response) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let mut served = pin!(served);
        let mut ended = time::timeout(MAX_AGE, served.as_mut()).await;
        if ended.is_err() {
            served.as_mut().graceful_shutdown();
            ended = time::timeout(LAST_BYTES, served.as_mut()).await;
        }
        if let Ok(Err(error)) = ended {
            tracing::debug!(%error, "an admin connection ended");
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            let allow = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(ALLOW, allow);
            return response;
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "alive\n"),
            "/readyz" if *self.draining.borrow() => {
                text(StatusCode::SERVICE_UNAVAILABLE, "not ready: draining\n")
            }
            "/readyz" => text(StatusCode::OK, "ready\n"),
            "/metrics" => {
                let mut response = text(StatusCode::OK, self.metrics());
                let kind = HeaderValue::from_static(metrics::CONTENT_TYPE);
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            "/status" => {
                let mut response = text(StatusCode::OK, self.status());
                let kind = HeaderValue::from_static("application/json");
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "try /livez, /readyz, /metrics or /status\n",
            ),
        }
    }

    fn lanes(&self) -> Vec<Snapshot> {
        let lanes = self.roster.borrow().all();
        lanes.iter().map(|lane| lane.snapshot()).collect()
    }

    fn status(&self) -> String {
        let draining = *self.draining.borrow();
        let (open, uptime) = (self.connections.open(), self.since.elapsed());
        status::render(&self.lanes(), open, uptime, draining)
    }

    fn metrics(&self) -> String {
        let mut lanes = self.lanes();
        lanes.push(Snapshot::new("", std::iter::once(self.unrouted.as_ref())));
        metrics::render(lanes, self.connections.open(), &self.reloads)
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// It held one of the few places for good.
    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_nothing_is_let_go() {
        let (_reload, roster) = watch::channel(Roster::default());
        let (_stop, draining) = watch::channel(false);
        let admin = Arc::new(Admin {
            roster,
            reloads: Arc::default(),
            unrouted: Arc::default(),
            connections: Arc::new(Connections::new(1)),
            draining,
            since: Instant::now(),
        });
        // It holds the request, and less than the answer.
        let (mut peer, stream) = tokio::io::duplex(64);
        let request = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";
        peer.write_all(request).await.unwrap();
        let served = time::timeout(MAX_AGE * 2, admin.serve(stream)).await;
        served.unwrap();
    }
}
