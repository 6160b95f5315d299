//! What those who wait need of their keys.
//!
//! Requests that share a key need not stand in one line: they may differ in a key
//! of another kind. So while one waits for enough of one of its keys, or for
//! another key, a younger one can be lighter, or its other key free, and take what
//! has come back by then, again and again. Hence who has waited for long has a claim
//! on each of its keys: until it asks again, a younger one starts only if that leaves
//! enough by then, as far as can be told. What will have come back by then anyway is
//! kept from nobody.
//!
//! Who has only begun to wait, at the head of its line, has none: whoever can start
//! does, so that no turn is wasted that one who needs two keys cannot use yet.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use super::{Charge, Rank};

/// Who waits claims a key after so many times as long as what was spent of it matters,
/// or after one part in so many of the longest wait.
pub(super) const PATIENCE: u32 = 4;

/// Who does not claim a key yet asks so many times, while what was spent of it matters,
/// at most.
pub(super) const ASKS: u32 = 8;

/// Claims on one key that are kept: those of the eldest.
const MOST: usize = 8;

/// A claim on a key.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    rank: Rank,
    /// What it needs.
    pub(super) charge: Charge,
    /// When: it asks again then, or sooner.
    pub(super) until: Duration,
}

/// The claims on all keys of one kind.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// For each key the eldest first.
    keys: HashMap<u64, Vec<Claim>>,
    /// Clean up when there are so many.
    sweep_at: usize,
}

impl Claim {
    /// A request at `rank` that costs so much waits until `until`.
    pub(super) fn new(rank: Rank, cost: NonZeroU32, until: Duration) -> Self {
        let charge = Charge::of(cost);
        Self {
            rank,
            charge,
            until,
        }
    }
}

impl Claims {
    /// The claims on `key` that hold at `now`, of those before `rank`.
    pub(super) fn before(
        &self,
        key: u64,
        rank: Rank,
        now: Duration,
    ) -> impl Iterator<Item = &Claim> {
        let claims = self.keys.get(&key).into_iter().flatten();
        let elder = claims.take_while(move |claim| claim.rank < rank);
        elder.filter(move |claim| claim.until > now)
    }

    /// Adds a claim at `now`, unless there are many elder ones.
    pub(super) fn add(&mut self, key: u64, claim: Claim, now: Duration) {
        let holds = |claim: &Claim| claim.until > now;
        if self.keys.len() >= self.sweep_at {
            self.keys.retain(|_, claims| claims.iter().any(holds));
            self.sweep_at = (self.keys.len() * 2).max(64);
            self.keys.shrink_to(self.sweep_at);
        }
        let claims = self.keys.entry(key).or_default();
        claims.retain(|other| holds(other) && other.rank != claim.rank);
        let place = claims.partition_point(|other| other.rank < claim.rank);
        claims.insert(place, claim);
        claims.truncate(MOST);
    }

    /// Nobody has a claim.
    pub(super) fn clear(&mut self) {
        self.keys.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}
