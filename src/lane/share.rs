//! How much of the queue one key may take.
//!
//! Where limits have keys, a request takes a place of each of its keys before it
//! takes one of the lane, so that a key whose requests must wait cannot fill the
//! queue: what it has too many of waits for the key's own places and holds none
//! of others. Kinds are taken in their order, so that no two wait for each other.
//! A key is known here as long as a request of it waits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bound::{Bound, Held};
use crate::pacing::Charge;

/// The number of a kind of key, and a key of it.
type Id = (usize, u64);

/// The places of all keys.
#[derive(Debug)]
pub(super) struct Shares {
    /// Of each key; changed while `known` is held.
    max: AtomicUsize,
    known: Arc<Known>,
}

/// Held for a look-up, never over an await.
#[derive(Debug, Default)]
struct Known(Mutex<HashMap<Id, Entry>>);

#[derive(Debug)]
struct Entry {
    key: Arc<Key>,
    /// Requests that have a place of it, or wait for one.
    users: usize,
}

#[derive(Debug)]
struct Key {
    places: Arc<Bound>,
    /// What the turns of those with a place cost.
    cost: AtomicU64,
}

/// A place of each key of one request.
#[derive(Debug, Default)]
pub(super) struct Share {
    _places: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    user: User,
    cost: u64,
    _held: Held,
}

/// Keeps a key known.
#[derive(Debug)]
struct User {
    known: Arc<Known>,
    id: Id,
    key: Arc<Key>,
}

impl Shares {
    /// Takes another bound, for those who wait as well.
    pub(super) fn resize(&self, max: usize) {
        let known = self.known.lock();
        self.max.store(max, Ordering::Relaxed);
        for entry in known.values() {
            entry.key.places.resize(max);
        }
    }

    /// At most `max` places for each key.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max: AtomicUsize::new(max),
            known: Arc::default(),
        }
    }

    /// A place of each key of `charge`, if there is one this instant.
    pub(super) fn try_enter(&self, charge: &Charge) -> Option<Share> {
        let places = self.users(charge).map(|user| {
            let held = user.key.places.try_enter()?;
            Some(Place::new(user, held, charge))
        });
        let places = places.collect::<Option<Vec<_>>>()?;
        Some(Share { _places: places })
    }

    /// A place of each key of `charge`, as soon as there is one.
    pub(super) async fn enter(&self, charge: &Charge) -> Share {
        let mut places = Vec::new();
        for user in self.users(charge) {
            let held = user.key.places.enter().await;
            places.push(Place::new(user, held, charge));
        }
        Share { _places: places }
    }

    /// What waits of each key of `charge`, by its cost.
    pub(super) fn waiting_cost(&self, charge: &Charge) -> Vec<u64> {
        if charge.keys().is_empty() {
            return Vec::new();
        }
        let known = self.known.lock();
        let cost = |id| {
            known
                .get(&id)
                .map_or(0, |entry: &Entry| entry.key.cost.load(Ordering::Relaxed))
        };
        ids(charge).map(cost).collect()
    }

    /// The keys that somebody has who waits, each with the place of its kind.
    pub(super) fn waiting(&self) -> Vec<(usize, u64)> {
        let known = self.known.lock();
        let waits = |entry: &Entry| entry.key.cost.load(Ordering::Relaxed) > 0;
        let known = known.iter().filter(|(_, entry)| waits(entry));
        known.map(|(id, _)| *id).collect()
    }

    fn users<'a>(&'a self, charge: &'a Charge) -> impl Iterator<Item = User> + 'a {
        ids(charge).map(|id| {
            let mut known = self.known.lock();
            let entry = known.entry(id).or_insert_with(|| Entry {
                key: Arc::new(Key {
                    places: Bound::new(self.max.load(Ordering::Relaxed)),
                    cost: AtomicU64::new(0),
                }),
                users: 0,
            });
            entry.users += 1;
            User {
                known: Arc::clone(&self.known),
                id,
                key: Arc::clone(&entry.key),
            }
        })
    }
}

fn ids(charge: &Charge) -> impl Iterator<Item = Id> + '_ {
    charge.keys().iter().copied().enumerate()
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, HashMap<Id, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn new(user: User, held: Held, charge: &Charge) -> Self {
        let cost = u64::from(charge.cost.get());
        user.key.cost.fetch_add(cost, Ordering::Relaxed);
        Self {
            user,
            cost,
            _held: held,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.user.key.cost.fetch_sub(self.cost, Ordering::Relaxed);
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let mut known = self.known.lock();
        if let Some(entry) = known.get_mut(&self.id) {
            entry.users -= 1;
            if entry.users == 0 {
                known.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn charge(keys: &[u64]) -> Charge {
        Charge::new(NonZeroU32::new(3).unwrap(), keys.into(), 0)
    }

    #[test]
    fn a_key_has_its_places_whatever_others_take_and_is_forgotten_with_the_last() {
        let shares = Shares::new(2);
        let held = [[1, 7], [1, 8]].map(|keys| shares.try_enter(&charge(&keys)).unwrap());
        assert!(shares.try_enter(&charge(&[1, 9])).is_none());
        assert_eq!(shares.waiting_cost(&charge(&[1, 8])), [6, 3]);
        let other = shares.try_enter(&charge(&[2, 8])).unwrap();
        assert!(shares.try_enter(&charge(&[3, 8])).is_none());
        drop((held, other));
        assert_eq!(shares.waiting_cost(&charge(&[1, 8])), [0, 0]);
        assert!(shares.known.lock().is_empty());
    }

    #[test]
    fn another_bound_counts_for_keys_that_wait() {
        let shares = Shares::new(1);
        let _held = shares.try_enter(&charge(&[1])).unwrap();
        shares.resize(2);
        let second = shares.try_enter(&charge(&[1])).unwrap();
        shares.resize(1);
        drop(second);
        assert!(shares.try_enter(&charge(&[1])).is_none());
        let _other = shares.try_enter(&charge(&[2])).unwrap();
        assert!(shares.try_enter(&charge(&[2])).is_none());
    }

    #[tokio::test]
    async fn those_who_wait_for_a_place_of_their_key_get_it_in_order() {
        let shares = Shares::new(1);
        let charge = charge(&[1]);
        let held = shares.enter(&charge).await;
        let waits = shares.enter(&charge);
        tokio::pin!(waits);
        tokio::select! {
            biased;
            _ = &mut waits => panic!("two places"),
            () = tokio::task::yield_now() => {}
        }
        drop(held);
        // Not for one that comes now.
        assert!(shares.try_enter(&charge).is_none());
        drop(waits.await);
        assert!(shares.known.lock().is_empty());
    }
}
