//! Workers: one task for one call at a time.
//!
//! A worker gets a connection ready, waits at the gate for its turn, sends, and
//! hands the response head over; the response body then carries the connection
//! and the slot on. Workers never pace. They are hired when jobs wait that
//! nobody stands ready for, by whoever notices: the caller that queues a job,
//! the worker that leaves the gate, the response that frees a slot. There are
//! never more calls and workers than `max_in_flight`.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{self, Instant};

use super::exchange::{self, Broken};
use super::gate::Pass;
use super::job::{Call, Job};
use super::lease::{Lease, Slot};
use super::link::Link;
use super::turn::Taken;
use super::{Core, Shared};
use crate::outcome::Outcome;
use crate::telemetry;
use crate::timer::{Timer, woken_by};
use crate::upstream::{ConnectError, Connection};

/// The pause before the second try to connect; it doubles with each further.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between two rounds of tries while the upstream cannot be
/// reached.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long a connection may take to get ready after its last body has ended;
/// its driver only has to run once.
const LONGEST_REST: Duration = Duration::from_millis(50);

/// Counts a worker among those that get ready for a turn.
#[derive(Debug)]
struct Standing(Arc<Shared>);

/// Hires as many workers on this core as the waiting jobs can use soon.
pub(super) fn hire(core: &Arc<Core>) {
    while core.shared.lacks_worker() {
        let Some(slot) = Slot::try_take(&core.shared) else {
            return;
        };
        let standing = Standing::new(&core.shared);
        let worker = core.runtime.spawn(run(Arc::clone(core), slot, standing));
        if worker.is_finished() {
            // The core has ended.
            return;
        }
    }
}

/// One worker's life: it ends when nobody waits.
async fn run(core: Arc<Core>, mut slot: Slot, standing: Standing) {
    let mut timer = Timer::default();
    let mut cut = pin!(core.shared.cut());
    woken_by(cut.as_mut()).await;
    let mut pause = FIRST_PAUSE;
    // Since when it has been getting ready, in several tries perhaps.
    let mut since = Instant::now();
    loop {
        let began = Instant::now();
        let link = core.link.load_full();
        let connection = match connection(&core, &link, began).await {
            Ok(connection) => connection,
            Err(error) => match outage(&core, began, pause, &error) {
                Some(wait) => {
                    let Ok(connection) = time::timeout(wait, returned(&link)).await else {
                        pause = (pause * 2).min(LONGEST_PAUSE);
                        continue;
                    };
                    connection
                }
                None => {
                    // Before the look for jobs that could not have it.
                    drop(slot);
                    break;
                }
            },
        };
        core.shared.has_connection();
        let mut lease = Lease::new(&core, link, connection, slot);
        match core.shared.gate.pass(&core, &mut lease, since).await {
            Pass::Turn(job, call, turn) => {
                drop(standing);
                hire(&core);
                serve(&core, lease, job, *call, (turn, &mut timer)).await;
                return;
            }
            Pass::Nobody => {
                lease.finish();
                break;
            }
            Pass::Stale => {
                slot = lease.close();
                since = Instant::now();
            }
        }
    }
    // In this order: a job that came while this worker still stood here was
    // not given another, so look again.
    drop(standing);
    hire(&core);
}

/// Makes the call and answers the caller.
async fn serve(
    core: &Arc<Core>,
    lease: Lease,
    job: Job,
    call: Call,
    (turn, timer): (Taken, &mut Timer),
) {
    let (request, account, mut reply) = call.open();
    let answered = tokio::select! {
        answered = exchange::run(core, lease, turn, (request, account), timer) => answered,
        // The caller has gone: dropping the exchange tells the upstream.
        () = reply.closed() => return,
    };
    let answer = match answered {
        Ok(response) => Ok(response),
        Err(Broken::Ended(outcome)) => Err(outcome),
        Err(Broken::Again(again)) => {
            job.put_back(&core.shared, *again, reply);
            return hire(core);
        }
    };
    // A caller that has gone drops the response, whose account settles it.
    let _ = reply.send(Box::new(answer));
}

/// A connection: a ready one of this core, or a new one, unless that takes longer than
/// usual and one comes back meanwhile.
async fn connection(
    core: &Arc<Core>,
    link: &Arc<Link>,
    began: Instant,
) -> Result<Connection, ConnectError> {
    if let Some(connection) = unused(link, began).await {
        return Ok(connection);
    }
    let late = async {
        time::sleep(core.shared.lead()).await;
        returned(link).await
    };
    let mut opening = Box::pin(another(Arc::clone(core), Arc::clone(link)));
    tokio::select! {
        biased;
        opened = &mut opening => opened,
        connection = late => {
            leave(core, link, opening);
            Ok(connection)
        }
    }
}

/// Lets one connection of each core be opened with nobody left to wait for it, so that
/// there are more at last, however long that takes.
fn leave(
    core: &Core,
    link: &Arc<Link>,
    opening: impl Future<Output = Result<Connection, ConnectError>> + Send + 'static,
) {
    if link.left.swap(true, Ordering::Relaxed) {
        return;
    }
    let link = Arc::clone(link);
    core.runtime.spawn(async move {
        if let Ok(connection) = opening.await {
            link.pool.put(connection, Instant::now());
        }
        link.left.store(false, Ordering::Relaxed);
    });
}

/// A connection of this core that is ready, or will be in a moment.
async fn unused(link: &Link, now: Instant) -> Option<Connection> {
    if let Some(connection) = link.pool.take(now) {
        return Some(connection);
    }
    while let Some(mut connection) = link.pool.take_resting() {
        if let Ok(true) = time::timeout(LONGEST_REST, connection.ready()).await {
            return Some(connection);
        }
    }
    None
}

/// The next connection that comes back.
async fn returned(link: &Link) -> Connection {
    loop {
        if let Some(connection) = unused(link, Instant::now()).await {
            return connection;
        }
        link.pool.returned().await;
    }
}

/// A new connection, or what is left of one that another has opened meanwhile.
async fn another(core: Arc<Core>, link: Arc<Link>) -> Result<Connection, ConnectError> {
    // Where one connection carries many calls, one at a time is opened, and
    // those who had to wait for it look first whether it has room for them.
    let mut dialing = None;
    if link.may_share() {
        let turn = link.dialing.lock().await;
        if let Some(connection) = link.pool.take(Instant::now()) {
            return Ok(connection);
        }
        dialing = Some(turn).filter(|_| link.may_share());
    }
    let connection = open(&core, &link).await?;
    drop(dialing);
    Ok(connection)
}

/// Opens a connection, in several tries.
async fn open(core: &Core, link: &Link) -> Result<Connection, ConnectError> {
    let shared = &core.shared;
    let mut pause = FIRST_PAUSE;
    let mut tries = 1;
    loop {
        let from = Instant::now();
        match link.dialer.connect().await {
            Ok(opened) => {
                let connection = link.opened(core, opened);
                shared.connected(from.elapsed());
                return Ok(connection);
            }
            Err(error) if tries >= shared.settings().connection.attempts.get() => {
                shared.lost_touch();
                return Err(error);
            }
            Err(error) => tracing::debug!(%error, upstream = shared.name, "connect failed"),
        }
        time::sleep(pause).await;
        pause *= 2;
        tries += 1;
    }
}

/// No connection, although this worker tries since `began`. Those who have been
/// held long enough end; for the others this worker goes on trying after the
/// time that is returned, unless another does.
fn outage(
    core: &Arc<Core>,
    began: Instant,
    pause: Duration,
    error: &ConnectError,
) -> Option<Duration> {
    let shared = &core.shared;
    let hold = shared.settings().retry.hold;
    let since = *shared.outage().get_or_insert(began);
    let now = Instant::now();
    // Who came after this try is not ended without one of its own.
    let due = |call: &Call| {
        let arrived = call.account.arrived();
        arrived < began && arrived.max(since) + hold <= now
    };
    let ended = shared.gate.take_without_turn(core, due)?;
    if !ended.is_empty() || began == since {
        tracing::warn!(
            upstream = shared.name,
            address = shared.settings().url.address(),
            error = telemetry::say(error),
            waiting = shared.waiting(),
            hold = ?hold,
            "no connection to the upstream: requests are held as long as `retry.hold` says"
        );
    }
    for call in ended {
        let (_, account, reply) = call.open();
        let outcome = account.end(Outcome::ConnectFailed);
        let _ = reply.send(Box::new(Err(outcome)));
    }
    let others = shared.standing.load(Ordering::SeqCst) > 1;
    let left = (since + hold).saturating_duration_since(now);
    let pause = if left.is_zero() {
        pause
    } else {
        pause.min(left)
    };
    (!others && shared.waiting() > 0).then_some(pause)
}

impl Shared {
    /// Whether a job waits that no worker stands ready for, and whose turn can
    /// come while a worker gets ready.
    fn lacks_worker(&self) -> bool {
        let waiting = self.waiting();
        let standing = self.standing.load(Ordering::SeqCst);
        if self.is_cut() {
            return false;
        }
        if standing == 0 || waiting <= standing {
            return waiting > standing;
        }
        // Those whose own keys must wait need one that wakes them, no more.
        if waiting.saturating_sub(self.held.load(Ordering::SeqCst)) <= standing {
            return false;
        }
        // While the upstream cannot be reached, one worker tries for all.
        if self.unreachable.load(Ordering::Relaxed) {
            return false;
        }
        let lead = self.lead();
        self.limits().starts_within(Instant::now(), lead) > standing as u64
    }

    /// No connection could be opened.
    fn lost_touch(&self) {
        self.unreachable.store(true, Ordering::Relaxed);
    }

    /// A connection was had, which need not be a new one.
    fn has_connection(&self) {
        if self.unreachable.load(Ordering::Relaxed) {
            self.outage().take();
        }
    }

    pub(super) fn outage(&self) -> MutexGuard<'_, Option<Instant>> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection was opened, and it took `time`.
    pub(super) fn connected(&self, time: Duration) {
        // Both: another core may be between the two.
        let outage = self.outage().take();
        if self.unreachable.swap(false, Ordering::Relaxed) || outage.is_some() {
            tracing::info!(upstream = self.name, "the upstream can be reached again");
        }
        let lead = (time * 2).clamp(Duration::from_millis(5), Duration::from_secs(5));
        self.lead_micros
            .store(lead.as_micros() as usize, Ordering::Relaxed);
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
