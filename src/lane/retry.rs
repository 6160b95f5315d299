//! How many requests may be sent again after a failure.
//!
//! When everything fails, sending everything again multiplies the load of an
//! upstream that is already in trouble, and spends turns that others wait for.
//! So each request earns a part of a retry, and a retry must have been earned.

use std::sync::atomic::{AtomicU32, Ordering};

/// Retries that can be saved up, and are there at the start.
const SAVED: u32 = 10;

/// Hundredths of a retry that have been earned.
#[derive(Debug)]
pub(super) struct Retries(AtomicU32);

impl Retries {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(SAVED * 100))
    }

    /// A request was sent for the first time; `budget` is what it earns, in
    /// hundredths of a retry.
    pub(super) fn earn(&self, budget: u32) {
        let saved = self.0.load(Ordering::Relaxed);
        if saved < SAVED * 100 {
            // Two at once may count as one: never too much.
            let saved = saved.saturating_add(budget).min(SAVED * 100);
            self.0.store(saved, Ordering::Relaxed);
        }
    }

    /// Spends a retry, if one was earned; none is without a `budget`.
    pub(super) fn spend(&self, budget: u32) -> bool {
        let rest = |saved: u32| saved.checked_sub(100).filter(|_| budget > 0);
        let spent = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest);
        spent.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_earned_by_requests() {
        let retries = Retries::new();
        let spent = (0..100).filter(|_| retries.spend(20)).count();
        assert_eq!(spent, SAVED as usize);
        (0..10).for_each(|_| retries.earn(20));
        assert_eq!((0..100).filter(|_| retries.spend(20)).count(), 2);
        (0..1000).for_each(|_| retries.earn(20));
        assert_eq!((0..100).filter(|_| retries.spend(20)).count(), 10);
        (0..1000).for_each(|_| retries.earn(20));
        assert!(!retries.spend(0));
    }
}
