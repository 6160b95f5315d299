//! A turn that was taken, until the limits know how it ended.
//!
//! Whoever makes the call closes it with what became of it; if the call is
//! dropped because the caller went away, dropping the turn says so.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use crate::pacing::{End, Reading, Turn};

/// Longer than any write to a disk.
const LONGEST_WRITE: Duration = Duration::from_secs(3600);

/// A turn whose write took longer is written again: a restart counts it from when its
/// write began, with a margin of twice as much.
const LONG_WRITE: Duration = Duration::from_millis(10);

/// A turn that is not closed yet.
#[derive(Debug)]
pub(super) struct Taken {
    shared: Arc<Shared>,
    turn: Option<Turn>,
}

/// A request that has its turn and has not left yet, for `longest` at most. It
/// leaves when this is dropped; what is on its way is counted from then on.
pub(super) struct Leaving<'a>(&'a Shared, u64);

impl<'a> Leaving<'a> {
    pub(super) fn new(shared: &'a Shared, turn: u64, longest: Duration) -> Self {
        shared.limits().defer(turn, Instant::now() + longest);
        Self(shared, turn)
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.limits().defer(self.1, Instant::now());
    }
}

impl Taken {
    /// Writes down that the turn is spent; only then may its request be sent.
    pub(super) fn new(shared: &Arc<Shared>, turn: Turn) -> Self {
        if let Some(journal) = &shared.journal {
            // The disk may take its time.
            let _leaving = Leaving::new(shared, turn.number(), LONGEST_WRITE);
            let began = Instant::now();
            journal.spend(turn.charge(), began);
            // It leaves only now; a restart must count it from here on.
            if began.elapsed() > LONG_WRITE {
                journal.spend(turn.charge(), Instant::now());
            }
        }
        Self {
            shared: Arc::clone(shared),
            turn: Some(turn),
        }
    }

    /// The number of the turn, while it is not closed.
    pub(super) fn number(&self) -> Option<u64> {
        self.turn.as_ref().map(Turn::number)
    }

    /// The call has ended at `now`. Returns when a refused request can start again
    /// at the earliest, if that is known.
    pub(super) fn close(mut self, end: End<'_>, now: Instant) -> Option<Instant> {
        let turn = self.turn.take()?;
        self.shared.close(turn, end, now)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(turn) = self.turn.take() {
            self.shared.close(turn, End::Lost, Instant::now());
        }
    }
}

impl Shared {
    fn close(&self, turn: Turn, end: End<'_>, now: Instant) -> Option<Instant> {
        let (refused, readings) = match end {
            End::Answered(readings) => (false, readings),
            End::Refused(_, readings) => (true, readings),
            End::Failed | End::Canceled | End::Lost => (false, &[][..]),
        };
        let empty = readings.iter().filter_map(Reading::pause);
        let empty = empty.max().map(|pause| now + pause);
        let charge = (refused || empty.is_some()).then(|| turn.charge().clone());
        let closed = self.limits().close(turn, end, now);
        let until = closed.cooldown.filter(|_| refused).max(empty);
        if let (Some(journal), Some(charge), Some(until)) = (&self.journal, charge, until) {
            journal.pause(&charge, until, now);
        }
        if closed.sooner || closed.early {
            self.gate.ring(closed.sooner);
        }
        until
    }
}
