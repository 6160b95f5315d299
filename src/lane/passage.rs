//! The response body on its way to the caller.
//!
//! It carries the call's lease and account: when the body has ended well the
//! connection goes back to its pool and the request is `completed`; when either
//! side breaks, or the upstream stalls, the connection is closed and the request
//! `aborted`. The slot in flight is free from that moment, not earlier.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::account::Account;
use super::lease::Lease;
use crate::config;
use crate::http::body::{Progress, Stall};
use crate::outcome::Outcome;

/// A response body that ends its call.
#[derive(Debug)]
pub(crate) struct Passage {
    incoming: Incoming,
    /// What was read before and goes first.
    begin: Bytes,
    /// Whether the server must not know that there is no body.
    coy: bool,
    call: Option<(Lease, Account)>,
    /// Whether it began before the request body had ended.
    early: bool,
    stall: Stall,
    /// Pieces of a request body that streams, when the upstream was last found
    /// silent.
    seen: u64,
}

/// Why a response body broke off.
#[derive(Debug)]
pub(crate) enum PassageError {
    /// The upstream's connection broke.
    Broken(hyper::Error),
    /// The upstream sent nothing for too long, or the whole time was over.
    Stalled,
}

impl Passage {
    pub(super) fn new(
        incoming: Incoming,
        lease: Lease,
        account: Account,
        timeouts: &config::Timeouts,
    ) -> Self {
        let stall = Stall::new(timeouts.stall).until(account.end_of_time());
        let early = account.progress().is_some_and(|body| !body.is_sent());
        let mut passage = Self {
            incoming,
            begin: Bytes::new(),
            coy: false,
            call: Some((lease, account)),
            early,
            stall,
            seen: 0,
        };
        passage.end_if_complete();
        passage
    }

    /// The same after `begin`, which was read before.
    pub(super) fn after(mut self, begin: Bytes) -> Self {
        self.begin = begin;
        self
    }

    /// The body of a 101, which has none: the call goes on in its tunnel.
    pub(super) fn switched(incoming: Incoming, timeouts: &config::Timeouts) -> Self {
        Self {
            incoming,
            begin: Bytes::new(),
            coy: false,
            call: None,
            early: false,
            stall: Stall::new(timeouts.stall),
            seen: 0,
        }
    }

    /// Lets an HTTP/1.1 server write the length that the head tells, though no
    /// body follows, as in a 304. hyper would drop it.
    pub(crate) fn keep_length(&mut self) {
        self.coy = true;
    }

    /// Whether the caller may still be sending its body, which nobody may want any
    /// more: what follows cannot be relied on to be another request.
    pub(crate) fn is_early(&self) -> bool {
        self.early
    }

    /// Ends the call as soon as the last byte has been taken: the server does
    /// not ask again once it has as many bytes as were announced.
    fn end_if_complete(&mut self) {
        if self.incoming.is_end_stream() {
            self.complete();
        }
    }

    /// What moves, where the request body streams.
    fn progress(&self) -> Option<&Arc<Progress>> {
        self.call.as_ref()?.1.progress()
    }

    /// Ready when the upstream has been silent for too long, and the caller too.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self {
            call, stall, seen, ..
        } = self;
        let progress = call.as_ref().and_then(|(_, account)| account.progress());
        match progress {
            Some(progress) => stall.poll_unless_moved(cx, &progress.up, seen),
            None => stall.poll(cx),
        }
    }

    fn complete(&mut self) {
        let Some((lease, account)) = self.call.take() else {
            return;
        };
        // An upload that was answered early stops: its connection closes.
        let sent = account.progress().is_none_or(|body| body.is_sent());
        account.end(Outcome::Completed);
        match sent {
            true => lease.finish(),
            false => lease.cut(),
        }
    }

    fn abort(&mut self) {
        if let Some((lease, account)) = self.call.take() {
            account.end(Outcome::Aborted);
            drop(lease);
        }
    }
}

impl Body for Passage {
    type Data = Bytes;
    type Error = PassageError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, PassageError>>> {
        if !self.begin.is_empty() {
            let begin = std::mem::take(&mut self.begin);
            return Poll::Ready(Some(Ok(Frame::data(begin))));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            ready!(self.poll_stall(cx));
            self.abort();
            return Poll::Ready(Some(Err(PassageError::Stalled)));
        };
        self.stall.moved();
        if let Some(progress) = self.progress() {
            progress.down.fetch_add(1, Ordering::Relaxed);
        }
        match frame {
            Some(Ok(frame)) => {
                self.end_if_complete();
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.abort();
                Poll::Ready(Some(Err(PassageError::Broken(error))))
            }
            None => {
                self.complete();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        !self.coy && self.begin.is_empty() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.coy {
            true => SizeHint::default(),
            false if self.begin.is_empty() => self.incoming.size_hint(),
            // Only of a body of known length something is read before.
            false => {
                SizeHint::with_exact(self.begin.len() as u64 + self.incoming.size_hint().lower())
            }
        }
    }
}

impl std::fmt::Display for PassageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Broken(_) => "the upstream's response broke off",
            Self::Stalled => "the upstream's response stalled",
        })
    }
}

impl std::error::Error for PassageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Broken(error) => Some(error),
            Self::Stalled => None,
        }
    }
}
