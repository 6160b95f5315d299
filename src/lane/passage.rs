//! The response body on its way to the caller.
//!
//! It carries the call's lease and account: when the body has ended well, or the
//! server has all of it that it asks for, the connection goes back to its pool and
//! the request is `completed`; when either side breaks, or the upstream stalls, the
//! connection is closed and the request `aborted`. The slot in flight is free from
//! that moment, not earlier.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::beginning::{Beginning, Piece};
use super::lease::Flight;
use crate::config;
use crate::http::body::Progress;
use crate::http::plain::response::Ready;
use crate::outcome::Outcome;
use crate::stall::Stall;
use crate::upstream::{Inbound, InboundError};

/// A response body that ends its call.
#[derive(Debug)]
pub(crate) struct Passage {
    incoming: Inbound,
    /// What was read before and goes first.
    begin: Option<Box<Beginning>>,
    /// Whether the server must not know that there is no body.
    coy: bool,
    flight: Option<Box<Flight>>,
    /// Whether it began before the request body had ended.
    early: bool,
    stall: Stall,
    /// Pieces of a request body that streams, when the upstream was last found
    /// silent.
    seen: u64,
}

/// A server of HTTP/1.1 drops the body when it has as many bytes as were announced; the
/// end of an HTTP/2 stream may come in a frame of its own after them. An HTTP/1.1
/// connection is at its end by then, or never given back.
impl Drop for Passage {
    fn drop(&mut self) {
        if self.flight.is_some()
            && self.begin.as_deref().is_none_or(Beginning::is_nothing)
            && self.incoming.size_hint().exact() == Some(0)
        {
            self.complete();
        }
    }
}

/// Why a response body broke off.
#[derive(Debug)]
pub(crate) enum PassageError {
    /// The upstream's connection broke.
    Broken(InboundError),
    /// The upstream sent nothing for too long, or the whole time was over.
    Stalled,
}

impl Passage {
    pub(super) fn new(incoming: Inbound, flight: Box<Flight>, timeouts: &config::Timeouts) -> Self {
        let stall = Stall::new(timeouts.stall).until(flight.account.end_of_time());
        let progress = flight.account.progress();
        let early = progress.is_some_and(|body| !body.is_sent());
        let mut passage = Self {
            incoming,
            begin: None,
            coy: false,
            flight: Some(flight),
            early,
            stall,
            seen: 0,
        };
        if passage.incoming.is_end_stream() {
            passage.complete();
        }
        passage
    }

    /// The same after `begin`, which was read before.
    pub(super) fn after(mut self, begin: Beginning) -> Self {
        self.begin = (!begin.is_nothing()).then(|| Box::new(begin));
        self
    }

    /// The body of a 101, which has none: the call goes on in its tunnel.
    pub(super) fn switched(incoming: Inbound, timeouts: &config::Timeouts) -> Self {
        Self {
            incoming,
            begin: None,
            coy: false,
            flight: None,
            early: false,
            stall: Stall::new(timeouts.stall),
            seen: 0,
        }
    }

    /// Lets an HTTP/1.1 server write the length that the head tells, though no
    /// body follows, as in a 304. hyper would drop it.
    pub(crate) fn keep_length(&mut self) {
        self.coy = true;
        self.end_with_head();
    }

    /// The caller gets the head alone, so nobody asks for a body, not even for its
    /// end, which an HTTP/2 upstream may send after the head.
    pub(crate) fn end_with_head(&mut self) {
        self.complete();
    }

    /// Whether the caller may still be sending its body, which nobody may want any
    /// more: what follows cannot be relied on to be another request.
    pub(crate) fn is_early(&self) -> bool {
        self.early
    }

    /// When it is cut off, whatever moves.
    pub(crate) fn end(&self) -> Option<Instant> {
        self.stall.end()
    }

    /// See [`Inbound::ready`].
    pub(crate) fn take_ready(&mut self) -> Option<Ready> {
        self.incoming.take_ready()
    }

    /// Ends the call as soon as its last `frame` is taken: the server does not ask
    /// again after trailers, or once it has as many bytes as were announced.
    fn end_if_last(&mut self, frame: &Frame<Bytes>) {
        if frame.is_trailers() || self.incoming.is_end_stream() {
            self.complete();
        }
    }

    /// What moves, where the request body streams.
    fn progress(&self) -> Option<&Arc<Progress>> {
        self.flight.as_ref()?.account.progress()
    }

    /// Ready when the upstream has been silent for too long, and the caller too.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self {
            flight,
            stall,
            seen,
            ..
        } = self;
        match flight.as_ref().and_then(|flight| flight.account.progress()) {
            Some(progress) => stall.poll_unless_moved(cx, &progress.up, seen),
            None => stall.poll(cx),
        }
    }

    fn complete(&mut self) {
        let Some(flight) = self.flight.take() else {
            return;
        };
        let Flight { mut lease, account } = *flight;
        // An upload that was answered early stops: its connection closes.
        let sent = account.progress().is_none_or(|body| body.is_sent());
        if account.progress().is_some_and(|body| !body.is_ended()) {
            // Over HTTP/2 its stream takes up room until its end comes.
            lease.retire();
        }
        account.end(Outcome::Completed);
        lease.take_back(&mut self.incoming);
        match sent {
            true => lease.finish(),
            false => lease.cut(),
        }
    }

    fn abort(&mut self) {
        if let Some(flight) = self.flight.take() {
            flight.account.end(Outcome::Aborted);
        }
    }
}

impl Body for Passage {
    type Data = Bytes;
    type Error = PassageError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, PassageError>>> {
        if let Some(begin) = &mut self.begin {
            match begin.next() {
                Piece::Frame(frame) => {
                    self.end_if_last(&frame);
                    return Poll::Ready(Some(Ok(frame)));
                }
                Piece::Broken(error) => {
                    self.abort();
                    return Poll::Ready(Some(Err(PassageError::Broken(error))));
                }
                Piece::End => {
                    self.complete();
                    return Poll::Ready(None);
                }
                Piece::Rest => self.begin = None,
            }
        }
        let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
            // However much there still is.
            Poll::Ready(_) if self.flight.is_some() && self.stall.is_over() => Poll::Pending,
            frame => frame,
        };
        let Poll::Ready(frame) = frame else {
            ready!(self.poll_stall(cx));
            self.abort();
            return Poll::Ready(Some(Err(PassageError::Stalled)));
        };
        self.stall.moved();
        if let Some(progress) = self.progress() {
            progress.down.fetch_add(1, Ordering::Relaxed);
        }
        match frame {
            Some(Ok(frame)) => {
                self.end_if_last(&frame);
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.abort();
                Poll::Ready(Some(Err(PassageError::Broken(error))))
            }
            None => {
                self.complete();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        !self.coy && self.begin.is_none() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.coy {
            return SizeHint::default();
        }
        let rest = self.incoming.size_hint();
        match (&self.begin, rest.exact()) {
            (None, _) => rest,
            (Some(begin), Some(rest)) => SizeHint::with_exact(begin.data().len() as u64 + rest),
            (Some(_), None) => SizeHint::default(),
        }
    }
}

impl std::fmt::Display for PassageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Broken(_) => "the upstream's response broke off",
            Self::Stalled => "the upstream's response stalled",
        })
    }
}

impl std::error::Error for PassageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Broken(error) => Some(error),
            Self::Stalled => None,
        }
    }
}
