//! Limits that change, and keys that come and go.

use proptest::prelude::*;

use super::*;
use crate::config::Per;

mod kinds;

const GUARD: Duration = Duration::from_millis(80);
const TRIP: Duration = Duration::from_millis(5);

fn kind(number: usize) -> Per {
    Per::Segment(std::num::NonZeroUsize::new(number).unwrap())
}

/// `count` per second for each key of that kind, or for the lane.
fn of(per: Option<Per>, count: u32, counts: Counts) -> config::Limit {
    config::Limit {
        per,
        counts,
        ..limit(count, SECOND, count, true)
    }
}

fn keyed(count: u32) -> config::Limit {
    of(Some(kind(1)), count, Counts::Cost)
}

fn charge(cost: u32, keys: &[u64]) -> Charge {
    Charge::new(NonZeroU32::new(cost).unwrap(), keys.into(), 0)
}

fn rig(limits: &[config::Limit], max_keys: usize) -> Rig {
    let mut rig = Rig::new(&[], GUARD);
    let mut settings = priced(limits);
    settings.max_keys = std::num::NonZeroUsize::new(max_keys).unwrap();
    rig.limits = Limits::new(&settings, rig.start);
    rig
}

/// An upstream with these limits, where requests cost up to 5 if any counts that.
fn priced(limits: &[config::Limit]) -> config::Upstream {
    let mut settings = settings(limits, GUARD);
    if limits.iter().any(|limit| limit.counts == Counts::Cost) {
        settings.costs = vec![config::CostRule::Fixed {
            method: None,
            path: None,
            cost: NonZeroU32::new(5).unwrap(),
        }];
    }
    settings
}

impl Rig {
    fn reload(&mut self, limits: &[config::Limit]) {
        self.limits.reconfigure(&priced(limits), self.now);
    }

    fn may_start(&mut self, charge: &Charge) -> bool {
        self.limits.ready(&self.current(charge), self.now).is_ok()
    }
}

/// A preset's points were forgotten by a reload: its longest limit counts
/// requests, and each of those was taken for one point.
#[test]
fn a_limit_that_changes_counts_what_was_spent_as_it_counts_itself() {
    let requests = of(None, 100, Counts::Requests);
    let mut rig = rig(&[requests.clone(), of(None, 50, Counts::Cost)], 1);
    for _ in 0..9 {
        rig.start_for(cost(5), Some(TRIP));
    }
    rig.advance(rig.now + TRIP);
    rig.reload(&[requests.clone(), of(None, 49, Counts::Cost)]);
    assert!(rig.may_start(&cost(4)));
    assert!(!rig.may_start(&cost(5)));
    // Where nobody counted points, each request may have cost the most.
    rig.reload(&[requests]);
    rig.reload(&[of(None, 49, Counts::Cost)]);
    assert!(rig.may_start(&cost(4)));
    assert!(!rig.may_start(&cost(5)));
}

/// Only what the old limit itself remembered was known: a second.
#[test]
fn a_limit_that_reaches_farther_than_the_old_ones_counts_the_last_hour() {
    let minute = limit(12, SECOND * 60, 12, true);
    for before in [&[limit(10, SECOND, 10, true)][..], &[]] {
        let mut rig = rig(before, 1);
        for _ in 0..10 {
            rig.start(Some(TRIP));
        }
        rig.advance(rig.now + SECOND * 5);
        // On its way, so it counts once.
        let open = rig.take(Charge::ONE);
        rig.reload(std::slice::from_ref(&minute));
        assert_eq!(rig.left(), 1, "{before:?}");
        rig.close(open, End::Answered(&[]));
        assert!(rig.start(Some(TRIP)) < SECOND * 6);
        let next = rig.start(Some(TRIP));
        assert!(next > SECOND * 60 && next < SECOND * 61, "{next:?}");
    }
}

/// The log of the window beside it stood for what was missing from it.
#[test]
fn a_bucket_that_changes_beside_a_window_is_no_fuller_than_before() {
    let bucket = |size| limit(1, SECOND, size, false);
    let mut rig = rig(&[of(None, 10, Counts::Cost), bucket(60)], 1);
    while rig.start(Some(TRIP)) < SECOND * 10 {}
    rig.reload(&[bucket(50), of(None, 10, Counts::Cost)]);
    let until = rig.now - rig.start + SECOND * 5;
    let started = std::iter::repeat_with(|| rig.start(Some(TRIP)));
    let started = started.take_while(|start| *start < until).count();
    // What is on its way may have been counted in what is missing.
    assert!((3..=5).contains(&started), "{started}");
}

#[test]
fn where_all_counts_as_spent_no_key_of_a_new_limit_starts() {
    let all = of(None, 10, Counts::Cost);
    let mut rig = rig(std::slice::from_ref(&all), 10);
    rig.limits.spent_all(rig.now);
    // Before the reload, but not of the time that nobody knows.
    rig.start(Some(TRIP));
    rig.advance(rig.now + TRIP);
    let hour = config::Limit {
        per: Some(kind(1)),
        ..limit(1000, SECOND * 3600, 1000, true)
    };
    rig.reload(&[all, hour]);
    assert!(!rig.may_start(&charge(1, &[7])));
    rig.advance(rig.now + SECOND * 3700);
    assert!(rig.may_start(&charge(1, &[7])));
}

/// A lower limit was charged with all that had been spent, so that its spacing
/// held the lane for hours after its window was free again.
#[test]
fn a_lower_limit_holds_the_lane_no_longer_than_its_window_does() {
    for burst in [1, 2] {
        let low = limit(2, SECOND, burst, true);
        let mut rig = rig(&[of(None, 100, Counts::Cost)], 1);
        for _ in 0..100 {
            rig.start(Some(TRIP));
        }
        rig.advance(rig.now + TRIP);
        rig.reload(std::slice::from_ref(&low));
        assert!(rig.start(Some(TRIP)) <= slow_second() + TRIP, "{burst}");
        // The same after a restart.
        rig.reload(&[]);
        rig.reload(&[low]);
        let hundred = NonZeroU32::new(100).unwrap();
        rig.limits.spent(&Charge::ONE, hundred, rig.now);
        let since = rig.now;
        rig.start(Some(TRIP));
        assert!(rig.now - since <= slow_second() + GUARD, "{burst}");
    }
}

/// What nobody knows whose it was stood every new key's spacing still.
#[test]
fn a_new_limit_of_keys_holds_them_no_longer_than_its_window_does() {
    let all = of(None, 1000, Counts::Cost);
    let mut rig = rig(std::slice::from_ref(&all), 10);
    for _ in 0..300 {
        rig.start(Some(TRIP));
    }
    rig.advance(rig.now + TRIP);
    let since = rig.now;
    rig.reload(&[all, keyed(1)]);
    for key in 1..3 {
        rig.start_for(charge(1, &[key]), Some(TRIP));
    }
    assert!(rig.now - since <= slow_second() + TRIP);
}

/// A bucket that takes a larger one's place is empty at most.
#[test]
fn a_smaller_bucket_has_a_token_after_its_interval() {
    let mut rig = rig(&[limit(1, SECOND, 100, false)], 1);
    for _ in 0..100 {
        rig.start(Some(Duration::ZERO));
    }
    rig.advance(rig.now + TRIP);
    let since = rig.now;
    rig.reload(&[limit(1, SECOND, 5, false)]);
    rig.start(Some(Duration::ZERO));
    assert!(rig.now - since <= slow_second() + Duration::from_nanos(1));
}

/// Requests that came at once are one entry of the log, and counted as one.
#[test]
fn requests_are_counted_where_only_their_costs_are_known() {
    let mut rig = rig(&[of(None, 10, Counts::Cost)], 1);
    for _ in 0..8 {
        rig.start_for(cost(1), Some(TRIP));
    }
    rig.advance(rig.now + TRIP);
    rig.reload(&[of(None, 9, Counts::Requests)]);
    rig.start_for(cost(1), Some(TRIP));
    assert!(!rig.may_start(&cost(1)));
}

/// A request was on its way when keys were first told apart, so the log of a key
/// that came then held it as counted in the future, and the next reload, which
/// took the costs for requests, dropped what was not in the past.
#[test]
fn what_was_on_its_way_two_reloads_ago_is_counted_by_limits_that_count_otherwise() {
    for (before, after) in [
        (Counts::Cost, Counts::Requests),
        (Counts::Requests, Counts::Cost),
    ] {
        let mut rig = rig(&[of(None, 3, Counts::Requests)], 2);
        rig.start_for(Charge::ONE, Some(GUARD));
        rig.reload(&[of(Some(kind(1)), 3, before)]);
        rig.start_for(charge(1, &[1]), Some(GUARD));
        rig.reload(&[of(Some(kind(1)), 3, after)]);
        rig.start_for(charge(1, &[1]), Some(GUARD));
        assert!(!rig.may_start(&charge(1, &[1])), "{after:?}");
    }
}

/// The log of a large limit keeps one entry for a slot, with its latest time. When
/// a shorter log of the other kind reached back to the middle of a slot, a reload
/// took neither the slot nor what the shorter one had dropped.
#[test]
fn a_slot_that_a_shorter_log_tells_only_in_part_is_counted() {
    let long = config::Limit {
        period: SECOND * 1000,
        ..of(None, 20_000, Counts::Cost)
    };
    let short = of(None, 1000, Counts::Requests);
    let mut rig = rig(&[long.clone(), short], 1);
    let mut spent = 0;
    // A slot is about 122 ms; the reload comes in the middle of one.
    while rig.now < rig.start + Duration::from_millis(3052) {
        rig.start_for(cost(1), Some(Duration::ZERO));
        spent += 1;
        rig.advance(rig.now + TRIP);
    }
    let requests = config::Limit {
        period: SECOND * 500,
        ..of(None, spent, Counts::Requests)
    };
    rig.reload(&[long, requests]);
    assert!(!rig.may_start(&cost(1)));
}

/// Settings at random: of the lane and of each of two kinds, a count and what it
/// counts, if there is such a limit; without any nothing is remembered.
fn some_settings() -> impl Strategy<Value = Vec<config::Limit>> {
    let one = || prop::option::of((3u32..12, prop::bool::ANY));
    let some = (one(), one(), one(), prop::bool::ANY).prop_map(|(lane, first, second, swapped)| {
        let limits = [
            (None, lane),
            (Some(kind(1)), first),
            (Some(kind(2)), second),
        ];
        let limits = limits.into_iter().filter_map(|(per, limit)| {
            let (count, requests) = limit?;
            let counts = if requests {
                Counts::Requests
            } else {
                Counts::Cost
            };
            Some(of(per, count, counts))
        });
        let mut limits: Vec<_> = limits.collect();
        if swapped {
            limits.reverse();
        }
        limits
    });
    some.prop_filter("without limits", |limits| !limits.is_empty())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// However keys come, go, share a place and are refused: each holds its
    /// limit, none starts before its own pause is over, and none waits for ever.
    #[test]
    fn no_key_starts_in_its_pause_or_beyond_its_limit_however_many_come_and_go(
        count in 1u32..4, max_keys in 1usize..5,
        trips in prop::collection::vec((1u64..9, 0u8..6, 0u64..80, 0u64..2000, 0u64..400), 20..100),
    ) {
        let limit = keyed(count);
        let mut rig = rig(std::slice::from_ref(&limit), max_keys);
        let mut counted: Vec<(u64, Duration)> = Vec::new();
        let mut paused: std::collections::HashMap<u64, Instant> = std::collections::HashMap::new();
        for (key, end, way, asked, pause) in trips {
            let way = Duration::from_millis(way);
            let turn = rig.take(charge(1, &[key]));
            prop_assert!(paused.get(&key).is_none_or(|until| rig.now >= *until), "{key} in its pause");
            let start = rig.now - rig.start;
            match end {
                0 => {
                    // A refusal comes with the count itself.
                    let asked = Duration::from_millis(asked + 1);
                    let until = rig.close(turn, End::Refused(Some(asked), &[])).cooldown;
                    prop_assert!(until.is_some_and(|until| until >= rig.now + asked));
                    paused.insert(key, rig.now + asked);
                    counted.push((key, start));
                }
                1 => {
                    rig.close(turn, End::Failed);
                    counted.push((key, start + way));
                }
                _ => {
                    let answer = rig.now + way + TRIP;
                    rig.answers.push_back((answer, turn));
                    rig.answers.make_contiguous().sort_by_key(|(at, _)| *at);
                    counted.push((key, start + way));
                }
            }
            let later = rig.now + Duration::from_millis(pause);
            rig.advance(later);
        }
        for key in 1..9 {
            let own = counted.iter().filter(|(of, _)| *of == key);
            let own: Vec<_> = own.map(|(_, at)| (*at, 1)).collect();
            prop_assert!(worst(&own, SECOND.mul_f64(1.001)) <= count, "{}: {:?}", key, own);
        }
    }

    /// Whatever limits take each other's place, by whatever they tell requests
    /// apart and count: no window of the limits that hold when a request starts
    /// has more than they say, what was sent before them included.
    #[test]
    fn no_reload_lets_more_through_than_the_limits_that_hold_then(
        phases in prop::collection::vec(
            (some_settings(), prop::collection::vec((1u32..4, 1u64..4, 1u64..4, 0u64..80, 0u64..150, 0u64..100), 1..15)),
            2..5,
        ),
        max_keys in 1usize..6,
    ) {
        let first = &phases[0].0;
        let mut rig = rig(first, max_keys);
        let mut counted: Vec<(Duration, u32, [u64; 2])> = Vec::new();
        for (nth, (limits, trips)) in phases.iter().enumerate() {
            let mut settings = priced(limits);
            settings.max_keys = std::num::NonZeroUsize::new(max_keys).unwrap();
            if nth > 0 {
                rig.limits.reconfigure(&settings, rig.now);
            }
            for (cost, one, two, way, more, pause) in trips {
                let (way, pause) = (Duration::from_millis(*way), Duration::from_millis(*pause));
                let trip = way + Duration::from_millis(*more);
                // Where nothing counts costs there are none.
                let cost = (*cost).min(settings.most_cost().get()).min(settings.dearest().get());
                let keys: Vec<u64> = settings.kinds().iter().map(|per| match per {
                    Per::Segment(number) if number.get() == 1 => *one,
                    _ => *two,
                }).collect();
                let start = rig.start_for(charge(cost, &keys), Some(trip));
                counted.push((start + way, cost, [*one, *two]));
                let (at, ..) = *counted.last().unwrap();
                for limit in limits {
                    // On a clock that is as slow as is allowed for.
                    let period = limit.period.mul_f64(1.001);
                    let same = |keys: &[u64; 2]| match &limit.per {
                        None => true,
                        Some(Per::Segment(number)) => {
                            let kind = number.get() - 1;
                            keys[kind] == [*one, *two][kind]
                        }
                        Some(_) => false,
                    };
                    // The window that ends with this one, and those that it is in.
                    for (from, ..) in &counted {
                        let window = *from..*from + period;
                        if !window.contains(&at) {
                            continue;
                        }
                        let within = counted.iter().filter(|(at, _, keys)| window.contains(at) && same(keys));
                        let sum: u32 = within.map(|(_, cost, _)| match limit.counts {
                            Counts::Requests => 1,
                            Counts::Cost => *cost,
                        }).sum();
                        prop_assert!(
                            sum <= limit.count.get(),
                            "{} in phase {} by {:?}: {:?}", sum, nth, limit, counted
                        );
                    }
                }
                let later = rig.now + pause;
                rig.advance(later);
            }
        }
    }
}
