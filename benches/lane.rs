//! What one request costs in the queue, at the gate and in the limits, and whether
//! that depends on how many others there are: `cargo bench --features bench`, with
//! words after `--` only what has one of them in its name.
//!
//! Each line is the median and (least-most) nanoseconds per request of a number of
//! samples. Run by `cargo test` it takes one step of each, to see that all works.

use std::env;
use std::time::Duration;

use pacegate::bench::{Gate, Limits, Lines, Room};
use tokio::time::Instant;

const SAMPLES: usize = 15;
/// Before the first sample: state filled, caches warm. A sample takes a tenth of it.
const WARM_UP: Duration = Duration::from_millis(200);

const ONE: &str = r#""1000000/s""#;
const SPACED: &str = r#"{ rate = "1000000/s", burst = 1000 }"#;
const THREE: &str = r#""1000000/s", "10000000/min", { rate = "1000000/s", bucket = 1000000 }"#;
const KEYED: &str = r#""1000000/s", { rate = "1000000/s", per = "header:x-key" }"#;

fn main() {
    let bench = Bench::from_arguments();
    for keyed in [false, true] {
        let name = if keyed { "room, with a key" } else { "room" };
        bench.run(name, || Room::new(keyed), Room::step);
    }
    for (waiting, keys) in [
        (10, 1),
        (1000, 1),
        (10_000, 1),
        (10_000, 100),
        (10_000, 10_000),
    ] {
        let name = format!("lines, {waiting} waiting of {keys} keys");
        bench.run(&name, || Lines::new(waiting, keys), Lines::step);
    }
    for waiting in [0, 100, 10_000] {
        for (name, limits) in [("no limit", ""), ("a limit", ONE)] {
            let name = format!("gate, {waiting} waiting, {name}");
            bench.run(&name, || Gate::new(limits, waiting), Gate::step);
        }
    }
    let limits = [
        ("none", "", 0),
        ("one", ONE, 0),
        ("one with spacing", SPACED, 0),
        ("three", THREE, 0),
        ("of 1 key", KEYED, 1),
        ("of 100 keys", KEYED, 100),
        ("of 10000 keys", KEYED, 10_000),
    ];
    for (name, limits, keys) in limits {
        let name = format!("limits, {name}");
        bench.run(&name, || Limits::new(limits, keys), Limits::step);
    }
}

struct Bench {
    /// `cargo bench` runs it, not `cargo test`.
    measures: bool,
    words: Vec<String>,
}

impl Bench {
    fn from_arguments() -> Self {
        let (options, words): (Vec<_>, Vec<_>) = env::args()
            .skip(1)
            .partition(|argument| argument.starts_with('-'));
        Self {
            measures: options.iter().any(|option| option == "--bench"),
            words,
        }
    }

    /// Prints what a `step` takes of what `make` makes.
    fn run<T>(&self, name: &str, make: impl FnOnce() -> T, step: impl Fn(&mut T)) {
        if !self.words.is_empty() && !self.words.iter().any(|word| name.contains(word)) {
            return;
        }
        let mut state = make();
        if !self.measures {
            return step(&mut state);
        }
        let (start, mut steps) = (Instant::now(), 0u32);
        while start.elapsed() < WARM_UP {
            (0..64).for_each(|_| step(&mut state));
            steps += 64;
        }
        let steps = (steps / 10).max(1);
        let mut samples = [(); SAMPLES].map(|()| {
            let start = Instant::now();
            (0..steps).for_each(|_| step(&mut state));
            start.elapsed().as_secs_f64() * 1e9 / f64::from(steps)
        });
        samples.sort_by(f64::total_cmp);
        let (least, most) = (samples[0], samples[SAMPLES - 1]);
        let median = samples[SAMPLES / 2];
        println!("{name:40} {median:8.1} ns ({least:.1}-{most:.1})");
    }
}
