//! The callers' side: accepts connections and serves HTTP/1.1 and HTTP/2
//! without TLS on them, one task per connection.
//!
//! Each core runs its own accept loops; each connection has a place
//! (`connections`). What HTTP/1.1 callers send is read strictly (`framing`): as long
//! as it is plain here (`plain`), and from the first request that is anything else
//! on its way to hyper (`stream`); `activity` is what a connection's parts tell
//! each other. On a stop the loops first take what the kernel has already accepted,
//! then end; each connection finishes the request it is on and closes.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http::{Request, Response, StatusCode, Version};
use arc_swap::ArcSwap;
use http_body_util::Either;
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::time;

use crate::config;
use crate::http::interim::Asker;
use crate::http::{LATE_FRAMES, head};
use crate::listen::Listener;
use crate::proxy::{AnswerBody, Proxy};
use activity::{Activity, Answering};
pub(crate) use connections::Connections;
use connections::{Loop, Seat};
use ending::{Ending, Reset};
use stream::Stream;
use unread::{Unread, Watcher};

mod activity;
mod connections;
mod drive;
mod ending;
mod framing;
mod interim;
mod linger;
mod plain;
mod sniff;
mod stream;
mod unread;

/// The pause after an error of `accept`; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// hyper's own bound on the fields of a head.
const HYPER_MAX_HEADERS: usize = 100;

/// Most requests at once on one HTTP/2 connection of a caller.
const MAX_STREAMS: u32 = 250;

/// Beyond the longest head, so that hyper never finds its buffer full of a head
/// that was let pass.
const SPARE_BUFFER: usize = 8 << 10;

/// Most bytes of an HTTP/2 head: as many empty fields as `http::HeaderMap` holds.
const MAX_HEADER_LIST: usize = 768 << 10;

/// Most bytes of one request's body over HTTP/2 that wait unread, those aside that
/// its lane takes in.
const STREAM_WINDOW: u32 = 64 << 10;

/// Most bytes that wait unread on one HTTP/2 connection: more than its streams can
/// hold, so that a request that waits for its turn never keeps the body of another
/// from coming. The library also closes a connection when what small frames lack of
/// 256 bytes adds up to half of it; if each stream is full of frames of 16 bytes, it
/// does not.
const CONNECTION_WINDOW: u32 = 512 << 20;

/// Between two pings on a caller's HTTP/2 connection.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// The body of an answer, by the version of its request.
type Sent = Either<Answering<AnswerBody>, Unread<Answering<AnswerBody>>>;
type Http1<T, S> = http1::UpgradeableConnection<TokioIo<Stream<T>>, S>;
type Http2<T, S> = http2::Connection<TokioIo<Stream<T>>, S, TokioExecutor>;

/// One core's server.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// Replaced by a reload; a request keeps the one it began with.
    pub(crate) proxy: Arc<ArcSwap<Proxy>>,
    pub(crate) settings: Arc<config::Client>,
    /// To be told of each stage of a stop, see [`Connections::wake_all`].
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
                    let (stream, peer) = ready!(listener.poll_accept(cx))?;
                    stream.set_nodelay(true)?;
                    Poll::Ready(Ok((stream, Some(peer.ip().to_canonical()))))
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
        T: AsyncRead + AsyncWrite + Reset + Send + Unpin + 'static,
    {
        let _counted = Loop::new(&self.connections);
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
                Ok((stream, peer)) => {
                    pause = FIRST_PAUSE;
                    // Not before there is a connection: a loop without one would
                    // keep from another core's callers what it does not use.
                    let seat = tokio::select! {
                        biased;
                        seat = self.connections.seat() => seat,
                        _ = draining.wait_for(|draining| *draining) => return,
                    };
                    tokio::spawn(self.clone().serve(stream, peer, seat));
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

    /// Serves one connection until it closes: as long as its requests are plain
    /// by itself, then by hyper.
    #[expect(
        clippy::manual_async_fn,
        reason = "the future of an async fn would hold all of these twice"
    )]
    fn serve<T>(
        self,
        mut stream: T,
        peer: Option<IpAddr>,
        seat: Seat,
    ) -> impl Future<Output = ()> + Send
    where
        T: AsyncRead + AsyncWrite + Reset + Send + Unpin + 'static,
    {
        async move {
            poll_fn(|cx| {
                seat.activity.belongs_to(cx.waker());
                Poll::Ready(())
            })
            .await;
            if let Some(bytes) = plain::serve(&self, &mut stream, &seat).await {
                // In a box, as most connections never come here.
                Box::pin(self.serve_other(stream, bytes, peer, seat)).await;
            }
        }
    }

    /// Serves the rest of a connection of which `bytes` have come.
    async fn serve_other<T>(self, mut stream: T, bytes: Vec<u8>, peer: Option<IpAddr>, seat: Seat)
    where
        T: AsyncRead + AsyncWrite + Reset + Send + Unpin + 'static,
    {
        let settings = &*self.settings;
        let ending = Arc::<Ending>::default();
        let sniffed = sniff::sniff(&mut stream, bytes, seat.activity.ended() == 0);
        let sniffed = tokio::select! {
            biased;
            sniffed = time::timeout(settings.header_timeout, sniffed) => sniffed,
            // It has sent no request yet.
            () = self.leaving(&seat.activity) => return,
        };
        let Ok(Ok(sniffed)) = sniffed else { return };
        let activity = &seat.activity;
        let stream = Stream::new(stream, sniffed, settings, activity, &ending);
        let service = self.service(&seat, &ending, peer, stream.is_raw());
        let result = match stream.is_raw() {
            false => {
                let shut = http1::UpgradeableConnection::graceful_shutdown;
                self.drive(activity, self.http1(stream, service), shut, None)
                    .await
            }
            true => {
                let shut = http2::Connection::graceful_shutdown;
                let farewell = Some(drive::FAREWELL);
                self.drive(activity, self.http2(stream, service), shut, farewell)
                    .await
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "a caller's connection ended");
            return;
        }
        if let Some(tunnel) = ending.tunnel() {
            // Here, so that the connection counts as open until it closes; and as
            // busy, whatever goes through it.
            activity.stir(activity.ended());
            Box::pin(tunnel.run()).await;
        }
    }

    /// Answers the requests of one connection, those included that its stream has
    /// refused.
    fn service(
        &self,
        seat: &Seat,
        ending: &Arc<Ending>,
        peer: Option<IpAddr>,
        is_http2: bool,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<Sent>,
        Error = Infallible,
        Future: Send + 'static,
    > + use<> {
        let (proxy, activity) = (Arc::clone(&self.proxy), Arc::clone(&seat.activity));
        let connection = seat.number;
        let ending = Arc::clone(ending);
        let watcher = || Arc::new(Watcher::new(&activity, self.settings.stall_timeout));
        let watcher = is_http2.then(watcher);
        service_fn(move |mut request: Request<Incoming>| {
            let proxy = proxy.load_full();
            let (number, underway) = activity.begin();
            if activity.asks_whole_server(number) {
                head::ask_whole_server(request.uri_mut());
            }
            let refusal = activity.refusal(number);
            let (activity, ending) = (Arc::clone(&activity), Arc::clone(&ending));
            let watcher = watcher.clone();
            async move {
                let version = request.version();
                // To others hyper knows no way to send interim answers, or they
                // do not know them (RFC 9110, section 15.2).
                let request_number = NonZeroU64::new(number + 1);
                let asker = request_number.filter(|_| version == Version::HTTP_11);
                let asker = asker.map(|request| Asker {
                    connection,
                    request,
                });
                let uploads = version == Version::HTTP_2 && !request.body().is_end_stream();
                let mut response = match refusal {
                    Some(fault) => proxy.refuse_unread(fault),
                    None => proxy.handle(request, peer, asker).await,
                };
                activity.inbox.answer(number);
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    activity.upgrade();
                }
                ending.note(version, &mut response);
                let (is_early, end) = match response.body() {
                    Either::Left(passage) => (passage.is_early(), passage.end()),
                    Either::Right(_) => (true, None),
                };
                if uploads && is_early {
                    activity.refuse_upload();
                }
                Ok(response.map(|body| match (underway.until(body), watcher) {
                    (body, Some(watcher)) => Either::Right(watcher.add(body, end)),
                    (body, None) => {
                        activity.ends(end);
                        Either::Left(body)
                    }
                }))
            }
        })
    }

    /// A connection of HTTP/1.1, ready to be driven. In a box, like the other: as
    /// part of its task's future it would take its room twice over.
    fn http1<T, S>(&self, stream: Stream<T>, service: S) -> Pin<Box<Http1<T, S>>>
    where
        T: AsyncRead + AsyncWrite + Reset + Send + Unpin + 'static,
        S: Service<Request<Incoming>, Response = Response<Sent>, Error = Infallible>,
        S::Future: Send + 'static,
    {
        let settings = &self.settings;
        let mut builder = http1::Builder::new();
        builder
            // The stream has its own, which knows what has come of the head.
            .header_read_timeout(None)
            .preserve_header_case(true)
            .max_buf_size(settings.max_header_bytes + SPARE_BUFFER);
        if settings.max_headers != HYPER_MAX_HEADERS {
            // Up to hyper's own bound the fields are parsed on the stack.
            builder.max_headers(settings.max_headers);
        }
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        Box::pin(connection.with_upgrades())
    }

    /// A connection of HTTP/2.
    fn http2<T, S>(&self, stream: Stream<T>, service: S) -> Pin<Box<Http2<T, S>>>
    where
        T: AsyncRead + AsyncWrite + Reset + Send + Unpin + 'static,
        S: Service<Request<Incoming>, Response = Response<Sent>, Error = Infallible>,
        S::Future: Send + 'static,
    {
        let max_list = self.settings.max_header_bytes.min(MAX_HEADER_LIST);
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_local_error_reset_streams(LATE_FRAMES)
            .max_header_list_size(u32::try_from(max_list).unwrap_or(u32::MAX))
            .keep_alive_interval(PING_INTERVAL);
        Box::pin(builder.serve_connection(TokioIo::new(stream), service))
    }

    /// Whether a connection closes as soon as it is idle.
    fn is_leaving(&self, activity: &Activity) -> bool {
        activity.is_unwanted() || *self.draining.borrow()
    }

    /// Returns when that is so, after one more look at what its caller has sent.
    async fn leaving(&self, activity: &Activity) {
        poll_fn(|_| match self.is_leaving(activity) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
        tokio::task::yield_now().await;
    }
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

#[cfg(test)]
mod tests;
