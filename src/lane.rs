//! One upstream's lane: its queue, its limits, its gate and its workers.
//!
//! A [`Lane`] is the handle of one core (`core`); what all cores share is in `Shared`.
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
//! `charge` says what a request costs, and whom; `share` keeps one key from
//! filling the queue, and `lines` from delaying another. `exchange` makes the
//! call of a `turn`, and says what may go for another one (`retry`). `account`
//! follows each request to exactly one outcome, and knows what was set on it
//! (`dress`), which a reload may change meanwhile; `passage` carries the response
//! body, after its `beginning` where that was looked into, and gives the
//! connection back (`lease`, `link`), `tunnel` what follows a change of protocol,
//! and `warm` opens connections ahead of time. The lanes of all upstreams are a
//! `roster`, and those that were taken out have `departed`.
//!
//! Shutdown: the daemon sets `cut` when the drain time is over; everything that
//! waits here then ends as `draining`. Tasks end with their core's runtime.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::http::Response;
use arc_swap::{ArcSwap, Guard};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::config;
use crate::metrics::{Cells, Snapshot};
use crate::outcome::Outcome;
use crate::pacing::{Charge, Gauge, Limits, Waiting};
use crate::state::{Clock, Journal, Past, reach};
use crate::upstream::Dialer;
use charge::{Seed, Tariff};
use core::Core;
pub(crate) use core::{Lane, WeakLane};
pub(crate) use departed::Departed;
pub(crate) use dress::Dress;
use gate::Gate;
use job::Job;
use link::Link;
pub(crate) use passage::Passage;
use queue::Room;
use retry::Retries;
pub(crate) use roster::Roster;
pub(crate) use tunnel::Tunnel;

mod account;
mod admission;
mod beginning;
#[cfg(feature = "bench")]
pub(crate) mod bench;
mod bound;
mod call;
mod charge;
mod core;
mod departed;
mod dress;
mod exchange;
mod gate;
mod job;
mod lease;
mod lines;
mod link;
mod passage;
mod queue;
mod retry;
mod roster;
mod share;
mod spare;
mod tunnel;
mod turn;
mod warm;
mod worker;

/// The lead given to a connection while none has been opened yet.
const FIRST_LEAD: Duration = Duration::from_millis(500);

/// What a request gets: the upstream's response, or the way it ended.
pub(crate) type Reply = Result<Response<Passage>, Outcome>;

/// What all cores of a lane share.
#[derive(Debug)]
pub(crate) struct Shared {
    name: String,
    settings: ArcSwap<config::Upstream>,
    tariff: ArcSwap<Tariff>,
    /// The longest time a caller may send nothing of its body.
    caller_stall: Duration,
    dialer: ArcSwap<Dialer>,
    /// What the settings put on requests.
    dress: ArcSwap<Dress>,
    room: Room,
    intake: mpsc::Sender<Job>,
    gate: Gate,
    /// Held for a few lines of arithmetic, never over an await.
    limits: Mutex<Limits>,
    /// Where each turn is written before it is used; `None` if nothing is kept.
    journal: Option<Journal>,
    /// Where what was spent stays when the lane ends, if it stays anywhere.
    departed: Option<Arc<Departed>>,
    /// Jobs in the channel or the backlog whose caller is still there.
    waiting: AtomicUsize,
    /// What their turns cost.
    waiting_cost: AtomicU64,
    /// Those of them whose own keys must wait, as the gate saw it last.
    held: AtomicUsize,
    /// Workers on their way to the gate or standing at it.
    standing: AtomicUsize,
    /// Calls in flight and workers that are about to make one.
    in_flight: AtomicUsize,
    retries: Retries,
    /// Requests for an upgrade that wait, and tunnels that live.
    upgrades: AtomicUsize,
    /// Whether the last try to connect failed.
    unreachable: AtomicBool,
    /// Since when no connection can be had.
    outage: Mutex<Option<Instant>>,
    /// How long before a turn a connection should be on its way, in µs.
    lead_micros: AtomicUsize,
    /// Becomes true when the drain time is over.
    cut: watch::Receiver<bool>,
    /// One set per core.
    cells: Vec<Arc<Cells>>,
}

impl Shared {
    /// A lane for `cores` cores, as configured; keys are hashed with `seed`.
    pub(crate) fn new(
        settings: config::Upstream,
        client: &config::Client,
        dialer: Dialer,
        cores: usize,
        cut: watch::Receiver<bool>,
        seed: Seed,
    ) -> Self {
        let (intake, jobs) = mpsc::channel(settings.queue.max_requests.get());
        let now = Instant::now();
        // Before anything that an earlier run can have spent and that matters.
        let epoch = now.checked_sub(reach(&settings)).unwrap_or(now);
        let limits = Limits::new(&settings, epoch);
        Self {
            name: settings.name.clone(),
            room: Room::new(&settings),
            intake,
            gate: Gate::new(jobs, now),
            limits: Mutex::new(limits),
            journal: None,
            departed: None,
            waiting: AtomicUsize::new(0),
            waiting_cost: AtomicU64::new(0),
            held: AtomicUsize::new(0),
            retries: Retries::new(),
            outage: Mutex::default(),
            standing: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            upgrades: AtomicUsize::new(0),
            unreachable: AtomicBool::new(false),
            lead_micros: AtomicUsize::new(FIRST_LEAD.as_micros() as usize),
            cut,
            cells: (0..cores).map(|_| Arc::default()).collect(),
            dialer: ArcSwap::from_pointee(dialer),
            dress: ArcSwap::from_pointee(Dress::new(&settings)),
            caller_stall: client.stall_timeout,
            tariff: ArcSwap::from_pointee(Tariff::new(&settings, seed)),
            settings: ArcSwap::from_pointee(settings),
        }
    }

    /// Starts with what was spent under its name before, and leaves there what it has
    /// spent when it ends.
    pub(crate) fn resume(mut self, departed: &Arc<Departed>) -> Self {
        if let Some(mut limits) = departed.take(&self.name) {
            let settings = self.settings.load_full();
            limits.reconfigure(&settings, Instant::now());
            let tariff = self.tariff.load().renewed(&settings, limits.kinds());
            self.tariff.store(Arc::new(tariff));
            *self.limits() = limits;
        }
        self.departed = Some(Arc::clone(departed));
        self
    }

    /// Keeps what is spent in `journal`, and starts with what was spent before.
    pub(crate) fn remember(mut self, journal: Journal, past: &Past, clock: &Clock) -> Self {
        let until = past.charge(&mut self.limits(), clock);
        let wait = until.map(|until| until.saturating_duration_since(Instant::now()));
        if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
            tracing::warn!(
                upstream = self.name,
                seconds = wait.as_secs().saturating_add(1),
                "what was spent before is not known and counts as everything: for so many seconds \
                 less may start than the limits say; `state.missing = \"fresh\"` counts it as nothing"
            );
        }
        let pause = past.paused_until(clock);
        let pause = pause.map(|until| until.saturating_duration_since(Instant::now()));
        if let Some(pause) = pause.filter(|pause| !pause.is_zero()) {
            tracing::warn!(
                upstream = self.name,
                seconds = pause.as_secs().saturating_add(1),
                "the upstream asked for a pause before the restart: it goes on for so many seconds"
            );
        }
        self.journal = Some(journal);
        self
    }

    /// Takes other settings; what waits, what is in flight and what was spent
    /// stays. `dialer` is there if the upstream is reached in another way.
    /// Afterwards each core must follow, see [`Lane::follow`].
    pub(crate) fn reconfigure(&self, settings: config::Upstream, dialer: Option<Dialer>) {
        let mut limits = self.limits();
        limits.reconfigure(&settings, Instant::now());
        let kinds = limits.kinds();
        drop(limits);
        if let Some(journal) = &self.journal {
            journal.reconfigure(&settings, kinds);
        }
        self.room.resize(&settings);
        let tariff = self.tariff.load().renewed(&settings, kinds);
        self.tariff.store(Arc::new(tariff));
        let dress = Dress::new(&settings);
        if **self.dress.load() != dress {
            self.dress.store(Arc::new(dress));
        }
        self.settings.store(Arc::new(settings));
        if let Some(dialer) = dialer {
            self.dialer.store(Arc::new(dialer));
        }
        self.gate.ring(true);
    }

    /// The link of core `number`.
    fn link(&self, number: usize) -> Link {
        let place = (number, self.cells.len());
        Link::new(self.dialer.load_full(), &self.settings().connection, place)
    }

    /// The name of the upstream.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What keeps what is spent.
    pub(crate) fn journal(&self) -> Option<&Journal> {
        self.journal.as_ref()
    }

    /// The lane's numbers at this instant.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::new(&self.name, self.cells.iter().map(AsRef::as_ref));
        let now = Instant::now();
        let waiting = self.who_waits();
        let mut limits = self.limits();
        snapshot.limits = limits.gauges(now, waiting.as_ref());
        snapshot.keys = limits.keys();
        snapshot.cooldown = limits.cooldown(now);
        snapshot.probing = limits.probing();
        snapshot.guard = limits.guard();
        snapshot.floor = limits.floor();
        drop(limits);
        snapshot.outage = self
            .outage()
            .map(|since| now.saturating_duration_since(since));
        let at_once = self.at_once(&snapshot, waiting.is_some());
        snapshot.limits.push(at_once);
        snapshot
    }

    /// `max_in_flight` as a limit. It binds if somebody waits and nothing else holds the queue.
    fn at_once(&self, now: &Snapshot, waits: bool) -> Gauge {
        let most = self.settings().max_in_flight.get() as u64;
        let left = most.saturating_sub(now.in_flight());
        let paused = !now.cooldown.is_zero() || now.probing || now.outage.is_some();
        let held = paused || now.limits.iter().any(|limit| limit.binding);
        Gauge {
            label: "max_in_flight".to_owned(),
            capacity: Some(most),
            left,
            // Nobody knows when an answer will end.
            wait: Duration::ZERO,
            binding: waits && left == 0 && !held,
        }
    }

    /// The settings as they are now. Not to be held over an await.
    fn settings(&self) -> Guard<Arc<config::Upstream>> {
        self.settings.load()
    }

    /// Jobs that wait for their turn.
    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Those who wait, for those who watch; `None` if nobody does.
    fn who_waits(&self) -> Option<Waiting> {
        let waiting = u64::try_from(self.waiting()).ok()?;
        let cost = self.waiting_cost.load(Ordering::Relaxed);
        let cost = u32::try_from(cost.div_ceil(NonZeroU64::new(waiting)?.get())).ok()?;
        Some(Waiting {
            cost: NonZeroU32::new(cost).unwrap_or(NonZeroU32::MIN),
            keys: self.room.waiting(),
        })
    }

    /// About how long a request of `charge` must wait that comes now.
    fn wait(&self, charge: &Charge) -> Duration {
        let (waiting, held) = (self.waiting(), self.held.load(Ordering::SeqCst));
        let cost = self.waiting_cost.load(Ordering::Relaxed);
        // Those whose own keys must wait are before nobody else.
        let ahead =
            cost.saturating_mul(waiting.saturating_sub(held) as u64) / waiting.max(1) as u64;
        let in_line = self.room.waiting_cost(charge);
        self.limits().wait(charge, Instant::now(), ahead, &in_line)
    }

    fn limits(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long before a turn a connection should be on its way.
    fn lead(&self) -> Duration {
        Duration::from_micros(self.lead_micros.load(Ordering::Relaxed) as u64)
    }

    /// Whether the drain time is over: nothing starts any more.
    fn is_cut(&self) -> bool {
        *self.cut.borrow()
    }

    /// Returns when the drain time is over.
    async fn cut(&self) {
        // The sender lives as long as the daemon.
        let _ = self.cut.clone().wait_for(|cut| *cut).await;
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let settings = self.settings.load_full();
        let Some(departed) = self.departed.take().filter(|_| !settings.limits.is_empty()) else {
            return;
        };
        let nothing = Limits::new(&settings, Instant::now());
        let limits = std::mem::replace(&mut *self.limits(), nothing);
        departed.keep(settings.name.clone(), limits, reach(&settings));
    }
}

#[cfg(test)]
mod tests;
