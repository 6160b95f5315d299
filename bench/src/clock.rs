//! The clock of the measurements: nanoseconds of CLOCK_MONOTONIC, which all processes of the machine share, so that an
//! instant taken by the load can be compared with one taken by the origin. tokio's `Instant` has no value that could cross a process.
//!
//! Waits that must be exact use `Timer`, a timerfd in the runtime's own epoll: late by some 30 µs where tokio's timer rounds
//! up to the next millisecond, which would drown the latencies to be measured.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec,
};
use tokio::io::unix::AsyncFd;

/// Nanoseconds in a millisecond.
pub(crate) const NANOS_PER_MILLI: u64 = 1_000_000;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Nanoseconds since the machine started, the same for all its processes.
pub(crate) fn now() -> u64 {
    let time = rustix::time::clock_gettime(ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * NANOS_PER_SECOND + time.tv_nsec.unsigned_abs()
}

/// A duration in the clock's unit.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds as seconds.
pub(crate) fn seconds(nanos: u64) -> f64 {
    nanos as f64 / NANOS_PER_SECOND as f64
}

/// Sleeps until an instant of `now`, about 30 µs late.
#[derive(Debug)]
pub(crate) struct Timer {
    fd: AsyncFd<OwnedFd>,
}

impl Timer {
    /// Needs a running runtime with I/O.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(
            deprecated,
            reason = "`register` is unsafe; an `OwnedFd` stays one open descriptor, as it asks"
        )]
        let fd = AsyncFd::new(fd)?;
        Ok(Self { fd })
    }

    /// Returns at once if the instant has passed.
    pub(crate) async fn sleep_until(&mut self, instant: u64) -> io::Result<()> {
        if now() >= instant {
            return Ok(());
        }
        let at = Itimerspec {
            it_interval: timespec(0),
            it_value: timespec(instant),
        };
        rustix::time::timerfd_settime(&self.fd, TimerfdTimerFlags::ABSTIME, &at)?;
        loop {
            let mut ready = self.fd.readable().await?;
            let mut expirations = [0; 8];
            if let Ok(read) = ready.try_io(|fd| Ok(rustix::io::read(fd, &mut expirations)?)) {
                return read.map(|_| ());
            }
        }
    }
}

fn timespec(nanos: u64) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(nanos / NANOS_PER_SECOND).unwrap_or(i64::MAX),
        tv_nsec: (nanos % NANOS_PER_SECOND) as _,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn never_wakes_before_its_instant() {
        let mut timer = Timer::new().unwrap();
        for _ in 0..3 {
            let instant = now() + 2_000_000;
            timer.sleep_until(instant).await.unwrap();
            assert!(now() >= instant);
        }
    }
}
