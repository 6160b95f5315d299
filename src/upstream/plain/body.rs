//! The body of a response, as it comes from its connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::http::Response;
use bytes::{Bytes, BytesMut};
use hyper::body::{Frame, SizeHint};

use super::Line;
use crate::http::chunked::{Bounds, Chunks};
use crate::http::plain::response::{End, Fields, Head, Ready};
use crate::scratch;

/// What is allowed of the trailer fields of a response.
const TRAILERS: Bounds = Bounds {
    bytes: 16 << 10,
    fields: 100,
};

/// A response, and its body without the connection that it comes over.
pub(super) type Answer = (Response<()>, Box<Body>);

/// A response body as it comes from its connection.
#[derive(Debug)]
pub(crate) struct Body {
    pub(super) line: Option<Line>,
    /// Whether the connection stays open afterwards.
    pub(super) keeps: bool,
    state: State,
    /// What has come and was not handed out.
    begin: Bytes,
    pub(in crate::upstream) ready: Option<Ready>,
}

/// `Length`, `Chunked` and `Close` become `Ended` or `Broken`.
#[derive(Debug)]
enum State {
    /// Bytes left.
    Length(u64),
    Chunked(Box<Chunks>),
    /// It ends with the connection.
    Close,
    Ended,
    Broken(io::ErrorKind),
}

impl Body {
    /// The connection, once the body has ended, if it can be used again.
    pub(in crate::upstream) fn take_line(&mut self) -> Option<Line> {
        let good = self.keeps && matches!(self.state, State::Ended);
        self.line.take().filter(|_| good)
    }

    fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Passes over `length` bytes that have come of a body whose length is known;
    /// returns how many of them belong to it.
    fn skip(&mut self, length: usize) -> usize {
        let State::Length(left) = &mut self.state else {
            // There is no body: whatever comes is none of its.
            self.keeps &= length == 0;
            return 0;
        };
        let some = usize::try_from(*left).map_or(length, |left| left.min(length));
        *left -= some as u64;
        self.keeps &= some == length;
        if *left == 0 {
            self.state = State::Ended;
        }
        some
    }

    /// The content in `bytes` that have come.
    fn decode(&mut self, bytes: &[u8]) -> Bytes {
        match &mut self.state {
            State::Length(_) | State::Ended | State::Broken(_) => {
                Bytes::copy_from_slice(&bytes[..self.skip(bytes.len())])
            }
            State::Close => Bytes::copy_from_slice(bytes),
            State::Chunked(chunks) => {
                let mut content = BytesMut::with_capacity(bytes.len());
                let mut at = 0;
                while at < bytes.len() {
                    let Ok(piece) = chunks.piece(&bytes[at..], &TRAILERS) else {
                        self.state = State::Broken(io::ErrorKind::InvalidData);
                        break;
                    };
                    let data = at + piece.framing;
                    at = data + piece.data;
                    content.extend_from_slice(&bytes[data..at]);
                    if piece.end {
                        self.keeps &= at == bytes.len();
                        self.state = State::Ended;
                        break;
                    }
                }
                content.freeze()
            }
        }
    }

    /// The connection has ended.
    fn end(&mut self) {
        self.keeps = false;
        self.state = match self.state {
            State::Close => State::Ended,
            _ => State::Broken(io::ErrorKind::UnexpectedEof),
        };
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        loop {
            if !this.begin.is_empty() {
                let begin = std::mem::take(&mut this.begin);
                return Poll::Ready(Some(Ok(Frame::data(begin))));
            }
            let mut line = match (&this.state, this.line.take()) {
                (State::Broken(kind), _) => return Poll::Ready(Some(Err((*kind).into()))),
                (State::Ended, line) => {
                    this.line = line;
                    return Poll::Ready(None);
                }
                (_, Some(line)) => line,
                (_, None) => return Poll::Ready(Some(Err(io::ErrorKind::NotConnected.into()))),
            };
            let come = scratch::read(&mut line.stream, cx, |bytes| match bytes {
                [] => {
                    this.end();
                    Bytes::new()
                }
                bytes => this.decode(bytes),
            });
            this.line = Some(line);
            match ready!(come) {
                Ok(come) => this.begin = come,
                Err(error) => {
                    this.state = State::Broken(error.kind());
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.begin.is_empty() && self.is_ended()
    }

    fn size_hint(&self) -> SizeHint {
        let begin = self.begin.len() as u64;
        match self.state {
            State::Length(left) => SizeHint::with_exact(begin + left),
            State::Ended => SizeHint::with_exact(begin),
            State::Chunked(_) | State::Close | State::Broken(_) => SizeHint::default(),
        }
    }
}

/// The response with `head`, of whose body `bytes` have come.
pub(super) fn answer(head: Head, bytes: &[u8]) -> Answer {
    let mut body = Box::new(Body {
        line: None,
        keeps: head.keeps,
        state: match head.end {
            End::Length(0) => State::Ended,
            End::Length(length) => State::Length(length),
            End::Chunked => State::Chunked(Box::new(Chunks::lenient())),
            End::Close => State::Close,
        },
        begin: Bytes::new(),
        ready: None,
    });
    let mut response = Response::new(());
    *response.status_mut() = head.status;
    match head.fields {
        Fields::Ready(mut ready, fields) => {
            if let Some(fields) = fields {
                *response.headers_mut() = *fields;
            }
            match head.end {
                End::Length(_) => {
                    let length = body.skip(bytes.len());
                    ready.push(&bytes[..length]);
                }
                End::Chunked | End::Close => {
                    let content = body.decode(bytes);
                    ready.push_chunk(&content);
                    if body.is_ended() {
                        ready.push_last_chunk();
                    }
                }
            }
            body.ready = Some(ready);
        }
        Fields::Parsed(parts) => {
            response = Response::from_parts(*parts, ());
            body.begin = body.decode(bytes);
        }
    }
    (response, body)
}
