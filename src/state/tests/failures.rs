//! Disks that take no more.

use super::*;

/// A run with these limits whose disk has just taken no more.
fn broken(limits: &str) -> (World, Run) {
    let mut world = World::new();
    let mut run = world.run(&upstream(limits));
    run.journal.break_file();
    world.take(&mut run, &Charge::ONE);
    (world, run)
}

#[test]
fn after_a_write_failed_the_next_run_relies_on_nothing_until_it_works_again() {
    let mut world = World::new();
    let settings = upstream("\"5/min\"");
    let mut run = world.run(&settings);
    world.take(&mut run, &Charge::ONE);
    run.journal.break_file();
    world.take(&mut run, &Charge::ONE);
    assert!(!world.path("a.past").exists());
    // It serves on; once a second it tries again.
    world.take(&mut run, &Charge::ONE);
    world.now += SECOND;
    run.journal.tend(world.clock());
    world.take(&mut run, &Charge::ONE);
    drop(run);
    let mut run = world.run(&settings);
    assert_eq!(run.limits.gauges(world.now, None)[0].left, 0);
    world.now += SECOND * 61;
    assert_eq!(run.limits.gauges(world.now, None)[0].left, 5);
}

/// It went on with a file that nobody would have relied on, and tried no more.
#[test]
fn what_could_only_half_begin_anew_is_not_relied_on_and_tried_again() {
    let (world, run) = broken("\"5/min\"");
    fs::create_dir(world.path("a.draft")).unwrap();
    run.journal.tend(world.clock());
    assert!(!world.path("a.past").exists() && !world.path("a.1").exists());
    fs::remove_dir(world.path("a.draft")).unwrap();
    run.journal.tend(world.clock());
    assert!(world.path("a.past").exists() && world.path("a.1").exists());
}

/// While the files were thinned out a write failed; what had been read before was
/// put back, and the next run relied on it.
#[test]
fn a_past_that_was_read_before_a_write_failed_is_not_put_back() {
    let (world, run) = broken("\"5/min\"");
    run.journal.replace(&Past::default(), 1).unwrap();
    assert!(!world.path("a.past").exists());
}

/// Turns went on with a reservation that was in none of the files.
#[test]
fn what_was_reserved_while_nothing_could_be_written_is_reserved_anew() {
    let (mut world, mut run) = broken("\"1000/s\"");
    world.take(&mut run, &Charge::ONE);
    run.journal.tend(world.clock());
    let path = world.path("a.1");
    let length = || fs::metadata(&path).unwrap().len();
    let before = length();
    world.take(&mut run, &Charge::ONE);
    assert!(length() > before);
}
