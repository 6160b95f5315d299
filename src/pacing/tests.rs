//! The limits as the gate drives them, over random limits, answers and loads.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::config::Counts;

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
        self.start_at_cost(trip, 1)
    }

    fn start_at_cost(&mut self, trip: Option<Duration>, cost: u32) -> Duration {
        let charge = Charge::of(NonZeroU32::new(cost).unwrap());
        while let Err(hold) = self.limits.ready(&charge, self.now) {
            assert!(hold.until > self.now, "told to wait for the past");
            self.advance(hold.until);
        }
        let turn = self.limits.start(charge, self.now, self.start);
        if let Some(trip) = trip {
            self.answers.push_back((self.now + trip, turn));
            self.answers.make_contiguous().sort_by_key(|(at, _)| *at);
        }
        self.now - self.start
    }
}

/// The most of `times` that lie in any window `[t, t + period)`.
fn worst(times: &[Duration], period: Duration) -> usize {
    let mut times = times.to_vec();
    times.sort();
    let ends = times.iter().enumerate();
    ends.map(|(first, time)| times[first..].partition_point(|other| *other < *time + period))
        .max()
        .unwrap_or(0)
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_plain_limit_lets_its_count_go_at_once_and_then_waits_for_the_window() {
    let mut rig = Rig::new(&[limit(10, SECOND, 10, true)], SECOND / 10);
    let trip = Some(Duration::from_millis(5));
    let starts: Vec<_> = (0..21).map(|_| rig.start(trip)).collect();
    assert!(starts[..10].iter().all(|start| start.is_zero()));
    assert!(
        starts[10..20]
            .iter()
            .all(|start| *start == Duration::from_millis(1005))
    );
    assert_eq!(starts[20], Duration::from_millis(2010));
}

#[test]
fn several_limits_are_one_decision_and_the_strictest_rules() {
    let limits = [limit(5, SECOND, 5, true), limit(7, SECOND * 10, 7, true)];
    let mut rig = Rig::new(&limits, Duration::from_millis(1));
    let starts: Vec<_> = (0..8)
        .map(|_| rig.start(Some(Duration::ZERO)).as_millis())
        .collect();
    assert_eq!(starts, [0, 0, 0, 0, 0, 1000, 1000, 10_000]);
}

#[test]
fn a_request_without_an_answer_holds_its_place_for_the_guard_and_a_period() {
    let mut rig = Rig::new(&[limit(1, SECOND, 1, true)], SECOND / 4);
    assert_eq!(rig.start(None), Duration::ZERO);
    assert_eq!(rig.start(None), SECOND + SECOND / 4);
}

#[test]
fn a_documented_bucket_has_no_window() {
    let mut rig = Rig::new(&[limit(2, SECOND, 40, false)], SECOND);
    let starts: Vec<_> = (0..42).map(|_| rig.start(None).as_millis()).collect();
    assert!(starts[..40].iter().all(|start| *start == 0));
    assert_eq!(starts[40..], [500, 1000]);
}

#[test]
fn without_limits_every_request_starts_at_once() {
    let mut rig = Rig::new(&[], SECOND);
    assert!((0..1000).all(|_| rig.start(None).is_zero()));
    assert_eq!(rig.limits.wait(rig.now, 1000), Duration::ZERO);
}

#[test]
fn the_projected_wait_counts_those_ahead() {
    let mut rig = Rig::new(&[limit(10, SECOND, 10, true)], SECOND);
    assert_eq!(rig.limits.wait(rig.now, 9), Duration::ZERO);
    assert_eq!(rig.limits.wait(rig.now, 29), SECOND * 2);
    rig.start(None);
    assert_eq!(rig.limits.available(rig.now), [("10/1s".to_owned(), 9)]);
    assert_eq!(rig.limits.starts_within(rig.now, SECOND / 2), 9);
}

#[test]
fn a_cooldown_stops_all_starts_only_gets_longer_and_ends_without_a_burst() {
    let mut rig = Rig::new(&[limit(10, SECOND, 10, true)], SECOND);
    assert!(rig.limits.cooled().is_none());
    rig.limits.cool(rig.start + SECOND * 5);
    rig.limits.cool(rig.start + SECOND * 2);
    assert_eq!(rig.limits.cooled(), Some(rig.start + SECOND * 5));
    assert_eq!(rig.limits.wait(rig.now, 0), SECOND * 5);
    assert_eq!(rig.limits.starts_within(rig.now, SECOND), 0);
    let starts: Vec<_> = (0..3)
        .map(|_| rig.start(Some(Duration::ZERO)).as_millis())
        .collect();
    assert_eq!(starts, [5000, 5100, 5200]);
}

#[test]
fn a_request_that_never_left_gives_its_place_back() {
    let mut rig = Rig::new(&[limit(2, SECOND, 2, true)], SECOND);
    rig.limits.ready(rig.now).unwrap();
    let turn = rig.limits.start(rig.now, rig.now);
    rig.limits.canceled(turn);
    let room = rig.limits.each[0].room(Duration::ZERO, &rig.limits.guard);
    assert_eq!(room, 2);
}

proptest! {
    /// Promise 2: whatever the limits and however the requests are delayed on
    /// their way (answered after they were counted; unanswered ones counted
    /// within the guard), no window where the upstream counts holds too many.
    #[test]
    fn no_window_at_the_upstream_ever_holds_more_than_the_limit(
        specs in prop::collection::vec((1u32..12, 1u64..2000, 1u32..12), 1..3),
        trips in prop::collection::vec((0u64..80_000, 0u64..200_000, prop::bool::weighted(0.8), 0u64..300_000), 20..120),
    ) {
        let guard = Duration::from_millis(80);
        let limits: Vec<_> = specs.iter()
            .map(|(count, period, burst)| {
                limit(*count, Duration::from_millis(*period), (*burst).min(*count), true)
            })
            .collect();
        let mut rig = Rig::new(&limits, guard);
        let mut counted = Vec::new();
        for (way, more, answered, pause) in trips {
            // On its way for at most the guard; the answer comes later still.
            let way = Duration::from_micros(way);
            let trip = way + Duration::from_micros(more);
            let start = rig.start(answered.then_some(trip));
            counted.push(start + way);
            // Now and then the load lets up.
            if pause > 290_000 {
                let later = rig.now + Duration::from_micros(pause) * 5;
                rig.advance(later);
            }
        }
        for limit in &limits {
            prop_assert!(worst(&counted, limit.period) <= limit.count.get() as usize);
        }
    }

    /// Promise 3: under load with immediate answers the rate is used in full.
    #[test]
    fn a_single_limit_is_used_in_full(count in 1u32..50, period in 10u64..5000, burst in 1u32..50) {
        let period = Duration::from_millis(period);
        let mut rig = Rig::new(&[limit(count, period, burst.min(count), true)], period);
        let last = (0..count * 10 + 1).map(|_| rig.start(Some(Duration::ZERO))).last().unwrap();
        // Ten periods and the rounding of the interval to whole nanoseconds.
        prop_assert!(last <= period * 10 + Duration::from_nanos(u64::from(count) * 10));
    }
}
