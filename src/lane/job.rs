//! A request that waits, seen from its two sides.
//!
//! The line holds a [`Job`], the caller's task a [`Ticket`]; between them lies
//! the [`Call`], which one of the two takes, and only once: the worker at its
//! turn, or the ticket when the caller goes away or its time is over. So the
//! request's memory, its place and its bytes come back at once, no turn is spent
//! on a caller that has gone, and what is left in the line is an empty shell.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::account::Account;
use super::queue::Place;
use super::{Reply, Shared};
use crate::outcome::{Break, Outcome};
use crate::pacing::Charge;
use crate::upstream::Outgoing;

/// Where the worker answers. Boxed, so that those who wait do not carry the room
/// for a response about.
pub(super) type Answer = oneshot::Sender<Box<Reply>>;

/// Everything the worker needs.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) request: Outgoing,
    pub(super) account: Account,
    reply: Answer,
    _place: Option<Place>,
    #[allow(dead_code, reason = "a guard: it counts until it is dropped")]
    in_line: Option<InLine>,
}

/// The line's side of a waiting request.
#[derive(Debug, Clone)]
pub(super) struct Job(Arc<Shell>);

/// What is left of a job when its call was taken.
#[derive(Debug)]
struct Shell {
    charge: Charge,
    cell: Mutex<Cell>,
}

/// Held for a take or a put.
#[derive(Debug)]
struct Cell {
    call: Option<Call>,
    /// When the limits were first asked for it: others may be held up behind it.
    asked: Option<Instant>,
    /// How the caller's wait ended while the call was with a worker: nobody
    /// would end the call any more if it were put back.
    over: Option<Outcome>,
}

/// The caller's side. Dropping it takes the request out of the line.
#[derive(Debug)]
pub(super) struct Ticket {
    job: Job,
    reply: oneshot::Receiver<Box<Reply>>,
}

/// Counts a call among those that wait.
#[derive(Debug)]
struct InLine {
    shared: Arc<Shared>,
    cost: u64,
}

impl Call {
    /// What is left to do with a call that was taken out of the line: the
    /// request, its account and where to answer.
    pub(super) fn open(self) -> (Outgoing, Account, Answer) {
        (self.request, self.account, self.reply)
    }
}

/// A job for the line and a ticket for the caller's task. The call holds
/// `place` until it is taken.
pub(super) fn pair(request: Outgoing, account: Account, place: Option<Place>) -> (Job, Ticket) {
    let (sender, reply) = oneshot::channel();
    let charge = account.charge().clone();
    let job = Job(Arc::new(Shell {
        charge,
        cell: Mutex::new(Cell {
            call: Some(Call {
                request,
                account,
                reply: sender,
                _place: place,
                in_line: None,
            }),
            asked: None,
            over: None,
        }),
    }));
    (job.clone(), Ticket { job, reply })
}

impl Job {
    /// Takes the call; `None` if the caller has gone.
    pub(super) fn take(&self) -> Option<Call> {
        let mut call = self.cell().call.take()?;
        // Now, not when it is opened: who looks meanwhile would hire a worker
        // for it once more.
        call.in_line = None;
        Some(call)
    }

    /// Takes the call if the caller is still there and it is `wanted`.
    pub(super) fn take_if(&self, wanted: impl FnOnce(&Call) -> bool) -> Option<Call> {
        self.cell().call.take_if(|call| wanted(call))
    }

    /// Back to the head of the line: another turn is needed. If the caller's time
    /// is over meanwhile, the call ends as that says.
    pub(super) fn put_back(
        self,
        shared: &Arc<Shared>,
        (request, account): (Outgoing, Account),
        reply: Answer,
    ) {
        let mut cell = self.cell();
        if let Some(outcome) = cell.over {
            drop(cell);
            let _ = reply.send(Box::new(Err(account.end(outcome))));
            return;
        }
        let call = cell.call.insert(Call {
            request,
            account,
            reply,
            _place: None,
            in_line: Some(InLine::new(shared, &self.0.charge)),
        });
        // The ticket closes its end before it looks for the call, so either it
        // finds the call here or we see that it has gone.
        if call.reply.is_closed() {
            let call = cell.call.take();
            drop(cell);
            drop(call);
            return;
        }
        drop(cell);
        shared.gate.put_back(self);
    }

    /// When its request arrived; `None` if the caller has gone.
    pub(super) fn arrived(&self) -> Option<Instant> {
        let cell = self.cell();
        cell.call.as_ref().map(|call| call.account.arrived())
    }

    /// What its turn costs.
    pub(super) fn charge(&self) -> &Charge {
        &self.0.charge
    }

    /// The limits are asked for it at `now`, if it is live. Returns when they first were.
    pub(super) fn ask(&self, now: Instant) -> Option<Instant> {
        let mut cell = self.cell();
        cell.call.is_some().then(|| *cell.asked.get_or_insert(now))
    }

    /// Whether the caller is still there and the call was not taken.
    pub(super) fn is_live(&self) -> bool {
        self.cell().call.is_some()
    }

    fn cell(&self) -> MutexGuard<'_, Cell> {
        self.0.cell.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Counts the call among those that wait, from now until it is taken.
    pub(super) fn stand_in_line(&self, shared: &Arc<Shared>) {
        if let Some(call) = &mut self.job.cell().call {
            call.in_line = Some(InLine::new(shared, &self.job.0.charge));
        }
    }

    /// The worker's answer.
    pub(super) fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Reply> {
        // Without an answer the worker was lost, which its account has counted.
        let answered = ready!(Pin::new(&mut self.reply).poll(cx));
        Poll::Ready(match answered {
            Ok(reply) => *reply,
            Err(_) => Err(Outcome::UpstreamFailed(Break::Unanswered)),
        })
    }

    /// Takes the call back and ends it as `outcome`; false if its turn has come. Then
    /// it gets no other.
    pub(super) fn end(&self, outcome: Outcome) -> bool {
        self.leave(Some(outcome))
    }

    /// Takes the call back and ends it as `outcome`, or since the caller went away.
    fn leave(&self, outcome: Option<Outcome>) -> bool {
        // Outside the lock: what a call holds may take others when it goes.
        let (call, asked) = {
            let mut cell = self.job.cell();
            cell.over = outcome.or(cell.over);
            (cell.call.take(), cell.asked.is_some())
        };
        let Some(mut call) = call else {
            return false;
        };
        call.in_line = None;
        call.account.leave(outcome, asked);
        true
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.reply.close();
        self.leave(None);
    }
}

impl InLine {
    fn new(shared: &Arc<Shared>, charge: &Charge) -> Self {
        let cost = u64::from(charge.cost.get());
        shared.waiting.fetch_add(1, Ordering::SeqCst);
        shared.waiting_cost.fetch_add(cost, Ordering::Relaxed);
        Self {
            shared: Arc::clone(shared),
            cost,
        }
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        self.shared.waiting.fetch_sub(1, Ordering::SeqCst);
        self.shared
            .waiting_cost
            .fetch_sub(self.cost, Ordering::Relaxed);
    }
}
