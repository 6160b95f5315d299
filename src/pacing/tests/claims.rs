//! Several who wait, with keys of two kinds, as the gate lets them go.

use std::collections::HashMap;
use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::*;
use crate::config::Per;

/// A limit for each of two kinds of keys.
fn limits(counts: [u32; 2], periods: [Duration; 2], bursts: [u32; 2]) -> Vec<config::Limit> {
    rules(counts, periods, bursts, [true; 2])
}

/// The same, each a window or a bucket.
fn rules(
    counts: [u32; 2],
    periods: [Duration; 2],
    bursts: [u32; 2],
    windows: [bool; 2],
) -> Vec<config::Limit> {
    let one = |kind: usize, per: Per| config::Limit {
        per: Some(per),
        ..limit(
            counts[kind],
            periods[kind],
            bursts[kind].min(counts[kind]),
            windows[kind],
        )
    };
    vec![
        one(0, Per::Segment(NonZeroUsize::MIN)),
        one(1, Per::Address),
    ]
}

fn keys(cost: u32, keys: [u64; 2]) -> Charge {
    Charge::new(NonZeroU32::new(cost).unwrap(), keys.into(), 0)
}

/// A request that waits, and until when it is passed over.
#[derive(Debug)]
struct Waiting {
    number: usize,
    charge: Charge,
    parked: Instant,
    asked: Option<Instant>,
}

/// Lets those go that come at these times, in order; an answer takes `trip`. Returns
/// when each started.
fn drive(
    limits: &[config::Limit],
    arrivals: &[(Duration, Charge)],
    trip: Duration,
) -> Vec<Duration> {
    let mut rig = Rig::new(limits, trip * 2);
    let mut lines: HashMap<u64, VecDeque<Waiting>> = HashMap::new();
    let mut coming = arrivals.iter().enumerate().peekable();
    let mut started = vec![Duration::MAX; arrivals.len()];
    loop {
        let now = rig.now;
        while let Some((number, (_, charge))) =
            coming.next_if(|(_, (at, _))| rig.start + *at <= now)
        {
            let line = lines.entry(charge.line()).or_default();
            let (charge, parked) = (charge.clone(), now);
            line.push_back(Waiting {
                number,
                charge,
                parked,
                asked: None,
            });
        }
        let heads = lines.values_mut().filter_map(VecDeque::front_mut);
        let best = heads
            .filter(|one| one.parked <= now)
            .min_by_key(|one| one.number);
        if let Some(one) = best {
            let rank = (Duration::MAX, one.number as u64);
            match rig
                .limits
                .ready_in_order(&one.charge, rank, *one.asked.get_or_insert(now), now)
            {
                Ok(()) => {
                    let line = one.charge.line();
                    let one = lines.get_mut(&line).and_then(VecDeque::pop_front).unwrap();
                    started[one.number] = rig.start_for(one.charge, Some(trip));
                }
                Err(hold) => {
                    assert!(hold.keyed && hold.until > now);
                    one.parked = hold.until;
                }
            }
            continue;
        }
        let heads = lines.values().filter_map(VecDeque::front);
        let wakes = heads.map(|one| one.parked);
        let arrival = coming.peek().map(|(_, (at, _))| rig.start + *at);
        match wakes.chain(arrival).min() {
            Some(next) => rig.advance(next),
            None => return started,
        }
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Light ones that share the first key or the second with `[1, 1]`, each with another
/// key of the other kind, so many a second in all until `end`.
fn light(rate: u64, end: u64) -> Vec<(Duration, Charge)> {
    let one = |nth| match nth % 2 {
        0 => keys(1, [1, 2 + nth % 7]),
        _ => keys(1, [2 + nth % 5, 1]),
    };
    (0..end * rate / 1000)
        .map(|nth| (ms(1 + nth * 1000 / rate), one(nth)))
        .collect()
}

#[test]
fn a_heavy_request_waits_for_no_light_one_that_came_later_and_shares_a_key() {
    let limits = limits([10, 10], [SECOND; 2], [10; 2]);
    // Of each key there are never more than 3 of 10 left.
    let mut arrivals = light(16, 20_000);
    let heavy = arrivals.partition_point(|(at, _)| *at < ms(5000));
    arrivals.insert(heavy, (ms(5000), keys(8, [1, 1])));
    let started = drive(&limits, &arrivals, ms(10));
    let at = started[heavy];
    // Its patience, and what it then waits for.
    assert!(at < ms(10_050), "{at:?}");
    // Those behind it go as soon as it leaves enough of each key.
    let waits = started
        .iter()
        .zip(&arrivals)
        .map(|(started, (at, _))| *started - *at);
    let last = waits
        .enumerate()
        .filter(|(nth, _)| *nth != heavy)
        .map(|(_, wait)| wait);
    assert!(last.max() <= Some(ms(2100)));
}

#[test]
fn one_that_needs_two_busy_keys_gets_both() {
    let limits = limits([1, 1], [ms(1000), ms(700)], [1; 2]);
    let mut arrivals = vec![
        (ms(0), keys(1, [1, 9])),
        (ms(300), keys(1, [9, 1])),
        (ms(301), keys(1, [1, 1])),
    ];
    arrivals.extend(
        light(20, 20_000)
            .into_iter()
            .map(|(at, charge)| (at + ms(301), charge)),
    );
    let started = drive(&limits, &arrivals, ms(10));
    assert!(started[2] < ms(6000), "{:?}", started[2]);
}

/// What is back by the time it is needed is kept from nobody.
#[test]
fn who_waits_long_for_one_key_holds_up_the_other_only_when_its_time_comes() {
    let limits = limits([1, 1], [SECOND, SECOND * 60], [1; 2]);
    let mut arrivals = vec![(ms(0), keys(1, [9, 1])), (ms(0), keys(1, [1, 1]))];
    arrivals.extend((0..70).map(|nth| (ms(1), keys(1, [1, 100 + nth]))));
    let started = drive(&limits, &arrivals, ms(10));
    let before: Vec<_> = started[2..]
        .iter()
        .filter(|at| **at < SECOND * 60)
        .collect();
    assert!(before.len() >= 58, "{before:?}");
    assert!(
        (SECOND * 60..SECOND * 61).contains(&started[1]),
        "{:?}",
        started[1]
    );
}

/// Many elder ones that have time need little, the next one much, and soon.
#[test]
fn who_waits_long_keeps_nothing_from_the_next() {
    let limits = limits([10, 1], [SECOND, SECOND * 60], [10, 1]);
    let elder = |first| (1..10).map(move |second| (ms(0), keys(1, [first, second])));
    let mut arrivals: Vec<_> = elder(9).chain(elder(1)).collect();
    arrivals.extend((0..180).map(|nth| (ms(1 + nth * 1000 / 9), keys(1, [1, 100 + nth]))));
    let heavy = arrivals.partition_point(|(at, _)| *at < ms(5000));
    arrivals.insert(heavy, (ms(5000), keys(8, [1, 50])));
    let started = drive(&limits, &arrivals, ms(10));
    assert!(started[heavy] < ms(10_100), "{:?}", started[heavy]);
    let elders = started[9..18].iter().max();
    assert!(elders < Some(&ms(61_100)), "{elders:?}");
}

#[test]
fn who_is_held_asks_again_once_it_is_known_what_was_counted() {
    let mut rig = Rig::new(&limits([10; 2], [SECOND; 2], [10; 2]), ms(100));
    rig.advance(rig.now + SECOND * 5);
    (10..15).for_each(|second| drop(rig.take(keys(1, [1, second]))));
    let mut ask = |charge, rank| {
        let rank = (Duration::MAX, rank);
        rig.limits.ready_in_order(&charge, rank, rig.start, rig.now)
    };
    let elder = ask(keys(8, [1, 1]), 0).unwrap_err();
    let younger = ask(keys(1, [1, 2]), 1).unwrap_err();
    assert!(elder.until > rig.now + ms(900));
    assert_eq!(younger.until, rig.now + ms(100));
}

/// Nobody waits for four minutes.
#[test]
fn where_periods_are_long_patience_is_a_part_of_the_longest_wait() {
    let limits = limits([60; 2], [SECOND * 60; 2], [60; 2]);
    let mut arrivals = light(2, 300_000);
    let heavy = arrivals.partition_point(|(at, _)| *at < ms(100_000));
    arrivals.insert(heavy, (ms(100_000), keys(30, [1, 1])));
    let started = drive(&limits, &arrivals, ms(10));
    assert!(started[heavy] < ms(192_000), "{:?}", started[heavy]);
}

#[test]
fn who_only_leaves_something_to_elder_ones_claims_nothing_itself() {
    let mut rig = Rig::new(&limits([10, 1], [SECOND * 20, SECOND], [10, 1]), ms(100));
    rig.advance(rig.now + SECOND * 200);
    (10..15).for_each(|second| drop(rig.take(keys(1, [1, second]))));
    let mut ask = |charge, rank| {
        let rank = (Duration::MAX, rank);
        rig.limits.ready_in_order(&charge, rank, rig.start, rig.now)
    };
    assert!(ask(keys(10, [1, 1]), 0).is_err());
    assert!(ask(keys(1, [1, 2]), 1).is_err());
    assert!(ask(keys(1, [2, 2]), 2).is_ok());
}

/// Nobody knows when the answer comes that one waits for.
#[test]
fn while_one_key_waits_for_the_answer_to_a_probe_the_other_goes_on() {
    let limits = limits([10, 1], [SECOND; 2], [10, 1]);
    let mut rig = Rig::new(&limits, ms(100));
    let refused = rig.take(keys(1, [1, 2]));
    rig.close(refused, End::Refused(Some(SECOND), &[]));
    rig.advance(rig.now + ms(1001));
    let _probe = rig.take(keys(1, [1, 2]));
    for second in 0..10 {
        let elder = (Duration::MAX, 0);
        let held = rig
            .limits
            .ready_in_order(&keys(1, [1, 7]), elder, rig.start, rig.now);
        assert!(held.is_err_and(|hold| hold.keyed));
        let younger = keys(1, [2, 7]);
        let rank = (Duration::MAX, 1 + second);
        assert_eq!(
            rig.limits
                .ready_in_order(&younger, rank, rig.start, rig.now),
            Ok(())
        );
        rig.start_for(rig.current(&younger), Some(ms(10)));
        rig.advance(rig.now + ms(1020));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// However many come later, they delay none for long.
    #[test]
    fn none_is_starved_by_those_that_came_later(
        counts in [1u32..8, 1u32..8],
        periods in [100u64..300, 100u64..300],
        bursts in [1u32..8, 1u32..8],
        windows: [bool; 2],
        trip in 1u64..50,
        elders in prop::collection::vec((0u64..300, 1u32..8, 0u64..3, 0u64..3), 1..6),
        rate in 5u64..60,
        heavy in 0u64..30,
    ) {
        let periods = periods.map(ms);
        let limits = rules(counts, periods, bursts, windows);
        let least = counts[0].min(counts[1]);
        let mut elders: Vec<_> = elders.into_iter().map(|(at, cost, first, second)| {
            (ms(at), keys(cost.min(least), [first, second].map(|key| 1 + key % 2)))
        }).collect();
        elders.sort_by_key(|(at, _)| *at);
        let mut all = elders.clone();
        let many = light(rate, 15_000).into_iter().zip(0..);
        all.extend(many.map(|((at, charge), nth)| {
            let cost = if nth % 30 < heavy { 1 } else { least };
            (at + ms(300), keys(cost, [charge.keys()[0], charge.keys()[1]]))
        }));
        let (alone, among) = (drive(&limits, &elders, ms(trip)), drive(&limits, &all, ms(trip)));
        let longest = periods[0].max(periods[1]) + ms(trip * 2);
        for (nth, (alone, among)) in alone.iter().zip(&among).enumerate() {
            // Who stands behind another in line has to be patient after that.
            let slack = longest * 6 * (nth as u32 + 1);
            prop_assert!(*among <= *alone + slack, "{nth}: {alone:?} {among:?}");
        }
    }
}
