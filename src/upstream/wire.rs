//! Counts the bytes of an exchange on an HTTP/1.1 connection, so that a broken exchange can be
//! told apart: whether the upstream has got anything of the request, and whether
//! it has begun to answer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The bytes of one exchange so far. Only its driver writes here.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    read: AtomicU64,
    written: AtomicU64,
}

impl Traffic {
    /// Whether a byte has come.
    pub(super) fn heard(&self) -> bool {
        self.read.load(Ordering::Acquire) > 0
    }

    /// Whether a byte has gone.
    pub(super) fn said(&self) -> bool {
        self.written.load(Ordering::Acquire) > 0
    }
}

/// A stream whose bytes are counted.
#[derive(Debug)]
pub(super) struct Wire<T> {
    stream: T,
    /// Whether bytes can have gone although a write failed.
    encrypted: bool,
    traffic: Arc<Traffic>,
}

impl<T> Wire<T> {
    pub(super) fn new(stream: T, encrypted: bool) -> (Self, Arc<Traffic>) {
        let traffic = Arc::<Traffic>::default();
        let wire = Self {
            stream,
            encrypted,
            traffic: Arc::clone(&traffic),
        };
        (wire, traffic)
    }

    pub(super) fn into_inner(self) -> T {
        self.stream
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
        add(&self.traffic.read, into.filled().len() - before);
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
