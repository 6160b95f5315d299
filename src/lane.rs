//! One upstream's lane: its queue, its limits, its gate and its workers.
//!
//! A [`Lane`] is the handle of one core; what all cores share is in `Shared`.
//! A request goes this way:
//!
//! - While nobody waits and the limits allow, [`Lane::call`] is its own worker:
//!   it takes a turn with a ready connection of its core and sends at once.
//! - Otherwise it takes a place (`queue`), reads its body, and its [`job::Job`]
//!   goes through the bounded channel into the backlog. A worker (`worker`) with
//!   a ready connection passes the gate (`gate`), where the turn is taken, and
//!   answers through the job's oneshot.
//!
//! Workers are spawned when jobs wait that nobody stands ready for, at most
//! `max_in_flight` of them; each is one task on the core that called for it.
//! `account` follows each request to exactly one outcome; `passage` carries the
//! response body and gives the connection back, `tunnel` what follows a change
//! of protocol.
//!
//! Shutdown: the daemon sets `cut` when the drain time is over; everything that
//! waits here then ends as `draining`. Tasks end with their core's runtime.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::http::Response;
use tokio::runtime::Handle;
use tokio::sync::{self, mpsc, watch};
use tokio::time::Instant;

use crate::config;
use crate::metrics::{Cells, Snapshot};
use crate::outcome::Outcome;
use crate::pacing::Limits;
use crate::pacing::alarm::Alarm;
use crate::upstream::{Dialer, Pool};
use gate::Gate;
use job::Job;
pub(crate) use passage::Passage;
use queue::Room;
pub(crate) use tunnel::Tunnel;

mod account;
mod call;
mod exchange;
mod gate;
mod job;
mod lease;
mod passage;
mod queue;
mod tunnel;
mod worker;

/// The lead given to a connection while none has been opened yet.
const FIRST_LEAD: Duration = Duration::from_millis(500);

/// What a request gets: the upstream's response, or the way it ended.
pub(crate) type Reply = Result<Response<Passage>, Outcome>;

/// What all cores of a lane share.
#[derive(Debug)]
pub(crate) struct Shared {
    name: String,
    settings: config::Upstream,
    /// The longest time a caller may send nothing of its body.
    caller_stall: Duration,
    dialer: Dialer,
    room: Room,
    intake: mpsc::Sender<Job>,
    gate: Gate,
    /// Held for a few lines of arithmetic, never over an await.
    limits: Mutex<Limits>,
    /// Jobs in the channel or the backlog whose caller is still there.
    waiting: AtomicUsize,
    /// Workers on their way to the gate or standing at it.
    standing: AtomicUsize,
    /// Calls in flight and workers that are about to make one.
    in_flight: AtomicUsize,
    /// Requests for an upgrade that wait, and tunnels that live.
    upgrades: AtomicUsize,
    /// Whether the last try to connect failed.
    unreachable: AtomicBool,
    /// How long before a turn a connection should be on its way, in µs.
    lead_micros: AtomicUsize,
    /// Becomes true when the drain time is over.
    cut: watch::Receiver<bool>,
    /// One set per core.
    cells: Vec<Arc<Cells>>,
}

/// One core's part of a lane. Cloning it is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Lane(Arc<Core>);

#[derive(Debug)]
struct Core {
    shared: Arc<Shared>,
    cells: Arc<Cells>,
    pool: Pool,
    /// Held while a connection is opened that others may then share.
    dialing: sync::Mutex<()>,
    /// Whether the last connection could be shared; true until it is known.
    shares: AtomicBool,
    alarm: Alarm,
    runtime: Handle,
}

impl Shared {
    /// A lane for `cores` cores, as configured.
    pub(crate) fn new(
        settings: config::Upstream,
        client: &config::Client,
        dialer: Dialer,
        cores: usize,
        cut: watch::Receiver<bool>,
    ) -> Self {
        let (intake, jobs) = mpsc::channel(settings.queue.max_requests.get());
        let now = Instant::now();
        let limits = Limits::new(&settings.limits, settings.guard, now);
        Self {
            name: settings.name.clone(),
            room: Room::new(&settings.queue),
            intake,
            gate: Gate::new(jobs, now),
            limits: Mutex::new(limits),
            waiting: AtomicUsize::new(0),
            standing: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            upgrades: AtomicUsize::new(0),
            unreachable: AtomicBool::new(false),
            lead_micros: AtomicUsize::new(FIRST_LEAD.as_micros() as usize),
            cut,
            cells: (0..cores).map(|_| Arc::default()).collect(),
            dialer,
            caller_stall: client.stall_timeout,
            settings,
        }
    }

    /// The lane's numbers at this instant.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::new(&self.name, self.cells.iter().map(AsRef::as_ref));
        let now = Instant::now();
        let mut limits = self.limits();
        snapshot.available = limits.available(now);
        let cooled = limits.cooled().unwrap_or(now);
        snapshot.cooldown = cooled.saturating_duration_since(now);
        drop(limits);
        snapshot
    }

    /// Jobs that wait for their turn.
    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    fn limits(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long before a turn a connection should be on its way.
    fn lead(&self) -> Duration {
        Duration::from_micros(self.lead_micros.load(Ordering::Relaxed) as u64)
    }

    /// Returns when the drain time is over.
    async fn cut(&self) {
        // The sender lives as long as the daemon.
        let _ = self.cut.clone().wait_for(|cut| *cut).await;
    }
}

impl Lane {
    /// The part of `shared` that runs on the current runtime, as core `core`.
    ///
    /// # Errors
    ///
    /// The system refuses a timer.
    pub(crate) fn new(shared: &Arc<Shared>, core: usize, alarm: Alarm) -> Self {
        let lane = Self(Arc::new(Core {
            cells: Arc::clone(&shared.cells[core]),
            pool: Pool::new(&shared.settings.connection),
            dialing: sync::Mutex::default(),
            shares: AtomicBool::new(shared.dialer.offers_http2()),
            alarm,
            runtime: Handle::current(),
            shared: Arc::clone(shared),
        }));
        let sweeper = Arc::downgrade(&lane.0);
        let pause = shared.settings.connection.idle_timeout / 2;
        tokio::spawn(async move {
            while let Some(core) = sweeper.upgrade() {
                core.pool.sweep(Instant::now());
                drop(core);
                tokio::time::sleep(pause).await;
            }
        });
        lane
    }

    /// The settings of the lane.
    pub(crate) fn settings(&self) -> &config::Upstream {
        &self.0.shared.settings
    }

    /// How long a request that ended as `outcome` had better stay away.
    pub(crate) fn retry_after(&self, outcome: Outcome) -> Duration {
        let shared = &self.0.shared;
        let wait = shared.limits().wait(Instant::now(), shared.waiting());
        match outcome {
            // By then so many have gone that this one would have been admitted.
            Outcome::WaitTooLong => wait.saturating_sub(shared.settings.queue.max_wait),
            _ => wait,
        }
    }
}

#[cfg(test)]
mod tests;
