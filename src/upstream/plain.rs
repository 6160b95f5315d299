//! Exchanges of the plain kind, on an HTTP/1.1 connection itself.
//!
//! The request is written as it is, and the response read without a task or a
//! buffer of the connection's own: what comes is read into one that the thread
//! has for all, and kept only as far as somebody needs it.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use ::http::{Response, StatusCode};
use bytes::{Bytes, BytesMut};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::interim::Count;
use super::{Ear, Inbound, SendError, Sent};
use crate::http::chunked::{Bounds, Chunks};
use crate::http::interim::pass_on;
use crate::http::plain::request::Plain;
use crate::http::plain::response::{self, End, Fields, Head, Read, Ready};
use crate::outcome::Break;

/// The longest head of a response, interim ones not counted, in bytes.
const LONGEST_HEAD: usize = 400 << 10;

/// What is allowed of the trailer fields of a response.
const TRAILERS: Bounds = Bounds {
    bytes: 16 << 10,
    fields: 100,
};

/// Most bytes read at once.
const SCRATCH: usize = 32 << 10;

thread_local! {
    /// What is read goes here first; held for one read and what it brings.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// Reads from `stream` and hands over what has come; nothing if it has ended.
pub(crate) fn read<T, R>(
    stream: &mut T,
    cx: &mut Context<'_>,
    take: impl FnOnce(&[u8]) -> R,
) -> Poll<io::Result<R>>
where
    T: AsyncRead + Unpin + ?Sized,
{
    BUFFER.with_borrow_mut(|buffer| {
        let mut into = ReadBuf::new(buffer);
        ready!(Pin::new(stream).poll_read(cx, &mut into))?;
        Poll::Ready(Ok(take(into.filled())))
    })
}

/// What an HTTP/1.1 connection runs over.
pub(super) trait Duplex: AsyncRead + AsyncWrite + fmt::Debug + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + fmt::Debug + Send + Sync + Unpin> Duplex for T {}

/// An HTTP/1.1 connection with no exchange under way.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) stream: Box<dyn Duplex>,
    /// Whether bytes can have gone although a write failed.
    pub(super) encrypted: bool,
    /// Lives as long as the connection.
    pub(super) guard: Option<Box<dyn Guard>>,
}

/// Something that is dropped when a connection closes.
pub(crate) trait Guard: fmt::Debug + Send + Sync {}

impl Line {
    /// Whether the upstream has closed it, or has said what nobody asked for; if
    /// not yet, `waker` is told when it does.
    pub(super) fn is_closed(&mut self, waker: &Waker) -> bool {
        let mut byte = [0];
        let mut into = ReadBuf::new(&mut byte);
        let mut cx = Context::from_waker(waker);
        Pin::new(&mut self.stream)
            .poll_read(&mut cx, &mut into)
            .is_ready()
    }
}

/// One exchange, until the response's head has come.
pub(super) struct Exchange<E> {
    line: Option<Line>,
    request: Plain,
    written: usize,
    flushed: bool,
    /// Why the rest of the request cannot be written; what the upstream says may
    /// be there all the same.
    deaf: Option<io::Error>,
    /// Whether bytes of the request can have gone.
    said: bool,
    incoming: Incoming<E>,
}

/// A response, and its body without the connection that it comes over.
type Answer = (Response<()>, Box<Body>);

/// What has come of the response.
struct Incoming<E> {
    /// The part of a head that has come.
    part: Vec<u8>,
    heard: bool,
    head_only: bool,
    /// Interim answers so far.
    interim: Count,
    ear: E,
}

impl<E: Ear + Unpin> Exchange<E> {
    pub(super) fn new(line: Line, request: Plain, ear: E) -> Self {
        Self {
            line: Some(line),
            incoming: Incoming {
                part: Vec::new(),
                heard: false,
                head_only: request.head_only(),
                interim: Count::default(),
                ear,
            },
            request,
            written: 0,
            flushed: false,
            deaf: None,
            said: false,
        }
    }

    /// Writes what can be written.
    fn write(&mut self, cx: &mut Context<'_>) {
        let Some(line) = &mut self.line else { return };
        let bytes = self.request.bytes();
        while self.written < bytes.len() && self.deaf.is_none() {
            let left = &bytes[self.written..];
            let Poll::Ready(written) = Pin::new(&mut line.stream).poll_write(cx, left) else {
                return;
            };
            self.said |= written.is_ok() || line.encrypted;
            match written {
                Ok(0) => self.deaf = Some(io::ErrorKind::WriteZero.into()),
                Ok(length) => self.written += length,
                Err(error) => self.deaf = Some(error),
            }
        }
        if self.deaf.is_none() {
            match Pin::new(&mut line.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.flushed = true,
                Poll::Ready(Err(error)) => self.deaf = Some(error),
                Poll::Pending => {}
            }
        }
    }

    fn broken(&mut self, error: io::Error) -> Box<SendError> {
        let heard = self.incoming.heard;
        // Of two things that went wrong, the first says more.
        let error = self.deaf.take().filter(|_| !heard).unwrap_or(error);
        Box::new(SendError::cut(error, heard, !self.said))
    }
}

impl<E: Ear + Unpin> Future for Exchange<E> {
    type Output = Sent;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if !this.flushed {
            this.write(cx);
        }
        loop {
            let line = this.line.as_mut().expect("polled after it was ready");
            let incoming = &mut this.incoming;
            let read = ready!(read(&mut line.stream, cx, |bytes| match bytes {
                [] => None,
                bytes => Some(incoming.take(bytes)),
            }));
            let (mut response, mut body) = match read {
                Ok(Some(Ok(Some(response)))) => response,
                Ok(Some(Ok(None))) => continue,
                Ok(Some(Err(broken))) => {
                    return Poll::Ready(Err(SendError::refused(broken).into()));
                }
                Ok(None) => {
                    return Poll::Ready(Err(this.broken(io::ErrorKind::UnexpectedEof.into())));
                }
                Err(error) => return Poll::Ready(Err(this.broken(error))),
            };
            // What is left of the request is not written: the answer is there.
            body.keeps &= this.flushed;
            body.line = this.line.take();
            *response.version_mut() = ::http::Version::HTTP_11;
            return Poll::Ready(Ok(response.map(|()| Inbound::Plain(body))));
        }
    }
}

impl<E: Ear> Incoming<E> {
    /// Takes `bytes` that have just come; the response when its head is whole.
    fn take(&mut self, bytes: &[u8]) -> Result<Option<Answer>, Break> {
        self.heard = true;
        if self.part.is_empty() {
            return self.parse(bytes);
        }
        // A head is not read anew with each byte that comes of it.
        let from = self.part.len().saturating_sub(3);
        self.part.extend_from_slice(bytes);
        let new = &self.part[from..];
        let ends = |end: &[u8]| new.windows(end.len()).any(|part| part == end);
        if ends(b"\n\r\n") || ends(b"\n\n") {
            let part = std::mem::take(&mut self.part);
            return self.parse(&part);
        }
        self.wait()
    }

    fn parse(&mut self, mut bytes: &[u8]) -> Result<Option<Answer>, Break> {
        loop {
            // Empty lines are read over, but not without end.
            while let [b'\r', b'\n', rest @ ..] | [b'\n', rest @ ..] = bytes {
                self.interim.add_bytes(1)?;
                bytes = rest;
            }
            if bytes.is_empty() {
                return Ok(None);
            }
            let fine = |status| self.ear.is_fine(status);
            match response::read(bytes, self.head_only, fine)? {
                Read::Whole(length, head) => return Ok(Some(answer(head, &bytes[length..]))),
                Read::Interim(length) => {
                    self.hear(&bytes[..length])?;
                    bytes = &bytes[length..];
                }
                Read::Part => {
                    self.part = bytes.to_vec();
                    return self.wait();
                }
            }
        }
    }

    /// An interim answer. A 100 is not for the caller, who has been told so by us.
    fn hear(&mut self, head: &[u8]) -> Result<(), Break> {
        self.interim.add(head.len())?;
        match pass_on(head) {
            None | Some((StatusCode::CONTINUE, _)) => {}
            Some((_, head)) => self.ear.hear(&head),
        }
        Ok(())
    }

    fn wait<T>(&self) -> Result<Option<T>, Break> {
        match self.part.len() > LONGEST_HEAD {
            true => Err(Break::HeadTooLong),
            false => Ok(None),
        }
    }
}

/// The response with `head`, of whose body `bytes` have come.
fn answer(head: Head, bytes: &[u8]) -> Answer {
    let mut body = Box::new(Body {
        line: None,
        keeps: head.keeps,
        state: match head.end {
            End::Length(0) => State::Ended,
            End::Length(length) => State::Length(length),
            End::Chunked => State::Chunked(Box::default()),
            End::Close => State::Close,
        },
        begin: Bytes::new(),
        ready: None,
    });
    let mut response = Response::new(());
    *response.status_mut() = head.status;
    match head.fields {
        Fields::Ready(mut ready) => {
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

/// A response body as it comes from its connection.
#[derive(Debug)]
pub(crate) struct Body {
    line: Option<Line>,
    /// Whether the connection stays open afterwards.
    keeps: bool,
    state: State,
    /// What has come and was not handed out.
    begin: Bytes,
    pub(super) ready: Option<Ready>,
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
    pub(super) fn take_line(&mut self) -> Option<Line> {
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
            let come = read(&mut line.stream, cx, |bytes| match bytes {
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

#[cfg(test)]
mod tests;
