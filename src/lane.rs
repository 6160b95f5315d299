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
//! response body and gives the connection back.
//!
//! Shutdown: the daemon sets `cut` when the drain time is over; everything that
//! waits here then ends as `draining`. Tasks end with their core's runtime.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::http::{HeaderMap, Request, Response, Uri, request};
use hyper::body::{Body, Incoming};
use tokio::runtime::Handle;
use tokio::sync::{self, mpsc, watch};
use tokio::time::Instant;

use crate::config;
use crate::http::body::{Bounds, Upload, UploadError};
use crate::metrics::{Cells, Snapshot};
use crate::outcome::Outcome;
use crate::pacing::alarm::Alarm;
use crate::pacing::{Limits, Turn};
use crate::upstream::{Dialer, Pool};
use account::Account;
use exchange::Broken;
use gate::Gate;
use job::{Job, Ticket};
pub(crate) use passage::Passage;
use queue::{Place, Room};
use worker::{Lease, Slot};

mod account;
mod exchange;
mod gate;
mod job;
mod passage;
mod queue;
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
        snapshot.available = self.limits().available(Instant::now());
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

    /// Returns when a request that may wait until `deadline` can wait no more,
    /// with the outcome.
    async fn too_late(&self, deadline: Instant) -> Outcome {
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => Outcome::Expired,
            () = self.cut() => Outcome::Draining,
        }
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

    /// Takes charge of a request until its response head is there.
    /// `note` names the request in the log; `None` where it is not logged.
    ///
    /// What a waiting request does not need is boxed: it would carry the room
    /// for it about as long as it waits.
    pub(crate) async fn call(
        &self,
        head: request::Parts,
        body: Incoming,
        note: Option<String>,
    ) -> Reply {
        let core = &self.0;
        let mut account = Account::new(core, note);
        let mut place = None;
        let upload = match body.is_end_stream() {
            true => Ok(Upload::default()),
            false => Box::pin(self.take_in(&mut account, &mut place, &head, body)).await,
        };
        let upload = match upload {
            Ok(upload) => upload,
            Err(outcome) => return Err(account.end(outcome)),
        };
        let request = Request::from_parts(head, upload);
        if let Some((lease, turn)) = core.try_turn() {
            drop(place);
            account.start(Instant::now());
            let sent = Box::pin(exchange::run(core, lease, turn, request, account));
            return match sent.await {
                Ok(response) => Ok(response),
                Err(Broken::Ended(outcome)) => Err(outcome),
                Err(Broken::Again(again)) => Box::pin(self.wait_again(*again)).await,
            };
        }
        if place.is_none() {
            let bytes = head_bytes(&request) + request.body().buffered();
            match self.enter(&mut account, bytes).await {
                Ok(entered) => place = Some(entered),
                Err(outcome) => return Err(account.end(outcome)),
            }
        }
        let deadline = account.deadline();
        let (job, ticket) = job::pair(request, account, place);
        let sent = tokio::select! {
            permit = core.shared.intake.reserve() => permit.map_err(|_closed| Outcome::Draining),
            early = core.shared.too_late(deadline) => Err(early),
        };
        match sent {
            Ok(permit) => {
                ticket.stand_in_line(&core.shared);
                permit.send(job);
                self.wait(ticket, deadline).await
            }
            Err(outcome) => ticket.end(outcome).await,
        }
    }

    /// Waits for another turn, before all others, for a request whose first
    /// turn came to nothing.
    async fn wait_again(&self, (request, account): (Request<Upload>, Account)) -> Reply {
        let deadline = account.deadline();
        let (job, ticket) = job::pair(request, account, None);
        ticket.stand_in_line(&self.0.shared);
        self.0.shared.gate.put_back(job);
        self.wait(ticket, deadline).await
    }

    /// Waits in the line until the worker answers or the time is over.
    async fn wait(&self, mut ticket: Ticket, deadline: Instant) -> Reply {
        worker::hire(&self.0);
        let outcome = tokio::select! {
            biased;
            reply = ticket.reply() => return reply,
            outcome = self.0.shared.too_late(deadline) => outcome,
        };
        ticket.end(outcome).await
    }

    /// Reads the body as far as it is read before the queue. A request with a
    /// body takes its place first, so that what is read is always counted.
    async fn take_in(
        &self,
        account: &mut Account,
        place: &mut Option<Place>,
        head: &request::Parts,
        body: Incoming,
    ) -> Result<Upload, Outcome> {
        let settings = &self.0.shared.settings;
        let bounds = Bounds {
            buffer: settings.buffer_body,
            max: settings.max_body,
            stall: self.0.shared.caller_stall,
        };
        let announced = body.size_hint();
        if announced.lower() > bounds.max {
            return Err(Outcome::TooLarge);
        }
        let head = parts_bytes(head);
        let held = match announced.exact() {
            Some(exact) if exact > bounds.buffer as u64 => 0,
            Some(exact) => exact as usize,
            None => bounds.buffer,
        };
        let place = place.insert(self.enter(account, head + held).await?);
        let upload = tokio::select! {
            upload = Upload::read(body, bounds) => upload.map_err(|error| match error {
                UploadError::TooLarge => Outcome::TooLarge,
                UploadError::Broken(_) | UploadError::Stalled => Outcome::Abandoned,
            })?,
            outcome = self.0.shared.too_late(account.deadline()) => return Err(outcome),
        };
        place.shrink_to(head + upload.buffered());
        Ok(upload)
    }

    /// Takes a place in the queue for `bytes`, or refuses.
    async fn enter(&self, account: &mut Account, bytes: usize) -> Result<Place, Outcome> {
        let shared = &self.0.shared;
        let settings = &shared.settings.queue;
        let wait = shared.limits().wait(Instant::now(), shared.waiting());
        if wait > settings.max_wait {
            return Err(Outcome::WaitTooLong);
        }
        let place = match shared.room.try_enter(bytes, &self.0.cells) {
            Some(place) => place,
            None if settings.when_full == config::WhenFull::Reject => {
                return Err(Outcome::QueueFull);
            }
            None => tokio::select! {
                place = shared.room.enter(bytes, &self.0.cells) => place,
                outcome = shared.too_late(account.deadline()) => return Err(match outcome {
                    Outcome::Expired => Outcome::QueueFull,
                    other => other,
                }),
            },
        };
        account.admit();
        Ok(place)
    }
}

impl Core {
    /// A turn for a request of this core, with a ready connection, if nobody
    /// waits and every limit allows one this instant.
    fn try_turn(self: &Arc<Self>) -> Option<(Lease, Turn)> {
        let shared = &self.shared;
        if shared.waiting() > 0 {
            return None;
        }
        let slot = Slot::try_take(shared)?;
        let _gate = shared.gate.try_pass()?;
        let now = Instant::now();
        let mut limits = shared.limits();
        limits.ready(now).ok()?;
        let lease = Lease::new(self, self.pool.take(now)?, slot);
        Some((lease, limits.start(now, now)))
    }
}

/// About the memory that a request's head takes, in bytes.
fn head_bytes(request: &Request<Upload>) -> usize {
    fields_bytes(request.uri(), request.headers())
}

fn parts_bytes(head: &request::Parts) -> usize {
    fields_bytes(&head.uri, &head.headers)
}

fn fields_bytes(uri: &Uri, headers: &HeaderMap) -> usize {
    let fields = headers.iter();
    let fields: usize = fields
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    uri.path_and_query()
        .map_or(1, |target| target.as_str().len())
        + fields
}

#[cfg(test)]
mod tests;
