//! A request that got no response: how that is told, and what it proves.

use std::error::Error;
use std::fmt;
use std::io;
use std::iter::successors;

use ::http::Request;

use super::Outgoing;
use super::connect::ConnectError;
use super::interim::Flood;
use crate::http::body::{Upload, UploadError};
use crate::outcome::{Break, Outcome};

/// A request that got no response that can be passed on.
#[derive(Debug)]
pub(crate) struct SendError {
    /// The request, if not a byte of it was written.
    pub(crate) unsent: Option<Outgoing>,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    /// There was no connection of the kind that it needs.
    Connect(ConnectError),
    /// The exchange broke.
    Http {
        error: hyper::Error,
        /// Whether the upstream had begun to answer.
        heard: bool,
        /// Whether not a byte of the request was written.
        unsaid: bool,
    },
    /// An exchange of the plain kind broke.
    Plain {
        error: io::Error,
        /// Whether the upstream had begun to answer.
        heard: bool,
        /// Whether not a byte of the request was written.
        unsaid: bool,
    },
    /// The response cannot be passed on.
    Response(Break),
}

impl SendError {
    pub(crate) fn unconnected(request: Outgoing, error: ConnectError) -> Self {
        Self {
            unsent: Some(request),
            cause: Cause::Connect(error),
        }
    }

    /// The connection was gone.
    pub(super) fn unsent(request: Outgoing) -> Self {
        Self::unconnected(request, ConnectError::Closed)
    }

    /// An exchange of the plain kind broke.
    pub(super) fn cut(error: io::Error, heard: bool, unsaid: bool) -> Self {
        let cause = Cause::Plain {
            error,
            heard,
            unsaid,
        };
        Self {
            unsent: None,
            cause,
        }
    }

    pub(super) fn broken(
        unsent: Option<Request<Upload>>,
        error: hyper::Error,
        heard: bool,
        unsaid: bool,
    ) -> Self {
        let cause = Cause::Http {
            error,
            heard,
            unsaid,
        };
        let unsent = unsent.map(|request| Outgoing::Parsed(Box::new(request)));
        Self { unsent, cause }
    }

    pub(super) fn refused(broken: Break) -> Self {
        Self {
            unsent: None,
            cause: Cause::Response(broken),
        }
    }

    /// Whether it is proved that the upstream has taken nothing, so that any
    /// request may be sent again: not a byte was written, or the upstream says
    /// so (RFC 9113, section 8.7).
    pub(crate) fn took_nothing(&self) -> bool {
        match &self.cause {
            Cause::Connect(_) => true,
            Cause::Response(_) => false,
            Cause::Plain { unsaid, .. } => *unsaid,
            Cause::Http { error, unsaid, .. } => {
                let refused = |error: &h2::Error| {
                    // Of a GOAWAY only those streams hear that it left out.
                    let reset =
                        error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
                    error.is_remote() && (reset || error.is_go_away())
                };
                *unsaid || find(error).is_some_and(refused)
            }
        }
    }

    /// Whether the upstream closed the connection without a word.
    pub(crate) fn is_closed(&self) -> bool {
        let (closed, heard) = match &self.cause {
            Cause::Connect(_) | Cause::Response(_) => return false,
            Cause::Plain { error, heard, .. } => (is_close(error), *heard),
            Cause::Http { error, heard, .. } => {
                let http2 = find::<h2::Error>(error).and_then(h2::Error::get_io);
                let cause = find::<io::Error>(error).or(http2);
                let closed = error.is_incomplete_message()
                    || error.is_canceled()
                    || error.is_closed()
                    || cause.is_some_and(is_close);
                (closed, *heard)
            }
        };
        closed && !heard
    }

    /// How the request ends.
    pub(crate) fn outcome(&self) -> Outcome {
        let (error, heard) = match &self.cause {
            Cause::Connect(_) => return Outcome::ConnectFailed,
            Cause::Response(broken) => return Outcome::UpstreamFailed(*broken),
            Cause::Plain { heard: true, .. } => return Outcome::UpstreamFailed(Break::Incomplete),
            Cause::Plain { heard: false, .. } => return Outcome::UpstreamFailed(Break::Unanswered),
            Cause::Http { error, heard, .. } => (error, *heard),
        };
        match find(error) {
            Some(UploadError::TooLarge) => return Outcome::TooLarge,
            Some(error @ (UploadError::Broken(_) | UploadError::Reset | UploadError::Stalled)) => {
                return error.fault().map_or(Outcome::Aborted, Outcome::BadRequest);
            }
            None => {}
        }
        let http2 = find::<h2::Error>(error);
        let reset = http2.is_some_and(h2::Error::is_reset);
        // RFC 9113, sections 5.4 and 8.1.1: the library has read what it must not take.
        let malformed = http2.is_some_and(|error| {
            error.is_library() && error.reason() != Some(h2::Reason::ENHANCE_YOUR_CALM)
        });
        let flood = find::<io::Error>(error)
            .and_then(io::Error::get_ref)
            .is_some_and(|cause| cause.is::<Flood>());
        Outcome::UpstreamFailed(match heard {
            _ if flood => Break::Interim,
            _ if error.is_parse_too_large() => Break::HeadTooLong,
            _ if error.is_parse() || malformed => Break::Malformed,
            _ if reset => Break::Reset,
            true => Break::Incomplete,
            false => Break::Unanswered,
        })
    }
}

/// Whether a connection was closed by its other side.
fn is_close(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
    )
}

/// The first cause of that type.
fn find<T: Error + 'static>(error: &hyper::Error) -> Option<&T> {
    let mut causes = successors(error.source(), |&cause| cause.source());
    causes.find_map(|cause| cause.downcast_ref())
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Connect(error) => error.fmt(f),
            Cause::Http { error, .. } => error.fmt(f),
            Cause::Plain { error, .. } => error.fmt(f),
            Cause::Response(_) => f.write_str(self.outcome().text()),
        }
    }
}
