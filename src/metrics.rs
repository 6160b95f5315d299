//! Every number the program shows: names, help and labels stand here and
//! nowhere else.
//!
//! Each lane has one set of [`Cells`] per core, touched without locks; they are
//! summed when somebody reads. Waiting and in flight are not counters of their
//! own: they are what was admitted and has not ended, so that
//! `admitted = sum(outcomes) + waiting + in_flight` holds at every instant.
//! Gauges that belong to other parts (limits, queue) come in with the
//! [`Snapshot`] that the lane makes.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::http::StatusCode;

use crate::outcome::Outcome;
use crate::pacing::Gauge;

mod process;
mod render;

pub(crate) use render::{CONTENT_TYPE, render};

const OUTCOMES: usize = Outcome::ALL.len();

/// Upper bounds of the wait in the queue, in seconds: up to the longest
/// `max_wait` that people set.
const WAIT_BOUNDS: [f64; 16] = [
    0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0,
];

/// Upper bounds of the time from a request's start to its response head, in
/// seconds.
const UPSTREAM_BOUNDS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

/// Where a request is when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// In the queue, or before it.
    Waiting,
    /// Its turn was taken.
    InFlight,
}

/// What kept the head of the queue from starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// The limits.
    Limit,
    /// `max_in_flight`: every worker was busy.
    Workers,
    /// A connection had to be opened.
    Connection,
    /// The upstream had asked for a pause.
    Cooldown,
}

impl Holder {
    const ALL: [Self; 4] = [Self::Limit, Self::Workers, Self::Connection, Self::Cooldown];

    fn label(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Workers => "workers",
            Self::Connection => "connection",
            Self::Cooldown => "cooldown",
        }
    }
}

/// Why a request goes for another turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// The upstream refused it.
    Refused,
    /// The upstream failed.
    Failed,
    /// The upstream was closing an idle connection.
    Closing,
    /// The upstream has provably taken nothing of it.
    Unsent,
}

impl Again {
    const ALL: [Self; 4] = [Self::Refused, Self::Failed, Self::Closing, Self::Unsent];

    fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Closing => "closing",
            Self::Unsent => "unsent",
        }
    }
}

/// How reloads of the settings went.
#[derive(Debug, Default)]
pub(crate) struct Reloads {
    applied: AtomicU64,
    refused: AtomicU64,
    /// Seconds since the Unix epoch; 0 while there was none.
    last_applied: AtomicU64,
}

impl Reloads {
    /// Settings were taken, now.
    pub(crate) fn applied(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs();
        self.applied.fetch_add(1, Ordering::Relaxed);
        self.last_applied.store(now, Ordering::Relaxed);
    }

    /// Settings could not be used.
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// The counters of one lane on one core.
#[derive(Debug)]
pub(crate) struct Cells {
    admitted: AtomicU64,
    started: AtomicU64,
    returned: [AtomicU64; 4],
    ended: [[AtomicU64; OUTCOMES]; 2],
    classes: [AtomicU64; 5],
    throttled: AtomicU64,
    held_nanos: [AtomicU64; 4],
    queue_bytes: AtomicI64,
    connections: AtomicI64,
    wait: Histogram,
    upstream: Histogram,
}

impl Default for Cells {
    fn default() -> Self {
        Self {
            admitted: AtomicU64::default(),
            started: AtomicU64::default(),
            returned: Default::default(),
            ended: Default::default(),
            classes: Default::default(),
            throttled: AtomicU64::default(),
            held_nanos: Default::default(),
            queue_bytes: AtomicI64::default(),
            connections: AtomicI64::default(),
            wait: Histogram::new(&WAIT_BOUNDS),
            upstream: Histogram::new(&UPSTREAM_BOUNDS),
        }
    }
}

impl Cells {
    /// A request was taken charge of: it now waits.
    pub(crate) fn admit(&self) {
        self.admitted.fetch_add(1, Ordering::Release);
    }

    /// A waiting request takes its turn, `wait` after its arrival.
    pub(crate) fn start(&self, wait: Duration) {
        self.started.fetch_add(1, Ordering::Release);
        self.wait.observe(wait);
    }

    /// A request in flight goes back to wait for another turn.
    pub(crate) fn give_back(&self, why: Again) {
        self.returned[why as usize].fetch_add(1, Ordering::Release);
    }

    /// The upstream refused a request because of its limits.
    pub(crate) fn throttle(&self) {
        self.throttled.fetch_add(1, Ordering::Relaxed);
    }

    /// A request ended.
    pub(crate) fn end(&self, phase: Phase, outcome: Outcome) {
        self.ended[phase as usize][outcome.index()].fetch_add(1, Ordering::Release);
    }

    /// A request that never waited is refused.
    pub(crate) fn refuse(&self, outcome: Outcome) {
        self.admit();
        self.end(Phase::Waiting, outcome);
    }

    /// The upstream answered with `status`, `took` after the request's start.
    pub(crate) fn response(&self, status: StatusCode, took: Duration) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        self.classes[class].fetch_add(1, Ordering::Relaxed);
        self.upstream.observe(took);
    }

    /// The head of the queue was held for `time`.
    pub(crate) fn held(&self, by: Holder, time: Duration) {
        self.held_nanos[by as usize].fetch_add(nanos(time), Ordering::Relaxed);
    }

    /// Bytes entered the queue (or left it, if negative).
    pub(crate) fn queue_bytes(&self, change: i64) {
        self.queue_bytes.fetch_add(change, Ordering::Relaxed);
    }

    /// Connections to the upstream were opened (or closed, if negative).
    pub(crate) fn connections(&self, change: i64) {
        self.connections.fetch_add(change, Ordering::Relaxed);
    }
}

/// One lane's numbers, summed over the cores.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// The lane's name; empty for requests that no lane takes.
    pub(crate) upstream: String,
    /// The limits as they stand.
    pub(crate) limits: Vec<Gauge>,
    /// Keys that the limits tell apart.
    pub(crate) keys: usize,
    /// What is left of a cooldown.
    pub(crate) cooldown: Duration,
    /// Whether its probe is on its way.
    pub(crate) probing: bool,
    /// How long no connection could be had, if none can.
    pub(crate) outage: Option<Duration>,
    /// How long a request can be on its way before the upstream has counted it.
    pub(crate) guard: Duration,
    /// What every trip to the upstream and back takes; zero if that is not known.
    pub(crate) floor: Duration,
    admitted: u64,
    started: u64,
    returned: [u64; 4],
    ended: [[u64; OUTCOMES]; 2],
    classes: [u64; 5],
    throttled: u64,
    held_nanos: [u64; 4],
    queue_bytes: i64,
    connections: i64,
    wait: Sum,
    upstream_time: Sum,
}

impl Snapshot {
    /// The sums of `cells`.
    ///
    /// Ends are read before starts and starts before admissions, so that no
    /// request is seen to end that was not seen to start.
    pub(crate) fn new<'a>(upstream: &str, cells: impl Iterator<Item = &'a Cells> + Clone) -> Self {
        let mut sum = Self {
            upstream: upstream.to_owned(),
            ..Self::default()
        };
        for cell in cells.clone() {
            sum.add_measures(cell);
            for (phase, ends) in cell.ended.iter().enumerate() {
                for (outcome, count) in ends.iter().enumerate() {
                    sum.ended[phase][outcome] += count.load(Ordering::Acquire);
                }
            }
        }
        for cell in cells.clone() {
            for (sum, count) in sum.returned.iter_mut().zip(&cell.returned) {
                *sum += count.load(Ordering::Acquire);
            }
        }
        for cell in cells.clone() {
            sum.started += cell.started.load(Ordering::Acquire);
        }
        for cell in cells {
            sum.admitted += cell.admitted.load(Ordering::Acquire);
        }
        sum
    }

    fn add_measures(&mut self, cell: &Cells) {
        for (sum, class) in self.classes.iter_mut().zip(&cell.classes) {
            *sum += class.load(Ordering::Relaxed);
        }
        for (sum, held) in self.held_nanos.iter_mut().zip(&cell.held_nanos) {
            *sum += held.load(Ordering::Relaxed);
        }
        self.throttled += cell.throttled.load(Ordering::Relaxed);
        self.queue_bytes += cell.queue_bytes.load(Ordering::Relaxed);
        self.connections += cell.connections.load(Ordering::Relaxed);
        self.wait.add(&cell.wait);
        self.upstream_time.add(&cell.upstream);
    }

    /// Requests that ended as `outcome`.
    pub(crate) fn ended(&self, outcome: Outcome) -> u64 {
        self.ended[0][outcome.index()] + self.ended[1][outcome.index()]
    }

    /// Connections to the upstream that are open.
    pub(crate) fn connections(&self) -> u64 {
        u64::try_from(self.connections).unwrap_or(0)
    }

    /// Requests that wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.unended() - self.in_flight()
    }

    /// Requests in flight. A request that was given back and started again while
    /// the cells were read can look like two; it is not counted as more than is
    /// there.
    pub(crate) fn in_flight(&self) -> u64 {
        let ended = self.ended[Phase::InFlight as usize].iter().sum::<u64>();
        let gone = ended + self.returned.iter().sum::<u64>();
        self.started.saturating_sub(gone).min(self.unended())
    }

    /// Requests that were admitted and have not ended.
    fn unended(&self) -> u64 {
        let ended = self.ended.iter().flatten().sum();
        self.admitted.saturating_sub(ended)
    }
}

/// A histogram of durations.
#[derive(Debug)]
struct Histogram {
    bounds: &'static [f64; 16],
    buckets: [AtomicU64; 17],
    sum_nanos: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [f64; 16]) -> Self {
        Self {
            bounds,
            buckets: Default::default(),
            sum_nanos: AtomicU64::default(),
        }
    }

    fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_nanos.fetch_add(nanos(time), Ordering::Relaxed);
    }
}

/// The sum of histograms.
#[derive(Debug, Default)]
struct Sum {
    bounds: Option<&'static [f64; 16]>,
    buckets: [u64; 17],
    nanos: u64,
}

impl Sum {
    fn add(&mut self, histogram: &Histogram) {
        self.bounds = Some(histogram.bounds);
        for (sum, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *sum += bucket.load(Ordering::Relaxed);
        }
        self.nanos += histogram.sum_nanos.load(Ordering::Relaxed);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conservation_law_holds_at_each_step_of_a_request() {
        let cells = Cells::default();
        let law = |waiting, in_flight, ended| {
            let now = Snapshot::new("a", std::iter::once(&cells));
            assert_eq!((now.waiting(), now.in_flight()), (waiting, in_flight));
            let ends: u64 = Outcome::ALL.iter().map(|outcome| now.ended(*outcome)).sum();
            assert_eq!(ends, ended);
            assert_eq!(now.admitted, ends + now.waiting() + now.in_flight());
        };
        cells.admit();
        law(1, 0, 0);
        cells.start(Duration::ZERO);
        law(0, 1, 0);
        cells.give_back(Again::Refused);
        law(1, 0, 0);
        cells.start(Duration::ZERO);
        cells.end(Phase::InFlight, Outcome::Completed);
        law(0, 0, 1);
        cells.admit();
        cells.end(Phase::Waiting, Outcome::Abandoned);
        law(0, 0, 2);
        cells.refuse(Outcome::QueueFull);
        law(0, 0, 3);
    }
}
