//! The connections to one upstream, and one exchange over one of them.
//!
//! A [`Dialer`] opens connections (`connect`, `tls`), a [`Pool`] keeps the ready
//! ones of one core, and a [`Connection`] sends one request at a time. No task
//! runs here: opening returns the future that drives the connection, and the
//! lane spawns it. What happens when, and why, is the lane's business.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::http::header::{CONTENT_LENGTH, HOST, HeaderValue, TRAILER, TRANSFER_ENCODING};
use ::http::uri::Authority;
use ::http::{Method, Request, Response, Uri, Version};
use hyper::body::{Body, Incoming};
use hyper::client::conn::{http1, http2};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::http::body::Upload;
use crate::http::interim::Asker;
use crate::http::response;
#[cfg(test)]
pub(crate) use connect::fake;
pub(crate) use connect::{ConnectError, Dialer, Driver};
pub(crate) use failure::SendError;
pub(crate) use pool::Pool;
use wire::{Mark, Traffic};

mod connect;
mod failure;
mod interim;
mod pool;
mod tls;
mod wire;

/// Most calls at once on one HTTP/2 connection, where the upstream allows more.
const MAX_STREAMS: usize = 100;

/// What comes later than this on a new connection may meet an upstream that has
/// waited long enough for its first request.
const FIRST_REQUEST: Duration = Duration::from_millis(100);

/// A connection on which one request can be sent. Dropping it closes an
/// HTTP/1.1 connection; an HTTP/2 one stays while others use it.
#[derive(Debug)]
pub(crate) struct Connection {
    protocol: Protocol,
    opened: Instant,
    /// When its last call ended; `None` while it has carried none.
    used: Option<Instant>,
}

#[derive(Debug)]
enum Protocol {
    /// With the bytes that went over it, and what ends its driver when dropped.
    Http1(
        http1::SendRequest<Upload>,
        Arc<Traffic>,
        oneshot::Sender<Leave>,
    ),
    Http2(http2::SendRequest<Upload>, Streams),
}

/// How the driver of an HTTP/1.1 connection ends that nobody needs any more;
/// without a word, when what is to be written is written, or soon.
#[derive(Debug)]
enum Leave {
    /// When the exchange on it has ended.
    LetGo,
    /// At once.
    Cut,
}

/// One of the calls on an HTTP/2 connection.
#[derive(Debug)]
struct Streams(Arc<Load>);

/// The calls on an HTTP/2 connection.
#[derive(Debug)]
struct Load {
    calls: AtomicUsize,
    /// As many as the upstream allows at once (RFC 9113, section 6.5.2), so that
    /// no call waits inside the connection after its turn was taken.
    max: AtomicUsize,
}

impl Load {
    fn is_full(&self) -> bool {
        let max = self.max.load(Ordering::Relaxed).min(MAX_STREAMS);
        self.calls.load(Ordering::Relaxed) >= max
    }
}

impl Streams {
    fn another(load: &Arc<Load>) -> Self {
        load.calls.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    /// Sends `request`, whose target is a path and query; the future waits for
    /// the response head. `origin` is the upstream's scheme and authority; interim
    /// answers of HTTP/1.1 go to `asker`.
    ///
    /// # Errors
    ///
    /// The connection broke, the body could not be read to its end, or the
    /// response cannot be passed on.
    pub(crate) fn send(
        &mut self,
        mut request: Request<Upload>,
        origin: &Origin,
        asker: Option<Asker>,
    ) -> impl Future<Output = Result<Response<Incoming>, Box<SendError>>> + Send + use<> {
        self.used = Some(Instant::now());
        // Not one async fn: its future would hold the request several times over.
        let sent = match &mut self.protocol {
            Protocol::Http1(sender, traffic, _) => {
                origin.address_http1(&mut request);
                let mark = traffic.begin(asker);
                Ok((sender.try_send_request(request), mark))
            }
            Protocol::Http2(sender, _) => {
                origin.address_http2(&mut request);
                Err(Box::pin(sender.try_send_request(request)))
            }
        };
        async move {
            let (answered, mark) = match sent {
                Ok((http1, mark)) => (http1.await, Some(mark)),
                Err(http2) => (http2.await, None),
            };
            let mut response = answered.map_err(|mut failed| {
                let heard = mark.as_ref().is_some_and(Mark::heard);
                let unsaid = mark.as_ref().is_some_and(|mark| !mark.said());
                let unsent = failed.take_message();
                let error = failed.into_error();
                Box::new(SendError::broken(unsent, error, heard, unsaid))
            })?;
            if mark.is_some() {
                let checked = response::check(&mut response);
                checked.map_err(|flaw| Box::new(SendError::refused(flaw)))?;
            }
            Ok(response)
        }
    }

    /// Whether a request can be sent this instant.
    pub(crate) fn is_ready(&self) -> bool {
        match &self.protocol {
            Protocol::Http1(sender, ..) => sender.is_ready(),
            Protocol::Http2(sender, _) => sender.is_ready(),
        }
    }

    /// Waits until a request can be sent; false if the connection has closed.
    pub(crate) async fn ready(&mut self) -> bool {
        match &mut self.protocol {
            Protocol::Http1(sender, ..) => sender.ready().await.is_ok(),
            Protocol::Http2(sender, _) => sender.ready().await.is_ok(),
        }
    }

    /// Whether the upstream has closed it.
    pub(crate) fn is_closed(&self) -> bool {
        match &self.protocol {
            Protocol::Http1(sender, ..) => sender.is_closed(),
            Protocol::Http2(sender, _) => sender.is_closed(),
        }
    }

    /// Whether the upstream may be closing it this instant: it has carried a
    /// request, or has waited for its first. How long ago the last one was does
    /// not matter: on a busy machine what we see as a millisecond was longer for
    /// the upstream. An HTTP/2 upstream may at any time.
    pub(crate) fn may_be_closing(&self) -> bool {
        self.used.is_some() || self.is_shared() || self.opened.elapsed() >= FIRST_REQUEST
    }

    /// Whether further calls can share it.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.protocol, Protocol::Http2(..))
    }

    /// Lets the exchange on it end by itself, after which it closes.
    pub(crate) fn let_go(self) {
        if let Protocol::Http1(_, _, leash) = self.protocol {
            // A driver that has ended needs no word.
            let _ = leash.send(Leave::LetGo);
        }
    }

    /// Closes it at once where it is HTTP/1.1, whatever is being sent.
    pub(crate) fn cut(self) {
        if let Protocol::Http1(_, _, leash) = self.protocol {
            let _ = leash.send(Leave::Cut);
        }
    }

    /// When it last began to be unused.
    fn idle_since(&self) -> Instant {
        self.used.unwrap_or(self.opened)
    }
}

/// Scheme and authority of an upstream, as they go into each request.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    uri: Uri,
    host: HeaderValue,
    /// Whether a request's own `Host` goes before.
    keep_host: bool,
}

impl Origin {
    /// `RFC 9112, section 3.2.1`: a path, and the authority in `Host`.
    fn address_http1(&self, request: &mut Request<Upload>) {
        *request.version_mut() = Version::HTTP_11;
        if !self.keep_host || !request.headers().contains_key(HOST) {
            request.headers_mut().insert(HOST, self.host.clone());
        }
        match request.body().size_hint().exact() {
            Some(0) if expects_length(request.method()) => {
                let none = HeaderValue::from_static("0");
                request.headers_mut().insert(CONTENT_LENGTH, none);
            }
            Some(_) => {}
            None => {
                // Without this hyper sends the body of a GET not at all.
                let coding = HeaderValue::from_static("chunked");
                request.headers_mut().insert(TRANSFER_ENCODING, coding);
                request.headers_mut().remove(CONTENT_LENGTH);
                // Without this it leaves out the trailers.
                if let Some(names) = request.body().trailer_names()
                    && !request.headers().contains_key(TRAILER)
                {
                    request.headers_mut().insert(TRAILER, names);
                }
            }
        }
    }

    /// RFC 9113, section 8.3.1: scheme and authority in pseudo-fields.
    fn address_http2(&self, request: &mut Request<Upload>) {
        *request.version_mut() = Version::HTTP_2;
        let host = request.headers_mut().remove(HOST);
        let mut parts = self.uri.clone().into_parts();
        if let Some(host) = host.filter(|_| self.keep_host) {
            parts.authority = Authority::try_from(host.as_bytes())
                .ok()
                .or(parts.authority);
        }
        parts.path_and_query = request.uri().path_and_query().cloned();
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
}

/// RFC 9110, section 8.6: a length is sent also where there is no content, if
/// the method has a meaning for it. Some servers insist.
fn expects_length(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}
