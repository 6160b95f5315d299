//! Answers over HTTP/2 that their caller does not read (RFC 9113, section 5.2).
//!
//! Of HTTP/1 the stream sees when a caller takes nothing. Of one HTTP/2 stream
//! among many only its body can tell: hyper asks it for more when the caller has
//! room. The bodies of a connection are kept together, and a body that is not
//! asked for too long is dropped by a task that watches them all, with all it
//! holds: its call, its connection, its place in flight. hyper learns of that when
//! it asks again, or when the connection ends.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::activity::Activity;

/// Watches the answers on one connection.
#[derive(Debug)]
pub(super) struct Watcher<B> {
    shared: Arc<Shared<B>>,
    activity: Arc<Activity>,
    /// How long each may be left unread.
    span: Duration,
}

/// A body that is dropped when nobody asks for more of it.
#[derive(Debug)]
pub(super) struct Unread<B> {
    shared: Arc<Shared<B>>,
    place: usize,
}

#[derive(Debug)]
struct Shared<B> {
    /// Taken by the connection's task and by the watcher's, which share a thread.
    bodies: Mutex<Bodies<B>>,
    /// Tells the watcher's task to look sooner, or that all is over.
    bell: Arc<Notify>,
}

#[derive(Debug)]
struct Bodies<B> {
    places: Vec<Option<Rest<B>>>,
    /// Which of the places are free.
    free: Vec<usize>,
    /// When its task looks next, if there is one.
    next: Option<Instant>,
}

#[derive(Debug)]
struct Rest<B> {
    /// What is left, until it is dropped.
    body: Option<B>,
    /// Since when it is not asked for; `None` while it has been asked for more than
    /// there is.
    since: Option<Instant>,
    /// When it is dropped at the latest.
    end: Option<Instant>,
}

/// The caller has read nothing for too long.
#[derive(Debug)]
struct Dropped;

impl<B> Watcher<B>
where
    B: Send + 'static,
{
    /// For the connection of `activity`; each answer is dropped when nobody asks for it
    /// during `span`, after at most twice that.
    pub(super) fn new(activity: &Arc<Activity>, span: Duration) -> Self {
        let bodies = Bodies {
            places: Vec::new(),
            free: Vec::new(),
            next: None,
        };
        let shared = Shared {
            bodies: Mutex::new(bodies),
            bell: Arc::default(),
        };
        Self {
            shared: Arc::new(shared),
            activity: Arc::clone(activity),
            span,
        }
    }

    /// One more, which is also dropped if not all of it was asked for at its `end`.
    pub(super) fn add(&self, body: B, end: Option<Instant>) -> Unread<B> {
        let now = Instant::now();
        let rest = Rest {
            body: Some(body),
            since: Some(now),
            end,
        };
        let due = rest.due(now, self.span);
        let mut bodies = self.shared.lock();
        let place = bodies.put(rest);
        let next = bodies.next;
        if next.is_none_or(|next| due < next) {
            bodies.next = Some(due);
            match next {
                Some(_) => self.shared.bell.notify_one(),
                None => self.watch(),
            }
        }
        drop(bodies);
        Unread {
            shared: Arc::clone(&self.shared),
            place,
        }
    }

    /// Starts the task that looks at them as long as there are any.
    fn watch(&self) {
        let (shared, bell) = (Arc::downgrade(&self.shared), Arc::clone(&self.shared.bell));
        let (activity, span) = (Arc::clone(&self.activity), self.span);
        tokio::spawn(async move {
            while let Some(next) = look(&shared, &activity, span) {
                // Rung or not, it looks again.
                let _ = timeout_at(next, bell.notified()).await;
            }
        });
    }
}

/// Drops what it is time for, and returns when to look again.
fn look<B>(shared: &Weak<Shared<B>>, activity: &Activity, span: Duration) -> Option<Instant> {
    let shared = shared.upgrade()?;
    let (dropped, next) = shared.lock().expire(Instant::now(), span);
    if !dropped.is_empty() {
        // Outside the lock: what they hold may take others when it goes.
        drop(dropped);
        // Perhaps the connection is idle now.
        activity.wake();
    }
    next
}

impl<B> Bodies<B> {
    fn put(&mut self, rest: Rest<B>) -> usize {
        match self.free.pop() {
            Some(place) => {
                self.places[place] = Some(rest);
                place
            }
            None => {
                self.places.push(Some(rest));
                self.places.len() - 1
            }
        }
    }

    /// Takes out the bodies that are due at `now`, and says when the next one is.
    fn expire(&mut self, now: Instant, span: Duration) -> (Vec<B>, Option<Instant>) {
        let mut expired = Vec::new();
        self.next = None;
        for rest in self.places.iter_mut().flatten() {
            let due = rest.due(now, span);
            if due <= now {
                expired.extend(rest.body.take());
            } else if rest.body.is_some() {
                self.next = Some(self.next.map_or(due, |next| next.min(due)));
            }
        }
        (expired, self.next)
    }
}

impl<B> Rest<B> {
    /// When it is dropped, unless it is asked for before.
    fn due(&self, now: Instant, span: Duration) -> Instant {
        let due = self.since.unwrap_or(now) + span;
        self.end.map_or(due, |end| end.min(due))
    }
}

impl<B> Shared<B> {
    fn lock(&self) -> MutexGuard<'_, Bodies<B>> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> Drop for Shared<B> {
    fn drop(&mut self) {
        self.bell.notify_one();
    }
}

impl<B> Unread<B> {
    /// What `look` says of the body, if it is still there.
    fn look<T>(&self, look: impl FnOnce(&B) -> T) -> Option<T> {
        let bodies = self.shared.lock();
        let rest = bodies.places[self.place].as_ref();
        rest.and_then(|rest| rest.body.as_ref()).map(look)
    }
}

impl<B> Drop for Unread<B> {
    fn drop(&mut self) {
        let mut bodies = self.shared.lock();
        let rest = bodies.places[self.place].take();
        bodies.free.push(self.place);
        drop(bodies);
        // Outside the lock, as above.
        drop(rest);
    }
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
        let mut bodies = self.shared.lock();
        let rest = bodies.places[self.place].as_mut();
        let Some((body, since)) =
            rest.and_then(|rest| Some((rest.body.as_mut()?, &mut rest.since)))
        else {
            return Poll::Ready(Some(Err(Box::new(Dropped))));
        };
        let polled = Pin::new(body).poll_frame(cx);
        *since = polled.is_ready().then(Instant::now);
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.look(B::is_end_stream).unwrap_or(false)
    }

    fn size_hint(&self) -> SizeHint {
        self.look(B::size_hint).unwrap_or_default()
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the caller has read nothing for too long")
    }
}

impl Error for Dropped {}
