//! A number of places that may change while they are taken.
//!
//! Fewer places count at once: those that are taken beyond the new number are
//! owed, and a place that comes back while any is owed is gone, however many
//! callers wait for one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

/// The places. Those who find none wait in the order in which they came.
#[derive(Debug)]
pub(super) struct Bound {
    places: Semaphore,
    owed: AtomicUsize,
    /// How many there are, as set last. Held for a few lines.
    size: Mutex<usize>,
}

/// A place; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Held(Arc<Bound>);

impl Bound {
    /// So many places, no more than can be counted.
    pub(super) fn new(size: usize) -> Arc<Self> {
        let size = size.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            places: Semaphore::new(size),
            owed: AtomicUsize::new(0),
            size: Mutex::new(size),
        })
    }

    /// A place, if there is one this instant.
    pub(super) fn try_enter(self: &Arc<Self>) -> Option<Held> {
        self.places.try_acquire().ok()?.forget();
        Some(Held(Arc::clone(self)))
    }

    /// A place, as soon as there is one.
    pub(super) async fn enter(self: &Arc<Self>) -> Held {
        let place = self.places.acquire().await;
        place.expect("the places are never closed").forget();
        Held(Arc::clone(self))
    }

    /// From now on there are so many.
    pub(super) fn resize(&self, size: usize) {
        let size = size.min(Semaphore::MAX_PERMITS);
        let mut current = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *current, size);
        // Those that are owed already are no places any more.
        self.give_back(size.saturating_sub(old));
        let fewer = old.saturating_sub(size);
        self.owed.fetch_add(fewer, Ordering::SeqCst);
        // For those that come back meanwhile nothing is left to pay here.
        self.give_back(self.places.forget_permits(fewer));
    }

    /// Of these places, those that are not owed are there again.
    fn give_back(&self, places: usize) {
        let mut paid = 0;
        let pay = |owed: usize| {
            paid = owed.min(places);
            Some(owed - paid)
        };
        // It never fails.
        let _ = self
            .owed
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, pay);
        if places > paid {
            self.places.add_permits(places - paid);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.give_back(1);
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::yield_now;

    use super::*;

    fn free(bound: &Arc<Bound>) -> usize {
        std::iter::from_fn(|| bound.try_enter())
            .collect::<Vec<_>>()
            .len()
    }

    #[test]
    fn fewer_places_count_at_once_and_more_as_well() {
        let bound = Bound::new(4);
        let held: Vec<_> = (0..3).map(|_| bound.try_enter().unwrap()).collect();
        bound.resize(2);
        assert_eq!(free(&bound), 0);
        let mut held = held.into_iter();
        drop(held.next());
        assert_eq!(free(&bound), 0);
        bound.resize(3);
        assert_eq!(free(&bound), 1);
        bound.resize(1);
        drop(held);
        assert_eq!(free(&bound), 1);
        bound.resize(5);
        assert_eq!(free(&bound), 5);
        bound.resize(usize::MAX);
        bound.resize(2);
        assert_eq!(free(&bound), 2);
    }

    #[tokio::test]
    async fn a_place_that_is_gone_goes_to_nobody_who_waits() {
        let bound = Bound::new(2);
        let held = [bound.enter().await, bound.enter().await];
        let waits = tokio::spawn({
            let bound = Arc::clone(&bound);
            async move { bound.enter().await }
        });
        yield_now().await;
        bound.resize(1);
        let [first, second] = held;
        drop(first);
        yield_now().await;
        assert!(!waits.is_finished());
        drop(second);
        let place = waits.await.unwrap();
        assert_eq!(free(&bound), 0);
        drop(place);
        assert_eq!(free(&bound), 1);
    }
}
