//! The stream as hyper writes to it: interim answers go between its own messages,
//! and a caller that takes nothing for too long is an error.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Stop, Stream};
use crate::server::ending::Reset;
use crate::server::linger::Linger;

impl<T: Reset> Stream<T> {
    fn watch<R>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if let Some(waker) = self.waker.take() {
            // Something is answered: perhaps the upgrade.
            waker.wake();
        }
        if written.is_ready() {
            self.stall.moved();
            if self.framing.is_raw() {
                self.activity.written().fetch_add(1, Ordering::Relaxed);
            }
            return written;
        }
        self.stall.ends(self.activity.end());
        ready!(self.stall.poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncWrite + Reset + Unpin> Stream<T> {
    /// Has `write` done once the gap before it is filled.
    fn write(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let gap = self
            .gap
            .poll_write(cx, &self.activity.inbox, &mut self.stream);
        let written = match gap {
            Poll::Ready(Ok(())) => write(Pin::new(&mut self.stream), cx),
            other => other.map_ok(|()| 0),
        };
        self.watch(cx, written)
    }
}

impl<T: AsyncRead + AsyncWrite + Reset + Unpin> AsyncWrite for Stream<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |stream, cx| stream.poll_write(cx, from))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |stream, cx| stream.poll_write_vectored(cx, from))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(
            this.gap
                .poll_flush(cx, &this.activity.inbox, &mut this.stream)
        )?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.ending.is_clean();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        let ended = matches!(this.stop, Some(Stop::End));
        if !ended && !this.framing.is_raw() {
            let expected = !this.framing.is_whole() || !this.held.is_empty() || this.waste > 0;
            let linger = this.linger.get_or_insert_with(Linger::new);
            ready!(linger.poll(cx, &mut this.stream, expected));
        }
        Poll::Ready(Ok(()))
    }
}
