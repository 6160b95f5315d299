//! What the service manager is told. Without one (`NOTIFY_SOCKET` is not set)
//! nothing is said.

use std::time::Duration;

use sd_notify::NotifyState;

/// Requests are taken; `status` is for people.
pub(crate) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The settings are read anew; [`ready`] ends it, however that goes.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "the service manager cannot be told"),
    }
}

/// The daemon begins to stop and needs at most `drain` from now.
pub(crate) fn stopping(drain: Duration) {
    let micros = u32::try_from((drain + MARGIN).as_micros()).unwrap_or(u32::MAX);
    notify(&[
        NotifyState::Stopping,
        NotifyState::Status("finishing what waits and what is in flight"),
        NotifyState::ExtendTimeoutUsec(micros),
    ]);
}

/// For ending the tasks after the drain time.
const MARGIN: Duration = Duration::from_secs(10);

/// How often [`watchdog`] must be called; `None` if nobody watches.
pub(crate) fn watchdog_interval() -> Option<Duration> {
    Some(sd_notify::watchdog_enabled()? / 2)
}

/// The daemon's own thread is alive.
pub(crate) fn watchdog() {
    notify(&[NotifyState::Watchdog]);
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
