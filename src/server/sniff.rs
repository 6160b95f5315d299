//! Which HTTP a caller speaks: its first bytes are HTTP/2's preface (RFC 9113,
//! section 3.4) or they are not.
//!
//! Ours and not hyper-util's, because that one has no bound on its time and may
//! serve HTTP/2 where it was told not to. The stream that comes out of it also
//! gives up on a caller that takes nothing of its answer, which hyper does not.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::ending::{Ending, Reset};
use crate::http::body::Stall;

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream and what it speaks.
#[derive(Debug)]
pub(super) enum Sniffed<T: Reset> {
    Http1(Stream<T>),
    Http2(Stream<T>),
}

/// Reads until it is clear what `stream` speaks. `stall` is the longest time
/// that its other end may then take nothing of what is written.
///
/// # Errors
///
/// The stream broke or ended first.
pub(super) async fn sniff<T>(
    mut stream: T,
    stall: Duration,
    ending: Arc<Ending>,
) -> io::Result<Sniffed<T>>
where
    T: AsyncRead + Reset + Unpin,
{
    let mut head = [0; PREFACE.len()];
    let mut length = 0;
    loop {
        let read = stream.read(&mut head[length..]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        length += read;
        let stands = head[..length] == PREFACE[..length];
        if stands && length < PREFACE.len() {
            continue;
        }
        let stream = Stream {
            head,
            left: 0..length,
            stall: Stall::new(stall),
            ending,
            stream,
        };
        return Ok(match stands {
            true => Sniffed::Http2(stream),
            false => Sniffed::Http1(stream),
        });
    }
}

/// A caller's stream: its first bytes are read once more, and a write that does
/// not move for too long fails. Where its end alone would make half a response
/// look whole, it ends with a reset.
#[derive(Debug)]
pub(super) struct Stream<T: Reset> {
    head: [u8; PREFACE.len()],
    left: std::ops::Range<usize>,
    stall: Stall,
    ending: Arc<Ending>,
    stream: T,
}

impl<T: Reset> Drop for Stream<T> {
    fn drop(&mut self) {
        if self.ending.would_deceive() {
            self.stream.reset();
        }
    }
}

impl<T: Reset> Stream<T> {
    fn watch<R>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.stall.moved();
            return written;
        }
        ready!(self.stall.poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Reset + Unpin> AsyncRead for Stream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, into);
        }
        let length = self.left.len().min(into.remaining());
        let start = self.left.start;
        into.put_slice(&self.head[start..start + length]);
        self.left.start += length;
        // What else has come goes along: a head that arrives in two reads makes
        // hyper double its buffer for as long as the connection lives.
        match Pin::new(&mut self.stream).poll_read(cx, into) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
        }
    }
}

impl<T: AsyncWrite + Reset + Unpin> AsyncWrite for Stream<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, from);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, from);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ending.is_clean();
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    const STALL: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_takes_nothing_is_given_up_after_the_stall_time() {
        let (mut caller, stream) = tokio::io::duplex(16);
        caller.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let Sniffed::Http1(mut stream) = sniff(stream, STALL, Arc::default()).await.unwrap() else {
            panic!("not HTTP/1.1");
        };
        let start = tokio::time::Instant::now();
        let error = stream.write_all(&[0; 1000]).await.unwrap_err();
        assert_eq!(
            (error.kind(), start.elapsed()),
            (io::ErrorKind::TimedOut, STALL)
        );
    }

    async fn sniffed(pieces: &[&[u8]]) -> (bool, Vec<u8>) {
        let (mut caller, stream) = tokio::io::duplex(1024);
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let writer = tokio::spawn(async move {
            for piece in pieces {
                caller.write_all(&piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let (is_http2, mut stream) = match sniff(stream, STALL, Arc::default()).await.unwrap() {
            Sniffed::Http1(stream) => (false, stream),
            Sniffed::Http2(stream) => (true, stream),
        };
        writer.await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        (is_http2, all)
    }

    #[tokio::test]
    async fn the_preface_is_known_in_any_pieces_and_nothing_is_lost() {
        let (is_http2, all) = sniffed(&[b"PRI * HT", b"TP/2.0\r\n\r\nSM\r\n\r\n", b"rest"]).await;
        assert!(is_http2);
        assert_eq!(all, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nrest");
    }

    #[tokio::test]
    async fn methods_that_begin_like_the_preface_are_http_1() {
        for request in ["PROPFIND / HTTP/1.1\r\n\r\n", "P", "PRI * HTTP/1.1\r\n\r\n"] {
            let end: &[u8] = if request.len() == 1 {
                b"UT / HTTP/1.1"
            } else {
                b""
            };
            let (is_http2, all) = sniffed(&[request.as_bytes(), end]).await;
            assert!(!is_http2);
            assert!(all.starts_with(request.as_bytes()));
        }
    }
}
