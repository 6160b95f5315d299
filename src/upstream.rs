//! The connections to one upstream, and one exchange over one of them.
//!
//! A [`Dialer`] opens connections (`connect`, `tls`), a [`Pool`] keeps the ready
//! ones of one core, and a [`Connection`] sends one request at a time. No task
//! runs here: opening returns the future that drives the connection, and the
//! lane spawns it. What happens when, and why, is the lane's business.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::http::header::{HOST, HeaderValue, TRANSFER_ENCODING};
use ::http::uri::Authority;
use ::http::{Request, Response, Uri, Version};
use hyper::body::{Body, Incoming};
use hyper::client::conn::{http1, http2};
use tokio::time::Instant;

use crate::http::body::Upload;
#[cfg(test)]
pub(crate) use connect::fake;
pub(crate) use connect::{ConnectError, Dialer};
pub(crate) use pool::Pool;

mod connect;
mod pool;
mod tls;

/// Most calls at once on one HTTP/2 connection: the least that servers are
/// asked to allow (RFC 9113, section 6.5.2), so that no call waits inside the
/// connection after its turn was taken.
const MAX_STREAMS: usize = 100;

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
    Http1(http1::SendRequest<Upload>),
    Http2(http2::SendRequest<Upload>, Streams),
}

/// One of the calls on an HTTP/2 connection.
#[derive(Debug)]
struct Streams(Arc<AtomicUsize>);

impl Streams {
    fn another(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that got no response.
#[derive(Debug)]
pub(crate) struct SendError {
    /// The request, if not a byte of it was written.
    pub(crate) unsent: Option<Request<Upload>>,
    /// What went wrong.
    pub(crate) error: hyper::Error,
}

impl Connection {
    /// Sends `request`, whose target is a path and query; the future waits for
    /// the response head. `origin` is the upstream's scheme and authority.
    ///
    /// # Errors
    ///
    /// The connection broke, or the body could not be read to its end.
    pub(crate) fn send(
        &mut self,
        mut request: Request<Upload>,
        origin: &Origin,
    ) -> impl Future<Output = Result<Response<Incoming>, Box<SendError>>> + Send + use<> {
        self.used = Some(Instant::now());
        // Not one async fn: its future would hold the request several times over.
        let sent = match &mut self.protocol {
            Protocol::Http1(sender) => {
                origin.address_http1(&mut request);
                Ok(sender.try_send_request(request))
            }
            Protocol::Http2(sender, _) => {
                origin.address_http2(&mut request);
                Err(Box::pin(sender.try_send_request(request)))
            }
        };
        async move {
            let response = match sent {
                Ok(http1) => http1.await,
                Err(http2) => http2.await,
            };
            response.map_err(|mut failed| {
                Box::new(SendError {
                    unsent: failed.take_message(),
                    error: failed.into_error(),
                })
            })
        }
    }

    /// Whether a request can be sent this instant.
    pub(crate) fn is_ready(&self) -> bool {
        match &self.protocol {
            Protocol::Http1(sender) => sender.is_ready(),
            Protocol::Http2(sender, _) => sender.is_ready(),
        }
    }

    /// Waits until a request can be sent; false if the connection has closed.
    pub(crate) async fn ready(&mut self) -> bool {
        match &mut self.protocol {
            Protocol::Http1(sender) => sender.ready().await.is_ok(),
            Protocol::Http2(sender, _) => sender.ready().await.is_ok(),
        }
    }

    /// Whether the upstream has closed it.
    pub(crate) fn is_closed(&self) -> bool {
        match &self.protocol {
            Protocol::Http1(sender) => sender.is_closed(),
            Protocol::Http2(sender, _) => sender.is_closed(),
        }
    }

    /// Whether it has carried a request, so that the upstream may be closing it
    /// this instant. How long ago does not matter: on a busy machine what we
    /// see as a millisecond was longer for the upstream.
    pub(crate) fn was_used(&self) -> bool {
        self.used.is_some()
    }

    /// Whether further calls can share it.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.protocol, Protocol::Http2(..))
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
        let chunked = request.body().size_hint().exact().is_none();
        if !self.keep_host || !request.headers().contains_key(HOST) {
            request.headers_mut().insert(HOST, self.host.clone());
        }
        if chunked {
            // Without this hyper sends the body of a GET not at all.
            let coding = HeaderValue::from_static("chunked");
            request.headers_mut().insert(TRANSFER_ENCODING, coding);
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
