//! What one caller's connection is doing, for those who are not its task: its
//! stream, its service, and whoever needs room for another connection.
//!
//! A connection is idle while none of its requests is under way and nothing has come
//! of another. `Connections`
//! has the [`Activity`] of each, so that the one that has been idle for longest
//! can be closed when there is no room (`server::connections`).

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::interim::Inbox;
#[cfg(doc)]
use crate::http::LATE_FRAMES;
use crate::outcome::Fault;

/// Most uploads over one HTTP/2 connection that are answered before their end.
const MOST_REFUSED: u64 = 1000;

/// Not idle.
const BUSY: u64 = u64::MAX;

/// One connection's doings.
#[derive(Debug)]
pub(super) struct Activity {
    /// `idle_since` is counted from here.
    opened: Instant,
    /// Requests of which the head has come.
    begun: AtomicU64,
    /// Of those, the ones that have been answered or given up.
    ended: AtomicU64,
    /// Requests of which the head has come or begun to come.
    coming: AtomicU64,
    /// Nanoseconds after `opened`, or [`BUSY`].
    idle_since: AtomicU64,
    /// Whether the stream keeps something until the next of those that ends.
    kept: AtomicBool,
    /// Whether the last response was `101`.
    upgraded: AtomicBool,
    /// Writes of what speaks HTTP/2.
    written: AtomicU64,
    refused_uploads: AtomicU64,
    /// When the answer that is written is cut off, in nanoseconds after `opened`.
    end: AtomicU64,
    /// The number of the request that is refused as it stands, counted from 0,
    /// and why.
    refusal: OnceLock<(u64, Fault)>,
    /// The numbers of requests for the server as a whole, and whether there are
    /// any. Held to put one in or take one out.
    whole_server: Mutex<Vec<u64>>,
    some_whole_server: AtomicBool,
    unwanted: AtomicBool,
    /// The connection's task.
    task: OnceLock<Waker>,
    /// Interim answers to its last request.
    pub(super) inbox: Inbox,
}

/// A request that is under way, as long as this lives.
#[derive(Debug)]
pub(super) struct Underway(Arc<Activity>);

/// A response body whose request is under way until it is dropped.
#[derive(Debug)]
pub(super) struct Answering<B: Body> {
    body: B,
    /// How it broke, until that is told.
    broken: Option<B::Error>,
    _underway: Underway,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            opened: Instant::now(),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            coming: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            kept: AtomicBool::new(false),
            upgraded: AtomicBool::new(false),
            written: AtomicU64::new(0),
            refused_uploads: AtomicU64::new(0),
            end: AtomicU64::new(u64::MAX),
            refusal: OnceLock::new(),
            whole_server: Mutex::default(),
            some_whole_server: AtomicBool::new(false),
            unwanted: AtomicBool::new(false),
            task: OnceLock::new(),
            inbox: Inbox::default(),
        }
    }

    /// A request begins: its number, and what keeps it under way.
    pub(super) fn begin(self: &Arc<Self>) -> (u64, Underway) {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        self.idle_since.store(BUSY, Ordering::Relaxed);
        (number, Underway(Arc::clone(self)))
    }

    /// An interim answer came for request `number`.
    pub(super) fn hear(&self, number: u64, head: &[u8]) {
        let begun = self.begun.load(Ordering::Relaxed);
        if self.inbox.put(number, begun, head) {
            self.wake();
        }
    }

    /// The stream keeps something until the request that is under way has ended, and
    /// has told hyper that there is nothing.
    pub(super) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// The head of request `number` has begun to come, or what may be one: it has a time
    /// of its own.
    pub(super) fn stir(&self, number: u64) {
        self.coming.store(number + 1, Ordering::Relaxed);
        self.idle_since.store(BUSY, Ordering::Relaxed);
    }

    /// Nothing has begun to come after the first `heads` requests.
    pub(super) fn rest(&self, heads: u64) {
        if self.coming.swap(heads, Ordering::Relaxed) > heads && self.ended() == heads {
            self.idle_from_now();
        }
    }

    fn idle_from_now(&self) {
        let idle = Instant::now() - self.opened;
        let nanos = u64::try_from(idle.as_nanos()).unwrap_or(BUSY - 1);
        self.idle_since.store(nanos, Ordering::Relaxed);
    }

    /// The answer that is written next is cut off at `end`, whatever moves.
    pub(super) fn ends(&self, end: Option<Instant>) {
        let nanos = end.and_then(|end| u64::try_from((end - self.opened).as_nanos()).ok());
        self.end.store(nanos.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// When it is.
    pub(super) fn end(&self) -> Option<Instant> {
        match self.end.load(Ordering::Relaxed) {
            u64::MAX => None,
            nanos => Some(self.opened + Duration::from_nanos(nanos)),
        }
    }

    /// Whether a head has begun to come that is not a request yet.
    pub(super) fn is_coming(&self) -> bool {
        self.coming.load(Ordering::Relaxed) > self.begun.load(Ordering::Relaxed)
    }

    /// An upload over HTTP/2 was answered before its end. What still comes of it
    /// counts towards [`LATE_FRAMES`], so after many the caller is sent away in good
    /// order.
    pub(super) fn refuse_upload(&self) {
        if self.refused_uploads.fetch_add(1, Ordering::Relaxed) == MOST_REFUSED {
            self.dismiss();
        }
    }

    /// Requests that were answered or given up.
    pub(super) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Since when it has been idle, if it is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        match self.idle_since.load(Ordering::Relaxed) {
            BUSY => None,
            nanos => Some(self.opened + Duration::from_nanos(nanos)),
        }
    }

    /// Request `number` is refused as it stands.
    pub(super) fn refuse(&self, number: u64, fault: Fault) {
        // The first fault is what counts; there is no second.
        let _ = self.refusal.set((number, fault));
    }

    /// Why request `number` is refused as it stands, if it is.
    pub(super) fn refusal(&self, number: u64) -> Option<Fault> {
        let (refused, fault) = self.refusal.get()?;
        (*refused == number).then_some(*fault)
    }

    /// Request `number` is for the server as a whole.
    pub(super) fn ask_whole_server(&self, number: u64) {
        self.whole_server().push(number);
        self.some_whole_server.store(true, Ordering::Relaxed);
    }

    /// Whether request `number` is, asked in the order of requests.
    pub(super) fn asks_whole_server(&self, number: u64) -> bool {
        if !self.some_whole_server.load(Ordering::Relaxed) {
            return false;
        }
        let mut numbers = self.whole_server();
        let is = numbers.contains(&number);
        numbers.retain(|one| *one > number);
        self.some_whole_server
            .store(!numbers.is_empty(), Ordering::Relaxed);
        is
    }

    fn whole_server(&self) -> MutexGuard<'_, Vec<u64>> {
        self.whole_server
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The last response was `101`.
    pub(super) fn upgrade(&self) {
        self.upgraded.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_upgraded(&self) -> bool {
        self.upgraded.load(Ordering::Relaxed)
    }

    /// How often something was written, where HTTP/2 is spoken.
    pub(super) fn written(&self) -> &AtomicU64 {
        &self.written
    }

    /// The task to wake when there is something new; the first counts. To be looked
    /// for after this, and after each time it is woken: interim answers, whether
    /// its place is needed, and at which stage of a stop the daemon is.
    pub(super) fn belongs_to(&self, task: &Waker) {
        self.task.get_or_init(|| task.clone());
        // Either the task is seen by who has something new, or that is seen here.
        fence(Ordering::SeqCst);
    }

    /// Has the connection's task look.
    pub(super) fn wake(&self) {
        fence(Ordering::SeqCst);
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }

    /// Its place is needed: it closes as soon as it is idle.
    pub(super) fn dismiss(&self) {
        self.unwanted.store(true, Ordering::Relaxed);
        self.wake();
    }

    pub(super) fn is_unwanted(&self) -> bool {
        self.unwanted.load(Ordering::Relaxed)
    }
}

impl Underway {
    /// The request is under way until `body` is dropped.
    pub(super) fn until<B: Body>(self, body: B) -> Answering<B> {
        Answering {
            body,
            broken: None,
            _underway: self,
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let activity = &*self.0;
        let ended = activity.ended.fetch_add(1, Ordering::Relaxed) + 1;
        // All of a connection's requests begin and end on its own thread.
        let known = [&activity.begun, &activity.coming];
        if known
            .iter()
            .all(|count| count.load(Ordering::Relaxed) <= ended)
        {
            activity.idle_from_now();
        }
        if activity.kept.load(Ordering::Relaxed) {
            activity.kept.store(false, Ordering::Relaxed);
            activity.wake();
        }
    }
}

impl<B> Body for Answering<B>
where
    B: Body<Data = Bytes, Error: Unpin> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Err(error))) => {
                // With an error hyper throws away what it has not written, the head
                // perhaps; what it is told to wait for it writes first.
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            frame => frame,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
