//! Answers over HTTP/2 that their caller does not read (RFC 9113, section 5.2).
//!
//! Of HTTP/1 the stream sees when a caller takes nothing. Of one HTTP/2 stream
//! among many only its body can tell: hyper asks it for more when the caller has
//! room. A body that is not asked for too long is dropped by a task of its own,
//! with all it holds: its call, its connection, its place in flight. hyper learns of
//! that when it asks again, or when the connection ends.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::activity::Activity;

/// A body that is dropped when nobody asks for more of it.
#[derive(Debug)]
pub(super) struct Unread<B> {
    rest: Arc<Mutex<Rest<B>>>,
    /// The task that drops it, if there is more than can be given at once.
    watcher: Option<AbortHandle>,
}

#[derive(Debug)]
struct Rest<B> {
    /// What is left, until it is dropped.
    body: Option<B>,
    /// Since when it is not asked for; `None` while it has been asked for more than
    /// there is.
    since: Option<Instant>,
}

/// The caller has read nothing for too long.
#[derive(Debug)]
struct Dropped;

impl<B> Unread<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    /// A `body` on the connection of `activity`, which is dropped when nobody asks for
    /// it during `span`, or does not ask for all of it until `end`.
    pub(super) fn new(
        body: B,
        activity: &Arc<Activity>,
        span: Duration,
        end: Option<Instant>,
    ) -> Self {
        let more = !body.is_end_stream();
        let rest = Arc::new(Mutex::new(Rest {
            body: Some(body),
            since: Some(Instant::now()),
        }));
        let watcher = more.then(|| {
            let watch = watch(Arc::downgrade(&rest), Arc::clone(activity), span, end);
            tokio::spawn(watch).abort_handle()
        });
        Self { rest, watcher }
    }
}

/// Drops the body once it was not asked for during `span`, after at most twice that,
/// or at its `end`.
async fn watch<B>(
    rest: Weak<Mutex<Rest<B>>>,
    activity: Arc<Activity>,
    span: Duration,
    end: Option<Instant>,
) {
    while let Some(due) = rest.upgrade().and_then(|rest| look(&rest, span, end)) {
        sleep_until(due).await;
    }
    // Perhaps it is idle now.
    activity.wake();
}

/// Drops the body if it is time, or returns when to look again.
fn look<B>(rest: &Mutex<Rest<B>>, span: Duration, end: Option<Instant>) -> Option<Instant> {
    let now = Instant::now();
    let mut held = lock(rest);
    let due = held.since.unwrap_or(now) + span;
    let due = end.map_or(due, |end| end.min(due));
    if due > now {
        return Some(due);
    }
    let body = held.body.take();
    drop(held);
    // Outside the lock: what it holds may take others when it goes.
    drop(body);
    None
}

impl<B> Body for Unread<B>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut rest = lock(&self.rest);
        let Some(body) = &mut rest.body else {
            return Poll::Ready(Some(Err(Box::new(Dropped))));
        };
        let polled = Pin::new(&mut *body).poll_frame(cx);
        rest.since = polled.is_ready().then(Instant::now);
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.rest).body.as_ref().is_some_and(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let rest = lock(&self.rest);
        rest.body.as_ref().map_or_else(SizeHint::new, B::size_hint)
    }
}

impl<B> Drop for Unread<B> {
    fn drop(&mut self) {
        if let Some(watcher) = &self.watcher {
            watcher.abort();
        }
    }
}

fn lock<B>(rest: &Mutex<Rest<B>>) -> MutexGuard<'_, Rest<B>> {
    rest.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the caller has read nothing for too long")
    }
}

impl Error for Dropped {}
