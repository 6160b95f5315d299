//! Request bodies on their way to the upstream.
//!
//! A short body is read whole before its request is queued, so that a caller
//! that hangs up is seen and the request can be sent again; what is longer
//! streams when the turn has come. Both are an [`Upload`], which counts the
//! bytes against `max_body` and gives up on a caller that sends nothing.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http::Version;
use ::http::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time;

use crate::outcome::Fault;
use crate::stall::Stall;

/// A body of unknown length that brings nothing for so long is not waited for: a
/// caller may send the rest after it has seen the beginning of the answer.
const PAUSE: Duration = Duration::from_millis(50);

/// Bounds on a request body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// The longest body that is read before its request is queued, in bytes.
    pub(crate) buffer: usize,
    /// The longest body, in bytes.
    pub(crate) max: u64,
    /// The longest time between two pieces.
    pub(crate) stall: Duration,
    /// The version of its request.
    pub(crate) version: Version,
}

/// A request body: what has been read of it, and what is still to come.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    read: Bytes,
    // Both are rare; in boxes they leave every request half as large to move.
    trailers: Option<Box<HeaderMap>>,
    rest: Option<Box<Rest>>,
}

/// Why a body cannot be passed on.
#[derive(Debug)]
pub(crate) enum UploadError {
    /// It is longer than allowed.
    TooLarge,
    /// The caller's connection broke.
    Broken(hyper::Error),
    /// The caller broke it off, and named no error.
    Reset,
    /// The caller sent nothing for too long.
    Stalled,
}

impl UploadError {
    /// What is wrong with the body, where the caller's stream has found it
    /// malformed.
    pub(crate) fn fault(&self) -> Option<Fault> {
        let Self::Broken(error) = self else {
            return None;
        };
        let cause = error.source()?.downcast_ref::<io::Error>()?;
        cause.get_ref()?.downcast_ref().copied()
    }
}

/// Pieces of a call whose request body streams, in each direction: while one side
/// sends, the other may be silent.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) up: AtomicU64,
    pub(crate) down: AtomicU64,
    /// Whether all of the request body has come, and whether its end has: an HTTP/2
    /// stream may end in a frame of its own.
    sent: AtomicBool,
    ended: AtomicBool,
}

impl Progress {
    /// Whether the caller has sent all of its body.
    pub(crate) fn is_sent(&self) -> bool {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether nothing is waited for any more, not even an end.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

/// The part of a body that the caller has not sent yet.
#[derive(Debug)]
struct Rest {
    incoming: Incoming,
    version: Version,
    left: u64,
    stall: Stall,
    progress: Arc<Progress>,
    /// Pieces of the response when the caller was last found silent.
    seen: u64,
}

impl Upload {
    /// Reads a body up to `bounds.buffer`; a longer one is left to stream, and so
    /// is one of unknown length that pauses: its end may depend on the answer.
    ///
    /// # Errors
    ///
    /// The body is longer than `bounds.max`, its sender broke off or stalled.
    pub(crate) async fn read(incoming: Incoming, bounds: Bounds) -> Result<Self, UploadError> {
        let announced = incoming.size_hint();
        if announced.lower() > bounds.max {
            return Err(UploadError::TooLarge);
        }
        let mut rest = Rest {
            incoming,
            version: bounds.version,
            left: bounds.max,
            stall: Stall::new(bounds.stall),
            progress: Arc::default(),
            seen: 0,
        };
        if announced.lower() > bounds.buffer as u64 {
            return Ok(Self {
                rest: Some(Box::new(rest)),
                ..Self::default()
            });
        }
        let mut read = BytesMut::new();
        let mut trailers = None;
        loop {
            let frame = match announced.exact() {
                Some(_) => rest.frame().await,
                None => match time::timeout(PAUSE, rest.frame()).await {
                    Ok(frame) => frame,
                    Err(_elapsed) => return Ok(Self::streaming(read, rest)),
                },
            };
            let Some(frame) = frame else { break };
            match frame?.into_data() {
                Ok(data) => read.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok().map(Box::new),
            }
            if read.len() > bounds.buffer {
                return Ok(Self::streaming(read, rest));
            }
        }
        Ok(Self {
            read: read.freeze(),
            trailers,
            rest: None,
        })
    }

    fn streaming(read: BytesMut, rest: Rest) -> Self {
        Self {
            read: read.freeze(),
            trailers: None,
            rest: Some(Box::new(rest)),
        }
    }

    /// Bytes held in memory.
    pub(crate) fn buffered(&self) -> usize {
        self.read.len()
    }

    /// What is passed on, where the body streams.
    pub(crate) fn progress(&self) -> Option<Arc<Progress>> {
        Some(Arc::clone(&self.rest.as_ref()?.progress))
    }

    /// The names of its trailers, as far as they are known.
    pub(crate) fn trailer_names(&self) -> Option<HeaderValue> {
        let names = self.trailers.as_ref()?.keys();
        let names: Vec<&str> = names.map(HeaderName::as_str).collect();
        HeaderValue::from_str(&names.join(", ")).ok()
    }

    /// A second copy, if the whole body is in memory.
    pub(crate) fn try_clone(&self) -> Option<Self> {
        match self.rest {
            Some(_) => None,
            None => Some(Self {
                read: self.read.clone(),
                trailers: self.trailers.clone(),
                rest: None,
            }),
        }
    }
}

/// A body that is all there.
impl From<Bytes> for Upload {
    fn from(read: Bytes) -> Self {
        Self {
            read,
            ..Self::default()
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        if !self.read.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.read)))));
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(*trailers))));
        }
        match &mut self.rest {
            Some(rest) => rest.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        let rest = self.rest.as_ref();
        self.read.is_empty()
            && self.trailers.is_none()
            && rest.is_none_or(|rest| rest.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.read.len() as u64;
        let Some(rest) = &self.rest else {
            return match self.trailers {
                // HTTP/1.1 has trailers after a chunked body only.
                Some(_) => SizeHint::default(),
                None => SizeHint::with_exact(read),
            };
        };
        match rest.incoming.size_hint().exact() {
            Some(exact) => SizeHint::with_exact(read + exact),
            None => SizeHint::default(),
        }
    }
}

impl Rest {
    async fn frame(&mut self) -> Option<Result<Frame<Bytes>, UploadError>> {
        std::future::poll_fn(|cx| self.poll_frame(cx)).await
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let mut next = self.incoming.frame();
        let Poll::Ready(frame) = Pin::new(&mut next).poll(cx) else {
            ready!(
                self.stall
                    .poll_unless_moved(cx, &self.progress.down, &mut self.seen)
            );
            return Poll::Ready(Some(Err(UploadError::Stalled)));
        };
        self.stall.moved();
        self.progress.up.fetch_add(1, Ordering::Relaxed);
        if frame.is_none() && is_reset(&self.incoming, self.version) {
            return Poll::Ready(Some(Err(UploadError::Reset)));
        }
        let frame = match frame {
            None => {
                self.progress.sent.store(true, Ordering::Relaxed);
                self.progress.ended.store(true, Ordering::Relaxed);
                return Poll::Ready(None);
            }
            Some(Err(error)) => return Poll::Ready(Some(Err(UploadError::Broken(error)))),
            Some(Ok(frame)) => frame,
        };
        let ended = frame.is_trailers() || self.incoming.is_end_stream();
        self.progress.ended.store(ended, Ordering::Relaxed);
        // Over HTTP/1.1 nobody asks for more than as many bytes as were announced.
        let sent = ended || self.incoming.size_hint().exact() == Some(0);
        self.progress.sent.store(sent, Ordering::Relaxed);
        let length = frame.data_ref().map_or(0, Bytes::len) as u64;
        Poll::Ready(Some(match self.left.checked_sub(length) {
            None => Err(UploadError::TooLarge),
            Some(left) => {
                self.left = left;
                Ok(frame)
            }
        }))
    }
}

/// Whether a body that gives no more has not come to its end. hyper tells of an
/// HTTP/2 stream that was reset with NO_ERROR as if that were its end, which only
/// END_STREAM is (RFC 9113, section 8.1).
pub(crate) fn is_reset(body: &Incoming, version: Version) -> bool {
    version == Version::HTTP_2 && !body.is_end_stream()
}

impl fmt::Display for UploadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the request body is longer than allowed",
            Self::Broken(_) => "the caller's connection broke",
            Self::Reset => "the caller reset its request",
            Self::Stalled => "the caller sent nothing for too long",
        })
    }
}

impl Error for UploadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Broken(error) => Some(error),
            Self::TooLarge | Self::Reset | Self::Stalled => None,
        }
    }
}
