//! Counts the bytes of an exchange on an HTTP/1.1 connection, so that a broken one
//! can be told apart: whether the upstream has got anything of the request, and
//! whether it has begun to answer. What may be an interim answer is shown to a
//! `Tap`.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::interim::Tap;
use super::plain::Line;

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

/// A connection whose bytes are counted.
#[derive(Debug)]
pub(super) struct Wire {
    line: Line,
    traffic: Arc<Traffic>,
    tap: Tap,
}

impl Wire {
    pub(super) fn new(line: Line, tap: Tap) -> (Self, Arc<Traffic>) {
        let traffic = Arc::<Traffic>::default();
        let wire = Self {
            line,
            traffic: Arc::clone(&traffic),
            tap,
        };
        (wire, traffic)
    }

    pub(super) fn into_line(self) -> Line {
        self.line
    }

    fn wrote(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Ok(length)) => add(&self.traffic.written, *length),
            Poll::Ready(Err(_)) if self.line.encrypted => add(&self.traffic.written, 1),
            Poll::Ready(Err(_)) | Poll::Pending => {}
        }
    }
}

/// Cheaper than an atomic addition, and there is one writer.
fn add(count: &AtomicU64, length: usize) {
    let sum = count.load(Ordering::Relaxed) + length as u64;
    count.store(sum, Ordering::Release);
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.line.stream).poll_read(cx, into);
        let new = &into.filled()[before..];
        add(&self.traffic.read, new.len());
        self.tap.see(new)?;
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.line.stream).poll_write(cx, from);
        self.wrote(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.line.stream).poll_write_vectored(cx, from);
        self.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.line.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line.stream).poll_shutdown(cx)
    }
}
