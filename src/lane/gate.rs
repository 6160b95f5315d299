//! The gate: where a waiting job and a ready connection meet their turn.
//!
//! One worker at a time holds it; the others wait for it in the order in which
//! they came. Only its holder takes jobs out of the line and asks the limits,
//! so the order of jobs is by construction and nobody races for turns. The
//! holder asks in this order: is there a live job, is my connection ready, do
//! all limits allow a start; and takes the best job last, so that a caller who
//! left meanwhile costs nothing. It sleeps on its own core's alarm and sends
//! from its own thread.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{self, MutexGuard, mpsc};
use tokio::time::Instant;

use super::job::{Call, Job};
use super::lease::Lease;
use super::worker;
use super::{Core, Shared};
use crate::metrics::Holder;
use crate::pacing::Turn;

/// Empty shells in the backlog that are not worth a sweep.
const SHELLS: usize = 64;

/// The gate of one lane.
#[derive(Debug)]
pub(super) struct Gate {
    backlog: sync::Mutex<Backlog>,
    /// Jobs whose first turn came to nothing; they go before all others. Held
    /// for a push or a take.
    put_back: Mutex<Vec<Job>>,
}

/// The jobs that wait, in order.
#[derive(Debug)]
struct Backlog {
    intake: mpsc::Receiver<Job>,
    order: VecDeque<Job>,
    last_start: Instant,
}

/// What a worker finds at the gate.
#[derive(Debug)]
pub(super) enum Pass {
    /// A job and its turn: send now.
    Turn(Job, Box<Call>, Turn),
    /// Nobody waits.
    Nobody,
    /// The connection is no longer good; come back with another.
    Stale,
}

impl Gate {
    pub(super) fn new(intake: mpsc::Receiver<Job>, now: Instant) -> Self {
        Self {
            backlog: sync::Mutex::new(Backlog {
                intake,
                order: VecDeque::new(),
                last_start: now,
            }),
            put_back: Mutex::default(),
        }
    }

    /// Puts a job before all others.
    pub(super) fn put_back(&self, job: Job) {
        let mut jobs = self.put_back.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.push(job);
    }

    /// Holds the gate for an instant, if no worker does.
    pub(super) fn try_pass(&self) -> Option<impl Drop + '_> {
        self.backlog.try_lock().ok()
    }

    /// Brings what is in the channel into the order, as soon as no worker holds
    /// the gate, and drops shells.
    pub(super) async fn tidy(&self, shared: &Shared) {
        let mut backlog = self.backlog.lock().await;
        self.gather(&mut backlog, shared);
    }

    /// Waits for the turn of the worker that holds `lease` and began to get
    /// ready at `began`.
    pub(super) async fn pass(&self, core: &Arc<Core>, lease: &Lease, began: Instant) -> Pass {
        let mut backlog = self.backlog.lock().await;
        let arrived = Instant::now();
        loop {
            self.gather(&mut backlog, &core.shared);
            if backlog.order.is_empty() {
                return Pass::Nobody;
            }
            let now = Instant::now();
            if !lease.is_fresh(now) {
                return Pass::Stale;
            }
            match backlog.start(core, [began, arrived, now]) {
                Ok(pass) => return pass,
                Err(until) => self.sleep(core, until, now).await,
            }
        }
    }

    /// Takes the best job of those that arrived before `since`, without a turn.
    /// `None` if there is none, or while a worker with a connection is here.
    pub(super) fn take_without_turn(&self, shared: &Shared, since: Instant) -> Option<Call> {
        let mut backlog: MutexGuard<'_, Backlog> = self.backlog.try_lock().ok()?;
        self.gather(&mut backlog, shared);
        let job = backlog.order.pop_front()?;
        let call = job.take_if(|call| call.account.arrived() < since);
        if call.is_none() {
            // For a later one a connection is still to be tried.
            backlog.order.push_front(job);
        }
        call
    }

    /// Sleeps until `until`, or so much before it that a connection which has
    /// gone bad meanwhile can be replaced, and other workers get ready for the
    /// turns that come together.
    async fn sleep(&self, core: &Arc<Core>, until: Instant, now: Instant) {
        let lead = core.shared.lead();
        let early = until.checked_sub(lead).filter(|early| *early > now + lead);
        core.alarm.sleep_until(early.unwrap_or(until)).await;
        if early.is_some() {
            worker::hire(core);
        }
    }

    /// Brings what has come in since into the order, and drops shells.
    fn gather(&self, backlog: &mut Backlog, shared: &Shared) {
        while let Ok(job) = backlog.intake.try_recv() {
            backlog.order.push_back(job);
        }
        let mut put_back = self.put_back.lock().unwrap_or_else(PoisonError::into_inner);
        for job in put_back.drain(..) {
            backlog.order.push_front(job);
        }
        drop(put_back);
        while backlog.order.front().is_some_and(|job| !job.is_live()) {
            backlog.order.pop_front();
        }
        if backlog.order.len() > 2 * shared.waiting() + SHELLS {
            backlog.order.retain(Job::is_live);
        }
    }
}

impl Backlog {
    /// Takes a turn and the best job, at the last of `times`; the worker began
    /// to get ready at the first and was at the gate at the second.
    ///
    /// # Errors
    ///
    /// The time before which no turn can come.
    fn start(&mut self, core: &Core, [began, arrived, now]: [Instant; 3]) -> Result<Pass, Instant> {
        let mut limits = core.shared.limits();
        limits.ready(now)?;
        let Some((job, mut call)) = self.take() else {
            return Ok(Pass::Nobody);
        };
        let since = self.last_start.max(call.account.arrived());
        let turn = limits.start(now, since);
        let cooled = limits.cooled().unwrap_or(arrived);
        drop(limits);
        call.account.start(now);
        held(
            core,
            [since, began, arrived, cooled.clamp(arrived, now), now],
        );
        self.last_start = now;
        Ok(Pass::Turn(job, call, turn))
    }

    /// The best job whose caller is still there.
    fn take(&mut self) -> Option<(Job, Box<Call>)> {
        loop {
            let job = self.order.pop_front()?;
            if let Some(call) = job.take() {
                return Some((job, Box::new(call)));
            }
        }
    }
}

/// Books what the head of the queue waited for. It could have gone at the first
/// of these times; at the second its worker began to get ready, at the third it
/// was at the gate, until the fourth there was a cooldown, at the fifth it went.
fn held(core: &Core, [since, began, arrived, cooled, went]: [Instant; 5]) {
    let span = |from: Instant, to: Instant| to.saturating_duration_since(from.max(since));
    let book = |by, time: Duration| {
        if !time.is_zero() {
            core.cells.held(by, time);
        }
    };
    book(Holder::Workers, span(since, began));
    book(Holder::Connection, span(began, arrived));
    book(Holder::Cooldown, span(arrived, cooled));
    book(Holder::Limit, span(cooled, went));
}
