//! A sleep that is late by microseconds instead of a millisecond.
//!
//! tokio's timer works in milliseconds; at a thousand turns a second that is
//! half of the rate (measured: 48 %). On Linux an [`Alarm`] is therefore a
//! timerfd in the runtime's own epoll, late by about 30 µs. Elsewhere, and in
//! tests under paused time, it is tokio's sleep. One alarm belongs to one
//! runtime and serves one sleeper at a time.

use tokio::time::{self, Instant};

/// Wakes its one sleeper at an exact time.
#[derive(Debug)]
pub(crate) enum Alarm {
    /// A timerfd registered with this thread's runtime.
    #[cfg(target_os = "linux")]
    Precise(linux::TimerFd),
    /// tokio's own timer: virtual time in tests, and other systems.
    #[cfg(any(test, not(target_os = "linux")))]
    Tokio,
}

impl Alarm {
    /// An exact alarm where the system has one.
    ///
    /// Must be called inside the runtime that will sleep on it.
    pub(crate) fn precise() -> std::io::Result<Self> {
        #[cfg(target_os = "linux")]
        return linux::TimerFd::new().map(Self::Precise);
        #[cfg(not(target_os = "linux"))]
        return Ok(Self::Tokio);
    }

    /// Sleeps until `deadline`; at once if it has passed.
    pub(crate) async fn sleep_until(&self, deadline: Instant) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Precise(timer) => {
                // Should the kernel refuse the timer, a late turn is better than none.
                if timer.sleep_until(deadline).await.is_err() {
                    time::sleep_until(deadline).await;
                }
            }
            #[cfg(any(test, not(target_os = "linux")))]
            Self::Tokio => time::sleep_until(deadline).await,
        }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::OwnedFd;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;
    use tokio::time::Instant;

    /// One timerfd, registered for reading.
    #[derive(Debug)]
    pub(crate) struct TimerFd(AsyncFd<OwnedFd>);

    impl TimerFd {
        #[allow(
            deprecated,
            reason = "its successor is an unsafe fn, since a file may change its descriptor \
                      while registered; an `OwnedFd` cannot, and unsafe code is forbidden here"
        )]
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            AsyncFd::new(fd).map(Self)
        }

        pub(super) async fn sleep_until(&self, deadline: Instant) -> io::Result<()> {
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(());
                }
                let once = Itimerspec {
                    it_interval: Timespec {
                        tv_sec: 0,
                        tv_nsec: 0,
                    },
                    it_value: left.try_into().map_err(io::Error::other)?,
                };
                timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
                // Each expiration is an event of its own and arming the timer
                // resets it, so nothing has to be read. A readiness that was
                // left over by a sleeper that did not stay is seen by the clock.
                self.0.readable().await?.clear_ready();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_precise_alarm_is_never_early_and_can_be_used_again() {
        let alarm = Alarm::precise().unwrap();
        for _ in 0..3 {
            let deadline = Instant::now() + Duration::from_micros(700);
            alarm.sleep_until(deadline).await;
            assert!(Instant::now() >= deadline);
        }
    }
}
