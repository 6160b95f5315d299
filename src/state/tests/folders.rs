//! What a folder without journals means: a first start, or a loss.

use super::*;

#[test]
fn in_a_new_folder_nothing_counts_as_spent() {
    let settings = upstream("\"2/min\"");
    let left = |world: &World| {
        let mut run = world.run(&settings);
        run.limits.gauges(world.now, None)[0].left
    };
    let mut world = World::new();
    assert_eq!(left(&world), 2);
    // What was there, a start that was broken off included, was never used.
    fs::write(world.path("seed"), "").unwrap();
    fs::remove_file(world.path("a.past")).unwrap();
    fs::remove_file(world.path("a.1")).unwrap();
    assert_eq!(left(&world), 2);
    let mut run = world.run(&settings);
    world.take(&mut run, &Charge::ONE);
    drop(run);
    world.now += SECOND;
    assert_eq!(left(&world), 1);
    // Deleted, it is new.
    fs::remove_dir_all(world.folder.path()).unwrap();
    assert_eq!(left(&world), 2);
}

#[test]
fn in_a_new_folder_too_everything_counts_as_spent_if_the_settings_say_so() {
    let world = World::new();
    let settings = upstream("\"2/min\"");
    let mut run = world.run_as(&settings, Missing::Spent);
    assert_eq!(run.limits.gauges(world.now, None)[0].left, 0);
    let wait = world.wait(&mut run);
    assert!(wait >= SECOND * 60 && wait < SECOND * 61, "{wait:?}");
}

#[test]
fn in_a_folder_that_holds_anything_a_lane_without_a_journal_has_spent_everything() {
    let settings = upstream("\"2/min\"");
    let left = |world: &World, state| {
        let mut run = world.run_in(state, &settings);
        run.limits.gauges(world.now, None)[0].left
    };
    // It may have been called otherwise.
    let world = World::used();
    assert_eq!(left(&world, world.state(Missing::Auto)), 0);
    let world = World::new();
    fs::write(world.path("a.draft"), "").unwrap();
    assert_eq!(left(&world, world.state(Missing::Auto)), 0);
    // And renamed while the program runs that began in the new folder.
    let world = World::new();
    let mut state = world.state(Missing::Auto);
    state.has_begun();
    assert_eq!(left(&world, state), 0);
}

#[test]
fn without_a_journal_everything_counts_as_spent_unless_it_is_to_begin_fresh() {
    let mut world = World::used();
    let mut keyed = upstream("\"2/min\"");
    keyed.limits[0].per = Some(config::Per::Address);
    let mut run = world.run(&keyed);
    assert!(run.limits.ready(&key(1), world.now).is_err());
    drop(run);
    // That nothing was known is itself remembered.
    world.now += SECOND * 30;
    let mut run = world.run(&keyed);
    let hold = run.limits.ready(&key(1), world.now).unwrap_err();
    let left = hold.until - world.now;
    assert!(left > SECOND * 30 && left < SECOND * 31, "{left:?}");
    drop(run);
    let mut run = world.run_as(&keyed, Missing::Fresh);
    assert!(run.limits.ready(&key(1), world.now).is_ok());
    drop(run);
    let mut run = world.run(&keyed);
    assert!(run.limits.ready(&key(1), world.now).is_ok());
}
