//! Promise 2 over starts and crashes at random.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// A request: when it started, when it was counted, and in which run.
type Seen = (Duration, Duration, usize);

/// Whether a request was started although the upstream would have, counting it,
/// seen more than the limit of its run allows.
fn exceeded(seen: &[Seen], limits: &[(u32, Duration)]) -> Option<String> {
    for (nth, (_, counted, run)) in seen.iter().enumerate() {
        let (count, period) = limits[*run];
        for (_, from, _) in &seen[..=nth] {
            let window = *from..*from + period;
            if !window.contains(counted) {
                continue;
            }
            let within = seen[..=nth].iter();
            let within = within.filter(|(_, at, _)| window.contains(at)).count();
            if within > count as usize {
                return Some(format!(
                    "{within} within {period:?} of {from:?} in run {run}"
                ));
            }
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Killed and started again at random, with pauses, with limits that change
    /// and stay, however requests are delayed on their way and the clock is set:
    /// no window at the upstream ever holds more than the limit under which its
    /// last one started.
    #[test]
    fn no_limit_is_ever_exceeded_over_crashes_and_restarts(
        runs in prop::collection::vec(
            ((1u32..12, 100u64..2000), prop::bool::ANY, 0u64..1500, prop::collection::vec((0u64..80, 0u64..60, prop::bool::ANY), 0..30), 0u64..3),
            2..7,
        ),
        quick in prop::bool::ANY,
    ) {
        let mut world = World::new();
        let mut seen: Vec<Seen> = Vec::new();
        let mut limits: Vec<(u32, Duration)> = Vec::new();
        for (nth, ((count, period), same, pause, starts, day)) in runs.into_iter().enumerate() {
            // Quick ones are reserved several at a time.
            let count = if quick { count * 10 } else { count };
            let next = (count, Duration::from_millis(if quick { period / 4 + 50 } else { period }));
            limits.push(limits.last().copied().filter(|_| same).unwrap_or(next));
            let (count, period) = limits[nth];
            let settings = upstream(&format!("\"{count}/{}ms\"", period.as_millis()));
            let mut run = world.run(&settings);
            for (way, gap, tend) in starts {
                let start = world.take(&mut run, &Charge::ONE);
                seen.push((start, start + Duration::from_millis(way), nth));
                world.now += Duration::from_millis(gap);
                if tend {
                    run.journal.tend(world.clock());
                }
            }
            // Somebody sets the clock, and the program is killed before it knows.
            world.stepped = Duration::from_secs(day * 86_400);
            let (way, start) = (Duration::from_millis(pause % 80), world.take(&mut run, &Charge::ONE));
            seen.push((start, start + way, nth));
            drop(run);
            world.now += Duration::from_millis(pause);
        }
        prop_assert_eq!(exceeded(&seen, &limits), None);
    }

    /// The same with costs, several limits and keys, at an upstream whose clock is 1 in
    /// 1000 slow.
    #[test]
    fn no_limit_is_ever_exceeded_over_crashes_by_costs_nor_by_a_key(
        limits in prop::collection::vec((8u32..40, 100u64..1500), 1..3),
        per in (4u32..8, 500u64..1500),
        runs in prop::collection::vec(
            (prop::collection::vec((0u64..80, 0u64..60, 1u32..=4, 1u64..3), 0..25), 0u64..1500),
            2..6,
        ),
    ) {
        let each = limits.iter().map(|(count, period)| format!("\"{count}/{period}ms\""));
        let mut each: Vec<_> = each.collect();
        each.dedup();
        let keyed = format!("{{ rate = \"{}/{}ms\", per = \"address\" }}", per.0, per.1);
        let settings = upstream(&format!("{}, {keyed}", each.join(", ")));
        let mut world = World::new();
        let mut seen: Vec<(Duration, u32, u64)> = Vec::new();
        for (starts, pause) in runs {
            let mut run = world.run(&settings);
            for (way, gap, cost, key) in starts {
                let charge = Charge::new(NonZeroU32::new(cost).unwrap(), [key].into(), 0);
                let start = world.take(&mut run, &charge);
                seen.push((start + Duration::from_millis(way), cost, key));
                world.now += Duration::from_millis(gap);
            }
            drop(run);
            world.now += Duration::from_millis(pause);
        }
        let fullest = |of: Option<u64>, period: u64| {
            let period = Duration::from_micros(period * 1001);
            let seen = seen.iter().filter(|(.., key)| of.is_none_or(|of| of == *key));
            let seen: Vec<_> = seen.collect();
            let within = |from: Duration| {
                let window = seen.iter().filter(|(at, ..)| (from..from + period).contains(at));
                window.map(|(_, cost, _)| cost).sum::<u32>()
            };
            seen.iter().map(|(at, ..)| within(*at)).max().unwrap_or(0)
        };
        for (count, period) in limits {
            prop_assert!(fullest(None, period) <= count);
        }
        for key in 1..3 {
            prop_assert!(fullest(Some(key), per.1) <= per.0);
        }
    }
}
