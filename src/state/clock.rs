//! From the time that passes here to the time of day, which alone means
//! something to the next run of this program.
//!
//! The time of day is read once and then counted on, so that a turn costs no
//! second reading; [`Clock::moved`] tells when the two have come apart, because
//! somebody set the clock or the machine slept.
//!
//! A [`Reading`] of the clock is kept with what was spent. As long as the machine
//! has not been started anew, its time since then tells the next run how long ago
//! that was, whatever became of the time of day; after that only the time of day
//! is left.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// How far the two may be apart.
pub(super) const SKEW: Duration = Duration::from_millis(20);

/// Between the first and the last look at a clock; longer, and it is read again.
const QUICK: Duration = Duration::from_millis(1);

/// A thread that is put to sleep ever again gets what it has.
const LOOKS: usize = 8;

/// The time of day at one instant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    at: Instant,
    /// In nanoseconds since the Unix epoch.
    wall: u64,
    /// In nanoseconds since the machine was started, its sleep included.
    up: u64,
}

/// What a clock read, for the next run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    /// Which start of the machine `up` counts from, see [`boot`].
    pub(super) boot: u64,
    /// As in [`Clock`].
    pub(super) up: u64,
    /// As in [`Clock`].
    pub(super) wall: u64,
}

impl Clock {
    /// The clock as it is.
    pub(crate) fn now() -> Self {
        let mut look = look();
        for _ in 1..LOOKS {
            if look.1 <= QUICK {
                break;
            }
            look = self::look();
        }
        look.0
    }

    /// A clock that reads `wall` at `at`, when the machine is `up` for so long.
    pub(crate) fn at(at: Instant, wall: SystemTime, up: Duration) -> Self {
        let wall = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            at,
            wall: nanos(wall),
            up: nanos(up),
        }
    }

    /// What the next run must know to tell the time, on a machine started as
    /// `boot` says; `None` if that is not known.
    pub(super) fn reading(&self, boot: Option<u64>) -> Option<Reading> {
        let (up, wall) = (self.up, self.wall);
        boot.map(|boot| Reading { boot, up, wall })
    }

    /// By how much the time of day was moved since `reading`, if it was and the
    /// machine, started as `boot` says, has not been started anew.
    pub(super) fn moved_since(&self, reading: &Reading, boot: Option<u64>) -> Option<i64> {
        let same = boot == Some(reading.boot);
        let since = self.up.checked_sub(reading.up).filter(|_| same)?;
        step(reading.wall.saturating_add(since), self.wall)
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
        step(self.wall(now.at), now.wall)
    }

    /// The time of day when it was read.
    pub(super) fn read(&self) -> u64 {
        self.wall
    }
}

/// Which start of the machine its time counts from; `None` if the system does not
/// say. A container may count from elsewhere.
pub(super) fn boot() -> Option<u64> {
    let id = fs::read("/proc/sys/kernel/random/boot_id").ok()?;
    let counted = fs::read_link("/proc/self/ns/time").unwrap_or_default();
    Some(hash(
        &[&id, counted.as_os_str().as_encoded_bytes()].concat(),
    ))
}

/// FNV-1a, a hash that stays the same for ever.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix)
}

/// The clock, and how long it took to read it.
fn look() -> (Clock, Duration) {
    let at = Instant::now();
    let up = clock_gettime(ClockId::Boottime);
    let wall = SystemTime::now();
    // Neither is ever negative.
    let seconds = Duration::from_secs(up.tv_sec.unsigned_abs());
    let up = seconds + Duration::from_nanos(up.tv_nsec.unsigned_abs());
    (Clock::at(at, wall, up), at.elapsed())
}

/// From one time of day to another, if that is more than clocks are apart.
fn step(expected: u64, read: u64) -> Option<i64> {
    let far = expected.abs_diff(read) > nanos(SKEW) / 2;
    far.then(|| read.wrapping_sub(expected) as i64)
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
