//! The account of one request: it follows the request through the lane and is
//! settled exactly once.
//!
//! Whatever happens to a request, its account is somewhere: in the caller's
//! task, in the job, with the worker, in the response body. Where nobody states
//! an outcome because the future or the body was dropped, dropping the account
//! states it: the caller has gone.

use std::sync::Arc;

use ::http::StatusCode;
use tokio::time::Instant;

use super::{Core, Dress};
use crate::http::body::Progress;
use crate::http::interim::Asker;
use crate::metrics::{Again, Phase};
use crate::outcome::Outcome;
use crate::pacing::Charge;
use crate::upstream::Outgoing;

/// One request's way through the lane.
#[derive(Debug)]
pub(super) struct Account {
    core: Arc<Core>,
    state: State,
    arrived: Instant,
    /// When its last turn was taken; its arrival before that.
    started: Instant,
    /// Turns that came to nothing.
    failures: u32,
    charge: Charge,
    /// What its request was written by.
    dress: Arc<Dress>,
    /// Who hears interim answers.
    asker: Option<Asker>,
    /// What moves, where its body streams.
    progress: Option<Arc<Progress>>,
    line: Option<Box<Line>>,
}

/// `Arriving` becomes `Waiting` or `InFlight`; those two become each other;
/// every state becomes `Ended`, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not yet in the queue, and perhaps never: nothing was counted.
    Arriving,
    Waiting,
    InFlight,
    Ended,
}

/// What the log says of a request besides its times.
#[derive(Debug)]
struct Line {
    request: String,
    status: Option<StatusCode>,
}

impl Account {
    /// A request arrives now, written by `dress`. With a `note`, one line is logged
    /// at its end.
    pub(super) fn new(
        core: &Arc<Core>,
        charge: Charge,
        note: Option<String>,
        dress: Arc<Dress>,
    ) -> Self {
        let now = Instant::now();
        let line = note.map(|request| Line {
            request,
            status: None,
        });
        Self {
            core: Arc::clone(core),
            state: State::Arriving,
            arrived: now,
            started: now,
            failures: 0,
            charge,
            dress,
            asker: None,
            progress: None,
            line: line.map(Box::new),
        }
    }

    /// Interim answers go to `asker`.
    pub(super) fn of(mut self, asker: Option<Asker>) -> Self {
        self.asker = asker;
        self
    }

    /// Its `request`, which is about to be sent, as `dress` has it.
    pub(super) fn wear(&mut self, dress: &Arc<Dress>, request: Outgoing) -> Outgoing {
        if Arc::ptr_eq(&self.dress, dress) {
            return request;
        }
        let old = std::mem::replace(&mut self.dress, Arc::clone(dress));
        dress.replace(&old, request)
    }

    /// Its body streams, or not.
    pub(super) fn stream(&mut self, progress: Option<Arc<Progress>>) {
        self.progress = progress;
    }

    /// What moves, where its body streams.
    pub(super) fn progress(&self) -> Option<&Arc<Progress>> {
        self.progress.as_ref()
    }

    /// The request has a place in the queue.
    pub(super) fn admit(&mut self) {
        debug_assert_eq!(self.state, State::Arriving);
        self.core.cells.admit();
        self.state = State::Waiting;
    }

    /// The request's turn was taken at `now`.
    pub(super) fn start(&mut self, now: Instant) {
        if self.state == State::Arriving {
            self.admit();
        }
        debug_assert_eq!(self.state, State::Waiting);
        self.core.cells.start(now - self.arrived);
        self.state = State::InFlight;
        self.started = now;
    }

    /// The turn came to nothing and the request waits for another.
    pub(super) fn give_back(&mut self, why: Again) {
        debug_assert_eq!(self.state, State::InFlight);
        self.core.cells.give_back(why);
        self.state = State::Waiting;
        self.failures += 1;
    }

    /// The upstream's response head came at `now`.
    pub(super) fn respond(&mut self, status: StatusCode, now: Instant) {
        self.core.cells.response(status, now - self.started);
        if let Some(line) = &mut self.line {
            line.status = Some(status);
        }
    }

    /// The response was a refusal because of the upstream's limits.
    pub(super) fn throttle(&self) {
        self.core.cells.throttle();
    }

    /// Settles the account.
    pub(super) fn end(mut self, outcome: Outcome) -> Outcome {
        self.settle(outcome);
        outcome
    }

    /// It leaves the line without a turn, as `outcome`, or since the caller went away.
    /// If the limits were `asked` for it, others may now go sooner, where they differ in
    /// cost or leave it what it needs.
    pub(super) fn leave(self, outcome: Option<Outcome>, asked: bool) {
        let shared = Arc::clone(&self.core.shared);
        match outcome {
            Some(outcome) => drop(self.end(outcome)),
            None => drop(self),
        }
        if asked && (!shared.settings().costs.is_empty() || shared.limits().has_claims()) {
            shared.gate.ring(true);
        }
    }

    /// What its turn costs.
    pub(super) fn charge(&self) -> &Charge {
        &self.charge
    }

    /// Who hears interim answers.
    pub(super) fn asker(&self) -> Option<Asker> {
        self.asker
    }

    /// When it was taken in hand.
    pub(super) fn arrived(&self) -> Instant {
        self.arrived
    }

    /// When its last turn was taken.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Turns that came to nothing.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether it may wait for another turn, which cannot come before `earliest`.
    pub(super) fn may_go_again(&self, earliest: Instant) -> bool {
        let attempts = self.core.shared.settings().retry.attempts.get();
        self.failures + 1 < attempts && earliest < self.deadline()
    }

    /// When its time to wait is over.
    pub(super) fn deadline(&self) -> Instant {
        self.arrived + self.core.shared.settings().longest_wait()
    }

    /// When its whole time is over.
    pub(super) fn end_of_time(&self) -> Option<Instant> {
        let total = self.core.shared.settings().timeouts.total?;
        Some(self.arrived + total)
    }

    fn settle(&mut self, outcome: Outcome) {
        let cells = &self.core.cells;
        match self.state {
            State::Arriving => cells.refuse(outcome),
            State::Waiting => cells.end(Phase::Waiting, outcome),
            State::InFlight => cells.end(Phase::InFlight, outcome),
            State::Ended => return,
        }
        if let Some(line) = &self.line {
            let turn = self.state == State::InFlight;
            tracing::info!(
                target: "pacegate::request",
                upstream = self.core.shared.name,
                request = line.request,
                outcome = outcome.label(),
                status = line.status.unwrap_or(outcome.status()).as_u16(),
                wait_ms = if turn { (self.started - self.arrived).as_millis() } else { self.arrived.elapsed().as_millis() },
                total_ms = self.arrived.elapsed().as_millis(),
                "request"
            );
        }
        self.state = State::Ended;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.settle(match self.state {
            State::Arriving | State::Waiting | State::Ended => Outcome::Abandoned,
            State::InFlight => Outcome::Aborted,
        });
    }
}
