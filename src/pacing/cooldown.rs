//! The pause after an upstream has refused a request, or has failed.
//!
//! One cooldown is shared by all who wait. While it lasts nothing starts; at its
//! end one request goes, the probe, and nobody else until its answer is there.
//! If that is good the cooldown is over; if not, the next one is longer. A
//! refusal that says how long is believed; without that the pause doubles.
//!
//! Failures that follow each other without a success between them count as a
//! refusal too: an upstream that is down is probed, not stormed.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::config;

/// Nothing is due while a probe is on its way; who asks is told to ask again
/// after this, and is woken when the probe's answer comes.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Failures in a row after which the upstream counts as down.
const FAILURES: u32 = 5;

/// The longest pause between two probes of an upstream that is down.
const LONGEST_PROBE: Duration = Duration::from_secs(10);

/// What is over for so long tells nothing any more.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// The cooldown of a lane, or of one key. Times are durations since the lane's
/// epoch.
#[derive(Debug, Default, Clone)]
pub(super) struct Cooldown {
    state: State,
    /// Pauses in a row, each because the probe before it was refused.
    refusals: u32,
    /// Failures since the last success.
    failures: u32,
    /// The end of the last pause.
    until: Duration,
    /// The time of the last failure.
    failed: Duration,
}

/// `Open` becomes `Pause` by a refusal; `Pause` becomes `Probe` when its time is
/// over and a request starts; `Probe` becomes `Open` or `Pause` by its answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    Pause,
    /// The turn with this number is the probe.
    Probe(u64),
}

impl Cooldown {
    /// When a request can start: `now`, or a later time.
    pub(super) fn ready_at(&self, now: Duration) -> Duration {
        match self.state {
            State::Open => now,
            State::Pause => self.until.max(now),
            State::Probe(_) => now + ASK_AGAIN,
        }
    }

    /// The end of the last pause; zero if there was none.
    pub(super) fn until(&self) -> Duration {
        self.until
    }

    /// Whether nothing is held back and nothing is remembered.
    pub(super) fn is_over(&self) -> bool {
        self.state == State::Open && self.failures == 0
    }

    /// Whether what is remembered tells nothing any more at `now`. Nobody came for
    /// long; whoever comes then begins anew.
    pub(super) fn is_forgotten(&self, now: Duration) -> bool {
        let last = self.until.max(self.failed);
        self.is_over() || (!self.is_probing() && last + FORGOTTEN <= now)
    }

    /// The requests that are on their way will not be known when they end.
    pub(super) fn orphan(&mut self) {
        if self.is_probing() {
            self.state = State::Pause;
        }
    }

    /// Whether what starts next is the probe.
    pub(super) fn is_pause(&self) -> bool {
        self.state == State::Pause
    }

    /// Whether a probe is on its way.
    pub(super) fn is_probing(&self) -> bool {
        matches!(self.state, State::Probe(_))
    }

    /// Whether the turn `number` is the probe.
    pub(super) fn is_probe(&self, number: u64) -> bool {
        self.state == State::Probe(number)
    }

    /// The turn `number` starts.
    pub(super) fn start(&mut self, number: u64) {
        if self.state == State::Pause {
            self.state = State::Probe(number);
        }
    }

    /// The request of turn `number` was answered well.
    pub(super) fn succeeded(&mut self, number: u64) {
        self.failures = 0;
        if self.state == State::Probe(number) {
            self.state = State::Open;
            self.refusals = 0;
        }
    }

    /// The request of turn `number` was refused at `now`, for as long as `asked`
    /// if the answer says so. Returns the end of the pause.
    pub(super) fn refused(
        &mut self,
        number: u64,
        now: Duration,
        asked: Option<Duration>,
        settings: &config::Cooldown,
    ) -> Duration {
        match self.state {
            State::Open => self.refusals += 1,
            State::Probe(probe) if probe == number => self.refusals += 1,
            // One of several that were refused together adds nothing by itself.
            State::Pause | State::Probe(_) if asked.is_none() => return self.until,
            State::Pause | State::Probe(_) => {}
        }
        let pause = asked.unwrap_or_else(|| backoff(settings.first, self.refusals));
        self.pause(now + pause.min(settings.longest))
    }

    /// A pause until `until` goes on that began before this was new.
    pub(super) fn resume(&mut self, until: Duration) {
        self.refusals = 1;
        self.pause(until);
    }

    /// The request of turn `number` failed at `now`. Returns the end of the
    /// pause if that makes one.
    pub(super) fn failed(
        &mut self,
        number: u64,
        now: Duration,
        settings: &config::Cooldown,
    ) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        self.failed = now;
        let probe = self.state == State::Probe(number);
        let down = self.state == State::Open && self.failures >= FAILURES;
        (probe || down).then(|| {
            self.refusals += 1;
            let pause = backoff(settings.first, self.refusals);
            self.pause(now + pause.min(LONGEST_PROBE).min(settings.longest))
        })
    }

    fn pause(&mut self, until: Duration) -> Duration {
        self.until = self.until.max(until);
        self.state = State::Pause;
        self.until
    }

    /// The request of turn `number` ended without telling anything.
    pub(super) fn lost(&mut self, number: u64) {
        if self.state == State::Probe(number) {
            self.state = State::Pause;
        }
    }
}

/// `first`, doubled for each refusal after the first, and up to a quarter more,
/// so that several proxies do not come back together.
fn backoff(first: Duration, refusals: u32) -> Duration {
    let doubled = first.saturating_mul(1 << refusals.saturating_sub(1).min(16));
    let random = RandomState::new().hash_one(refusals) % 256;
    doubled + doubled / 1024 * random as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> config::Cooldown {
        config::Cooldown {
            first: seconds(1),
            longest: seconds(100),
            signals: [].into(),
            keyed: true,
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_end_of_a_pause_lets_one_probe_go_and_its_answer_the_others() {
        let mut cooldown = Cooldown::default();
        let until = cooldown.refused(1, seconds(5), Some(seconds(3)), &settings());
        assert_eq!(
            (until, cooldown.ready_at(seconds(6))),
            (seconds(8), seconds(8))
        );
        assert_eq!(cooldown.ready_at(seconds(9)), seconds(9));
        cooldown.start(7);
        assert!(cooldown.ready_at(seconds(9)) > seconds(9));
        cooldown.succeeded(2);
        assert!(cooldown.ready_at(seconds(9)) > seconds(9));
        cooldown.succeeded(7);
        assert_eq!(cooldown.ready_at(seconds(9)), seconds(9));
    }

    #[test]
    fn several_refused_together_are_one_refusal_and_a_refused_probe_doubles() {
        let mut cooldown = Cooldown::default();
        let mut pauses = Vec::new();
        let mut now = Duration::ZERO;
        for probe in 0..4 {
            let until = cooldown.refused(probe, now, None, &settings());
            assert_eq!(cooldown.refused(100, now, None, &settings()), until);
            pauses.push(until - now);
            now = until;
            cooldown.start(probe + 1);
        }
        for (pause, least) in pauses.iter().zip([1, 2, 4, 8].map(seconds)) {
            assert!((least..least * 5 / 4).contains(pause), "{pauses:?}");
        }
    }

    #[test]
    fn proxies_that_were_refused_together_do_not_come_back_together() {
        let refused = |_| Cooldown::default().refused(0, seconds(0), None, &settings());
        let pauses: std::collections::BTreeSet<_> = (0..20).map(refused).collect();
        assert!(pauses.len() > 1, "{pauses:?}");
    }

    #[test]
    fn an_upstream_that_stays_down_is_probed_every_ten_seconds() {
        let mut cooldown = Cooldown::default();
        let failed = |cooldown: &mut Cooldown, number| {
            cooldown.start(number);
            cooldown.failed(number, seconds(0), &settings())
        };
        let pauses: Vec<_> = (0..20)
            .filter_map(|nth| failed(&mut cooldown, nth))
            .collect();
        assert_eq!(pauses.len(), 16);
        assert_eq!(pauses[6..], [seconds(10); 10]);
    }

    #[test]
    fn a_pause_only_gets_longer_and_no_longer_than_allowed() {
        let mut cooldown = Cooldown::default();
        cooldown.refused(1, seconds(0), Some(seconds(50)), &settings());
        cooldown.refused(2, seconds(1), Some(seconds(5)), &settings());
        assert_eq!(cooldown.ready_at(seconds(2)), seconds(50));
        cooldown.refused(3, seconds(2), Some(seconds(5000)), &settings());
        assert_eq!(cooldown.ready_at(seconds(3)), seconds(102));
    }

    #[test]
    fn failures_in_a_row_pause_and_a_lost_probe_is_followed_by_another() {
        let mut cooldown = Cooldown::default();
        for number in 0..4 {
            assert!(cooldown.failed(number, seconds(1), &settings()).is_none());
        }
        let until = cooldown.failed(4, seconds(1), &settings()).unwrap();
        assert!(until >= seconds(2));
        cooldown.start(5);
        cooldown.lost(5);
        assert_eq!(cooldown.ready_at(seconds(9)), seconds(9));
        cooldown.start(6);
        assert!(cooldown.failed(6, seconds(9), &settings()).unwrap() >= seconds(11));
    }
}
