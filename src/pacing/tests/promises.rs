//! What the limits promise, over limits, costs, delays, refusals and changes at
//! random, judged by an upstream with an arithmetic of its own.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// A limit at random: count, period in ms, burst, whether a window.
type Spec = (u32, u64, u32, bool);

fn specs() -> impl Strategy<Value = Vec<Spec>> {
    let window = (1u32..12, 1u64..2000, 1u32..12, Just(true));
    let bucket = (1u32..12, 1u64..2000, 1u32..12, Just(false));
    prop::collection::vec(prop_oneof![3 => window, 1 => bucket], 1..3)
}

fn limits_of(specs: &[Spec]) -> Vec<config::Limit> {
    let one = |(count, period, burst, window): &Spec| {
        let burst = if *window {
            (*burst).min(*count)
        } else {
            *burst
        };
        limit(*count, Duration::from_millis(*period), burst, *window)
    };
    specs.iter().map(one).collect()
}

/// What an upstream whose clock is 1 in 1000 slow says to `counted`.
fn refuses(limit: &config::Limit, counted: &[(Duration, u32)]) -> Option<String> {
    let slow = |time: Duration| time.as_secs_f64() * 0.999;
    if limit.window {
        let period = limit.period.mul_f64(1.001);
        let worst = worst(counted, period);
        return (worst > limit.count.get()).then(|| format!("{worst} within {period:?}"));
    }
    let mut counted = counted.to_vec();
    counted.sort();
    let rate = f64::from(limit.count.get()) / limit.period.as_secs_f64();
    let size = f64::from(limit.burst.get());
    let (mut level, mut last) = (size, 0.0);
    for (at, cost) in counted {
        level = (level + (slow(at) - last) * rate).min(size) - f64::from(cost);
        last = slow(at);
        if level < -1e-6 {
            return Some(format!("bucket at {level} at {at:?}"));
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Promise 2: whatever the limits, costs, cooldowns and reloads, and however
    /// the requests are delayed on their way (answered after they were counted;
    /// unanswered ones counted within the guard), no window and no bucket where
    /// the upstream counts is ever over its limit.
    #[test]
    fn no_limit_is_ever_exceeded_where_the_upstream_counts(
        specs in specs(),
        trips in prop::collection::vec((0u64..80_000, 0u64..200_000, 0u8..20, 0u64..300_000, 1u32..4), 20..120),
    ) {
        let guard = Duration::from_millis(80);
        let limits = limits_of(&specs);
        let settings = settings(&limits, guard);
        let mut rig = Rig::new(&limits, guard);
        let mut counted = Vec::new();
        for (way, more, kind, pause, heavy) in trips {
            // On its way for at most the guard; the answer comes later still.
            let way = Duration::from_micros(way);
            let trip = way + Duration::from_micros(more);
            let heavy = heavy.min(settings.most_cost().get());
            let turn = rig.take(cost(heavy));
            let start = rig.now - rig.start;
            match kind {
                0 => { rig.close(turn, End::Canceled); continue; }
                1 => { rig.close(turn, End::Lost); }
                2 => { rig.close(turn, End::Refused(None, &[])); }
                3 => {
                    rig.limits.reconfigure(&settings, rig.now);
                    rig.answers.push_back((rig.now + trip, turn));
                }
                _ => rig.answers.push_back((rig.now + trip, turn)),
            }
            rig.answers.make_contiguous().sort_by_key(|(at, _)| *at);
            // A refusal comes with the count itself.
            let way = if kind == 2 { Duration::ZERO } else { way };
            counted.push((start + way, heavy));
            // Now and then the load lets up.
            if pause > 290_000 {
                let later = rig.now + Duration::from_micros(pause) * 5;
                rig.advance(later);
            }
        }
        for limit in &limits {
            prop_assert_eq!(refuses(limit, &counted), None, "{:?}", limit);
        }
    }

    /// The same where an automatic guard takes the time that every trip takes for
    /// certain: ways there and back take that and, each, more at random.
    #[test]
    fn what_all_trips_take_costs_no_limit_its_promise(
        specs in specs(),
        least in (0u64..150_000, 0u64..600_000),
        more in (0u64..50_000, 0u64..50_000),
        shares in prop::collection::vec((0u64..1000, 0u64..1000, 0u8..50), 200..400),
    ) {
        let limits = limits_of(&specs);
        let mut rig = Rig::new(&[], SECOND);
        rig.limits = Limits::new(&automatic(&limits), rig.start);
        let mut counted = Vec::new();
        for (there, back, stall) in shares {
            let stall = if stall == 0 { 40_000 } else { 0 };
            let way = Duration::from_micros(least.0 + more.0 * there / 1000 + stall);
            let back = Duration::from_micros(least.1 + more.1 * back / 1000);
            counted.push((rig.start(Some(way + back)) + way, 1));
        }
        for limit in &limits {
            prop_assert_eq!(refuses(limit, &counted), None, "{:?}", limit);
        }
    }

    /// The same where the upstream shares our core: it counts the first of a burst only
    /// after all of it was sent, `each` µs per request. At first there are some alone, or
    /// bursts so large that they take longer than the way.
    #[test]
    fn what_the_trips_of_bursts_take_longer_costs_no_limit_its_promise(
        count in 20u32..600, each in 0u64..25, ways in (0u64..100, 0u64..100),
        alone in prop::option::of(1u64..5), gaps in prop::collection::vec(1500u64..3000, 1..8),
    ) {
        let limit = limit(count, SECOND, count, true);
        let mut rig = Rig::new(&[], SECOND);
        rig.limits = Limits::new(&automatic(std::slice::from_ref(&limit)), rig.start);
        let way = alone.unwrap_or(1);
        let [each, there, back] = [each, ways.0 * way, ways.1 * way].map(Duration::from_micros);
        let mut counted = Vec::new();
        for _ in 0..alone.map_or(0, |_| 20) {
            counted.push((rig.start(Some(there + back)) + there, 1));
            rig.advance(rig.now + SECOND / 10);
        }
        for gap in gaps {
            rig.advance(rig.now + Duration::from_millis(gap));
            let mut sent = Vec::new();
            for _ in 0..count {
                sent.push(rig.take(Charge::ONE));
                rig.now += each;
            }
            for (nth, turn) in (0u32..).zip(sent) {
                let at = rig.now + each * nth + there;
                counted.push((at - rig.start, 1));
                rig.answers.push_back((at + back, turn));
            }
        }
        // Then three windows of requests that nothing holds up.
        for _ in 0..count * 3 {
            counted.push((rig.start(Some(there + back)) + there, 1));
        }
        prop_assert_eq!(refuses(&limit, &counted), None);
    }

    /// Each key's window holds at the upstream, and so does the lane's.
    #[test]
    fn no_key_ever_exceeds_its_limit(
        of_key in 1u32..6, of_all in 1u32..12, max_keys in 1usize..6,
        trips in prop::collection::vec((1u64..5, 0u64..80_000, 0u64..100_000), 20..100),
    ) {
        let guard = Duration::from_millis(80);
        let per = config::Limit { per: Some(config::Per::Address), ..limit(of_key, SECOND, of_key, true) };
        let all = limit(of_all, SECOND / 2, of_all, true);
        let mut settings = settings(&[per.clone(), all.clone()], guard);
        settings.max_keys = std::num::NonZeroUsize::new(max_keys).unwrap();
        let mut rig = Rig::new(&[], guard);
        rig.limits = Limits::new(&settings, rig.start);
        let mut counted = Vec::new();
        for (of, way, more) in trips {
            let way = Duration::from_micros(way);
            let start = rig.start_for(key(of), Some(way + Duration::from_micros(more)));
            counted.push((of, start + way));
        }
        let of = |wanted: Option<u64>| -> Vec<(Duration, u32)> {
            let own = counted.iter().filter(|(of, _)| wanted.is_none_or(|wanted| wanted == *of));
            own.map(|(_, at)| (*at, 1)).collect()
        };
        for wanted in 1..5 {
            prop_assert_eq!(refuses(&per, &of(Some(wanted))), None);
        }
        prop_assert_eq!(refuses(&all, &of(None)), None);
    }

    /// A limit that takes another's place counts what was spent under that.
    #[test]
    fn a_changed_limit_keeps_what_was_spent(
        before in 1u32..12, after in 1u32..12, shorter in prop::bool::ANY,
        first in 1usize..30, ways in prop::collection::vec(0u64..80_000, 60),
    ) {
        let guard = Duration::from_millis(80);
        let old = limit(before, SECOND, before, true);
        let new = limit(after, if shorter { SECOND / 2 } else { SECOND }, after, true);
        let mut rig = Rig::new(&[old], guard);
        let mut counted = Vec::new();
        for (nth, way) in ways.iter().enumerate() {
            if nth == first {
                rig.limits.reconfigure(&settings(std::slice::from_ref(&new), guard), rig.now);
            }
            let way = Duration::from_micros(*way);
            let start = rig.start(Some(way * 2));
            counted.push((start + way, 1));
        }
        let (before, since) = counted.split_at(first);
        prop_assert_eq!(refuses(&new, since), None);
        let next = since[0].0;
        let within = before.iter().filter(|(at, _)| *at + new.period > next).count();
        prop_assert!(within < after as usize, "{} within", within);
    }

    /// Promise 3: under load with immediate answers the rate is used in full.
    #[test]
    fn a_single_limit_is_used_in_full(count in 1u32..50, period in 10u64..5000, burst in 1u32..50) {
        let period = Duration::from_millis(period);
        let mut rig = Rig::new(&[limit(count, period, burst.min(count), true)], period);
        let last = (0..count * 10 + 1).map(|_| rig.start(Some(Duration::ZERO))).last().unwrap();
        // Ten periods on the slowest clock, with the slack of even spacing.
        let ideal = period * 10;
        prop_assert!(last <= ideal + ideal / 800 + Duration::from_micros(1), "{:?}", last);
    }
}
