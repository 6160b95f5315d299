//! What `cargo bench` measures, opened for `benches/lane.rs` and for nobody else:
//! not part of the API, and only there with the feature `bench`.
//!
//! Each type is one piece in a state as busy as asked for; its `step` is what one
//! request costs there, and leaves that state as it was.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{Config, Upstream};
pub use crate::lane::bench::{Gate, Lines, Room};
use crate::pacing::{Charge, End, Limits as Arithmetic};

/// Between two starts: 20 000 requests per second.
const STEP: Duration = Duration::from_micros(50);

/// The limits of a lane, never reached.
#[derive(Debug)]
pub struct Limits {
    limits: Arithmetic,
    /// Simulated.
    now: Instant,
    /// What each request is charged to, in turn.
    charges: Vec<Charge>,
    next: usize,
}

impl Limits {
    /// With `limits`, the items of the setting of this name. Requests have
    /// `keys` keys in turn, none if that is 0.
    pub fn new(limits: &str, keys: u64) -> Self {
        let now = Instant::now();
        Self {
            limits: Arithmetic::new(&settings(limits), now),
            now,
            charges: (1..=keys.max(1)).map(|key| charge(key, keys)).collect(),
            next: 0,
        }
    }

    /// A request starts and is answered.
    pub fn step(&mut self) {
        self.now += STEP;
        let charge = self.charges[self.next].clone();
        self.next = (self.next + 1) % self.charges.len();
        let ready = self.limits.ready(&charge, self.now);
        ready.expect("no limit is ever reached");
        let turn = self.limits.start(charge, self.now, self.now);
        let answered = self.now + STEP / 2;
        self.limits.close(turn, End::Answered(&[]), answered);
    }
}

/// A request that costs one, of `key` if there are any `keys`.
pub(crate) fn charge(key: u64, keys: u64) -> Charge {
    let keys: &[u64] = if keys > 0 { &[key] } else { &[] };
    Charge::new(NonZeroU32::MIN, keys.into(), 0)
}

/// An upstream with `limits`, which can wait for long and holds everybody.
pub(crate) fn settings(limits: &str) -> Upstream {
    let text = format!(
        "listen = \"127.0.0.1:1\"\n[upstream.a]\nurl = \"http://127.0.0.1:2\"\nlimits = [{limits}]\n\
         [upstream.a.queue]\nmax_requests = 30000\nmax_wait = \"1d\"\n\
         [upstream.a.keys]\nmax = 20000\nmax_waiting = 20000\n"
    );
    let config = Config::parse("bench", &text);
    let mut upstreams = config
        .expect("the benchmark's settings are valid")
        .upstreams;
    upstreams.remove(0)
}
