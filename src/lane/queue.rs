//! The bounds of the queue: how many requests and how many bytes may wait.
//!
//! A [`Place`] is taken before anything of a request's body is read and is given
//! back by dropping it, whoever does that: the worker at the request's turn, or
//! the caller's task when the caller goes away. Callers who find no place wait
//! for one in the order in which they came. Where limits have keys, a place of
//! the key comes first (`share`).

use std::sync::Arc;

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
    max_bytes: usize,
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
        let settings = &settings.queue;
        let max_bytes = settings.max_bytes.min(u32::MAX as usize);
        Self {
            requests: Arc::new(Semaphore::new(settings.max_requests.get())),
            bytes: Arc::new(Semaphore::new(max_bytes)),
            max_bytes,
            shares,
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
        bytes.min(self.max_bytes) as u32
    }
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
