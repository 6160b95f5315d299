//! Exchanges of the plain kind, on an HTTP/1.1 connection itself.
//!
//! The request is written as it is, and the response read without a task or a
//! buffer of the connection's own (`scratch`): what comes is kept only as far as
//! somebody needs it. `body` is what follows the head.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use ::http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::interim::Count;
use super::{Ear, Inbound, SendError, Sent};
use crate::http::interim::pass_on;
use crate::http::plain::request::Plain;
use crate::http::plain::response::{self, Read};
use crate::outcome::Break;
use crate::scratch;
pub(crate) use body::Body;
use body::{Answer, answer};

mod body;

/// The longest head of a response, interim ones not counted, in bytes.
pub(super) const LONGEST_HEAD: usize = 400 << 10;

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
            let read = ready!(scratch::read(&mut line.stream, cx, |bytes| match bytes {
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
            let look = |status| self.ear.look(status);
            match response::read(bytes, self.head_only, look)? {
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

#[cfg(test)]
mod tests;
