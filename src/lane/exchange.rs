//! One call: send the request, wait for the response head.
//!
//! The turn has been taken. What comes back is the response with everything its
//! body needs to end the call properly, or the way the call ended, or the
//! request for another turn, where that is safe: not a byte of it was written;
//! or it may be repeated (RFC 9110, section 9.2.2), it is all in memory, and it
//! met the upstream closing an idle connection.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::{self, Instant};

use super::account::Account;
use super::lease::Lease;
use super::passage::Passage;
use super::{Core, Shared};
use crate::http::body::{Upload, UploadError};
use crate::http::head;
use crate::outcome::Outcome;
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
    let silence = silence(shared, &account, request.body().pieces());
    let sent = lease.send(request, shared.dialer.origin());
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
    spare: Option<Box<Request<Upload>>>,
    mut account: Account,
) -> Result<Response<Passage>, Broken> {
    let sent = tokio::select! {
        biased;
        sent = sent => sent,
        () = silence => return Err(Broken::Ended(account.end(Outcome::UpstreamTimeout))),
        () = shared.cut() => return Err(Broken::Ended(account.end(Outcome::Draining))),
    };
    let now = Instant::now();
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
            Ok(pass_on(shared, response, lease, account))
        }
        Err(failed) => Err(broken(shared, turn, *failed, spare, account)),
    }
}

/// The response as the caller gets it.
fn pass_on(
    shared: &Shared,
    response: Response<Incoming>,
    lease: Lease,
    account: Account,
) -> Response<Passage> {
    let (mut parts, body) = response.into_parts();
    head::strip_hop_by_hop(&mut parts.headers);
    if shared.settings.server_timing {
        head::add_queue_time(&mut parts.headers, account.started() - account.arrived());
    }
    let timeouts = &shared.settings.timeouts;
    Response::from_parts(parts, Passage::new(body, lease, account, timeouts))
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
    let closing = spare
        .filter(|_| is_closed(&failed.error))
        .map(|spare| *spare);
    let again = failed.unsent.or(closing);
    if let Some(request) = again.filter(|_| account.failures() < MAX_FAILURES) {
        account.give_back();
        return Broken::Again(Box::new((request, account)));
    }
    let outcome = match upload_error(&failed.error) {
        Some(UploadError::TooLarge) => Outcome::TooLarge,
        Some(error @ (UploadError::Broken(_) | UploadError::Stalled)) => {
            error.fault().map_or(Outcome::Aborted, Outcome::BadRequest)
        }
        None => Outcome::UpstreamFailed,
    };
    tracing::debug!(upstream = shared.name, error = %failed.error, unsent, "call failed");
    Broken::Ended(account.end(outcome))
}

/// A copy of a request that may be sent twice.
fn spare(request: &Request<Upload>) -> Option<Box<Request<Upload>>> {
    let idempotent = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    );
    if !idempotent {
        return None;
    }
    let mut copy = Request::new(request.body().try_clone()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    // The case of the names is in there.
    *copy.extensions_mut() = request.extensions().clone();
    Some(Box::new(copy))
}

/// Whether the upstream closed the connection without a word.
fn is_closed(error: &hyper::Error) -> bool {
    let cause = error
        .source()
        .and_then(|cause| cause.downcast_ref::<io::Error>());
    error.is_incomplete_message()
        || error.is_canceled()
        || error.is_closed()
        || cause.is_some_and(|cause| {
            use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
            matches!(
                cause.kind(),
                BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
            )
        })
}

/// What was wrong with the caller's body, if that is why the call failed.
fn upload_error(error: &hyper::Error) -> Option<&UploadError> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}
