//! What the time that answers take costs, and what it tells of the guard.

use super::*;

#[test]
fn the_time_that_every_answer_takes_costs_no_rate_once_it_is_known() {
    let trip = Duration::from_millis(100);
    for count in [10, 1000] {
        let limits = [limit(count, SECOND, count, true)];
        let mut rig = Rig::new(&[], SECOND);
        rig.limits = Limits::new(&automatic(&limits), rig.start);
        let mut burst = || {
            let starts: Vec<_> = (0..count).map(|_| rig.start(Some(trip))).collect();
            starts[0]
        };
        let bursts: Vec<_> = (0..5).map(|_| burst()).collect();
        assert_eq!(bursts[1] - bursts[0], slow_second() + trip);
        assert_eq!(bursts[3] - bursts[2], slow_second() + trip);
        assert_eq!(bursts[4] - bursts[3], slow_second() + trip / 100);
    }
}

/// Of 1000 that start at once each has 999 beside it.
#[test]
fn a_burst_that_takes_as_long_as_the_way_tells_nothing_of_it() {
    for (trip, known) in [(39, false), (40, true)] {
        let trip = Duration::from_millis(trip);
        let mut rig = Rig::new(&[], SECOND);
        rig.limits = Limits::new(&automatic(&[limit(1000, SECOND, 1000, true)]), rig.start);
        for _ in 0..10_000 {
            rig.start(Some(trip));
        }
        assert_eq!(!rig.limits.floor().is_zero(), known);
    }
}

/// Found by a review: the guard ran out before each answer, so that no trip was measured.
#[test]
fn the_time_that_every_answer_takes_costs_no_rate_where_it_is_longer_than_a_guard() {
    for (trip, period) in [(300, 1005), (900, 1011), (3000, 1260)] {
        let (trip, period) = (Duration::from_millis(trip), Duration::from_millis(period));
        let mut rig = Rig::new(&[], SECOND);
        let limits = [limit(10, SECOND, 10, true)];
        rig.limits = Limits::new(&automatic(&limits), rig.start);
        let starts: Vec<_> = (0..1001).map(|_| rig.start(Some(trip))).collect();
        let taken = starts[1000] - starts[200];
        assert!(taken <= period * 80, "{trip:?}: {taken:?}");
    }
}

#[test]
fn an_answer_that_comes_after_its_guard_widens_it() {
    let mut rig = Rig::new(&[], SECOND);
    rig.limits = Limits::new(&automatic(&[]), rig.start);
    for _ in 0..300 {
        rig.start(Some(SECOND / 200));
        rig.advance(rig.now + SECOND / 100);
    }
    assert_eq!(rig.limits.guard(), SECOND / 4);
    rig.start(Some(SECOND * 6 / 10));
    rig.advance(rig.now + SECOND);
    assert_eq!(rig.limits.guard(), SECOND);
}

/// Found by a review: an answer that was waited for was counted later than its guard.
#[test]
fn an_answer_that_is_waited_for_costs_no_more_than_a_guard() {
    let mut rig = Rig::new(&[], SECOND);
    let minute = SECOND * 60;
    rig.limits = Limits::new(&automatic(&[limit(50, minute, 50, true)]), rig.start);
    let trip = |nth: u64| SECOND * 20 + SECOND / 1000 * (nth * 7919 % 10_000) as u32;
    let starts: Vec<_> = (0..1001).map(|nth| rig.start(Some(trip(nth)))).collect();
    let taken = starts[1000] - starts[500];
    let period = slow_second() * 60 + SECOND / 4;
    assert!(taken <= period * 10 + SECOND, "{taken:?}");
}

/// Whose place comes back as soon as its answer is there.
#[test]
fn a_place_is_held_until_the_answer_however_long_that_always_takes() {
    let limits = [limit(1, SECOND / 10, 1, true)];
    let mut rig = Rig::new(&[], SECOND);
    rig.limits = Limits::new(&automatic(&limits), rig.start);
    let trip = SECOND / 5;
    let starts: Vec<_> = (0..50).map(|_| rig.start(Some(trip))).collect();
    assert_eq!(starts[2] - starts[1], slow_second() / 10 + trip);
    let late = starts[49] - starts[48] - trip;
    assert!(late < SECOND / 80, "{late:?}");
}
