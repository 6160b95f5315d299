//! A caller's stream, as hyper sees it.
//!
//! What is read goes through the framing reader first. Bytes that are in order
//! pass without being copied; a head that is not whole is held back here until
//! it is, within its time and its bound. A request that is refused is replaced by
//! a harmless one, which the service answers by the fault noted in `activity`;
//! so the refusal is one of our own answers, counted, and comes after those of
//! earlier requests. A body that turns out to be malformed ends in an error.
//!
//! Interim answers are written between hyper's own messages (`interim`). What is
//! written fails when the caller takes nothing of it for too long. When
//! the connection is closed while the caller still sends, what it sends is thrown
//! away for a while: a reset would overtake the answer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::activity::Activity;
use super::ending::{Ending, Reset};
use super::framing::{Framing, Rest};
use super::interim::Gap;
use super::linger::Linger;
use super::sniff::Sniffed;
use crate::config;
use crate::http::chunked::Bounds;
use crate::outcome::Fault;
use crate::stall::Stall;

mod write;

/// What stands for a request that is refused: nothing of it is the caller's but
/// whether the answer has a body.
const REFUSED: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
const REFUSED_HEAD: &[u8] = b"HEAD / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

/// Read at a time of what is held back.
const PIECE: usize = 4 << 10;

/// Most bytes that are thrown away while a request is answered.
const MOST_WASTE: usize = 64 << 10;

/// A caller's stream.
#[derive(Debug)]
pub(super) struct Stream<T: Reset> {
    stream: T,
    framing: Framing,
    activity: Arc<Activity>,
    ending: Arc<Ending>,
    /// Bytes that were read and have not passed.
    held: Vec<u8>,
    /// So many at the start of those may pass.
    passing: usize,
    /// Why nothing more passes.
    stop: Option<Stop>,
    header_timeout: Duration,
    /// When the head must be whole that is held back.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Bytes thrown away.
    waste: usize,
    /// The task that waits for the answer to an upgrade.
    waker: Option<Waker>,
    gap: Gap,
    stall: Stall,
    linger: Option<Linger>,
}

/// Where its end alone would make half a response look whole, the stream ends
/// with a reset.
impl<T: Reset> Drop for Stream<T> {
    fn drop(&mut self) {
        if self.ending.would_deceive() {
            self.stream.reset();
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Stop {
    /// A request was refused; its stand-in has passed.
    Refused,
    /// A body is malformed.
    Broken(Fault),
    /// The caller has sent all there is.
    End,
}

impl<T: Reset> Stream<T> {
    /// The rest of a `stream` of which some bytes were `sniffed`. What speaks
    /// HTTP/2 is not read here.
    pub(super) fn new(
        stream: T,
        sniffed: Sniffed,
        settings: &config::Client,
        activity: &Arc<Activity>,
        ending: &Arc<Ending>,
    ) -> Self {
        let bounds = Bounds {
            bytes: settings.max_header_bytes,
            fields: settings.max_headers,
        };
        let mut stream = Self {
            stream,
            framing: match sniffed.is_http2() {
                true => Framing::raw(),
                false => Framing::new(bounds, activity.ended()),
            },
            activity: Arc::clone(activity),
            ending: Arc::clone(ending),
            held: sniffed.into_bytes(),
            passing: 0,
            stop: None,
            header_timeout: settings.header_timeout,
            deadline: None,
            waste: 0,
            waker: None,
            gap: Gap::default(),
            stall: Stall::new(settings.stall_timeout),
            linger: None,
        };
        stream.scan_held();
        stream
    }

    /// Whether nothing is read here.
    pub(super) fn is_raw(&self) -> bool {
        self.framing.is_raw()
    }

    /// Shows the framing reader what is held.
    fn scan_held(&mut self) {
        let scan = self.framing.scan(&self.held);
        self.passing = scan.pass;
        self.obey(scan.rest);
    }

    /// Tells the service of requests that hyper shows in another way.
    fn note_whole_server(&mut self) {
        for number in self.framing.take_whole_server() {
            self.activity.ask_whole_server(number);
        }
    }

    /// Does with the bytes held after those that pass what was said.
    fn obey(&mut self, rest: Rest) {
        if rest != Rest::More {
            self.deadline = None;
        }
        match rest {
            Rest::More => self.mark_head(),
            // Perhaps a head; that shows when it is scanned.
            Rest::Keep if self.passing < self.held.len() => {
                self.activity.stir(self.framing.heads());
            }
            Rest::Keep => {}
            Rest::Waste => self.waste_held(),
            Rest::Refused(fault) => self.refuse(fault, self.framing.head_only()),
            Rest::Broken(fault) => {
                self.held.truncate(self.passing);
                self.stop = Some(Stop::Broken(fault));
            }
        }
    }

    /// Gives a head that has begun its time.
    fn mark_head(&mut self) {
        if self.passing > 0 {
            // The one before it is whole.
            self.deadline = None;
        }
        if self.passing == self.held.len() {
            return;
        }
        match self.framing.has_begun() {
            true => self.activity.stir(self.framing.heads()),
            false => self.activity.rest(self.framing.heads()),
        }
        let timeout = self.header_timeout;
        self.deadline
            .get_or_insert_with(|| Box::pin(sleep(timeout)));
    }

    /// Puts the stand-in in the place of the head that is refused, which is of a HEAD
    /// if `head_only`.
    fn refuse(&mut self, fault: Fault, head_only: bool) {
        self.activity.refuse(self.framing.heads(), fault);
        self.held.truncate(self.passing);
        let stand_in = match head_only {
            true => REFUSED_HEAD,
            false => REFUSED,
        };
        self.held.extend_from_slice(stand_in);
        self.passing = self.held.len();
        self.stop = Some(Stop::Refused);
    }

    fn waste_held(&mut self) {
        self.waste += self.held.len() - self.passing;
        self.held.truncate(self.passing);
    }

    /// Hands out what may pass of what is held.
    fn pass(&mut self, into: &mut ReadBuf<'_>) {
        let length = self.passing.min(into.remaining());
        into.put_slice(&self.held[..length]);
        self.passing -= length;
        if length == self.held.len() {
            // A connection that rests keeps no memory.
            self.held = Vec::new();
        } else {
            self.held.drain(..length);
        }
    }

    /// What was waited for is answered: goes on with what was kept.
    fn settle(&mut self) {
        if !self.framing.waits() {
            return;
        }
        let granted = self.framing.asks_to_upgrade() && self.activity.is_upgraded();
        if granted || self.activity.ended() == self.framing.heads() {
            self.framing.go_on(granted);
            if !self.held.is_empty() {
                self.scan_held();
            }
        }
    }

    /// Whether nothing more is to be read for now.
    fn is_full(&self) -> bool {
        let kept = self.framing.waits() && self.held.len() >= PIECE;
        kept || self.waste >= MOST_WASTE
    }
}

impl<T: AsyncRead + Reset + Unpin> Stream<T> {
    /// Reads into the caller's own buffer and lets pass what is in order; the
    /// rest is held.
    fn read_through(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let start = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, into))?;
        let read = &into.filled()[start..];
        if read.is_empty() {
            self.stop = Some(Stop::End);
            return Poll::Ready(Ok(()));
        }
        let scan = self.framing.scan(read);
        if scan.pass < read.len() || scan.rest != Rest::More {
            self.held.extend_from_slice(&read[scan.pass..]);
            into.set_filled(start + scan.pass);
            self.obey(scan.rest);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads more of what is held back.
    fn read_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let length = self.held.len();
        self.held.resize(length + PIECE, 0);
        let mut into = ReadBuf::new(&mut self.held[length..]);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut into);
        let filled = into.filled().len();
        self.held.truncate(length + filled);
        ready!(read)?;
        match filled {
            0 => self.stop = Some(Stop::End),
            _ => self.scan_held(),
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the time is over of the head that is held back; if so it is
    /// refused, or the connection ends if it has only empty lines to show.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = &mut self.deadline else {
            return false;
        };
        if deadline.as_mut().poll(cx).is_pending() {
            return false;
        }
        // Until a head is whole, the framing reader tells the method of the one before.
        let part = self.held[self.passing..].trim_ascii_start();
        let head_only = part.starts_with(b"HEAD ");
        match self.framing.has_begun() {
            true => self.refuse(Fault::HeadTimeout, head_only),
            false => self.stop = Some(Stop::End),
        }
        self.framing.end();
        true
    }
}

impl<T: AsyncRead + Reset + Unpin> AsyncRead for Stream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let start = into.filled().len();
        loop {
            this.settle();
            if this.passing > 0 {
                this.pass(into);
            }
            if into.filled().len() > start {
                this.note_whole_server();
                return Poll::Ready(Ok(()));
            }
            match this.stop {
                // What is answered does not wait for what the caller does.
                Some(Stop::Refused) => return Poll::Pending,
                Some(Stop::Broken(fault)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault)));
                }
                Some(Stop::End) => return Poll::Ready(Ok(())),
                None => {}
            }
            if this.framing.waits() && !this.held.is_empty() {
                this.activity.keep();
            }
            if this.framing.asks_to_upgrade() {
                this.waker = Some(cx.waker().clone());
            }
            if this.is_full() {
                return Poll::Pending;
            }
            let read = match this.held.is_empty() {
                true => this.read_through(cx, into),
                false => this.read_more(cx),
            };
            match read {
                Poll::Ready(read) => read?,
                Poll::Pending if this.is_late(cx) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
