//! Reloads that tell requests apart by other keys, and keys that come and go.

use super::*;

#[test]
fn limits_that_are_told_apart_otherwise_count_what_all_have_spent() {
    let lane = of(None, 10, Counts::Cost);
    for (before, after) in [
        (lane.clone(), keyed(10)),
        (keyed(10), lane),
        (keyed(10), of(Some(kind(2)), 10, Counts::Cost)),
    ] {
        let mut rig = rig(&[before], 100);
        for nth in 0..8 {
            rig.start_for(charge(1, &[nth % 4 + 1]), Some(TRIP));
        }
        rig.advance(rig.now + TRIP);
        // One more is on its way.
        rig.start_for(charge(1, &[1]), Some(SECOND));
        rig.reload(std::slice::from_ref(&after));
        assert!(rig.may_start(&charge(1, &[7])), "{after:?}");
        rig.start_for(charge(1, &[7]), Some(TRIP));
        assert!(!rig.may_start(&charge(1, &[7])), "{after:?}");
        rig.advance(rig.now + SECOND * 3);
        assert!(rig.may_start(&charge(1, &[9])), "{after:?}");
    }
}

/// A key whose requests were refused or failed, and that never came again, kept
/// its place for good; in the end all other keys shared one.
#[test]
fn keys_that_never_come_again_make_room_for_others() {
    for end in [End::Refused(None, &[]), End::Failed] {
        let mut rig = rig(&[keyed(1)], 3);
        for key in 1..=3 {
            let turn = rig.take(charge(1, &[key]));
            rig.close(turn, end);
        }
        // While it matters they are told apart, others are not.
        rig.start_for(charge(1, &[4]), Some(TRIP));
        assert!(!rig.may_start(&charge(1, &[5])));
        rig.advance(rig.now + SECOND * 3600);
        for key in 4..=6 {
            rig.start_for(charge(1, &[key]), Some(TRIP));
        }
        assert!(rig.now - rig.start < SECOND * 3601, "they share one");
    }
}

/// With as many keys as allowed, each request of a further one looked at all of
/// them: a thousand took eleven seconds beside 100 000 keys.
#[test]
fn keys_are_not_looked_through_for_each_request_beyond_them() {
    let mut rig = rig(&[keyed(100)], 1000);
    let start = |rig: &mut Rig, key| {
        let turn = rig.take(charge(1, &[key]));
        rig.close(turn, End::Answered(&[]));
    };
    (1..=1000).for_each(|key| start(&mut rig, key));
    rig.now = rig.start + SECOND;
    start(&mut rig, 1001);
    assert_eq!(rig.limits.keys(), 1001);
    // By now the first thousand do not matter any more.
    rig.now += Duration::from_millis(5);
    start(&mut rig, 1002);
    assert_eq!(rig.limits.keys(), 1001);
    rig.now += Duration::from_millis(6);
    start(&mut rig, 1003);
    assert_eq!(rig.limits.keys(), 2);
}

/// Once there had been too many keys, every key that came again joined those that
/// are not told apart, and kept them from being forgotten: under load all keys
/// shared one limit for good.
#[test]
fn keys_are_told_apart_again_under_load_when_there_is_room() {
    let mut rig = rig(&[keyed(10)], 20);
    for key in 1..=40 {
        rig.start_for(charge(1, &[key]), Some(TRIP));
    }
    // Ten keys with five requests a second each, half of what each may.
    let mut starts = Vec::new();
    let begin = rig.now;
    for nth in 0..500 {
        starts.push(rig.start_for(charge(1, &[nth % 10 + 31]), Some(TRIP)));
        let due = begin + SECOND / 50 * (nth as u32 + 1);
        rig.advance(rig.now.max(due));
    }
    let late = rig.now - begin;
    assert!(late < SECOND * 13, "{late:?}");
}

/// The probe of a key was on its way when a reload changed the kinds of keys: its
/// answer was nobody's, and the key waited for it for ever.
#[test]
fn a_probe_that_a_reload_makes_nobodys_is_made_again() {
    let mut rig = rig(&[keyed(10)], 10);
    let refused = rig.take(charge(1, &[1]));
    rig.close(refused, End::Refused(Some(SECOND), &[]));
    let probe = rig.take(charge(1, &[1]));
    rig.reload(&[keyed(10), of(Some(kind(2)), 10, Counts::Cost)]);
    rig.close(probe, End::Answered(&[]));
    rig.advance(rig.now + SECOND * 5);
    let probe = rig.take(charge(1, &[1, 1]));
    assert!(!rig.may_start(&charge(1, &[1, 1])), "one probe at a time");
    rig.close(probe, End::Answered(&[]));
    rig.advance(rig.now + SECOND * 5);
    assert!(rig.may_start(&charge(1, &[1, 1])));
    assert!(rig.now - rig.start < SECOND * 30);
}

/// Requests waited with the keys of a header when a reload told callers apart by
/// their addresses: each header's hash was taken for an address of its own, and all
/// of them started at once from one.
#[test]
fn what_waits_has_no_keys_of_kinds_that_come_later() {
    let second = of(Some(kind(2)), 1, Counts::Requests);
    let mut rig = rig(&[keyed(1)], 10);
    let waiting: Vec<_> = (1..=6).map(|key| charge(1, &[key])).collect();
    rig.reload(&[second]);
    let starts: Vec<_> = waiting
        .into_iter()
        .map(|charge| {
            let turn = rig.take_waiting(charge);
            rig.close(turn, End::Answered(&[]));
            (rig.now - rig.start).as_secs()
        })
        .collect();
    assert_eq!(starts, [0, 1, 2, 3, 4, 5]);
    // It may have been the one that started last.
    assert!(!rig.may_start(&charge(1, &[7])));
}

/// Requests waited with one key when a reload told them apart by a second: the
/// first to start panicked, with the limits half charged.
#[test]
fn what_waits_keeps_its_keys_of_kinds_that_stay() {
    let other = of(Some(kind(2)), 10, Counts::Cost);
    let mut rig = rig(&[keyed(1)], 10);
    rig.start_for(charge(1, &[1]), Some(TRIP));
    for limits in [[other.clone(), keyed(1)], [keyed(1), other.clone()]] {
        rig.reload(&limits);
        assert!(rig.limits.ready(&charge(1, &[1]), rig.now).is_err());
        let turn = rig.take_waiting(charge(1, &[2]));
        rig.close(turn, End::Canceled);
    }
    rig.reload(&[other]);
    let turn = rig.take_waiting(charge(1, &[1]));
    assert!(turn.charge().keys() == [0] && turn.charge().kinds == rig.limits.kinds());
    rig.reload(&[of(None, 10, Counts::Cost)]);
    rig.close(turn, End::Answered(&[]));
    let turn = rig.take_waiting(charge(1, &[1]));
    assert_eq!(*turn.charge(), Charge::ONE);
}

/// A pause became another's by a reload: its probe was never told the answer, and
/// nothing started any more.
#[test]
fn a_pause_ends_whomever_answers_concern_since() {
    let lane = of(None, 10, Counts::Cost);
    let with = |limits: &[config::Limit], keyed| {
        let mut settings = priced(limits);
        settings.cooldown.keyed = keyed;
        settings
    };
    let both = [lane.clone(), keyed(10)];
    for (before, after) in [
        (with(std::slice::from_ref(&lane), true), with(&both, true)),
        (with(&both, false), with(&both, true)),
        (with(&both, true), with(&both, false)),
    ] {
        for on_its_way in [false, true] {
            let mut rig = rig(&[], 1);
            rig.limits = Limits::new(&before, rig.start);
            let keys = |settings: &config::Upstream| [1][..settings.kinds().len()].to_vec();
            let refused = rig.take(charge(1, &keys(&before)));
            rig.close(refused, End::Refused(Some(SECOND), &[]));
            let early = on_its_way.then(|| rig.take(charge(1, &keys(&before))));
            rig.limits.reconfigure(&after, rig.now);
            if let Some(probe) = early {
                rig.close(probe, End::Failed);
            }
            let probe = rig.take(charge(1, &keys(&after)));
            assert!(!rig.may_start(&charge(1, &[1])), "one probe at a time");
            assert!(rig.close(probe, End::Answered(&[])).sooner);
            rig.advance(rig.now + SECOND);
            assert!(rig.may_start(&charge(1, &[1])));
            assert!(rig.now - rig.start < SECOND * 5);
        }
    }
}

#[test]
fn a_reload_that_tells_keys_apart_otherwise_forgets_nothing_of_many() {
    let many = 1000;
    let mut rig = rig(&[keyed(10)], many);
    for key in 1..=many as u64 {
        rig.now += Duration::from_micros(10);
        let turn = rig.take(charge(1, &[key]));
        rig.close(turn, End::Answered(&[]));
    }
    rig.reload(&[of(Some(kind(2)), many as u32 + 1, Counts::Cost)]);
    rig.start_for(charge(1, &[1]), None);
    assert!(!rig.may_start(&charge(1, &[1])), "something was forgotten");
}

/// After a restart that knows only a part, a key that is known by that part had
/// its whole limit, and so had others once there were too many.
#[test]
fn what_is_not_known_counts_for_keys_of_which_a_part_is_known() {
    for max_keys in [10, 1] {
        let mut rig = rig(&[keyed(3)], max_keys);
        let lost = rig.now;
        rig.now += SECOND / 4;
        let until = rig.limits.spent_all(lost);
        for key in 1..=2 {
            let at = lost + SECOND / 8;
            rig.limits.spent(&charge(1, &[key]), NonZeroU32::MIN, at);
        }
        for key in 1..=3 {
            let held = rig.limits.ready(&charge(1, &[key]), rig.now);
            assert!(held.is_err_and(|held| held.until >= until), "{key}");
        }
    }
}
