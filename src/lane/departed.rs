//! The limits of lanes that a reload has taken out and that have ended, where no
//! journal keeps what was spent: one that comes back goes on where it was.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::pacing::Limits;

/// So many are kept, those that ended last.
const MOST: usize = 256;

/// The limits of lanes that have ended, by their names.
#[derive(Debug, Default)]
pub(crate) struct Departed(Mutex<VecDeque<Gone>>);

#[derive(Debug)]
struct Gone {
    name: String,
    limits: Limits,
    /// Then nothing of what was spent matters any more.
    until: Instant,
}

impl Departed {
    /// Keeps `limits`, to which what was spent matters for `reach`.
    pub(super) fn keep(&self, name: String, limits: Limits, reach: Duration) {
        let now = Instant::now();
        let mut gone = self.gone();
        gone.retain(|gone| now < gone.until && gone.name != name);
        if gone.len() == MOST {
            gone.pop_front();
        }
        let until = now + reach;
        gone.push_back(Gone {
            name,
            limits,
            until,
        });
    }

    /// What was spent under that name, if it is known.
    pub(super) fn take(&self, name: &str) -> Option<Limits> {
        let mut gone = self.gone();
        let place = gone.iter().position(|gone| gone.name == name)?;
        Some(gone.remove(place)?.limits)
    }

    fn gone(&self) -> MutexGuard<'_, VecDeque<Gone>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
