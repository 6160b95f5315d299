//! Interim answers (1xx) on the caller's side: written by the connection's stream
//! between two answers, never inside one, and never after the answer they
//! precede.
//!
//! hyper does not know of them. What it has to write it holds whole until the
//! stream has taken it, and flushes the stream when it holds nothing; and the head
//! of an answer is written in the same turn of the connection's task in which the
//! service gives it. So there is a gap between two of its messages from a flush
//! to the next write, and it lies before the answer to a request if no write
//! came since that answer was given.
//!
//! One that comes while a caller takes nothing of an earlier answer may find no
//! gap, and is left out.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// Most bytes that wait for a caller to take them.
const MOST_BYTES: usize = 64 << 10;

/// What has come for one connection and is not written yet.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// Requests that were answered, whether or not the answer is written.
    answered: AtomicU64,
    /// Whether there are heads in `letters`.
    full: AtomicBool,
    /// Held for a few lines, when an interim answer comes or goes.
    letters: Mutex<Letters>,
}

#[derive(Debug, Default)]
struct Letters {
    /// The number of the request they are for, counted from 0.
    request: u64,
    heads: Vec<u8>,
}

/// Where the stream stands in what hyper writes.
#[derive(Debug, Default)]
pub(super) struct Gap {
    /// Whether hyper has written nothing since it had nothing to write.
    open: bool,
    /// Requests that had been answered when it last wrote.
    written: u64,
    /// What is written in this gap, before anything else.
    heads: Vec<u8>,
}

impl Inbox {
    /// Request `number` has its answer, which is written next.
    pub(super) fn answer(&self, number: u64) {
        self.answered.store(number + 1, Ordering::Release);
    }

    /// Takes the head of an interim answer to request `number`, the last of those
    /// that have `begun`; false if it is not to be written.
    pub(super) fn put(&self, number: u64, begun: u64, head: &[u8]) -> bool {
        let mut letters = self.letters();
        if begun != number + 1 || self.answered.load(Ordering::Acquire) > number {
            return false;
        }
        if letters.request != number {
            letters.request = number;
            letters.heads.clear();
        }
        if letters.heads.len() + head.len() > MOST_BYTES {
            return false;
        }
        letters.heads.extend_from_slice(head);
        self.full.store(true, Ordering::Release);
        true
    }

    /// Takes the heads that wait, where nothing else is being written.
    pub(super) fn take(&self) -> Option<Vec<u8>> {
        if !self.full.load(Ordering::Acquire) {
            return None;
        }
        let mut letters = self.letters();
        self.full.store(false, Ordering::Release);
        Some(std::mem::take(&mut letters.heads))
    }

    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gap {
    /// hyper flushes: writes what there is.
    pub(super) fn poll_flush<T: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        inbox: &Inbox,
        stream: &mut T,
    ) -> Poll<io::Result<()>> {
        self.open = true;
        self.fill(inbox);
        self.poll_heads(cx, stream)
    }

    /// hyper writes: first what belongs before that. Ready when it may.
    pub(super) fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        inbox: &Inbox,
        stream: &mut T,
    ) -> Poll<io::Result<()>> {
        self.fill(inbox);
        ready!(self.poll_heads(cx, stream))?;
        self.open = false;
        self.written = inbox.answered.load(Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    /// Takes what can be written in this gap, and drops what comes too late.
    fn fill(&mut self, inbox: &Inbox) {
        if !inbox.full.load(Ordering::Acquire) {
            return;
        }
        let mut letters = inbox.letters();
        let number = letters.request;
        let late = self.written > number;
        let waits = !self.open && inbox.answered.load(Ordering::Relaxed) <= number;
        if waits && !late {
            return;
        }
        inbox.full.store(false, Ordering::Release);
        let heads = std::mem::take(&mut letters.heads);
        if self.open && !late {
            self.heads.extend_from_slice(&heads);
        }
    }

    fn poll_heads<T: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut T,
    ) -> Poll<io::Result<()>> {
        while !self.heads.is_empty() {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, &self.heads))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.heads.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;

    const HINT: &[u8] = b"hint;";

    /// A stream whose reader takes `room` bytes at a time.
    struct Scene {
        inbox: Inbox,
        gap: Gap,
        stream: DuplexStream,
        reader: DuplexStream,
    }

    impl Scene {
        fn new(room: usize) -> Self {
            let (stream, reader) = duplex(room);
            Self {
                inbox: Inbox::default(),
                gap: Gap::default(),
                stream,
                reader,
            }
        }

        fn flush(&mut self) -> bool {
            let mut cx = Context::from_waker(Waker::noop());
            let flushed = self.gap.poll_flush(&mut cx, &self.inbox, &mut self.stream);
            flushed.is_ready()
        }

        /// What hyper does with its buffer: how much was taken of it.
        fn write(&mut self, bytes: &[u8]) -> usize {
            let mut cx = Context::from_waker(Waker::noop());
            let first = self.gap.poll_write(&mut cx, &self.inbox, &mut self.stream);
            if first.is_pending() {
                return 0;
            }
            match Pin::new(&mut self.stream).poll_write(&mut cx, bytes) {
                Poll::Ready(written) => written.unwrap(),
                Poll::Pending => 0,
            }
        }

        async fn read(&mut self, length: usize) -> String {
            let mut read = vec![0; length];
            self.reader.read_exact(&mut read).await.unwrap();
            String::from_utf8(read).unwrap()
        }
    }

    #[tokio::test]
    async fn they_go_before_the_answer_whether_it_is_there_or_not() {
        let mut scene = Scene::new(100);
        scene.inbox.put(0, 1, HINT);
        assert!(scene.flush());
        assert_eq!(scene.read(5).await, "hint;");
        scene.inbox.put(0, 1, HINT);
        scene.inbox.answer(0);
        assert_eq!(scene.write(b"answer"), 6);
        assert_eq!(scene.read(11).await, "hint;answer");
    }

    #[tokio::test]
    async fn none_goes_into_an_answer_or_behind_it() {
        let mut scene = Scene::new(100);
        assert!(scene.flush());
        scene.inbox.answer(0);
        assert_eq!(scene.write(b"answer"), 6);
        // Came just when the answer was given by somebody else.
        scene.inbox.letters().heads.extend_from_slice(HINT);
        scene.inbox.full.store(true, Ordering::Release);
        assert!(scene.flush());
        assert_eq!(scene.write(b", more"), 6);
        assert!(scene.flush());
        scene.inbox.put(0, 1, HINT);
        assert!(scene.flush());
        scene.inbox.put(0, 2, HINT);
        assert!(scene.flush());
        assert_eq!(scene.write(b"!"), 1);
        assert_eq!(scene.read(13).await, "answer, more!");
    }

    #[tokio::test]
    async fn one_waits_for_the_rest_of_an_earlier_answer() {
        let mut scene = Scene::new(4);
        assert!(scene.flush());
        scene.inbox.answer(0);
        assert_eq!(scene.write(b"answer"), 4);
        scene.inbox.put(1, 2, HINT);
        assert_eq!(scene.write(b"er"), 0);
        assert_eq!(scene.read(4).await, "answ");
        assert_eq!(scene.write(b"er"), 2);
        // Half of it fits.
        assert!(!scene.flush());
        scene.inbox.answer(1);
        assert_eq!(scene.write(b"2nd"), 0);
        assert_eq!(scene.read(4).await, "erhi");
        assert_eq!(scene.write(b"2nd"), 1);
        assert_eq!(scene.read(4).await, "nt;2");
    }

    #[tokio::test]
    async fn one_that_finds_no_gap_is_left_out() {
        let mut scene = Scene::new(4);
        assert!(scene.flush());
        scene.inbox.answer(0);
        assert_eq!(scene.write(b"answer"), 4);
        scene.inbox.put(1, 2, HINT);
        scene.inbox.answer(1);
        // The rest of the first and the second, in one buffer.
        assert_eq!(scene.write(b"er2nd"), 0);
        assert_eq!(scene.read(4).await, "answ");
        assert_eq!(scene.write(b"er2nd"), 4);
        assert_eq!(scene.read(4).await, "er2n");
        assert_eq!(scene.write(b"d"), 1);
        assert!(scene.flush());
        assert_eq!(scene.read(1).await, "d");
    }

    #[test]
    fn no_more_wait_than_a_bound() {
        let inbox = Inbox::default();
        for _ in 0..1000 {
            inbox.put(0, 1, &[b'a'; 1000]);
        }
        assert!(inbox.letters().heads.len() <= MOST_BYTES);
    }
}
