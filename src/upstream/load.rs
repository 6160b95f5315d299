//! The calls on one HTTP/2 connection, which many share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

/// Most calls at once on one HTTP/2 connection, where the upstream allows more.
const MAX_STREAMS: usize = 100;

/// One of the calls on an HTTP/2 connection.
#[derive(Debug)]
pub(super) struct Streams(pub(super) Arc<Load>);

/// The calls on an HTTP/2 connection.
#[derive(Debug)]
pub(super) struct Load {
    calls: AtomicUsize,
    /// As many as the upstream allows at once (RFC 9113, section 6.5.2), so that
    /// no call waits inside the connection after its turn was taken.
    max: AtomicUsize,
    /// Whether no more calls are to join.
    is_retired: AtomicBool,
    opened: Instant,
    /// When the last call ended, in nanoseconds after `opened`.
    unused_since: AtomicU64,
    /// The task that drives the connection.
    driver: OnceLock<Waker>,
}

impl Load {
    pub(super) fn new(max: usize) -> Self {
        Self {
            calls: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
            is_retired: AtomicBool::new(false),
            opened: Instant::now(),
            unused_since: AtomicU64::new(0),
            driver: OnceLock::new(),
        }
    }

    /// So many calls are allowed at once.
    pub(super) fn allow(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// The task to wake when a retired connection has carried its last call; the
    /// first counts.
    pub(super) fn driven_by(&self, task: &Waker) {
        self.driver.get_or_init(|| task.clone());
    }

    /// No more calls are to join.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::SeqCst)
    }

    /// Since when there has been no call, if there is none.
    pub(super) fn unused_since(&self) -> Option<Instant> {
        let nanos = self.unused_since.load(Ordering::Relaxed);
        let unused = self.calls.load(Ordering::SeqCst) == 0;
        unused.then(|| self.opened + Duration::from_nanos(nanos))
    }

    /// Whether one more call is allowed.
    pub(super) fn has_room(&self) -> bool {
        let max = self.max.load(Ordering::Relaxed).min(MAX_STREAMS);
        self.calls.load(Ordering::Relaxed) < max
    }
}

impl Streams {
    /// One more call.
    pub(super) fn another(load: &Arc<Load>) -> Self {
        load.calls.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        let load = &*self.0;
        let nanos = load.opened.elapsed().as_nanos();
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        load.unused_since.store(nanos, Ordering::Relaxed);
        if load.calls.fetch_sub(1, Ordering::SeqCst) == 1
            && load.is_retired()
            && let Some(driver) = load.driver.get()
        {
            driver.wake_by_ref();
        }
    }
}
