//! Journals over the runs of a program that starts, crashes and starts again,
//! in simulated time and on real files.

use std::fs;
use std::num::NonZeroU32;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;
use tokio::time::Instant;

use super::*;
use crate::config::{Config, Missing, Upstream};
use crate::pacing::{Charge, End, Limits};

mod clocks;
mod crashes;
mod damage;
mod failures;
mod folders;

const SECOND: Duration = Duration::from_secs(1);
const GUARD: Duration = Duration::from_millis(80);

/// A folder, and a clock that only moves when told.
struct World {
    folder: TempDir,
    start: Instant,
    now: Instant,
    /// Added to the time of day.
    stepped: Duration,
    /// Which start of the machine this is.
    boot: Option<u64>,
}

/// One run of the program.
struct Run {
    limits: Limits,
    journal: Journal,
    _state: State,
}

/// An upstream with these limits, written as in the file.
fn upstream(limits: &str) -> Upstream {
    let text = format!(
        "listen = \"127.0.0.1:1\"\n[upstream.a]\nurl = \"http://a\"\n\
         guard = \"80ms\"\nlimits = [{limits}]"
    );
    Config::parse("test", &text).unwrap().upstreams.remove(0)
}

impl World {
    fn new() -> Self {
        let start = Instant::now();
        Self {
            folder: tempfile::tempdir().unwrap(),
            start,
            now: start,
            stepped: Duration::ZERO,
            boot: Some(1),
        }
    }

    /// One whose folder has been used before, by other lanes.
    fn used() -> Self {
        let world = Self::new();
        let mut other = upstream("\"1/s\"");
        other.name = "other".to_owned();
        world.run(&other);
        world
    }

    fn clock(&self) -> Clock {
        let begin = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let wall: SystemTime = begin + (self.now - self.start) + self.stepped;
        let up = Duration::from_secs(500);
        Clock::at(self.now, wall, up + (self.now - self.start))
    }

    fn state(&self, missing: Missing) -> State {
        let settings = config::State {
            dir: Some(self.folder.path().to_owned()),
            missing,
        };
        let mut state = State::open(&settings).unwrap();
        state.folder.as_mut().unwrap().boot = self.boot;
        state
    }

    fn run_as(&self, upstream: &Upstream, missing: Missing) -> Run {
        self.run_in(self.state(missing), upstream)
    }

    fn run_in(&self, state: State, upstream: &Upstream) -> Run {
        let clock = self.clock();
        let (journal, past) = state.journal(upstream, clock).unwrap().unwrap();
        let epoch = self.now.checked_sub(reach(upstream)).unwrap();
        let mut limits = Limits::new(upstream, epoch);
        past.charge(&mut limits, &clock);
        Run {
            limits,
            journal,
            _state: state,
        }
    }

    fn run(&self, upstream: &Upstream) -> Run {
        self.run_as(upstream, Missing::Auto)
    }

    /// Waits for the next turn and takes it; when, since the world's start.
    fn take(&mut self, run: &mut Run, charge: &Charge) -> Duration {
        while let Err(hold) = run.limits.ready(charge, self.now) {
            assert!(hold.until > self.now, "told to wait for the past");
            self.now = hold.until;
        }
        let turn = run.limits.start(charge.clone(), self.now, self.now);
        run.journal.spend(turn.charge(), self.now);
        run.limits.close(turn, End::Lost, self.now);
        self.now - self.start
    }

    /// How long the next turn lets wait.
    fn wait(&self, run: &mut Run) -> Duration {
        let ready = run.limits.ready(&Charge::ONE, self.now);
        ready.map_or_else(|hold| hold.until - self.now, |()| Duration::ZERO)
    }

    /// The file of that name.
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn key(key: u64) -> Charge {
    Charge::new(NonZeroU32::MIN, [key].into(), 0)
}

#[test]
fn what_was_spent_is_spent_after_a_crash() {
    let mut world = World::new();
    let settings = upstream("\"5/s\"");
    let mut run = world.run(&settings);
    for _ in 0..4 {
        world.take(&mut run, &Charge::ONE);
    }
    drop(run);
    world.now += SECOND / 2;
    let mut run = world.run(&settings);
    assert!(world.take(&mut run, &Charge::ONE) == SECOND / 2);
    let wait = world.wait(&mut run);
    assert!(
        wait > SECOND / 2 && wait < SECOND / 2 + GUARD + SECOND / 20,
        "{wait:?}"
    );
}

#[test]
fn a_reservation_counts_as_spent_after_a_crash_and_only_what_was_used_after_a_stop() {
    let mut world = World::new();
    let settings = upstream("\"1000/s\"");
    let mut left = Vec::new();
    for stopped in [false, true] {
        let mut run = world.run_as(&settings, Missing::Fresh);
        for _ in 0..60 {
            world.take(&mut run, &Charge::ONE);
        }
        if stopped {
            run.journal.close();
        }
        drop(run);
        let mut run = world.run(&settings);
        left.push(run.limits.gauges(world.now, None)[0].left);
        world.now += SECOND * 10;
    }
    // Two reservations of 50 ms, and a little for clocks that are not exact.
    assert!((870..=900).contains(&left[0]), "{left:?}");
    assert!((910..=940).contains(&left[1]), "{left:?}");
}

#[test]
fn another_limit_counts_what_was_spent_under_the_old_one() {
    let mut world = World::new();
    let mut run = world.run(&upstream("\"10/s\""));
    for _ in 0..10 {
        world.take(&mut run, &Charge::ONE);
    }
    drop(run);
    world.now += SECOND * 5;
    let mut run = world.run(&upstream("\"12/min\""));
    assert_eq!(run.limits.gauges(world.now, None)[0].left, 2);
}

#[test]
fn a_key_keeps_what_it_spent_and_no_other_pays_for_it() {
    let mut world = World::new();
    let mut settings = upstream("\"2/min\"");
    settings.limits[0].per = Some(config::Per::Address);
    let mut run = world.run(&settings);
    world.take(&mut run, &key(7));
    world.take(&mut run, &key(7));
    drop(run);
    world.now += SECOND;
    let mut run = world.run(&settings);
    assert!(run.limits.ready(&key(7), world.now).is_err());
    assert!(run.limits.ready(&key(8), world.now).is_ok());
    drop(run);
    // Keys of another kind: nobody knows whose it was.
    settings.limits[0].per = Some(config::Per::Cookie("a".to_owned()));
    let mut run = world.run(&settings);
    assert!(run.limits.ready(&key(8), world.now).is_err());
}

#[test]
fn a_pause_goes_on_after_a_crash_and_ends_with_a_single_probe() {
    let mut world = World::new();
    let settings = upstream("\"10/s\"");
    let mut run = world.run(&settings);
    let turn = run.limits.start(Charge::ONE, world.now, world.now);
    let refused = End::Refused(Some(SECOND * 60), &[]);
    let closed = run.limits.close(turn, refused, world.now);
    let until = closed.cooldown.unwrap();
    run.journal.pause(&Charge::ONE, until, world.now);
    drop(run);
    world.now += SECOND * 10;
    // Not the first run after it either.
    drop(world.run(&settings));
    let mut run = world.run(&settings);
    let wait = world.wait(&mut run);
    assert!(
        wait >= SECOND * 50 && wait < SECOND * 51,
        "{wait:?} of 50 s"
    );
    world.now += wait;
    assert_eq!(world.wait(&mut run), Duration::ZERO);
    let probe = run.limits.start(Charge::ONE, world.now, world.now);
    assert!(world.wait(&mut run) > Duration::ZERO);
    run.limits.close(probe, End::Answered(&[]), world.now);
    drop(run);
    world.now += SECOND;
    let mut run = world.run(&settings);
    assert_eq!(world.wait(&mut run), Duration::ZERO);
}

#[test]
fn a_pause_of_one_key_is_nobody_elses_after_a_crash() {
    let mut world = World::new();
    let mut settings = upstream("\"10/s\"");
    settings.limits[0].per = Some(config::Per::Address);
    let run = world.run(&settings);
    run.journal
        .pause(&key(7), world.now + SECOND * 60, world.now);
    drop(run);
    world.now += SECOND;
    let mut run = world.run(&settings);
    assert!(run.limits.ready(&key(7), world.now + SECOND * 58).is_err());
    assert!(run.limits.ready(&key(8), world.now).is_ok());
}

#[test]
fn a_damaged_state_counts_as_everything_spent() {
    type Damage<'a> = (&'a str, &'a dyn Fn(&mut Vec<u8>));
    let damages: [Damage<'_>; 6] = [
        ("a.1", &|file| file.truncate(file.len() - 3)),
        ("a.1", &|file| file.extend([0; 40])),
        ("a.1", &|file| file[60] ^= 1),
        ("a.past", &|file| file.truncate(40)),
        ("a.past", &|file| file.clear()),
        ("seed", &|file| file.clear()),
    ];
    for (name, damage) in damages {
        let mut world = World::new();
        let settings = upstream("\"10/min\"");
        let mut run = world.run(&settings);
        for _ in 0..3 {
            world.take(&mut run, &Charge::ONE);
        }
        drop(run);
        let mut run = world.run(&settings);
        assert!(run.limits.gauges(world.now, None)[0].left >= 6);
        world.take(&mut run, &Charge::ONE);
        drop(run);
        let written = fs::read_dir(world.folder.path()).unwrap();
        let written: Vec<_> = written.map(|entry| entry.unwrap().file_name()).collect();
        let name = match name {
            "a.1" => "a.2",
            other => other,
        };
        assert!(written.iter().any(|file| file == name), "{written:?}");
        let mut content = fs::read(world.path(name)).unwrap();
        damage(&mut content);
        fs::write(world.path(name), content).unwrap();
        world.now += SECOND;
        let mut run = world.run(&settings);
        assert_eq!(run.limits.gauges(world.now, None)[0].left, 0, "{name}");
        assert!(world.wait(&mut run) > SECOND * 59);
    }
}

#[test]
fn a_file_that_is_missing_in_between_is_damage() {
    let mut world = World::new();
    let settings = upstream("\"10/min\"");
    let mut run = world.run(&settings);
    world.take(&mut run, &Charge::ONE);
    drop(run);
    fs::remove_file(world.path("a.past")).unwrap();
    let mut run = world.run(&settings);
    assert_eq!(run.limits.gauges(world.now, None)[0].left, 0);
}

#[test]
fn the_files_stay_small_and_forget_nothing_that_matters() {
    let mut world = World::new();
    let settings = upstream("\"20/s\", \"1000/min\"");
    let mut run = world.run(&settings);
    let mut most = 0;
    for _ in 0..900 {
        world.take(&mut run, &Charge::ONE);
        world.now += SECOND / 20;
        run.journal.tend(world.clock());
        let files = fs::read_dir(world.folder.path()).unwrap();
        let sizes = files.map(|entry| entry.unwrap().metadata().unwrap().len());
        most = most.max(sizes.sum::<u64>());
    }
    assert!(most < 40_000, "{most}");
    let spent = |run: &mut Run, now| run.limits.gauges(now, None)[1].left;
    let before = spent(&mut run, world.now);
    drop(run);
    let mut run = world.run(&settings);
    assert_eq!(spent(&mut run, world.now), before);
}

#[test]
fn only_one_process_has_the_folder() {
    let world = World::new();
    let settings = config::State {
        dir: Some(world.folder.path().to_owned()),
        missing: Missing::Auto,
    };
    let held = State::open(&settings).unwrap();
    let refused = State::open(&settings).unwrap_err().to_string();
    assert!(
        refused.ends_with("is in use by another pacegate"),
        "{refused}"
    );
    drop(held);
    assert!(State::open(&settings).is_ok());
}
