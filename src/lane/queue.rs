//! The bounds of the queue: how many requests and how many bytes may wait.
//!
//! A [`Place`] is taken before anything of a request's body is read and is given
//! back by dropping it, whoever does that: the worker at the request's turn, or
//! the caller's task when the caller goes away. Callers who find no place wait
//! for one in the order in which they came. Where limits have keys, a place of
//! the key comes first (`share`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::bound::{Bound, Held};
use super::share::{Share, Shares};
use crate::config;
use crate::metrics::Cells;
use crate::pacing::Charge;

/// The places of one lane.
#[derive(Debug)]
pub(super) struct Room {
    requests: Arc<Bound>,
    bytes: Arc<Semaphore>,
    /// Bytes there are, as set last. Held for a few lines.
    size: Mutex<usize>,
    shares: Shares,
}

/// One request's place, with the bytes it holds.
#[derive(Debug)]
pub(super) struct Place {
    _share: Share,
    _request: Held,
    bytes: OwnedSemaphorePermit,
    cells: Arc<Cells>,
}

impl Room {
    pub(super) fn new(settings: &config::Upstream) -> Self {
        let size = bytes(settings);
        Self {
            requests: Bound::new(settings.queue.max_requests.get()),
            bytes: Arc::new(Semaphore::new(size)),
            size: Mutex::new(size),
            shares: Shares::new(settings.max_waiting_per_key.get()),
        }
    }

    /// Takes other bounds. They count at once, for those who wait for a place as
    /// well, but for fewer bytes: one who waits may need more than there will
    /// be, so those who wait go first.
    pub(super) fn resize(&self, settings: &config::Upstream) {
        self.shares.resize(settings.max_waiting_per_key.get());
        self.requests.resize(settings.queue.max_requests.get());
        let new = bytes(settings);
        let old = std::mem::replace(&mut *self.size(), new);
        if let Some(more) = new.checked_sub(old) {
            self.bytes.add_permits(more);
            return;
        }
        let fewer = u32::try_from(old - new).unwrap_or(u32::MAX);
        let taken = Arc::clone(&self.bytes).acquire_many_owned(fewer);
        tokio::spawn(async move {
            if let Ok(permits) = taken.await {
                permits.forget();
            }
        });
    }

    /// A place for `bytes`, if there is one this instant.
    pub(super) fn try_enter(
        &self,
        charge: &Charge,
        bytes: usize,
        cells: &Arc<Cells>,
    ) -> Option<Place> {
        let share = self.shares.try_enter(charge)?;
        let request = self.requests.try_enter()?;
        let bytes = self.permits(bytes);
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(bytes).ok()?;
        Some(Place::new(share, request, bytes, cells))
    }

    /// A place for `bytes`, as soon as there is one.
    pub(super) async fn enter(&self, charge: &Charge, bytes: usize, cells: &Arc<Cells>) -> Place {
        let share = self.shares.enter(charge).await;
        let request = self.requests.enter().await;
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(self.permits(bytes));
        let bytes = bytes.await.expect("the bytes are never closed");
        Place::new(share, request, bytes, cells)
    }

    /// What waits of each key of `charge`, by its cost.
    pub(super) fn waiting_cost(&self, charge: &Charge) -> Vec<u64> {
        self.shares.waiting_cost(charge)
    }

    /// The keys that somebody has who waits, each with the place of its kind.
    pub(super) fn waiting(&self) -> Vec<(usize, u64)> {
        self.shares.waiting()
    }

    /// A head longer than the whole queue takes all of it rather than wait
    /// forever.
    fn permits(&self, bytes: usize) -> u32 {
        bytes.min(*self.size()) as u32
    }

    fn size(&self) -> MutexGuard<'_, usize> {
        self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes of a queue; no more than can be counted.
fn bytes(settings: &config::Upstream) -> usize {
    settings.queue.max_bytes.min(u32::MAX as usize)
}

impl Place {
    fn new(share: Share, request: Held, bytes: OwnedSemaphorePermit, cells: &Arc<Cells>) -> Self {
        cells.queue_bytes(bytes.num_permits() as i64);
        Self {
            _share: share,
            _request: request,
            bytes,
            cells: Arc::clone(cells),
        }
    }

    /// Gives back what is held beyond `bytes`.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        let surplus = self.bytes.num_permits().saturating_sub(bytes);
        if self.bytes.split(surplus).is_some() {
            self.cells.queue_bytes(-(surplus as i64));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.cells.queue_bytes(-(self.bytes.num_permits() as i64));
    }
}
