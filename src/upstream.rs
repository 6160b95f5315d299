//! The connections to one upstream, and one exchange over one of them.
//!
//! A [`Dialer`] opens connections (`connect`, `tls`), a [`Pool`] keeps the ready
//! ones of one core, and a [`Connection`] sends one request at a time. Over
//! HTTP/1.1 a request of the plain kind goes on the connection itself (`plain`);
//! for any other the connection is lent to hyper for that exchange (`lent`).
//! What happens when, and why, is the lane's business.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ::http::header::HeaderMap;
use ::http::{Request, Response, StatusCode, Uri, Version};
use hyper::client::conn::http2;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::http::body::{Progress, Upload};
use crate::http::interim::Asker;
use crate::http::plain::request::{Plain, is_repeatable};
use crate::http::plain::response::Look;
use crate::http::response;
#[cfg(test)]
pub(crate) use connect::fake;
pub(crate) use connect::{ConnectError, Dialer, Driver};
pub(crate) use failure::SendError;
pub(crate) use inbound::{Inbound, InboundError};
use lent::{Leave, Loan};
use load::Streams;
pub(crate) use origin::Origin;
pub(crate) use plain::Guard;
use plain::{Exchange, Line};
pub(crate) use pool::Pool;

mod connect;
mod failure;
mod inbound;
mod interim;
mod lent;
mod load;
mod origin;
mod plain;
mod pool;
mod tls;
mod wire;

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
    /// No exchange is under way.
    Http1(Line),
    /// hyper has it, for one exchange.
    Lent(Loan),
    /// The body of a response has it, or it is gone.
    Away,
    Http2(http2::SendRequest<Upload>, Streams),
}

/// What comes of a request that was sent.
pub(crate) type Sent = Result<Response<Inbound>, Box<SendError>>;

/// A request on its way to the upstream.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// Its target is a path and query.
    Parsed(Box<Request<Upload>>),
    Plain(Plain),
}

/// What is told of the response to a plain request before that is there.
pub(crate) trait Ear {
    /// What somebody has to look at in a response of that `status`.
    fn look(&self, status: StatusCode) -> Look;

    /// An interim answer has come, with this `head`.
    fn hear(&self, head: &[u8]);
}

/// Where all is looked at.
impl Ear for () {
    fn look(&self, _status: StatusCode) -> Look {
        Look::Everything
    }

    fn hear(&self, _head: &[u8]) {}
}

impl Outgoing {
    /// A second copy, if the whole body is in memory.
    pub(crate) fn try_clone(&self) -> Option<Self> {
        let request = match self {
            Self::Plain(plain) => return Some(Self::Plain(plain.clone())),
            Self::Parsed(request) => request,
        };
        let mut copy = Request::new(request.body().try_clone()?);
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.headers_mut() = request.headers().clone();
        // The case of the names is in there.
        *copy.extensions_mut() = request.extensions().clone();
        Some(Self::Parsed(Box::new(copy)))
    }

    /// Whether it may be repeated although it may have been acted upon.
    pub(crate) fn is_repeatable(&self) -> bool {
        match self {
            Self::Plain(plain) => plain.is_repeatable(),
            Self::Parsed(request) => is_repeatable(request.method().as_str().as_bytes()),
        }
    }

    /// What is passed on of its body, where that streams.
    pub(crate) fn progress(&self) -> Option<Arc<Progress>> {
        match self {
            Self::Plain(_) => None,
            Self::Parsed(request) => request.body().progress(),
        }
    }

    /// About the memory that it takes, but for the body of a parsed one, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Plain(plain) => plain.bytes().len(),
            Self::Parsed(request) => head_bytes(request.uri(), request.headers()),
        }
    }
}

/// About the memory that a request's head takes, in bytes.
pub(crate) fn head_bytes(uri: &Uri, headers: &HeaderMap) -> usize {
    let fields = headers.iter();
    let fields: usize = fields
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    uri.path_and_query()
        .map_or(1, |target| target.as_str().len())
        + fields
}

impl Connection {
    /// Sends `request` to the upstream of `dialer`; the future waits for the response
    /// head. Where `ear` says so, a response to a plain request has its fields not in
    /// a map, see [`Inbound::ready`]. Interim answers of HTTP/1.1 go to `asker`. Tasks
    /// that it takes run on `runtime`.
    ///
    /// # Errors
    ///
    /// The connection broke, the body could not be read to its end, or the
    /// response cannot be passed on.
    pub(crate) fn send<E>(
        &mut self,
        request: Outgoing,
        dialer: &Dialer,
        runtime: &Handle,
        ear: E,
        asker: Option<Asker>,
    ) -> impl Future<Output = Sent> + Send + use<E>
    where
        E: Ear + Send + Unpin,
    {
        // Until the call has ended, which is when it counts from.
        self.used.get_or_insert(self.opened);
        match (
            request,
            std::mem::replace(&mut self.protocol, Protocol::Away),
        ) {
            (Outgoing::Plain(plain), Protocol::Http1(line)) => {
                Sending::Plain(Exchange::new(line, plain, ear))
            }
            (request, protocol) => {
                self.protocol = protocol;
                let request = match request {
                    Outgoing::Parsed(request) => request,
                    Outgoing::Plain(plain) => Box::new(plain.into_request()),
                };
                Sending::Other(self.send_parsed(request, dialer, runtime, asker))
            }
        }
    }

    fn send_parsed(
        &mut self,
        mut request: Box<Request<Upload>>,
        dialer: &Dialer,
        runtime: &Handle,
        asker: Option<Asker>,
    ) -> Pin<Box<dyn Future<Output = Sent> + Send>> {
        let origin = dialer.origin();
        match std::mem::replace(&mut self.protocol, Protocol::Away) {
            Protocol::Http1(line) => {
                origin.address_http1(&mut request);
                let tap = dialer.tap(asker);
                let (loan, sent) = lent::send(line, *request, tap, runtime);
                self.protocol = Protocol::Lent(loan);
                Box::pin(sent)
            }
            Protocol::Http2(mut sender, streams) => {
                origin.address_http2(&mut request);
                let sent = sender.try_send_request(*request);
                self.protocol = Protocol::Http2(sender, streams);
                Box::pin(async move {
                    let mut response = sent.await.map_err(|mut failed| {
                        let unsent = failed.take_message();
                        Box::new(SendError::broken(unsent, failed.into_error(), false, false))
                    })?;
                    response::check(&mut response)
                        .map_err(|flaw| Box::new(SendError::refused(flaw)))?;
                    Ok(response.map(|body| Inbound::Hyper(body, Version::HTTP_2)))
                })
            }
            away @ (Protocol::Lent(_) | Protocol::Away) => {
                self.protocol = away;
                let error = SendError::unsent(Outgoing::Parsed(request));
                Box::pin(std::future::ready(Err(Box::new(error))))
            }
        }
    }

    /// Keeps `guard` until the connection has closed.
    pub(crate) fn hold(&mut self, guard: Box<dyn Guard>) {
        if let Protocol::Http1(line) = &mut self.protocol {
            line.guard = Some(guard);
        }
    }

    /// Whether a request can be sent this instant.
    pub(crate) fn is_ready(&mut self) -> bool {
        if let Protocol::Lent(loan) = &mut self.protocol {
            match loan.returned() {
                Some(Some(line)) => self.protocol = Protocol::Http1(line),
                Some(None) => self.protocol = Protocol::Away,
                None => {}
            }
        }
        match &self.protocol {
            Protocol::Http1(_) => true,
            Protocol::Lent(_) | Protocol::Away => false,
            Protocol::Http2(sender, _) => sender.is_ready(),
        }
    }

    /// Waits until a request can be sent; false if the connection has closed.
    pub(crate) async fn ready(&mut self) -> bool {
        match &mut self.protocol {
            Protocol::Http1(_) => true,
            Protocol::Lent(loan) => match loan.wait().await {
                Some(line) => {
                    self.protocol = Protocol::Http1(line);
                    true
                }
                None => false,
            },
            Protocol::Away => false,
            Protocol::Http2(sender, _) => sender.ready().await.is_ok(),
        }
    }

    /// Whether the upstream has closed it, or no more calls are to go on it; if not yet, `waker` is told when it
    /// closes one of HTTP/1.1.
    fn is_closed(&mut self, waker: &Waker) -> bool {
        match &mut self.protocol {
            Protocol::Http1(line) => line.is_closed(waker),
            Protocol::Lent(_) => false,
            Protocol::Away => true,
            Protocol::Http2(sender, streams) => sender.is_closed() || streams.0.is_retired(),
        }
    }

    /// Takes back what a response `body` had of it.
    pub(crate) fn take_back(&mut self, body: &mut Inbound) {
        if let Inbound::Plain(body) = body
            && let Some(line) = body.take_line()
        {
            self.protocol = Protocol::Http1(line);
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

    /// Where others share it, those stay, no more join, and it closes when they have
    /// ended: a call has got no answer in time, and it may be dead; or the rest of an
    /// upload is not wanted, which hyper would go on to send.
    pub(crate) fn retire(&self) {
        if let Protocol::Http2(_, streams) = &self.protocol {
            streams.0.retire();
        }
    }

    /// Lets the exchange on it end by itself, after which it closes.
    pub(crate) fn let_go(self) {
        if let Protocol::Lent(loan) = self.protocol {
            loan.leave(Leave::LetGo);
        }
    }

    /// Closes it at once, whatever is being sent, or [retires](Self::retire) it.
    pub(crate) fn cut(self) {
        self.retire();
        if let Protocol::Lent(loan) = self.protocol {
            loan.leave(Leave::Cut);
        }
    }

    /// When it last began to be unused.
    fn idle_since(&self) -> Instant {
        self.used.unwrap_or(self.opened)
    }
}

/// A request that is being sent: the plain kind without a box.
enum Sending<E> {
    Plain(Exchange<E>),
    Other(Pin<Box<dyn Future<Output = Sent> + Send>>),
}

impl<E: Ear + Unpin> Future for Sending<E> {
    type Output = Sent;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Plain(exchange) => Pin::new(exchange).poll(cx),
            Self::Other(sent) => sent.as_mut().poll(cx),
        }
    }
}
