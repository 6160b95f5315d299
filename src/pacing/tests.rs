//! The limits as the gate drives them, over random limits, answers and loads.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use super::*;
use crate::config::Counts;

mod answers;
mod changes;
mod claims;
mod promises;
mod trips;

fn limit(count: u32, period: Duration, burst: u32, window: bool) -> config::Limit {
    config::Limit {
        label: format!("{count}/{period:?}"),
        count: NonZeroU32::new(count).unwrap(),
        period,
        burst: NonZeroU32::new(burst).unwrap(),
        window,
        per: None,
        counts: Counts::Cost,
    }
}

/// An upstream with these limits.
fn settings(limits: &[config::Limit], guard: Duration) -> config::Upstream {
    let text = "listen = \"127.0.0.1:1\"\n[upstream.a]\nurl = \"http://a\"";
    let mut settings = config::Config::parse("test", text)
        .unwrap()
        .upstreams
        .remove(0);
    settings.limits = limits.to_vec();
    settings.guard = config::Guard::Fixed(guard);
    settings
}

/// The same with an automatic guard.
fn automatic(limits: &[config::Limit]) -> config::Upstream {
    config::Upstream {
        guard: config::Guard::Auto,
        ..settings(limits, SECOND)
    }
}

/// An upstream and a gate that always wants to start, in simulated time.
struct Rig {
    limits: Limits,
    start: Instant,
    now: Instant,
    answers: VecDeque<(Instant, Turn)>,
}

impl Rig {
    fn new(limits: &[config::Limit], guard: Duration) -> Self {
        let start = Instant::now();
        Self {
            limits: Limits::new(&settings(limits, guard), start),
            start,
            now: start,
            answers: VecDeque::new(),
        }
    }

    /// Advances to `time`, reporting the answers that come on the way.
    fn advance(&mut self, time: Instant) {
        while let Some((at, turn)) = self.answers.pop_front_if(|(at, _)| *at <= time) {
            self.limits.close(turn, End::Answered(&[]), at);
        }
        self.now = time;
    }

    /// Waits for the next turn and starts; the answer comes after `trip`.
    fn start(&mut self, trip: Option<Duration>) -> Duration {
        self.start_for(Charge::ONE, trip)
    }

    fn start_for(&mut self, charge: Charge, trip: Option<Duration>) -> Duration {
        let turn = self.take(charge);
        // Without an answer the guard decides.
        if let Some(trip) = trip {
            self.answers.push_back((self.now + trip, turn));
            self.answers.make_contiguous().sort_by_key(|(at, _)| *at);
        }
        self.now - self.start
    }

    /// `charge` as one that comes now.
    fn current(&self, charge: &Charge) -> Charge {
        Charge::new(charge.cost, charge.keys().into(), self.limits.kinds())
    }

    fn take(&mut self, charge: Charge) -> Turn {
        self.take_waiting(self.current(&charge))
    }

    /// The same for one that may have come before a reload.
    fn take_waiting(&mut self, charge: Charge) -> Turn {
        // Longer than anything takes here.
        let patience = self.now + SECOND * 100_000;
        while let Err(hold) = self.limits.ready(&charge, self.now) {
            assert!(hold.until > self.now, "told to wait for the past");
            assert!(self.now < patience, "never ready");
            self.advance(hold.until);
        }
        self.limits.start(charge, self.now, self.start)
    }

    fn close(&mut self, turn: Turn, end: End<'_>) -> Closed {
        self.limits.close(turn, end, self.now)
    }

    fn left(&mut self) -> u64 {
        self.limits.gauges(self.now, None)[0].left
    }

    fn wait(&mut self, ahead: u64) -> Duration {
        self.limits.wait(&Charge::ONE, self.now, ahead, &[])
    }
}

fn cost(cost: u32) -> Charge {
    Charge::of(NonZeroU32::new(cost).unwrap())
}

fn key(key: u64) -> Charge {
    Charge::new(NonZeroU32::MIN, [key].into(), 0)
}

/// The most that lies in any window `[t, t + period)`.
fn worst(counted: &[(Duration, u32)], period: Duration) -> u32 {
    let mut counted = counted.to_vec();
    counted.sort();
    let from = |first: usize| {
        let end = counted[first].0 + period;
        let within = counted[first..].iter().take_while(|(at, _)| *at < end);
        within.map(|(_, cost)| cost).sum()
    };
    (0..counted.len()).map(from).max().unwrap_or(0)
}

const SECOND: Duration = Duration::from_secs(1);

/// Of which more is counted than a log has room for.
#[test]
fn a_limit_of_a_day_is_never_exceeded_and_used_in_full() {
    const COUNT: usize = 20_000;
    let day = SECOND * 86_400;
    let mut rig = Rig::new(&[limit(COUNT as u32, day, COUNT as u32, true)], SECOND / 4);
    // Half as many again as are allowed, unevenly.
    let mut gaps = (0..).map(|nth: u64| Duration::from_millis(nth * 7919 % 5760));
    let mut starts = Vec::new();
    while starts.last().is_none_or(|last| *last < day * 3) {
        rig.advance(rig.now + gaps.next().unwrap());
        starts.push(rig.start(None));
    }
    for (first, next) in starts.iter().zip(&starts[COUNT..]) {
        assert!(*next - *first >= day, "{first:?} and {next:?}");
    }
    let used = starts.iter().filter(|at| (day..day * 3).contains(*at));
    let used = used.count();
    assert!(used >= 2 * COUNT * 998 / 1000, "{used}");
}

/// A second on an upstream's clock that is as slow as is allowed for.
fn slow_second() -> Duration {
    SECOND + SECOND / 997
}

#[test]
fn a_plain_limit_lets_its_count_go_at_once_and_then_waits_for_the_window() {
    let mut rig = Rig::new(&[limit(10, SECOND, 10, true)], SECOND / 10);
    let trip = Duration::from_millis(5);
    let starts: Vec<_> = (0..21).map(|_| rig.start(Some(trip))).collect();
    assert!(starts[..10].iter().all(Duration::is_zero));
    let second = slow_second() + trip;
    assert!(starts[10..20].iter().all(|start| *start == second));
    assert_eq!(starts[20], second * 2);
}

#[test]
fn several_limits_are_one_decision_and_the_strictest_rules() {
    let limits = [limit(5, SECOND, 5, true), limit(7, SECOND * 10, 7, true)];
    let mut rig = Rig::new(&limits, Duration::from_millis(1));
    let starts: Vec<_> = (0..8)
        .map(|_| rig.start(Some(Duration::ZERO)).as_millis())
        .collect();
    assert_eq!(starts, [0, 0, 0, 0, 0, 1001, 1001, 10_010]);
}

#[test]
fn a_request_without_an_answer_holds_its_place_for_the_guard_and_a_period() {
    let mut rig = Rig::new(&[limit(1, SECOND, 1, true)], SECOND / 4);
    assert_eq!(rig.start(None), Duration::ZERO);
    assert_eq!(rig.start(None), slow_second() + SECOND / 4);
}

#[test]
fn a_documented_bucket_saves_up_and_is_charged_when_the_answer_comes() {
    let mut rig = Rig::new(&[limit(2, SECOND, 40, false)], SECOND);
    let trip = Duration::from_millis(100);
    let starts: Vec<_> = (0..42).map(|_| rig.start(Some(trip))).collect();
    assert!(starts[..40].iter().all(Duration::is_zero));
    let half = slow_second() / 2 + Duration::from_nanos(1);
    assert_eq!(starts[40..], [trip + half, trip + half * 2]);
}

#[test]
fn a_bucket_of_one_keeps_the_distance_at_the_upstream_whatever_the_way() {
    let mut rig = Rig::new(&[limit(10, SECOND, 1, false)], SECOND);
    let mut counted = Vec::new();
    for nth in 0..50 {
        let way = Duration::from_millis(nth * 7 % 50);
        counted.push(rig.start(Some(way)) + way);
    }
    let gaps = counted.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.min().unwrap() >= slow_second() / 10);
}

#[test]
fn without_limits_every_request_starts_at_once() {
    let mut rig = Rig::new(&[], SECOND);
    assert!((0..1000).all(|_| rig.start(None).is_zero()));
    assert_eq!(rig.wait(1000), Duration::ZERO);
}

#[test]
fn the_projected_wait_counts_the_cost_of_those_ahead() {
    let mut rig = Rig::new(&[limit(10, SECOND, 10, true)], SECOND);
    assert_eq!(rig.wait(9), Duration::ZERO);
    assert_eq!(rig.wait(29), slow_second() * 2);
    rig.start(None);
    assert_eq!(rig.left(), 9);
    assert_eq!(rig.limits.starts_within(rig.now, SECOND / 2), 9);
}

/// The wait was that of the spacing alone, so that callers of a full window were
/// let in to wait in vain, and others refused who could have gone in time.
#[test]
fn the_projected_wait_is_the_windows_where_that_is_longer() {
    let minute = SECOND * 60;
    let mut rig = Rig::new(&[limit(10, minute, 10, true)], SECOND);
    for _ in 0..10 {
        rig.start(Some(Duration::ZERO));
        rig.advance(rig.now + SECOND / 10);
    }
    let full = slow_second() * 60 - SECOND;
    assert!(rig.wait(0).abs_diff(full) < SECOND / 1000);
    let third = full + SECOND / 5;
    assert!(rig.wait(2).abs_diff(third) < SECOND / 1000);
    assert!(rig.wait(12).abs_diff(third + slow_second() * 60) < SECOND / 1000);
    rig.advance(rig.now + SECOND * 55);
    let soon = full - SECOND * 55;
    assert!(rig.wait(0).abs_diff(soon) < SECOND / 1000);
}

#[test]
fn the_projected_wait_for_a_bucket_counts_what_is_on_its_way() {
    let mut rig = Rig::new(&[limit(2, SECOND, 4, false)], SECOND);
    rig.start(None);
    assert_eq!(rig.wait(2), Duration::ZERO);
    let half = slow_second() / 2 + Duration::from_nanos(1);
    assert_eq!(rig.wait(4), half * 2);
}

#[test]
fn a_heavy_request_pays_its_cost_and_limits_of_requests_count_it_once() {
    let requests = config::Limit {
        counts: Counts::Requests,
        ..limit(3, SECOND, 3, true)
    };
    let mut rig = Rig::new(&[limit(10, SECOND, 10, true), requests], SECOND);
    let trip = Some(Duration::ZERO);
    let starts: Vec<_> = [5, 5, 1]
        .map(|heavy| rig.start_for(cost(heavy), trip).as_millis())
        .into();
    assert_eq!(starts, [0, 0, 1001]);
    let starts: Vec<_> = [1, 1, 1].map(|_| rig.start(trip).as_millis()).into();
    assert_eq!(starts, [1001, 1001, 2002]);
}

#[test]
fn a_heavy_request_goes_at_its_slot_and_delays_those_after_it() {
    let mut rig = Rig::new(&[limit(10, SECOND, 1, true)], SECOND);
    let starts: Vec<_> = [1, 5, 1, 1]
        .map(|heavy| rig.start_for(cost(heavy), Some(Duration::ZERO)).as_millis())
        .into();
    assert_eq!(starts, [0, 100, 600, 700]);
}

#[test]
fn each_key_has_a_window_of_its_own_and_the_lane_one_for_all() {
    let per = config::Limit {
        per: Some(config::Per::Address),
        ..limit(2, SECOND, 2, true)
    };
    let mut rig = Rig::new(&[per, limit(5, SECOND, 5, true)], SECOND);
    let trip = Some(Duration::ZERO);
    for of in [1, 1, 2, 2] {
        assert!(rig.start_for(key(of), trip).is_zero());
    }
    let hold = |rig: &mut Rig, of| rig.limits.ready(&key(of), rig.now).unwrap_err();
    let keyed = hold(&mut rig, 1);
    assert!(keyed.keyed);
    assert!(rig.start_for(key(3), trip).is_zero());
    assert!(!hold(&mut rig, 4).keyed);
    assert_eq!(rig.limits.keys(), 3);
}

#[test]
fn keys_beyond_the_most_share_one_and_those_that_no_longer_matter_go() {
    let per = config::Limit {
        per: Some(config::Per::Address),
        ..limit(1, SECOND, 1, true)
    };
    let mut settings = settings(&[per], SECOND);
    settings.max_keys = std::num::NonZeroUsize::new(3).unwrap();
    let mut rig = Rig::new(&[], SECOND);
    rig.limits = Limits::new(&settings, rig.start);
    let trip = Some(Duration::ZERO);
    let starts: Vec<_> = (1..=6)
        .map(|of| rig.start_for(key(of), trip).as_millis())
        .collect();
    assert_eq!(starts[..3], [0, 0, 0]);
    assert!(starts[3..].is_sorted() && starts[5] > 1000, "{starts:?}");
    rig.advance(rig.now + SECOND * 10);
    let later = rig.now - rig.start;
    let starts = (7..=9).map(|of| rig.start_for(key(of), trip));
    assert!(starts.into_iter().all(|start| start == later));
    assert_eq!(rig.limits.keys(), 3);
}

#[test]
fn a_request_that_never_left_gives_its_place_back() {
    let mut rig = Rig::new(&[limit(2, SECOND, 2, true)], SECOND);
    let turn = rig.take(Charge::ONE);
    assert_eq!(rig.left(), 1);
    assert!(rig.close(turn, End::Canceled).sooner);
    let window = rig.limits.ready(&cost(2), rig.now + SECOND);
    assert_eq!(window, Ok(()));
}
