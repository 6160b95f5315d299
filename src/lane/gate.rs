//! The gate: where a waiting job and a ready connection meet their turn.
//!
//! One worker at a time holds it; the others wait for it in the order in which
//! they came. Only its holder takes jobs out of the lines and asks the limits,
//! so the order of jobs is by construction and nobody races for turns. The
//! holder asks in this order: is there a live job, is my connection ready, do
//! all limits allow a start; and takes the best job last, so that a caller who
//! left meanwhile costs nothing. A job whose own keys must wait is passed over,
//! once it has waited for long only by who leaves it enough of them; one that all
//! must wait for is not, however much it costs. The holder sleeps on its own core's
//! alarm and sends from its own thread; the bell wakes it when something may now go
//! sooner than the limits said.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{self, MutexGuard, Notify, mpsc};
use tokio::time::Instant;

use super::job::{Call, Job};
use super::lease::Lease;
use super::lines::Lines;
use super::turn::Taken;
use super::worker;
use super::{Core, Shared};
use crate::metrics::Holder;

/// Empty shells in the backlog that are not worth a sweep.
const SHELLS: usize = 64;

/// The gate of one lane.
#[derive(Debug)]
pub(super) struct Gate {
    backlog: sync::Mutex<Backlog>,
    /// Before any request arrived.
    began: Instant,
    /// Jobs whose first turn came to nothing; they go before all others, in the
    /// order in which they arrived. Held for a push or a take.
    put_back: Mutex<Vec<Job>>,
    /// Wakes the holder.
    bell: Notify,
    /// Whether jobs whose keys must wait are to be asked for again.
    recheck: AtomicBool,
}

/// The jobs that wait, in order.
#[derive(Debug)]
struct Backlog {
    intake: mpsc::Receiver<Job>,
    lines: Lines<Job>,
    last_start: Instant,
}

/// What a worker finds at the gate.
#[derive(Debug)]
pub(super) enum Pass {
    /// A job and its turn: send now.
    Turn(Job, Box<Call>, Taken),
    /// Nobody waits, or nothing may start any more.
    Nobody,
    /// The connection is no longer good; come back with another.
    Stale,
}

impl Gate {
    pub(super) fn new(intake: mpsc::Receiver<Job>, now: Instant) -> Self {
        Self {
            backlog: sync::Mutex::new(Backlog {
                intake,
                lines: Lines::default(),
                last_start: now,
            }),
            began: now,
            put_back: Mutex::default(),
            bell: Notify::new(),
            recheck: AtomicBool::new(false),
        }
    }

    /// Puts a job before all others.
    pub(super) fn put_back(&self, job: Job) {
        let mut jobs = self.put_back.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.push(job);
        drop(jobs);
        self.ring(false);
    }

    /// Something may now start sooner than the limits said; with `recheck` also
    /// what had to wait for its own keys.
    pub(super) fn ring(&self, recheck: bool) {
        if recheck {
            self.recheck.store(true, Ordering::SeqCst);
        }
        self.bell.notify_one();
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
    pub(super) async fn pass(&self, core: &Arc<Core>, lease: &mut Lease, began: Instant) -> Pass {
        let mut backlog = self.backlog.lock().await;
        let arrived = Instant::now();
        loop {
            self.gather(&mut backlog, &core.shared);
            if core.shared.is_cut() {
                return Pass::Nobody;
            }
            let now = Instant::now();
            if !lease.is_fresh(now) {
                return Pass::Stale;
            }
            let next = backlog.start(core, [began, arrived, now]);
            // Shells do not count: there may be many, in parked lines as in others.
            let (held, all) = (backlog.lines.held(), backlog.lines.len());
            let live = core.shared.waiting().min(all);
            let held = held * live / all.max(1);
            core.shared.held.store(held, Ordering::SeqCst);
            match next {
                Ok(pass) => return pass,
                Err(until) => self.sleep(core, until, now).await,
            }
        }
    }

    /// A turn for the best job, if one may start this instant: what
    /// [`Gate::pass`] does for a worker with a fresh connection.
    #[cfg(feature = "bench")]
    pub(super) fn try_turn(&self, core: &Arc<Core>) -> Option<Pass> {
        let mut backlog = self.backlog.try_lock().ok()?;
        self.gather(&mut backlog, &core.shared);
        backlog.start(core, [Instant::now(); 3]).ok()
    }

    /// Takes all jobs that are `due`, without a turn, for want of a connection. `None`
    /// while a worker with one is here.
    pub(super) fn take_without_turn(
        &self,
        core: &Core,
        due: impl Fn(&Call) -> bool,
    ) -> Option<Vec<Call>> {
        let mut backlog: MutexGuard<'_, Backlog> = self.backlog.try_lock().ok()?;
        self.gather(&mut backlog, &core.shared);
        let mut taken = Vec::new();
        let mut kept = Lines::default();
        backlog.ask_anew(&core.shared);
        while let Some(job) = backlog.lines.take_best() {
            match job.take_if(&due) {
                Some(call) => taken.push(call),
                None => kept.push_back(job.charge().line(), job),
            }
        }
        backlog.lines = kept;
        if let Some(first) = taken.iter().map(|call| call.account.arrived()).min() {
            let now = Instant::now();
            let time = now - backlog.last_start.max(first);
            core.cells.held(Holder::Connection, time);
            backlog.last_start = now;
        }
        Some(taken)
    }

    /// Sleeps until `until`, or so much before it that a connection which has
    /// gone bad meanwhile can be replaced, and other workers get ready for the
    /// turns that come together.
    async fn sleep(&self, core: &Arc<Core>, until: Instant, now: Instant) {
        let lead = core.shared.lead();
        let early = until.checked_sub(lead).filter(|early| *early > now + lead);
        tokio::select! {
            biased;
            () = self.bell.notified() => return,
            () = core.alarm.sleep_until(early.unwrap_or(until)) => {}
        }
        if early.is_some() {
            worker::hire(core);
        }
    }

    /// Brings what has come in since into the order, and drops shells.
    fn gather(&self, backlog: &mut Backlog, shared: &Shared) {
        while let Ok(job) = backlog.intake.try_recv() {
            backlog.lines.push_back(job.charge().line(), job);
        }
        let mut put_back = self.put_back.lock().unwrap_or_else(PoisonError::into_inner);
        for job in put_back.drain(..) {
            if let Some(arrived) = job.arrived() {
                let arrived = arrived.saturating_duration_since(self.began);
                backlog.lines.put_back(job.charge().line(), arrived, job);
            }
        }
        drop(put_back);
        if self.recheck.swap(false, Ordering::SeqCst) {
            backlog.ask_anew(shared);
        }
        if backlog.lines.len() > 2 * shared.waiting() + SHELLS {
            backlog.lines.retain(Job::is_live);
            shared.limits().ask_anew();
        }
    }
}

impl Backlog {
    /// Lets all lines go on.
    fn ask_anew(&mut self, shared: &Shared) {
        self.lines.unpark_all();
        shared.limits().ask_anew();
    }

    /// Takes a turn and the best job, at the last of `times`; the worker began
    /// to get ready at the first and was at the gate at the second.
    ///
    /// # Errors
    ///
    /// The time before which no turn can come.
    fn start(&mut self, core: &Core, [began, arrived, now]: [Instant; 3]) -> Result<Pass, Instant> {
        self.lines.unpark(now);
        let mut limits = core.shared.limits();
        loop {
            let Some((rank, job)) = self.lines.best() else {
                return match self.lines.next_unpark() {
                    Some(until) => Err(until),
                    None => Ok(Pass::Nobody),
                };
            };
            let Some(since) = job.ask(now) else {
                self.lines.take_best();
                continue;
            };
            match limits.ready_in_order(job.charge(), rank, since, now) {
                Err(hold) if hold.keyed => self.lines.park_best(hold.until),
                Err(hold) => return Err(hold.until),
                Ok(()) => {
                    let Some(job) = self.lines.take_best() else {
                        continue;
                    };
                    let Some(mut call) = job.take().map(Box::new) else {
                        continue;
                    };
                    let since = self.last_start.max(call.account.arrived());
                    let turn = limits.start(job.charge().clone(), now, since);
                    let cooled = limits.cooled().unwrap_or(arrived);
                    drop(limits);
                    call.account.start(now);
                    held(
                        core,
                        [since, began, arrived, cooled.clamp(arrived, now), now],
                    );
                    self.last_start = now;
                    return Ok(Pass::Turn(job, call, Taken::new(&core.shared, turn)));
                }
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
