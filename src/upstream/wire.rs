//! Counts the bytes of an HTTP/1.1 connection, so that a broken exchange can be
//! told apart: whether the upstream has got anything of the request, and whether
//! it has begun to answer. What may be an interim answer is shown to a `Tap`.

use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::interim::Tap;
use crate::http::interim::{Asker, Audience};

/// What has gone over one connection so far.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// Bytes. Only the connection's driver writes here.
    read: AtomicU64,
    written: AtomicU64,
    /// Requests, and who asked the last: the number of its connection, and of its
    /// request there; 0 if nobody hears interim answers. Only who sends writes
    /// here.
    exchanges: AtomicU64,
    asker: [AtomicU64; 2],
}

/// Where a connection stood when a request was sent.
#[derive(Debug)]
pub(super) struct Mark {
    traffic: Arc<Traffic>,
    read: u64,
    written: u64,
}

impl Traffic {
    /// A request of `asker` is about to be sent.
    pub(super) fn begin(self: &Arc<Self>, asker: Option<Asker>) -> Mark {
        let (connection, request) =
            asker.map_or((0, 0), |asker| (asker.connection, asker.request.get()));
        self.asker[0].store(connection, Ordering::Relaxed);
        self.asker[1].store(request, Ordering::Relaxed);
        add(&self.exchanges, 1);
        self.mark()
    }

    fn asker(&self) -> Option<Asker> {
        Some(Asker {
            connection: self.asker[0].load(Ordering::Relaxed),
            request: NonZeroU64::new(self.asker[1].load(Ordering::Relaxed))?,
        })
    }

    fn mark(self: &Arc<Self>) -> Mark {
        Mark {
            read: self.read.load(Ordering::Acquire),
            written: self.written.load(Ordering::Acquire),
            traffic: Arc::clone(self),
        }
    }
}

impl Mark {
    /// Whether a byte has come since.
    pub(super) fn heard(&self) -> bool {
        self.traffic.read.load(Ordering::Acquire) != self.read
    }

    /// Whether a byte has gone since.
    pub(super) fn said(&self) -> bool {
        self.traffic.written.load(Ordering::Acquire) != self.written
    }
}

/// A stream whose bytes are counted.
#[derive(Debug)]
pub(super) struct Wire<T> {
    stream: T,
    /// Whether bytes can have gone although a write failed.
    encrypted: bool,
    traffic: Arc<Traffic>,
    tap: Tap,
}

impl<T> Wire<T> {
    /// Interim answers are told to `audience`.
    pub(super) fn new(
        stream: T,
        encrypted: bool,
        audience: Option<Arc<dyn Audience>>,
    ) -> (Self, Arc<Traffic>) {
        let traffic = Arc::<Traffic>::default();
        let wire = Self {
            stream,
            encrypted,
            traffic: Arc::clone(&traffic),
            tap: Tap::new(audience),
        };
        (wire, traffic)
    }

    /// What was `read` may be an interim answer.
    fn tap(&mut self, read: &[u8]) -> io::Result<()> {
        let exchange = self.traffic.exchanges.load(Ordering::Acquire);
        if read.is_empty() || self.tap.is_past(exchange) {
            return Ok(());
        }
        let traffic = &self.traffic;
        self.tap.see(exchange, || traffic.asker(), read)
    }

    fn wrote(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Ok(length)) => add(&self.traffic.written, *length),
            Poll::Ready(Err(_)) if self.encrypted => add(&self.traffic.written, 1),
            Poll::Ready(Err(_)) | Poll::Pending => {}
        }
    }
}

/// Cheaper than an atomic addition, and there is one writer.
fn add(count: &AtomicU64, length: usize) {
    let sum = count.load(Ordering::Relaxed) + length as u64;
    count.store(sum, Ordering::Release);
}

impl<T: AsyncRead + Unpin> AsyncRead for Wire<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, into);
        let new = &into.filled()[before..];
        add(&self.traffic.read, new.len());
        self.tap(new)?;
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, from);
        self.wrote(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, from);
        self.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
