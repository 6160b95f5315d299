//! How a task is woken at times that move on with each request, and by what ends
//! its waits.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// Wakes its task at an end that is told anew with each poll. It is set when
/// it has run down, or when the end comes before that: not with each request.
#[derive(Debug, Default)]
pub(crate) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Ready at `end`.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, end: Instant) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(end)));
        if end < timer.deadline() {
            timer.as_mut().reset(end);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() == end || Instant::now() >= end {
                return Poll::Ready(());
            }
            timer.as_mut().reset(end);
        }
    }
}

/// Lets the current task be woken when `signal` is ready, as long as that lives.
/// What it says is then to be looked up.
pub(crate) async fn woken_by<F: Future>(mut signal: Pin<&mut F>) {
    poll_fn(|cx| {
        let _: Poll<_> = signal.as_mut().poll(cx);
        Poll::Ready(())
    })
    .await;
}
