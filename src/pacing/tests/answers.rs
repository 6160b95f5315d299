//! What answers say: refusals, and what the upstream says is left.

use super::*;

#[test]
fn a_refusal_stops_all_until_a_probe_is_answered_and_no_burst_follows() {
    let mut rig = Rig::new(&[limit(10, SECOND, 10, true)], SECOND);
    let turn = rig.take(Charge::ONE);
    let closed = rig.close(turn, End::Refused(Some(SECOND * 5), &[]));
    assert_eq!(closed.cooldown, Some(rig.now + SECOND * 5));
    assert_eq!(rig.wait(0), SECOND * 5);
    assert_eq!(rig.limits.starts_within(rig.now, SECOND), 0);
    let probe = rig.take(Charge::ONE);
    assert_eq!(rig.now - rig.start, SECOND * 5);
    assert!(rig.limits.ready(&Charge::ONE, rig.now).is_err());
    rig.advance(rig.now + SECOND / 2);
    assert!(rig.close(probe, End::Answered(&[])).sooner);
    let starts: Vec<_> = (0..7)
        .map(|_| rig.start(Some(Duration::ZERO)).as_millis())
        .collect();
    assert_eq!(starts, [5500, 5600, 5700, 5800, 5900, 6000, 6100]);
}

#[test]
fn what_a_refusal_says_is_left_holds_beyond_its_pause() {
    let mut rig = Rig::new(&[limit(10, SECOND, 10, true)], SECOND);
    let turn = rig.take(Charge::ONE);
    let empty = Reading {
        name: 1,
        remaining: 0,
        reset: SECOND * 2400,
        each: None,
    };
    rig.close(turn, End::Refused(None, &[empty]));
    assert_eq!(rig.start(None), SECOND * 2400);
}

#[test]
fn after_a_refusal_half_as_much_of_a_stall_is_made_up_for() {
    let lost = |end: End<'_>| {
        let mut rig = Rig::new(&[limit(100, SECOND, 1, true)], SECOND);
        let turn = rig.take(Charge::ONE);
        rig.close(turn, end);
        let stalled = (0..4).map(|_| rig.start(Some(Duration::ZERO))).last();
        rig.advance(rig.now + SECOND / 20);
        let last = (0..150).map(|_| rig.start(Some(Duration::ZERO))).last();
        last.unwrap() - stalled.unwrap()
    };
    // Before, of a period one thousandth.
    let less = lost(End::Refused(Some(SECOND), &[])) - lost(End::Answered(&[]));
    assert_eq!(less.as_micros(), 500);
}

/// A bucket's token was taken to come back when an interval has passed since the
/// question, so that every second turn of a bucket of one was lost.
#[test]
fn who_waits_for_an_answer_may_go_with_it_where_all_take_longer_than_the_limit() {
    for (limit, trip) in [
        (limit(10, SECOND, 1, false), SECOND / 10 * 11 / 10),
        (limit(1, SECOND, 1, true), SECOND * 11 / 10),
    ] {
        let mut rig = Rig::new(&[], SECOND);
        rig.limits = Limits::new(&automatic(&[limit]), rig.start);
        for _ in 0..100 {
            rig.start(Some(trip));
            rig.advance(rig.now + trip);
        }
        let turn = rig.take(Charge::ONE);
        let (mut asks, answered) = (rig.now, rig.now + trip);
        while asks < answered {
            rig.advance(asks);
            asks = rig.limits.ready(&Charge::ONE, asks).unwrap_err().until;
        }
        assert!(asks <= answered + trip / 8, "{:?}", asks - answered);
        rig.advance(answered);
        assert!(rig.close(turn, End::Answered(&[])).early);
        assert_eq!(rig.limits.ready(&Charge::ONE, rig.now), Ok(()));
    }
}

#[test]
fn only_the_keys_of_those_who_wait_bind() {
    let per = config::Limit {
        per: Some(config::Per::Address),
        ..limit(1, SECOND * 3600, 1, true)
    };
    let mut rig = Rig::new(&[limit(1, SECOND, 1, true), per], SECOND);
    let turn = rig.take(key(1));
    let empty = Reading {
        name: 1,
        remaining: 0,
        reset: SECOND * 7200,
        each: None,
    };
    rig.close(turn, End::Answered(&[empty]));
    let turn = rig.take(key(2));
    rig.close(turn, End::Answered(&[]));
    let mut binding = |keys: &[u64]| {
        let keys = keys.iter().map(|key| (0, *key));
        let waiting = Waiting {
            cost: NonZeroU32::MIN,
            keys: keys.collect(),
        };
        let gauges = rig.limits.gauges(rig.now, Some(&waiting)).into_iter();
        let binding = gauges.filter(|gauge| gauge.binding);
        binding.map(|gauge| gauge.label).collect::<Vec<_>>()
    };
    assert_eq!(binding(&[3, 4]), ["1/1s"]);
    assert_eq!(binding(&[3, 2]), ["1/3600s"]);
    assert_eq!(binding(&[2, 1]), ["upstream"]);
    let gauges = rig.limits.gauges(rig.now, None);
    assert!(gauges.iter().all(|gauge| !gauge.binding));
}

#[test]
fn a_quick_refusal_doubles_the_answers_after_which_places_come_back_sooner() {
    let mut rig = Rig::new(&[], SECOND);
    rig.limits = Limits::new(&automatic(&[limit(10, SECOND, 10, true)]), rig.start);
    let trip = SECOND / 10;
    let floor = |rig: &mut Rig, answers| {
        for _ in 0..answers {
            rig.start(Some(trip));
            rig.advance(rig.now + trip);
        }
        rig.limits.floor()
    };
    assert!(!floor(&mut rig, 40).is_zero());
    let turn = rig.take(Charge::ONE);
    rig.advance(rig.now + trip * 9 / 10);
    rig.close(turn, End::Refused(Some(SECOND), &[]));
    assert!(floor(&mut rig, 20).is_zero());
    assert!(!floor(&mut rig, 40).is_zero());
}

/// One refusal emptied every limit, so that the hour's set the pace for an hour
/// with nearly all of it left.
#[test]
fn after_a_refusal_the_shortest_limit_sets_the_pace_unless_another_allows_less() {
    let hour = SECOND * 3600;
    let minute = SECOND * 60;
    for (limits, pace) in [
        (
            [limit(20, SECOND, 20, true), limit(3600, hour, 3600, true)],
            50,
        ),
        (
            [limit(3600, hour, 3600, false), limit(20, SECOND, 1, true)],
            50,
        ),
        // A minute's count would be a burst here.
        (
            [limit(1000, SECOND, 1000, true), limit(10, minute, 10, true)],
            6000,
        ),
        (
            [limit(10, minute, 10, true), limit(1000, SECOND, 1, true)],
            6000,
        ),
    ] {
        let mut rig = Rig::new(&limits, SECOND);
        let turn = rig.take(Charge::ONE);
        rig.close(turn, End::Refused(Some(SECOND), &[]));
        let probe = rig.take(Charge::ONE);
        rig.close(probe, End::Answered(&[]));
        let first = rig.start(Some(Duration::ZERO));
        for nth in 1..6 {
            let after = rig.start(Some(Duration::ZERO)) - first;
            let ideal = Duration::from_millis(pace * nth);
            assert!(
                after.abs_diff(ideal) <= ideal / 500,
                "{limits:?}: {after:?}"
            );
        }
    }
}

#[test]
fn a_refusal_concerns_only_the_key_it_was_given_to() {
    let per = config::Limit {
        per: Some(config::Per::Address),
        ..limit(5, SECOND, 5, true)
    };
    let mut rig = Rig::new(&[per], SECOND);
    let turn = rig.take(key(1));
    rig.close(turn, End::Refused(Some(SECOND), &[]));
    assert!(rig.limits.ready(&key(1), rig.now).is_err());
    assert!(rig.limits.ready(&key(2), rig.now).is_ok());
}

#[test]
fn what_the_upstream_says_is_left_holds_until_its_reset() {
    let mut rig = Rig::new(&[limit(100, SECOND, 100, true)], SECOND);
    let first = rig.take(Charge::ONE);
    let _second = rig.take(Charge::ONE);
    let reading = Reading {
        name: 1,
        remaining: 2,
        reset: SECOND * 30,
        each: None,
    };
    rig.close(first, End::Answered(&[reading]));
    // One of the two that are left is for the second, which has no answer yet.
    assert!(rig.start(Some(SECOND)).is_zero());
    assert_eq!(rig.start(Some(SECOND)), SECOND * 30);
}

/// What the upstream says is left are requests, whatever they cost here.
#[test]
fn a_dear_request_takes_one_of_what_the_upstream_says_is_left() {
    let mut rig = Rig::new(&[limit(1000, SECOND, 1000, true)], SECOND);
    let first = rig.take(cost(100));
    let reading = Reading {
        name: 1,
        remaining: 2,
        reset: SECOND * 30,
        each: None,
    };
    rig.close(first, End::Answered(&[reading]));
    for _ in 0..2 {
        assert_eq!(rig.limits.ready(&cost(100), rig.now), Ok(()));
        let _on_its_way = rig.take(cost(100));
    }
    assert!(rig.limits.ready(&cost(100), rig.now).is_err());
}

/// Found by a review: the gate slept until the reset though all answers had come.
#[test]
fn an_answer_frees_what_was_kept_for_it_of_what_is_left() {
    let mut rig = Rig::new(&[limit(100, SECOND, 100, true)], SECOND);
    let left = |remaining| Reading {
        name: 1,
        remaining,
        reset: SECOND * 30,
        each: None,
    };
    let first = rig.take(Charge::ONE);
    let second = rig.take(Charge::ONE);
    rig.close(first, End::Answered(&[left(1)]));
    assert!(rig.limits.ready(&Charge::ONE, rig.now).is_err());
    assert!(rig.close(second, End::Answered(&[left(1)])).sooner);
    assert_eq!(rig.limits.ready(&Charge::ONE, rig.now), Ok(()));
}

/// Where the API has one limit per key, it is still one API that is down.
#[test]
fn failures_of_many_keys_pause_the_whole_lane_and_a_probe_of_any_ends_that() {
    let per = config::Limit {
        per: Some(config::Per::Address),
        ..limit(5, SECOND, 5, true)
    };
    let mut rig = Rig::new(&[per], SECOND);
    for number in 1..=5 {
        assert!(rig.limits.ready(&key(number), rig.now).is_ok());
        let turn = rig.take(key(number));
        rig.close(turn, End::Failed);
    }
    let held = rig.limits.ready(&key(6), rig.now).unwrap_err();
    assert!(!held.keyed);
    let probe = rig.take(key(7));
    assert!(rig.limits.ready(&key(6), rig.now).is_err());
    assert!(rig.close(probe, End::Answered(&[])).sooner);
    assert!(rig.limits.ready(&key(6), rig.now).is_ok());
}

/// Found by a review: it made all wait until the lane had as much as it costs.
#[test]
fn a_heavy_request_that_waits_for_its_own_key_is_passed_over() {
    let per = config::Limit {
        per: Some(config::Per::Address),
        ..limit(10, SECOND * 60, 10, true)
    };
    let mut rig = Rig::new(&[limit(100, SECOND, 100, true), per], SECOND);
    for number in 1..=10 {
        let heavy = Charge::new(NonZeroU32::new(10).unwrap(), [number].into(), 0);
        let _on_its_way = rig.take(heavy);
    }
    let heavy = Charge::new(NonZeroU32::new(10).unwrap(), [1].into(), 0);
    let held = rig.limits.ready(&heavy, rig.now).unwrap_err();
    assert!(held.keyed && held.until > rig.now + SECOND * 50);
}

#[test]
fn what_the_upstream_says_it_regains_by_and_by_can_start_by_and_by() {
    let mut rig = Rig::new(&[limit(100, SECOND, 100, true)], SECOND);
    let first = rig.take(Charge::ONE);
    let reading = Reading {
        name: 1,
        remaining: 0,
        reset: SECOND * 60,
        each: Some(SECOND),
    };
    rig.close(first, End::Answered(&[reading]));
    assert_eq!(rig.wait(4), SECOND * 5);
    let starts: Vec<_> = (0..3).map(|_| rig.start(None)).collect();
    assert_eq!(starts, [SECOND, SECOND * 2, SECOND * 3]);
}

/// Nobody knows how much there is then.
#[test]
fn when_a_budget_that_ran_out_is_over_one_goes_ahead() {
    let mut rig = Rig::new(&[limit(100, SECOND, 100, true)], SECOND);
    let first = rig.take(Charge::ONE);
    let _takes_long = rig.take(Charge::ONE);
    let reading = Reading {
        name: 1,
        remaining: 0,
        reset: SECOND * 30,
        each: None,
    };
    rig.close(first, End::Answered(&[reading]));
    let ahead = rig.take(Charge::ONE);
    assert_eq!(rig.now - rig.start, SECOND * 30);
    assert!(rig.limits.ready(&Charge::ONE, rig.now).is_err());
    assert!(rig.close(ahead, End::Answered(&[])).sooner);
    assert!(rig.limits.ready(&Charge::ONE, rig.now).is_ok());
}

#[test]
fn an_answer_wakes_nobody_who_waits_for_no_budget() {
    let mut rig = Rig::new(&[limit(100, SECOND, 100, true)], SECOND);
    let reading = Reading {
        name: 1,
        remaining: 4000,
        reset: SECOND * 3600,
        each: None,
    };
    for _ in 0..2 {
        let turn = rig.take(Charge::ONE);
        assert!(!rig.close(turn, End::Answered(&[reading])).sooner);
    }
}
