//! The bounds of the queue: how many requests and how many bytes may wait.
//!
//! A [`Place`] is taken before anything of a request's body is read and is given
//! back by dropping it, whoever does that: the worker at the request's turn, or
//! the caller's task when the caller goes away. Callers who find no place wait
//! for one in the order in which they came. Where limits have keys, a place of
//! the key comes first (`share`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::share::{Share, Shares};
use crate::config;
use crate::metrics::Cells;
use crate::pacing::Charge;

/// The places of one lane.
#[derive(Debug)]
pub(super) struct Room {
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    /// The sizes of both, as set last. Held for a few lines.
    sizes: Mutex<[usize; 2]>,
    shares: Shares,
}

/// One request's place, with the bytes it holds.
#[derive(Debug)]
pub(super) struct Place {
    _share: Share,
    _request: OwnedSemaphorePermit,
    bytes: OwnedSemaphorePermit,
    cells: Arc<Cells>,
}

impl Room {
    pub(super) fn new(settings: &config::Upstream) -> Self {
        let shares = Shares::new(settings.max_waiting_per_key.get());
        let [requests, bytes] = sizes(&settings.queue);
        Self {
            requests: Arc::new(Semaphore::new(requests)),
            bytes: Arc::new(Semaphore::new(bytes)),
            sizes: Mutex::new([requests, bytes]),
            shares,
        }
    }

    /// Takes other bounds. Where they are smaller, places that are taken go as
    /// they come back, before anybody gets one.
    pub(super) fn resize(&self, settings: &config::Upstream) {
        self.shares.resize(settings.max_waiting_per_key.get());
        let new = sizes(&settings.queue);
        let old = std::mem::replace(&mut *self.sizes(), new);
        for (semaphore, (old, new)) in [&self.requests, &self.bytes]
            .into_iter()
            .zip(old.into_iter().zip(new))
        {
            if let Some(more) = new.checked_sub(old) {
                semaphore.add_permits(more);
                continue;
            }
            let fewer = u32::try_from(old - new).unwrap_or(u32::MAX);
            let taken = Arc::clone(semaphore).acquire_many_owned(fewer);
            tokio::spawn(async move {
                if let Ok(permits) = taken.await {
                    permits.forget();
                }
            });
        }
    }

    /// A place for `bytes`, if there is one this instant.
    pub(super) fn try_enter(
        &self,
        charge: &Charge,
        bytes: usize,
        cells: &Arc<Cells>,
    ) -> Option<Place> {
        let share = self.shares.try_enter(charge)?;
        let request = Arc::clone(&self.requests).try_acquire_owned().ok()?;
        let bytes = self.permits(bytes);
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(bytes).ok()?;
        Some(Place::new(share, request, bytes, cells))
    }

    /// A place for `bytes`, as soon as there is one.
    pub(super) async fn enter(&self, charge: &Charge, bytes: usize, cells: &Arc<Cells>) -> Place {
        let share = self.shares.enter(charge).await;
        let never_closed = "the queue's bounds are never closed";
        let request = Arc::clone(&self.requests).acquire_owned();
        let request = request.await.expect(never_closed);
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(self.permits(bytes));
        Place::new(share, request, bytes.await.expect(never_closed), cells)
    }

    /// What waits of each key of `charge`, by its cost.
    pub(super) fn waiting_cost(&self, charge: &Charge) -> Vec<u64> {
        self.shares.waiting_cost(charge)
    }

    /// A head longer than the whole queue takes all of it rather than wait
    /// forever.
    fn permits(&self, bytes: usize) -> u32 {
        bytes.min(self.sizes()[1]) as u32
    }

    fn sizes(&self) -> MutexGuard<'_, [usize; 2]> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Requests and bytes; no more than can be counted.
fn sizes(settings: &config::Queue) -> [usize; 2] {
    let most = u32::MAX as usize;
    [
        settings.max_requests.get().min(most),
        settings.max_bytes.min(most),
    ]
}

impl Place {
    fn new(
        share: Share,
        request: OwnedSemaphorePermit,
        bytes: OwnedSemaphorePermit,
        cells: &Arc<Cells>,
    ) -> Self {
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
