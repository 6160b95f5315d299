//! Clocks that are set, and machines that are started anew.

use super::*;

#[test]
fn a_clock_that_was_set_back_hides_nothing_and_holds_nothing_for_long() {
    let mut world = World::new();
    world.stepped = SECOND * 86_400;
    let settings = upstream("\"5/min\"");
    let mut run = world.run(&settings);
    for _ in 0..5 {
        world.take(&mut run, &Charge::ONE);
    }
    drop(run);
    world.stepped = Duration::ZERO;
    // Or else it would be known that it was set.
    world.boot = Some(2);
    let mut run = world.run(&settings);
    let wait = world.wait(&mut run);
    assert!(wait >= SECOND * 60 && wait < SECOND * 61, "{wait:?}");
}

#[test]
fn a_clock_that_is_set_while_it_runs_changes_nothing() {
    let mut world = World::new();
    let settings = upstream("\"5/min\"");
    let mut run = world.run(&settings);
    for _ in 0..5 {
        world.take(&mut run, &Charge::ONE);
    }
    world.stepped = SECOND * 86_400;
    run.journal.tend(world.clock());
    drop(run);
    world.now += SECOND * 20;
    let mut run = world.run(&settings);
    let wait = world.wait(&mut run);
    assert!(wait >= SECOND * 40 && wait < SECOND * 41, "{wait:?}");
}

#[test]
fn a_clock_that_is_set_between_two_runs_changes_nothing_before_the_next_boot() {
    const DAY: Duration = Duration::from_secs(86_400);
    for (before, after) in [(Duration::ZERO, DAY), (DAY, Duration::ZERO)] {
        for thinned in [false, true] {
            let mut world = World::new();
            world.stepped = before;
            let settings = upstream("\"5/min\"");
            let mut run = world.run(&settings);
            for _ in 0..5 {
                world.take(&mut run, &Charge::ONE);
            }
            drop(run);
            if thinned {
                // All that is left is in the file of what was before.
                drop(world.run(&settings));
            }
            world.stepped = after;
            world.now += SECOND * 20;
            let mut run = world.run(&settings);
            let wait = world.wait(&mut run);
            assert!(wait >= SECOND * 40 && wait < SECOND * 41, "{wait:?}");
        }
    }
}

#[test]
fn after_a_boot_only_the_time_of_day_tells_how_long_ago_it_was() {
    for boot in [Some(2), None] {
        let mut world = World::new();
        let settings = upstream("\"5/min\"");
        let mut run = world.run(&settings);
        world.take(&mut run, &Charge::ONE);
        drop(run);
        world.stepped = SECOND * 3600;
        world.boot = boot;
        let mut run = world.run(&settings);
        assert_eq!(run.limits.gauges(world.now, None)[0].left, 5);
    }
}

#[test]
fn the_clock_of_this_machine_goes_on_and_says_since_when() {
    let (first, second) = (Clock::now(), Clock::now());
    let reading = first.reading(clock::boot()).unwrap();
    assert!(second.reading(clock::boot()).unwrap().up >= reading.up);
    assert_eq!(second.moved_since(&reading, clock::boot()), None);
}
