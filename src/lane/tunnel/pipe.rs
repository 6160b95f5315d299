//! One direction of a tunnel, and its end: at a stop a WebSocket is closed by a
//! close frame (RFC 6455, section 7), other protocols by the end of the bytes.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep_until};

use super::frames::{Frames, going_away};

/// Bytes read at once, each way.
const PIECE: usize = 16 * 1024;

type Stream = TokioIo<Upgraded>;

/// When bytes were last moved, in either direction.
#[derive(Debug)]
pub(super) struct Moved {
    start: Instant,
    /// Since `start`, in µs.
    last: AtomicU64,
}

impl Moved {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            last: AtomicU64::new(0),
        }
    }

    fn now(&self) {
        let micros = self.start.elapsed().as_micros();
        self.last.store(micros as u64, Ordering::Relaxed);
    }

    /// Returns when nothing has moved for `span`.
    pub(super) async fn nothing_for(&self, span: Duration) {
        loop {
            let last = self.last.load(Ordering::Relaxed);
            sleep_until(self.start + Duration::from_micros(last) + span).await;
            if self.last.load(Ordering::Relaxed) == last {
                return;
            }
        }
    }
}

/// One direction. A writer that is behind holds its reader back. Its futures may
/// be dropped anywhere: what was read and not written is kept here.
#[derive(Debug)]
pub(super) struct Pipe<'a> {
    from: ReadHalf<Stream>,
    to: WriteHalf<Stream>,
    moved: &'a Moved,
    piece: Vec<u8>,
    /// So many bytes of `piece` were written.
    written: usize,
    /// What was written, where it is a WebSocket.
    frames: Option<Frames>,
    ended: bool,
}

impl<'a> Pipe<'a> {
    pub(super) fn new(
        from: ReadHalf<Stream>,
        to: WriteHalf<Stream>,
        moved: &'a Moved,
        websocket: bool,
    ) -> Self {
        Self {
            from,
            to,
            moved,
            piece: Vec::with_capacity(PIECE),
            written: 0,
            frames: websocket.then(Frames::new),
            ended: false,
        }
    }

    /// Passes bytes on until there are no more, and then says so.
    pub(super) async fn carry(&mut self) -> io::Result<()> {
        while !self.ended {
            if self.written == self.piece.len() {
                self.fill().await?;
            }
            while self.written < self.piece.len() {
                self.write(self.piece.len()).await?;
            }
            self.to.flush().await?;
            self.moved.now();
        }
        self.to.shutdown().await
    }

    /// Goes on to the end of the frame that has begun, and says that we go away,
    /// unless this side has said so itself. False where there are no frames.
    pub(super) async fn say_goodbye(&mut self, mask: Option<[u8; 4]>) -> io::Result<bool> {
        loop {
            let Some(frames) = self.frames.filter(|frames| !frames.is_lost()) else {
                return Ok(false);
            };
            if frames.is_between() {
                break;
            }
            if self.written == self.piece.len() {
                self.fill().await?;
                if self.ended {
                    return Ok(false);
                }
            }
            let rest = frames.rest(&self.piece[self.written..]);
            self.write(self.written + rest).await?;
        }
        if !self.ended && !self.has_closed() {
            self.to.write_all(&going_away(mask)).await?;
            self.to.flush().await?;
        }
        Ok(true)
    }

    /// Throws away what comes until this side has said that it closes. What it has
    /// sent before that was on its way when we said so, and comes too late.
    pub(super) async fn hear_goodbye(&mut self) -> io::Result<()> {
        loop {
            if let Some(frames) = &mut self.frames {
                frames.pass(&self.piece[self.written..]);
            }
            self.written = self.piece.len();
            if self.ended || self.has_closed() {
                return Ok(());
            }
            self.fill().await?;
        }
    }

    /// Ends the half that is written, and reads the other to its end: what is
    /// unread when a socket closes would throw away what was written to it.
    pub(super) async fn close(&mut self) -> io::Result<()> {
        self.to.shutdown().await?;
        let mut piece = [0; 1024];
        while self.from.read(&mut piece).await? > 0 {}
        Ok(())
    }

    fn has_closed(&self) -> bool {
        self.frames.is_some_and(|frames| frames.is_closed())
    }

    /// Reads the next piece, when all of the last is done with.
    async fn fill(&mut self) -> io::Result<()> {
        self.piece.clear();
        self.written = 0;
        self.ended = self.from.read_buf(&mut self.piece).await? == 0;
        self.moved.now();
        Ok(())
    }

    /// Writes some of the piece, up to `end`.
    async fn write(&mut self, end: usize) -> io::Result<()> {
        let bytes = &self.piece[self.written..end];
        let length = self.to.write(bytes).await?;
        if length == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        if let Some(frames) = &mut self.frames {
            frames.pass(&self.piece[self.written..self.written + length]);
        }
        self.written += length;
        Ok(())
    }
}
