//! One buffer per thread for what is read from sockets, so that a connection at
//! rest needs none of its own.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

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
