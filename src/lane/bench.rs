//! The queue and the gate as `cargo bench` measures them, see `crate::bench`.

use std::collections::VecDeque;
use std::fmt;
use std::hint::black_box;
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::time::Instant;

use super::account::Account;
use super::gate::Pass;
use super::job::{self, Ticket};
use super::{Lane, Shared, lines, queue};
use crate::bench::{charge, settings};
use crate::config::Config;
use crate::http::plain::request::{Head, Plain, Rewrite};
use crate::metrics::Cells;
use crate::outcome::Outcome;
use crate::pacing::alarm::Alarm;
use crate::pacing::{Charge, End};
use crate::upstream::{Dialer, Outgoing};

/// What a request of the benchmark weighs, bytes.
const WEIGHT: usize = 110;

/// The bounds of the queue.
#[derive(Debug)]
pub struct Room {
    room: queue::Room,
    charge: Charge,
    cells: Arc<Cells>,
}

impl Room {
    /// Empty; requests have a key if `keyed`.
    pub fn new(keyed: bool) -> Self {
        Self {
            room: queue::Room::new(&settings("")),
            charge: charge(1, u64::from(keyed)),
            cells: Arc::default(),
        }
    }

    /// A request gets a place and gives it back.
    pub fn step(&mut self) {
        black_box(self.room.try_enter(&self.charge, WEIGHT, &self.cells));
    }
}

/// The order of those who wait.
#[derive(Debug)]
pub struct Lines {
    lines: lines::Lines<u64>,
    keys: u64,
    next: u64,
}

impl Lines {
    /// `waiting` wait, of `keys` keys in turn.
    pub fn new(waiting: u64, keys: u64) -> Self {
        let mut lines = Self {
            lines: lines::Lines::default(),
            keys,
            next: 0,
        };
        (0..waiting).for_each(|_| lines.push());
        lines
    }

    /// One more comes, and the first one goes.
    pub fn step(&mut self) {
        self.push();
        black_box(self.lines.take_best());
    }

    fn push(&mut self) {
        self.next += 1;
        self.lines.push_back(self.next % self.keys, self.next);
    }
}

/// The way of a job through a lane without an upstream: into the line, to its
/// turn, to its outcome.
pub struct Gate {
    /// Those who wait, in order.
    tickets: VecDeque<Ticket>,
    request: Plain,
    lane: Lane,
    runtime: Runtime,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl Gate {
    /// `waiting` wait at a gate with `limits` that are never reached.
    pub fn new(limits: &str, waiting: usize) -> Self {
        let valid = "the benchmark's settings are valid";
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("the system has a runtime for us");
        let inside = runtime.enter();
        let settings = settings(limits);
        let dialer = Dialer::new(&settings).expect(valid);
        let text = "listen = \"127.0.0.1:1\"\n[upstream.a]\nurl = \"http://127.0.0.1:2\"";
        let client = Config::parse("bench", text).expect(valid).client;
        let (_, cut) = watch::channel(false);
        let shared = Shared::new(settings, &client, dialer, 1, cut, [1, 2]);
        let alarm = Alarm::precise().expect("the system has a timer for us");
        let lane = Lane::new(&Arc::new(shared), 0, alarm);
        drop(inside);
        let mut gate = Self {
            tickets: VecDeque::new(),
            request: request(),
            lane,
            runtime,
        };
        for _ in 0..waiting {
            gate.queue();
        }
        gate
    }

    /// One more job comes, and the first one has its turn.
    pub fn step(&mut self) {
        self.queue();
        let core = &self.lane.0;
        let Some(Pass::Turn(_job, call, turn)) = core.shared.gate.try_turn(core) else {
            panic!("no limit is ever reached");
        };
        let (_, account, _) = call.open();
        turn.close(End::Answered(&[]), Instant::now());
        account.end(Outcome::Completed);
        self.tickets.pop_front();
    }

    fn queue(&mut self) {
        let core = &self.lane.0;
        let mut account = Account::new(core, Charge::ONE, None, self.lane.dress());
        account.admit();
        let request = Outgoing::Plain(self.request.clone());
        let (job, ticket) = job::pair(request, account, None);
        ticket.stand_in_line(&core.shared);
        let sent = core.shared.intake.try_send(job);
        sent.expect("the queue holds more than any benchmark");
        self.tickets.push_back(ticket);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // Tasks of the lane may end only inside.
        let _inside = self.runtime.enter();
        self.tickets.clear();
    }
}

fn request() -> Plain {
    let head = b"GET / HTTP/1.1\r\nhost: a\r\nuser-agent: bench\r\naccept: */*\r\n\r\n";
    let head = Head::read(head).expect("it is plain");
    let rewrite = Rewrite::new(0, None, false, true, &[]).expect("no field is set");
    head.request(&rewrite, b"")
}
