//! How a wait ends in which nothing moves.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Rings when nothing has moved for a while. Costs nothing until something has
/// to be waited for.
#[derive(Debug)]
pub(crate) struct Stall {
    span: Duration,
    /// No later than this, whatever moves.
    end: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Stall {
    pub(crate) fn new(span: Duration) -> Self {
        Self {
            span,
            end: None,
            timer: None,
            waiting: false,
        }
    }

    /// Rings at `end` at the latest.
    pub(crate) fn until(mut self, end: Option<Instant>) -> Self {
        self.end = end;
        self
    }

    /// The same from now on.
    pub(crate) fn ends(&mut self, end: Option<Instant>) {
        if self.end != end {
            self.end = end;
            self.waiting = false;
        }
    }

    /// When it rings at the latest.
    pub(crate) fn end(&self) -> Option<Instant> {
        self.end
    }

    /// Whether that time has come.
    pub(crate) fn is_over(&self) -> bool {
        self.end.is_some_and(|end| end <= Instant::now())
    }

    /// Something moved.
    pub(crate) fn moved(&mut self) {
        self.waiting = false;
    }

    /// The same where `other` pieces count as well: `seen` is how many of them
    /// there were when it last would have rung. It rings after at most twice its
    /// span.
    pub(crate) fn poll_unless_moved(
        &mut self,
        cx: &mut Context<'_>,
        other: &AtomicU64,
        seen: &mut u64,
    ) -> Poll<()> {
        loop {
            ready!(self.poll(cx));
            let now = other.load(Ordering::Relaxed);
            if std::mem::replace(seen, now) == now {
                return Poll::Ready(());
            }
            self.moved();
        }
    }

    /// Nothing moves: ready when that has been so for too long.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (span, end) = (self.span, self.end);
        let latest = || {
            let stalled = Instant::now() + span;
            end.map_or(stalled, |end| end.min(stalled))
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(latest())));
        if !self.waiting {
            timer.as_mut().reset(latest());
            self.waiting = true;
        }
        timer.as_mut().poll(cx)
    }
}
