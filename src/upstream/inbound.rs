//! A response body, whichever way its exchange was made.

use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::http::Version;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::plain;
use crate::http::body::is_reset;
use crate::http::plain::response::Ready;

/// A response body on its way from the upstream.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// Read by hyper, of the version that the response had.
    Hyper(Incoming, Version),
    Plain(Box<plain::Body>),
}

/// Why a response body broke off.
#[derive(Debug)]
pub(crate) enum InboundError {
    Hyper(hyper::Error),
    /// The upstream reset the stream and named no error.
    Reset,
    Plain(io::Error),
}

impl Inbound {
    /// Whether there is what [`Inbound::ready`] returns.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self, Self::Plain(body) if body.ready.is_some())
    }

    /// The head in the form in which an HTTP/1.1 caller gets it, with what had
    /// come of the body by then; until it is taken. The response's map of fields is
    /// only to be looked at then, and may be empty.
    pub(crate) fn ready(&mut self) -> Option<&mut Ready> {
        self.slot()?.as_mut()
    }

    /// Takes that.
    pub(crate) fn take_ready(&mut self) -> Option<Ready> {
        self.slot()?.take()
    }

    fn slot(&mut self) -> Option<&mut Option<Ready>> {
        match self {
            Self::Plain(body) => Some(&mut body.ready),
            Self::Hyper(..) => None,
        }
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = InboundError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, InboundError>>> {
        match &mut *self {
            Self::Hyper(body, version) => match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                None if is_reset(body, *version) => Poll::Ready(Some(Err(InboundError::Reset))),
                frame => Poll::Ready(frame.map(|frame| frame.map_err(InboundError::Hyper))),
            },
            Self::Plain(body) => Pin::new(body).poll_frame(cx).map_err(InboundError::Plain),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Hyper(body, _) => body.is_end_stream(),
            Self::Plain(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Hyper(body, _) => body.size_hint(),
            Self::Plain(body) => body.size_hint(),
        }
    }
}

impl fmt::Display for InboundError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the upstream's response broke off")
    }
}

impl Error for InboundError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Hyper(error) => Some(error),
            Self::Plain(error) => Some(error),
            Self::Reset => None,
        }
    }
}
