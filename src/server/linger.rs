//! The end of a connection whose caller still sends: what it sends is thrown away
//! for a while, since a reset would overtake the answer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::stall::Stall;

/// Longest time that a closed connection still takes what the caller sends, and
/// longest time of that without a byte.
const LINGER: Duration = Duration::from_secs(10);
const LINGER_PAUSE: Duration = Duration::from_secs(2);

/// Most bytes of that.
const MOST_LINGER: u64 = 32 << 20;

/// Read at a time.
const PIECE: usize = 4 << 10;

/// A closed connection that still takes what its caller sends.
#[derive(Debug)]
pub(super) struct Linger {
    end: Pin<Box<Sleep>>,
    pause: Stall,
    bytes: u64,
}

impl Linger {
    pub(super) fn new() -> Self {
        Self {
            end: Box::pin(sleep(LINGER)),
            pause: Stall::new(LINGER_PAUSE),
            bytes: 0,
        }
    }

    /// Throws away what the caller still sends. Where it has sent a whole request
    /// and is not `expected` to send more, only what is there already.
    pub(super) fn poll<T: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut T,
        expected: bool,
    ) -> Poll<()> {
        let mut room = [0; PIECE];
        while self.bytes < MOST_LINGER {
            let mut into = ReadBuf::new(&mut room);
            let read = Pin::new(&mut *stream).poll_read(cx, &mut into);
            if read.is_pending() {
                if expected || self.bytes > 0 {
                    ready!(self.pause.poll(cx));
                }
                return Poll::Ready(());
            }
            let length = into.filled().len();
            if length == 0 || self.end.as_mut().poll(cx).is_ready() {
                break;
            }
            self.pause.moved();
            self.bytes += length as u64;
        }
        Poll::Ready(())
    }
}
