//! One request's way through the lane, on the caller's side.
//!
//! Runs in the task of the caller's connection, over HTTP/2 in one of its own.
//! Wherever it is dropped because the caller hangs up, the request's account, place
//! and ticket go with it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use ::http::{Request, Response, request};
use hyper::body::{Body, Incoming};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::account::Account;
use super::exchange::{self, Broken};
use super::job::{self, Job, Ticket};
use super::lease::{Lease, Slot};
use super::passage::Passage;
use super::queue::Place;
use super::turn::Taken;
use super::worker;
use super::{Core, Dress, Lane, Reply, Shared};
use crate::http::body::Upload;
use crate::http::interim::Asker;
use crate::http::plain::request::Plain;
use crate::outcome::Outcome;
use crate::pacing::Charge;
use crate::timer::{Timer, woken_by};
use crate::upstream::Outgoing;

/// A call that is being made; with the timer, when it is over.
type Sending<'a> = Pin<Box<dyn Future<Output = (Sent, &'a mut Timer)> + Send + 'a>>;
type Sent = Result<Response<Passage>, Broken>;

/// Where a request is. Each is small: what is big is in a box, so that a caller
/// who waits does not keep room for what it does not need any more.
enum Step<'a> {
    /// Its body is to be read; then it begins.
    Read(Box<(request::Parts, Incoming, Account)>, &'a mut Timer),
    /// It needs a place; then it stands in line.
    Place(Box<(Outgoing, Account)>, usize, &'a mut Timer),
    /// It has a place; then it stands in line.
    Line(Job, Ticket, Instant, &'a mut Timer),
    /// It is in line: a worker answers, or its time is over.
    Wait(Ticket, Instant, &'a mut Timer),
    /// Its turn was taken here; it ends, or waits for another turn.
    Sent(Sending<'a>),
    /// It has ended.
    End(Outcome),
}

impl Lane {
    /// Takes charge of a request, written by `dress`, until its response head is
    /// there. `note` names the request in the log; `None` where it is not logged.
    /// Interim answers go to `asker`.
    pub(crate) fn call<'a>(
        &'a self,
        (head, body): (request::Parts, Incoming),
        dress: Arc<Dress>,
        charge: Charge,
        note: Option<String>,
        asker: Option<Asker>,
    ) -> impl Future<Output = Reply> + Send + 'a {
        let account = Account::new(&self.0, charge, note, dress).of(asker);
        let request = match body.is_end_stream() {
            true => Ok((parsed(head, Upload::default()), account)),
            false => Err(Box::new((head, body, account))),
        };
        async move {
            let mut timer = Timer::default();
            let mut cut = Box::pin(self.0.shared.cut());
            woken_by(cut.as_mut()).await;
            let step = match request {
                Ok((request, account)) => self.begin(request, account, None, &mut timer),
                Err(request) => Step::Read(request, &mut timer),
            };
            self.go_on(step).await
        }
    }

    /// Takes charge of a request of the plain kind, see [`Lane::call`]. `timer` is
    /// the calling task's own, which is woken when the drain time is over.
    pub(crate) fn call_plain<'a>(
        &'a self,
        request: Plain,
        dress: Arc<Dress>,
        note: Option<String>,
        timer: &'a mut Timer,
        asker: Option<Asker>,
    ) -> impl Future<Output = Reply> + Send + 'a {
        let account = Account::new(&self.0, Charge::ONE, note, dress).of(asker);
        self.go_on(self.begin(Outgoing::Plain(request), account, None, timer))
    }

    /// Counts a request that the lane does not take charge of.
    pub(crate) fn refuse(&self, charge: Charge, outcome: Outcome, note: Option<String>) -> Outcome {
        Account::new(&self.0, charge, note, self.dress()).end(outcome)
    }

    async fn go_on<'a>(&'a self, mut step: Step<'a>) -> Reply {
        loop {
            step = match step {
                Step::Read(request, timer) => Box::pin(self.read(*request, timer)).await,
                Step::Place(request, bytes, timer) => {
                    Box::pin(self.wait_for_place(*request, bytes, timer)).await
                }
                Step::Line(job, ticket, deadline, timer) => match self.line_up(job, &ticket) {
                    Ok(()) => Step::Wait(ticket, deadline, timer),
                    Err(job) => Box::pin(self.wait_for_line(job, ticket, deadline, timer)).await,
                },
                Step::Wait(ticket, deadline, timer) => {
                    return self.wait(ticket, deadline, timer).await;
                }
                Step::Sent(sending) => match sending.await {
                    (Ok(response), _) => return Ok(response),
                    (Err(Broken::Ended(outcome)), _) => Step::End(outcome),
                    (Err(Broken::Again(again)), timer) => self.again(*again, timer),
                },
                Step::End(outcome) => return Err(outcome),
            };
        }
    }

    /// Sends a request whose body is at hand, or makes it wait.
    fn begin<'a>(
        &'a self,
        request: Outgoing,
        mut account: Account,
        place: Option<Place>,
        timer: &'a mut Timer,
    ) -> Step<'a> {
        let core = &self.0;
        if let Some((lease, turn, now)) = core.try_turn(account.charge()) {
            drop(place);
            account.start(now);
            let call = (request, account);
            return Step::Sent(Box::pin(async move {
                let sent = exchange::run(core, lease, turn, call, timer).await;
                (sent, timer)
            }));
        }
        if core.shared.waiting() > 0 {
            // It may have held the one slot that another looked for just then.
            worker::hire(core);
        }
        let place = match place {
            Some(place) => place,
            None => {
                let bytes = request.bytes();
                match self.enter(&mut account, bytes) {
                    Ok(Some(place)) => place,
                    Ok(None) => return Step::Place(Box::new((request, account)), bytes, timer),
                    Err(outcome) => return Step::End(account.end(outcome)),
                }
            }
        };
        let deadline = account.deadline();
        let (job, ticket) = job::pair(request, account, Some(place));
        Step::Line(job, ticket, deadline, timer)
    }

    /// Back before all others, for a request whose turn came to nothing.
    fn again<'a>(
        &'a self,
        (request, account): (Outgoing, Account),
        timer: &'a mut Timer,
    ) -> Step<'a> {
        let deadline = account.deadline();
        let (job, ticket) = job::pair(request, account, None);
        ticket.stand_in_line(&self.0.shared);
        self.0.shared.gate.put_back(job);
        Step::Wait(ticket, deadline, timer)
    }

    /// Puts the job into the channel to the gate, if there is room.
    fn line_up(&self, job: Job, ticket: &Ticket) -> Result<(), Job> {
        let shared = &self.0.shared;
        match shared.intake.try_reserve() {
            Ok(permit) => {
                shared.enqueue(permit, job, ticket);
                Ok(())
            }
            Err(_full) => Err(job),
        }
    }

    /// Puts the job into the channel to the gate as soon as there is room.
    async fn wait_for_line<'a>(
        &'a self,
        job: Job,
        ticket: Ticket,
        deadline: Instant,
        timer: &'a mut Timer,
    ) -> Step<'a> {
        let shared = &self.0.shared;
        let outcome = tokio::select! {
            permit = shared.reserve() => match permit {
                Some(permit) => {
                    shared.enqueue(permit, job, &ticket);
                    return Step::Wait(ticket, deadline, timer);
                }
                None => Outcome::Draining,
            },
            outcome = shared.too_late(deadline, timer) => outcome,
        };
        if let Some(call) = job.take() {
            call.account.end(outcome);
        }
        Step::End(outcome)
    }

    /// Waits in the line until the worker answers or the time is over. If its turn
    /// has come just then, the worker's answer decides, unless that is another turn.
    fn wait<'a>(
        &'a self,
        mut ticket: Ticket,
        deadline: Instant,
        timer: &'a mut Timer,
    ) -> impl Future<Output = Reply> + Send + 'a {
        worker::hire(&self.0);
        let mut over = false;
        // Not an async fn: its future would hold the reply several times over.
        poll_fn(move |cx| {
            if let Poll::Ready(reply) = ticket.poll_reply(cx) {
                return Poll::Ready(reply);
            }
            if over {
                return Poll::Pending;
            }
            let outcome = match ready!(self.0.shared.poll_too_late(cx, deadline, timer)) {
                // What it waited for in the end was a connection.
                Outcome::Expired if self.0.shared.unreachable.load(Ordering::Relaxed) => {
                    Outcome::ConnectFailed
                }
                other => other,
            };
            over = true;
            match ticket.end(outcome) {
                true => Poll::Ready(Err(outcome)),
                // It was asked above: the worker's answer wakes this task.
                false => Poll::Pending,
            }
        })
    }

    /// Reads the body as far as it is read before the queue. A request with a
    /// body takes its place first, so that what is read is always counted.
    async fn read<'a>(
        &'a self,
        (head, body, mut account): (request::Parts, Incoming, Account),
        timer: &'a mut Timer,
    ) -> Step<'a> {
        match self.take_in(&head, body, &mut account, timer).await {
            Ok((upload, place)) => self.begin(parsed(head, upload), account, Some(place), timer),
            Err(outcome) => Step::End(account.end(outcome)),
        }
    }

    async fn wait_for_place<'a>(
        &'a self,
        (request, mut account): (Outgoing, Account),
        bytes: usize,
        timer: &'a mut Timer,
    ) -> Step<'a> {
        let deadline = account.deadline();
        match self.place(account.charge(), bytes, deadline, timer).await {
            Ok(place) => {
                account.admit();
                self.begin(request, account, Some(place), timer)
            }
            Err(outcome) => Step::End(account.end(outcome)),
        }
    }
}

impl Core {
    /// A turn for a request of this core, with a ready connection, if nobody
    /// waits and every limit allows one this instant; with that instant.
    fn try_turn(self: &Arc<Self>, charge: &Charge) -> Option<(Lease, Taken, Instant)> {
        let shared = &self.shared;
        if shared.waiting() > 0 || shared.is_cut() {
            return None;
        }
        let slot = Slot::try_take(shared)?;
        let _gate = shared.gate.try_pass()?;
        let now = Instant::now();
        let mut limits = shared.limits();
        limits.ready(charge, now).ok()?;
        let link = self.link.load_full();
        let connection = link.pool.take(now)?;
        let lease = Lease::new(self, link, connection, slot);
        let turn = limits.start(charge.clone(), now, now);
        drop(limits);
        Some((lease, Taken::new(shared, turn), now))
    }
}

impl Shared {
    /// A place in the channel to the gate. Callers that have gone leave empty
    /// shells in it, and while all workers are busy nobody takes those out; so
    /// who finds it full does. `None` when the lane is gone.
    async fn reserve(&self) -> Option<mpsc::Permit<'_, Job>> {
        if let Ok(permit) = self.intake.try_reserve() {
            return Some(permit);
        }
        let mut reserved = std::pin::pin!(self.intake.reserve());
        tokio::select! {
            permit = &mut reserved => return permit.ok(),
            () = self.gate.tidy(self) => {}
        }
        reserved.await.ok()
    }

    /// Puts a job into the line.
    fn enqueue(self: &Arc<Self>, permit: mpsc::Permit<'_, Job>, job: Job, ticket: &Ticket) {
        ticket.stand_in_line(self);
        let keyed = !job.charge().keys().is_empty();
        permit.send(job);
        if keyed {
            // Whom the gate sleeps for may be of another key.
            self.gate.ring(false);
        }
    }

    /// Returns when a request that may wait until `deadline` can wait no more,
    /// with the outcome. Its task is woken when the drain time is over.
    pub(super) fn too_late(
        &self,
        deadline: Instant,
        timer: &mut Timer,
    ) -> impl Future<Output = Outcome> {
        poll_fn(move |cx| self.poll_too_late(cx, deadline, timer))
    }

    fn poll_too_late(
        &self,
        cx: &mut Context<'_>,
        deadline: Instant,
        timer: &mut Timer,
    ) -> Poll<Outcome> {
        match self.is_cut() {
            true => Poll::Ready(Outcome::Draining),
            false => timer.poll(cx, deadline).map(|()| Outcome::Expired),
        }
    }
}

fn parsed(head: request::Parts, body: Upload) -> Outgoing {
    Outgoing::Parsed(Box::new(Request::from_parts(head, body)))
}
