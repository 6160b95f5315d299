//! A call that got no response: what that means to the limits, and whether its
//! request may go again (`exchange` says when).

use tokio::time::Instant;

use super::Shared;
use super::account::Account;
use super::exchange::Broken;
use super::turn::Taken;
use crate::metrics::Again;
use crate::outcome::{Break, Outcome};
use crate::pacing::End;
use crate::upstream::{Outgoing, SendError};

/// What becomes of a request that got no response in time.
pub(super) fn timed_out(
    shared: &Shared,
    turn: Taken,
    spare: Option<Spare>,
    account: Account,
) -> Broken {
    let now = Instant::now();
    turn.close(failure(shared), now);
    after_failure(shared, spare, account, now, Outcome::UpstreamTimeout)
}

/// What becomes of a request that got no response.
pub(super) fn broken(
    shared: &Shared,
    turn: Taken,
    failed: SendError,
    spare: Option<Spare>,
    mut account: Account,
) -> Broken {
    let now = Instant::now();
    tracing::debug!(
        upstream = shared.name,
        error = %failed,
        unsent = failed.unsent.is_some(),
        "call failed"
    );
    let outcome = failed.outcome();
    if let Some(request) = failed.unsent {
        turn.close(End::Canceled, now);
        if account.may_go_again(now) {
            account.give_back(Again::Unsent);
            return Broken::Again(Box::new((request, account)));
        }
        return Broken::Ended(account.end(outcome));
    }
    let silent = matches!(outcome, Outcome::UpstreamFailed(Break::Unanswered));
    let answered = matches!(outcome, Outcome::UpstreamFailed(_)) && !silent;
    let free = |spare: &Spare| match failed.took_nothing() {
        true => Some(Again::Unsent),
        // The upstream was closing an idle connection: nobody's failure.
        false => {
            (spare.repeatable && spare.closing && failed.is_closed()).then_some(Again::Closing)
        }
    };
    let reason = spare.as_ref().and_then(free);
    match (spare, reason) {
        (Some(spare), Some(reason)) if account.may_go_again(now) => {
            turn.close(End::Lost, now);
            account.give_back(reason);
            Broken::Again(Box::new((spare.request, account)))
        }
        (spare, _) if silent => {
            turn.close(failure(shared), now);
            after_failure(shared, spare, account, now, outcome)
        }
        // An answer that cannot be passed on: the upstream is not down, and what
        // it has begun to answer is not asked for again.
        _ if answered => {
            turn.close(End::Answered(&[]), now);
            Broken::Ended(account.end(outcome))
        }
        // The caller's body broke off, or there was no connection.
        _ => Broken::Ended(account.end(outcome)),
    }
}

/// What a failure means to the limits: where nothing is held while the upstream
/// is down, it pauses nothing.
fn failure(shared: &Shared) -> End<'static> {
    match shared.settings().retry.hold.is_zero() {
        true => End::Lost,
        false => End::Failed,
    }
}

/// Another turn for a request that may be repeated, if one was earned.
fn after_failure(
    shared: &Shared,
    spare: Option<Spare>,
    mut account: Account,
    now: Instant,
    outcome: Outcome,
) -> Broken {
    let spare = spare.filter(|spare| spare.repeatable && account.may_go_again(now));
    let budget = shared.settings().retry.budget;
    match spare.filter(|_| shared.retries.spend(budget)) {
        Some(spare) => {
            account.give_back(Again::Failed);
            Broken::Again(Box::new((spare.request, account)))
        }
        None => Broken::Ended(account.end(outcome)),
    }
}

/// A copy of a request that may be sent twice.
pub(super) struct Spare {
    pub(super) request: Outgoing,
    /// Whether it may be repeated although it may have been acted upon.
    pub(super) repeatable: bool,
    /// Whether the upstream may be closing its connection.
    pub(super) closing: bool,
}

impl Spare {
    /// A copy of a request whose body is all in memory.
    pub(super) fn of(request: &Outgoing, closing: bool) -> Option<Self> {
        Some(Self {
            repeatable: request.is_repeatable(),
            request: request.try_clone()?,
            closing,
        })
    }
}
