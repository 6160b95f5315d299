//! From the time that passes here to the time of day, which alone means
//! something to the next run of this program.
//!
//! The time of day is read once and then counted on, so that a turn costs no
//! second reading; [`Clock::moved`] tells when the two have come apart, because
//! somebody set the clock or the machine slept.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// How far the two may be apart.
pub(super) const SKEW: Duration = Duration::from_millis(20);

/// The time of day at one instant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    at: Instant,
    /// In nanoseconds since the Unix epoch.
    wall: u64,
}

impl Clock {
    /// The clock as it is.
    pub(crate) fn now() -> Self {
        Self::at(Instant::now(), SystemTime::now())
    }

    /// A clock that reads `wall` at `at`.
    pub(crate) fn at(at: Instant, wall: SystemTime) -> Self {
        let wall = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            at,
            wall: nanos(wall),
        }
    }

    /// The time of day at `time`.
    pub(super) fn wall(&self, time: Instant) -> u64 {
        let since = nanos(time.saturating_duration_since(self.at));
        let before = nanos(self.at.saturating_duration_since(time));
        self.wall.saturating_add(since).saturating_sub(before)
    }

    /// When it was, or will be, `wall`; if that is farther back than can be
    /// told, as far back as can be.
    pub(super) fn time(&self, wall: u64) -> Instant {
        let since = Duration::from_nanos(wall.saturating_sub(self.wall));
        let before = Duration::from_nanos(self.wall.saturating_sub(wall));
        self.at.checked_sub(before).unwrap_or(self.at) + since
    }

    /// By how much the clock was moved since, if `now` says that it was.
    pub(super) fn moved(&self, now: &Self) -> Option<i64> {
        let expected = self.wall(now.at);
        let far = expected.abs_diff(now.wall) > nanos(SKEW) / 2;
        far.then(|| now.wall.wrapping_sub(expected) as i64)
    }

    /// The time of day when it was read.
    pub(super) fn read(&self) -> u64 {
        self.wall
    }
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
