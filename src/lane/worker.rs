//! Workers: one task for one call at a time.
//!
//! A worker gets a connection ready, waits at the gate for its turn, sends, and
//! hands the response head over; the response body then carries the connection
//! and the slot on. Workers never pace. They are hired when jobs wait that
//! nobody stands ready for, by whoever notices: the caller that queues a job,
//! the worker that leaves the gate, the response that frees a slot. There are
//! never more calls and workers than `max_in_flight`.

use std::error::Error;
use std::iter::successors;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ::http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::{self, Instant};

use super::exchange::{self, Broken};
use super::gate::Pass;
use super::job::{Call, Job};
use super::{Core, Shared};
use crate::http::body::Upload;
use crate::outcome::Outcome;
use crate::pacing::Turn;
use crate::upstream::{ConnectError, Connection, Origin, SendError};

/// The pause before the second try to connect; it doubles with each further.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// How long a connection may take to get ready after its last body has ended;
/// its driver only has to run once.
const LONGEST_REST: Duration = Duration::from_millis(50);

/// One of the `max_in_flight` slots.
#[derive(Debug)]
pub(super) struct Slot(Arc<Shared>);

/// Counts a worker among those that get ready for a turn.
#[derive(Debug)]
struct Standing(Arc<Shared>);

/// A ready connection and a slot: what it takes to make one call.
/// [`Lease::finish`] keeps the connection; dropping the lease closes it. Either
/// way the slot is free and a worker is hired if a job waits for it.
#[derive(Debug)]
pub(super) struct Lease {
    core: Arc<Core>,
    connection: Option<Connection>,
    slot: Option<Slot>,
}

/// Hires as many workers on this core as the waiting jobs can use soon.
pub(super) fn hire(core: &Arc<Core>) {
    while core.shared.lacks_worker() {
        let Some(slot) = Slot::try_take(&core.shared) else {
            return;
        };
        let standing = Standing::new(&core.shared);
        core.runtime.spawn(run(Arc::clone(core), slot, standing));
    }
}

/// One worker's life: it ends when nobody waits.
async fn run(core: Arc<Core>, mut slot: Slot, standing: Standing) {
    loop {
        let began = Instant::now();
        let connection = match connection(&core, began).await {
            Ok(connection) => connection,
            Err(error) => {
                refuse(&core, began, &error);
                break;
            }
        };
        let mut lease = Lease::new(&core, connection, slot);
        match core.shared.gate.pass(&core, &lease, began).await {
            Pass::Turn(job, call, turn) => {
                drop(standing);
                hire(&core);
                serve(&core, lease, job, *call, turn).await;
                return;
            }
            Pass::Nobody => {
                lease.finish();
                break;
            }
            Pass::Stale => match lease.slot.take() {
                Some(kept) => slot = kept,
                None => break,
            },
        }
    }
    // In this order: a job that came while this worker still stood here was
    // not given another, so look again.
    drop(standing);
    hire(&core);
}

/// Makes the call and answers the caller.
async fn serve(core: &Arc<Core>, lease: Lease, job: Job, call: Call, turn: Turn) {
    let (request, account, mut reply) = call.open();
    let answered = tokio::select! {
        answered = exchange::run(core, lease, turn, request, account) => answered,
        // The caller has gone: dropping the exchange tells the upstream.
        () = reply.closed() => return,
    };
    let answer = match answered {
        Ok(response) => Ok(response),
        Err(Broken::Ended(outcome)) => Err(outcome),
        Err(Broken::Again(again)) if again.1.deadline() <= Instant::now() => {
            Err(again.1.end(Outcome::Expired))
        }
        Err(Broken::Again(again)) => {
            job.put_back(&core.shared, *again, reply);
            return hire(core);
        }
    };
    // A caller that has gone drops the response, whose account settles it.
    let _ = reply.send(Box::new(answer));
}

/// A connection: a ready one of this core, or a new one.
async fn connection(core: &Arc<Core>, began: Instant) -> Result<Connection, ConnectError> {
    if let Some(connection) = core.pool.take(began) {
        return Ok(connection);
    }
    while let Some(mut connection) = core.pool.take_resting() {
        if let Ok(true) = time::timeout(LONGEST_REST, connection.ready()).await {
            return Ok(connection);
        }
    }
    // Where one connection carries many calls, one at a time is opened, and
    // those who had to wait for it look first whether it has room for them.
    let mut dialing = None;
    if core.shares.load(Ordering::Relaxed) {
        let turn = core.dialing.lock().await;
        if let Some(connection) = core.pool.take(Instant::now()) {
            return Ok(connection);
        }
        dialing = Some(turn).filter(|_| core.shares.load(Ordering::Relaxed));
    }
    let connection = open(core).await?;
    core.shares.store(connection.is_shared(), Ordering::Relaxed);
    core.pool.offer(&connection);
    drop(dialing);
    Ok(connection)
}

/// Opens a connection, in several tries.
async fn open(core: &Arc<Core>) -> Result<Connection, ConnectError> {
    let shared = &core.shared;
    let mut pause = FIRST_PAUSE;
    let mut tries = 1;
    loop {
        let from = Instant::now();
        match shared.dialer.connect().await {
            Ok((connection, driver)) => {
                core.runtime.spawn(driver);
                shared.connected(from.elapsed());
                return Ok(connection);
            }
            Err(error) if tries >= shared.settings.connection.attempts.get() => {
                shared.unreachable.store(true, Ordering::Relaxed);
                return Err(error);
            }
            Err(error) => tracing::debug!(%error, upstream = shared.name, "connect failed"),
        }
        time::sleep(pause).await;
        pause *= 2;
        tries += 1;
    }
}

/// No connection: the best job that was there before the first try ends.
fn refuse(core: &Arc<Core>, began: Instant, error: &ConnectError) {
    let Some(call) = core.shared.gate.take_without_turn(&core.shared, began) else {
        return;
    };
    let causes: Vec<String> = successors(error.source(), |&cause| cause.source())
        .map(ToString::to_string)
        .collect();
    tracing::warn!(
        upstream = core.shared.name,
        %error,
        cause = causes.join(": "),
        "no connection to the upstream"
    );
    let (_, account, reply) = call.open();
    let outcome = account.end(Outcome::ConnectFailed);
    let _ = reply.send(Box::new(Err(outcome)));
}

impl Shared {
    /// Whether a job waits that no worker stands ready for, and whose turn can
    /// come while a worker gets ready.
    fn lacks_worker(&self) -> bool {
        let waiting = self.waiting();
        let standing = self.standing.load(Ordering::SeqCst);
        if standing == 0 || waiting <= standing {
            return waiting > standing;
        }
        // While the upstream cannot be reached, one worker tries for all.
        if self.unreachable.load(Ordering::Relaxed) {
            return false;
        }
        let lead = self.lead();
        self.limits().starts_within(Instant::now(), lead) > standing as u64
    }

    /// A connection was opened, and it took `time`.
    fn connected(&self, time: Duration) {
        self.unreachable.store(false, Ordering::Relaxed);
        let lead = (time * 2).clamp(Duration::from_millis(5), Duration::from_secs(5));
        self.lead_micros
            .store(lead.as_micros() as usize, Ordering::Relaxed);
    }
}

impl Slot {
    /// A slot, if one is free.
    pub(super) fn try_take(shared: &Arc<Shared>) -> Option<Self> {
        let max = shared.settings.max_in_flight.get();
        let free = |taken| (taken < max).then_some(taken + 1);
        let taken = &shared.in_flight;
        taken
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, free)
            .ok()?;
        Some(Self(Arc::clone(shared)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Standing {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.standing.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(shared))
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.0.standing.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Lease {
    pub(super) fn new(core: &Arc<Core>, connection: Connection, slot: Slot) -> Self {
        Self {
            core: Arc::clone(core),
            connection: Some(connection),
            slot: Some(slot),
        }
    }

    /// Sends `request` on the connection, see [`Connection::send`].
    pub(super) fn send(
        &mut self,
        request: Request<Upload>,
        origin: &Origin,
    ) -> impl Future<Output = Result<Response<Incoming>, Box<SendError>>> + Send + use<> {
        let connection = self.connection.as_mut();
        let connection = connection.expect("a lease has its connection until it is finished");
        connection.send(request, origin)
    }

    /// Whether the connection can still be expected to work at `now`.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        let connection = self.connection.as_ref();
        connection.is_some_and(|connection| self.core.pool.is_fresh(connection, now))
    }

    /// Whether the connection has carried a request, so that the upstream may be
    /// closing it this instant.
    pub(super) fn may_be_closing(&self) -> bool {
        let connection = self.connection.as_ref();
        connection.is_some_and(Connection::was_used)
    }

    /// The call is over and the connection can be used again.
    pub(super) fn finish(mut self) {
        if let Some(connection) = self.connection.take() {
            self.core.pool.put(connection, Instant::now());
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        // First the slot, then the look: a job that found no slot has counted
        // itself before, so one of the two sees the other.
        drop(slot);
        if self.core.shared.waiting() > 0 {
            hire(&self.core);
        }
    }
}
