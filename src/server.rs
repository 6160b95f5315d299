//! The callers' side: accepts connections and serves HTTP/1.1 and HTTP/2
//! without TLS on them, one task per connection.
//!
//! Each core runs its own accept loops. A connection holds one of
//! `max_connections` permits as long as it lives; when there is none, each loop
//! holds its next connection back, and the others wait in the kernel's backlog.
//! On a stop the loops first take what the kernel has already accepted, then
//! end; each connection finishes the request it is on and closes.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http::Request;
use arc_swap::ArcSwap;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time;

use crate::config;
use crate::listen::Listener;
use crate::proxy::{AnswerBody, Proxy};
use sniff::Sniffed;

mod sniff;

/// The pause after an error of `accept`; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// hyper's own bound on the fields of a head.
const HYPER_MAX_HEADERS: usize = 100;

/// Most requests at once on one HTTP/2 connection of a caller.
const MAX_STREAMS: u32 = 250;

/// Between two pings on a caller's HTTP/2 connection.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// The callers' connections, all cores together.
#[derive(Debug)]
pub(crate) struct Connections {
    permits: Arc<Semaphore>,
    count: watch::Sender<Count>,
}

#[derive(Debug, Default)]
struct Count {
    /// Connections that are open.
    open: u64,
    /// Accept loops, which may open more.
    loops: u64,
}

/// Counts a connection or an accept loop as long as it lives.
struct Counted {
    connections: Arc<Connections>,
    field: fn(&mut Count) -> &mut u64,
}

impl Connections {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))),
            count: watch::Sender::default(),
        }
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> u64 {
        self.count.borrow().open
    }

    /// Returns when none is open and no more will be.
    pub(crate) async fn all_closed(&self) {
        let mut count = self.count.subscribe();
        // The sender is in `self`.
        let _ = count.wait_for(|count| count.open + count.loops == 0).await;
    }

    async fn permit(&self) -> OwnedSemaphorePermit {
        let permit = Arc::clone(&self.permits).acquire_owned();
        permit.await.expect("the permits are never closed")
    }
}

impl Counted {
    fn new(connections: &Arc<Connections>, field: fn(&mut Count) -> &mut u64) -> Self {
        connections.count.send_modify(|count| *field(count) += 1);
        Self {
            connections: Arc::clone(connections),
            field,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let field = self.field;
        self.connections
            .count
            .send_modify(|count| *field(count) -= 1);
    }
}

/// One core's server.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// Replaced by a reload; a request keeps the one it began with.
    pub(crate) proxy: Arc<ArcSwap<Proxy>>,
    pub(crate) settings: Arc<config::Client>,
    pub(crate) connections: Arc<Connections>,
    /// Becomes true when the daemon begins to stop.
    pub(crate) draining: watch::Receiver<bool>,
}

impl Server {
    /// Accepts on `listener` until the daemon begins to stop.
    ///
    /// # Errors
    ///
    /// The listener cannot be registered with this runtime.
    pub(crate) async fn run(self, listener: Listener) -> io::Result<()> {
        match listener {
            Listener::Tcp(listener) => {
                let listener = TcpListener::from_std(listener)?;
                self.accept(|cx| {
                    let (stream, caller) = ready!(listener.poll_accept(cx))?;
                    stream.set_nodelay(true)?;
                    Poll::Ready(Ok((stream, Some(caller.ip().to_canonical()))))
                })
                .await;
            }
            Listener::Unix(listener) => {
                let listener = UnixListener::from_std(listener)?;
                self.accept(|cx| Poll::Ready(Ok((ready!(listener.poll_accept(cx))?.0, None))))
                    .await;
            }
        }
        Ok(())
    }

    async fn accept<T>(
        &self,
        accept: impl Fn(&mut Context<'_>) -> Poll<io::Result<(T, Option<IpAddr>)>>,
    ) where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let _counted = Counted::new(&self.connections, |count| &mut count.loops);
        let mut draining = self.draining.clone();
        let mut pause = FIRST_PAUSE;
        loop {
            let accepted = tokio::select! {
                // First: what the kernel has already accepted is not thrown away.
                biased;
                accepted = poll_fn(&accept) => accepted,
                () = stopping(&mut draining) => return,
            };
            match accepted {
                Ok((stream, caller)) => {
                    pause = FIRST_PAUSE;
                    // Not before there is a connection: a loop without one would
                    // keep from another core's callers what it does not use.
                    let permit = tokio::select! {
                        biased;
                        permit = self.connections.permit() => permit,
                        _ = draining.wait_for(|draining| *draining) => return,
                    };
                    let counted = Counted::new(&self.connections, |count| &mut count.open);
                    tokio::spawn(self.clone().serve(stream, caller, (counted, permit)));
                }
                Err(error) if is_of_the_caller(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Serves the connection of `caller` until it closes.
    async fn serve<T>(
        self,
        stream: T,
        caller: Option<IpAddr>,
        _counted: (Counted, OwnedSemaphorePermit),
    ) where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let bound = self.settings.header_timeout;
        let stall = self.settings.stall_timeout;
        let mut draining = self.draining.clone();
        let sniffed = tokio::select! {
            biased;
            sniffed = time::timeout(bound, sniff::sniff(stream, stall)) => sniffed,
            // It has sent nothing yet.
            () = stopping(&mut draining) => return,
        };
        let Ok(Ok(sniffed)) = sniffed else { return };
        let proxy = Arc::clone(&self.proxy);
        let service = service_fn(move |request: Request<Incoming>| {
            let proxy = proxy.load_full();
            async move { Ok::<_, Infallible>(proxy.handle(request, caller).await) }
        });
        let result = match sniffed {
            Sniffed::Http1(stream) => self.serve_http1(stream, service).await,
            // Boxed, so that the others do not carry its room about.
            Sniffed::Http2(stream) => Box::pin(self.serve_http2(stream, service)).await,
        };
        if let Err(error) = result {
            tracing::debug!(%error, "a caller's connection ended");
        }
    }

    async fn serve_http1<T, S>(&self, stream: T, service: S) -> hyper::Result<()>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        S: Service<Request<Incoming>, Response = ::http::Response<AnswerBody>, Error = Infallible>,
        S::Future: Send + 'static,
    {
        let settings = &self.settings;
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(settings.header_timeout)
            .max_buf_size(settings.max_header_bytes);
        if settings.max_headers != HYPER_MAX_HEADERS {
            // Up to hyper's own bound the fields are parsed on the stack.
            builder.max_headers(settings.max_headers);
        }
        let connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let shut = http1::Connection::graceful_shutdown;
        until_drained(&self.draining, connection, shut).await
    }

    async fn serve_http2<T, S>(&self, stream: T, service: S) -> hyper::Result<()>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        S: Service<Request<Incoming>, Response = ::http::Response<AnswerBody>, Error = Infallible>,
        S::Future: Send + 'static,
    {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(self.settings.max_header_bytes).unwrap_or(u32::MAX))
            .keep_alive_interval(PING_INTERVAL);
        let connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let shut = http2::Connection::graceful_shutdown;
        until_drained(&self.draining, connection, shut).await
    }
}

/// Drives `connection`, and once the daemon begins to stop, shuts it down after
/// the request it is on.
///
/// The signal is polled once, which registers this task to be woken; after that
/// a look at the flag is enough, and costs a busy connection next to nothing.
async fn until_drained<C>(
    draining: &watch::Receiver<bool>,
    mut connection: Pin<&mut C>,
    shut: impl Fn(Pin<&mut C>),
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut signal = draining.clone();
    let mut signal = pin!(signal.wait_for(|draining| *draining));
    let (mut registered, mut told) = (false, false);
    poll_fn(move |cx| {
        if !registered {
            registered = true;
            // What it says is read from the flag below.
            let _: Poll<_> = signal.as_mut().poll(cx);
            if *draining.borrow() {
                // Accepted just before: a request that has come with it is
                // taken up first, or it would be thrown away.
                let polled = connection.as_mut().poll(cx);
                if polled.is_ready() {
                    return polled;
                }
            }
        }
        if !told && *draining.borrow() {
            told = true;
            shut(connection.as_mut());
        }
        connection.as_mut().poll(cx)
    })
    .await
}

/// Returns when the daemon has begun to stop and the runtime has looked once
/// more: what callers did before then shows first.
async fn stopping(draining: &mut watch::Receiver<bool>) {
    drop(draining.wait_for(|draining| *draining).await);
    tokio::task::yield_now().await;
}

/// Errors of `accept` that concern the one connection only.
fn is_of_the_caller(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, InvalidInput};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | InvalidInput
    )
}
