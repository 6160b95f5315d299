//! One call: send the request, wait for the response head.
//!
//! The turn has been taken. What comes back is the response with everything its
//! body needs to end the call properly, or the way the call ended, or the
//! request for another turn, where that is safe: the upstream has provably taken
//! nothing of it; or it may be repeated (RFC 9110, section 9.2.2), it is all in
//! memory, and it met the upstream closing an idle connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::{self, Instant};

use super::account::Account;
use super::lease::Lease;
use super::passage::Passage;
use super::tunnel::Offer;
use super::{Core, Shared};
use crate::http::body::Upload;
use crate::http::head;
use crate::outcome::{Break, Outcome};
use crate::pacing::Turn;
use crate::upstream::SendError;

/// Turns that may come to nothing before a request ends.
const MAX_FAILURES: u32 = 3;

/// As long as this we do what an upstream asks for, and no longer: it may be
/// mistaken.
const LONGEST_COOLDOWN: Duration = Duration::from_secs(600);

/// A call without a response.
#[derive(Debug)]
pub(super) enum Broken {
    /// The request has ended; its account is settled.
    Ended(Outcome),
    /// The request needs another turn; it waits again.
    Again(Box<(Request<Upload>, Account)>),
}

/// Makes the call of `turn` on the connection of `lease`.
///
/// # Errors
///
/// There is no response, see [`Broken`].
pub(super) fn run(
    core: &Core,
    mut lease: Lease,
    turn: Turn,
    request: Request<Upload>,
    account: Account,
) -> impl Future<Output = Result<Response<Passage>, Broken>> + Send {
    // Not one async fn: its future would hold the request several times over.
    let spare = match lease.may_be_closing() {
        true => spare(&request),
        false => None,
    };
    let shared = &*core.shared;
    let offer = request.extensions().get::<Offer>().cloned();
    let silence = silence(shared, &account, request.body().pieces());
    let sent = lease.send(request, shared.dialer.origin());
    let spare = (spare, offer);
    finish(shared, lease, turn, sent, silence, spare, account)
}

/// Returns when the response head has been waited for too long: since the start,
/// or since the last piece of a body that streams.
fn silence(
    shared: &Shared,
    account: &Account,
    pieces: Option<Arc<AtomicU64>>,
) -> impl Future<Output = ()> + Send + use<> {
    let span = shared.settings.timeouts.response;
    let end = account.end_of_time();
    let bound = move |from: Instant| end.map_or(from + span, |end| end.min(from + span));
    let mut until = bound(account.started());
    let mut seen = 0;
    async move {
        loop {
            time::sleep_until(until).await;
            let now = Instant::now();
            let passed = pieces
                .as_ref()
                .map_or(0, |pieces| pieces.load(Ordering::Relaxed));
            if passed == seen || end.is_some_and(|end| end <= now) {
                return;
            }
            seen = passed;
            until = bound(now);
        }
    }
}

/// Waits for the response head of what was `sent`.
async fn finish(
    shared: &Shared,
    lease: Lease,
    turn: Turn,
    sent: impl Future<Output = Result<Response<Incoming>, Box<SendError>>> + Send,
    silence: impl Future<Output = ()> + Send,
    (spare, offer): (Option<Box<Request<Upload>>>, Option<Offer>),
    mut account: Account,
) -> Result<Response<Passage>, Broken> {
    let sent = tokio::select! {
        biased;
        sent = sent => sent,
        () = silence => return Err(Broken::Ended(account.end(Outcome::UpstreamTimeout))),
        () = shared.cut() => return Err(Broken::Ended(account.end(Outcome::Draining))),
    };
    let now = Instant::now();
    if met_idle_timeout(&sent, spare.as_deref(), &account)
        && let Some(spare) = spare
    {
        shared.limits().answered(turn, now);
        account.give_back();
        return Err(Broken::Again(Box::new((*spare, account))));
    }
    match sent {
        Ok(response) => {
            let mut limits = shared.limits();
            limits.answered(turn, now);
            if response.status() == StatusCode::TOO_MANY_REQUESTS {
                limits.refused();
            }
            if let Some(pause) = head::asks_to_pause(response.status(), response.headers()) {
                limits.cool(now + pause.min(LONGEST_COOLDOWN));
            }
            drop(limits);
            account.respond(response.status(), now);
            pass_on(shared, response, (lease, account), offer).map_err(Broken::Ended)
        }
        Err(failed) => Err(broken(shared, turn, *failed, spare, account)),
    }
}

/// Whether a 408 was said before the request came, to a connection that was idle
/// for too long (RFC 9110, section 15.5.9), as far as the request may be sent
/// again.
fn met_idle_timeout(
    sent: &Result<Response<Incoming>, Box<SendError>>,
    spare: Option<&Request<Upload>>,
    account: &Account,
) -> bool {
    let said = |response: &Response<Incoming>| response.status() == StatusCode::REQUEST_TIMEOUT;
    sent.as_ref().is_ok_and(said)
        && spare.is_some_and(|spare| may_be_repeated(spare.method()))
        && account.failures() < MAX_FAILURES
}

/// The response as the caller gets it.
fn pass_on(
    shared: &Shared,
    response: Response<Incoming>,
    (lease, account): (Lease, Account),
    offer: Option<Offer>,
) -> Result<Response<Passage>, Outcome> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return switch(shared, response, (lease, account), offer);
    }
    let (mut parts, body) = response.into_parts();
    head::strip_hop_by_hop(&mut parts.headers);
    if shared.settings.server_timing {
        head::add_queue_time(&mut parts.headers, account.started() - account.arrived());
    }
    let timeouts = &shared.settings.timeouts;
    let passage = Passage::new(body, lease, account, timeouts);
    Ok(Response::from_parts(parts, passage))
}

/// The 101 as the caller gets it, with the tunnel that follows.
///
/// # Errors
///
/// The change of protocol was not asked for.
fn switch(
    shared: &Shared,
    mut response: Response<Incoming>,
    call: (Lease, Account),
    offer: Option<Offer>,
) -> Result<Response<Passage>, Outcome> {
    let asked = offer.and_then(|offer| Some((offer.accepted(&response)?, offer)));
    let Some((protocols, offer)) = asked else {
        return Err(call.1.end(Outcome::UpstreamFailed(Break::Upgrade)));
    };
    head::strip_hop_by_hop(response.headers_mut());
    offer.open(&mut response, protocols, call);
    let timeouts = &shared.settings.timeouts;
    Ok(response.map(|body| Passage::switched(body, timeouts)))
}

/// What becomes of a request that got no response.
fn broken(
    shared: &Shared,
    turn: Turn,
    failed: SendError,
    spare: Option<Box<Request<Upload>>>,
    mut account: Account,
) -> Broken {
    let unsent = failed.unsent.is_some();
    if unsent {
        shared.limits().canceled(turn);
    }
    tracing::debug!(upstream = shared.name, error = %failed, unsent, "call failed");
    let outcome = failed.outcome();
    let spare = spare.filter(|spare| {
        failed.took_nothing() || (failed.is_closed() && may_be_repeated(spare.method()))
    });
    let again = failed.unsent.or(spare.map(|spare| *spare));
    if let Some(request) = again.filter(|_| account.failures() < MAX_FAILURES) {
        account.give_back();
        return Broken::Again(Box::new((request, account)));
    }
    Broken::Ended(account.end(outcome))
}

/// RFC 9110, section 9.2.2.
fn may_be_repeated(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// A copy of a request, if all of it is in memory.
fn spare(request: &Request<Upload>) -> Option<Box<Request<Upload>>> {
    let mut copy = Request::new(request.body().try_clone()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    // The case of the names is in there.
    *copy.extensions_mut() = request.extensions().clone();
    Some(Box::new(copy))
}
