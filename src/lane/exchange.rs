//! One call: send the request, wait for the response head.
//!
//! The turn has been taken. What comes back is the response with everything its
//! body needs to end the call properly, or the way the call ended, or the
//! request for another turn, where that is safe and allowed:
//!
//! - the upstream has provably taken nothing of it;
//! - the upstream refused it because of its limits, and it is all in memory;
//! - it may be repeated (RFC 9110, section 9.2.2), it is all in memory, and the
//!   connection broke: at once if the upstream was closing an idle connection,
//!   otherwise within the retry budget.

use std::future::{Future, poll_fn};
use std::sync::atomic::Ordering;
use std::task::{Poll, ready};
use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use tokio::time::{self, Instant};

use super::account::Account;
use super::beginning::{Beginning, PATIENCE};
use super::lease::{Flight, Lease};
use super::passage::Passage;
use super::spare::{Spare, broken, timed_out};
use super::tunnel::Offer;
use super::turn::Taken;
use super::{Core, Shared};
use crate::config;
use crate::dialect::{self, Verdict};
use crate::http::head;
use crate::http::interim::Asker;
use crate::http::plain::response::Look;
use crate::metrics::Again;
use crate::outcome::{Break, Outcome};
use crate::pacing::{End, Reading};
use crate::timer::Timer;
use crate::upstream::{self, Inbound, Outgoing, SendError};

/// The body of a refusal that is read so that its connection can be kept.
const REFUSAL_BODY: usize = 64 * 1024;

/// A call without a response.
#[derive(Debug)]
pub(super) enum Broken {
    /// The request has ended; its account is settled.
    Ended(Outcome),
    /// The request needs another turn; it waits again.
    Again(Box<(Outgoing, Account)>),
}

/// Why a response head is not waited for any longer.
enum Over {
    /// The upstream was silent for too long.
    Silent,
    /// The request's whole time is over, most of which it waited for its turn, or
    /// while its body still comes.
    Late,
    /// The drain time is over.
    Cut,
}

/// Makes the call of `turn` on the connection of `lease`, in a task that is woken
/// when the drain time is over.
///
/// # Errors
///
/// There is no response, see [`Broken`].
pub(super) fn run<'a>(
    core: &'a Core,
    mut lease: Lease,
    turn: Taken,
    (request, mut account): (Outgoing, Account),
    timer: &'a mut Timer,
) -> impl Future<Output = Result<Response<Passage>, Broken>> + Send + use<'a> {
    // Not one async fn: its future would hold the request several times over.
    let shared = &*core.shared;
    let settings = shared.settings();
    if account.failures() == 0 {
        shared.retries.earn(settings.retry.budget);
    }
    // A reload may have come while it waited.
    let request = account.wear(&core.dress.load(), request);
    let spare = Spare::of(&request, lease.may_be_closing());
    let offer = match &request {
        Outgoing::Parsed(request) => request.extensions().get::<Offer>().cloned(),
        Outgoing::Plain(_) => None,
    };
    account.stream(request.progress());
    let over = over(shared, settings.timeouts.response, &account, timer);
    drop(settings);
    let asker = account.asker();
    let sent = lease.send(request, turn.number(), Ear { shared, asker }, asker);
    // In a box, since it goes far.
    let flight = Box::new(Flight { account, lease });
    finish(shared, flight, turn, sent, over, (spare, offer))
}

/// What the lane hears of the response to a plain request before that is there.
struct Ear<'a> {
    shared: &'a Shared,
    asker: Option<Asker>,
}

impl upstream::Ear for Ear<'_> {
    fn look(&self, status: StatusCode) -> Look {
        dialect::look(&self.shared.settings(), status)
    }

    fn hear(&self, head: &[u8]) {
        if let Some(asker) = self.asker {
            self.shared.dialer.load().tell(asker, head);
        }
    }
}

/// Returns when the response head is not waited for any longer: for `span` since the
/// start, or since the last piece of a body that streams.
fn over<'a>(
    shared: &'a Shared,
    span: Duration,
    account: &Account,
    timer: &'a mut Timer,
) -> impl Future<Output = Over> + Send + use<'a> {
    let end = account.end_of_time();
    let progress = account.progress().cloned();
    let bound = move |from: Instant| end.map_or(from + span, |end| end.min(from + span));
    let (arrived, started) = (account.arrived(), account.started());
    let mut until = bound(started);
    let mut seen = 0;
    poll_fn(move |cx| {
        loop {
            if shared.is_cut() {
                return Poll::Ready(Over::Cut);
            }
            ready!(timer.poll(cx, until));
            let passed = progress
                .as_ref()
                .map_or(0, |progress| progress.up.load(Ordering::Relaxed));
            let now = Instant::now();
            match end.filter(|end| *end <= now) {
                Some(end) if passed != seen || (end - started) * 2 < end - arrived => {
                    return Poll::Ready(Over::Late);
                }
                None if passed != seen => {}
                Some(_) | None => return Poll::Ready(Over::Silent),
            }
            seen = passed;
            until = bound(now);
        }
    })
}

/// Waits for the response head of what was `sent`, until that is `over`.
async fn finish(
    shared: &Shared,
    mut flight: Box<Flight>,
    turn: Taken,
    sent: impl Future<Output = Result<Response<Inbound>, Box<SendError>>> + Send,
    over: impl Future<Output = Over> + Send,
    (spare, offer): (Option<Spare>, Option<Offer>),
) -> Result<Response<Passage>, Broken> {
    let sent = tokio::select! {
        biased;
        sent = sent => sent,
        over = over => return Err(match over {
            Over::Silent => {
                flight.lease.retire();
                timed_out(shared, turn, spare, flight.account)
            }
            // That says nothing of the upstream.
            Over::Late => {
                turn.close(End::Lost, Instant::now());
                Broken::Ended(flight.account.end(Outcome::UpstreamTimeout))
            }
            Over::Cut => Broken::Ended(flight.account.end(Outcome::Draining)),
        }),
    };
    match sent {
        Ok(mut response) if response.body().is_ready() => {
            let now = Instant::now();
            flight.account.respond(response.status(), now);
            let readings = match response.headers().is_empty() {
                true => Vec::new(),
                // The caller gets them as they came.
                false => readings(&shared.settings(), &std::mem::take(response.headers_mut())),
            };
            turn.close(End::Answered(&readings), now);
            let begin = Beginning::default();
            pass_on(shared, response, begin, flight, None).map_err(Broken::Ended)
        }
        // In a box, as few need what it takes.
        Ok(response) => Box::pin(answered(shared, turn, response, (spare, offer), flight)).await,
        Err(failed) => Err(broken(shared, turn, *failed, spare, flight.account)),
    }
}

/// What becomes of a response: it goes to the caller, unless it is a refusal and
/// the request can wait for another turn.
async fn answered(
    shared: &Shared,
    turn: Taken,
    mut response: Response<Inbound>,
    (spare, offer): (Option<Spare>, Option<Offer>),
    mut flight: Box<Flight>,
) -> Result<Response<Passage>, Broken> {
    let account = &mut flight.account;
    let now = Instant::now();
    // Said before the request came, to a connection that was idle for too long
    // (RFC 9110, section 15.5.9).
    let idle = response.status() == StatusCode::REQUEST_TIMEOUT;
    let spare = match spare {
        Some(spare) if idle && spare.repeatable && spare.closing && account.may_go_again(now) => {
            turn.close(End::Answered(&[]), now);
            account.give_back(Again::Closing);
            return Err(Broken::Again(Box::new((spare.request, flight.account))));
        }
        spare => spare,
    };
    account.respond(response.status(), now);
    let Meaning {
        refused,
        asked,
        readings,
        begin,
    } = Meaning::of(shared, &mut response).await;
    if !refused {
        turn.close(End::Answered(&readings), now);
        return pass_on(shared, response, begin, flight, offer).map_err(Broken::Ended);
    }
    account.throttle();
    let until = turn
        .close(End::Refused(asked, &readings), now)
        .unwrap_or(now);
    let wait = until.saturating_duration_since(now).as_millis();
    tracing::warn!(
        upstream = shared.name,
        wait_ms = wait,
        "the upstream refuses"
    );
    let again = spare.filter(|_| account.may_go_again(until));
    let Some(again) = again else {
        return pass_on(shared, response, begin, flight, offer).map_err(Broken::Ended);
    };
    let Flight {
        mut lease,
        mut account,
    } = *flight;
    let mut body = response.into_body();
    let rest = Limited::new(&mut body, REFUSAL_BODY).collect();
    if let Ok(Ok(_)) = time::timeout(PATIENCE, rest).await
        && !begin.is_broken()
    {
        lease.take_back(&mut body);
        lease.finish();
    }
    account.give_back(Again::Refused);
    Err(Broken::Again(Box::new((again.request, account))))
}

/// What a response means to the limits.
struct Meaning {
    /// Whether the upstream refused the request because of its own.
    refused: bool,
    /// How long it asks us to wait, if it does.
    asked: Option<Duration>,
    /// What it says is left.
    readings: Vec<Reading>,
    /// What was read of its body to know that.
    begin: Beginning,
}

impl Meaning {
    async fn of(shared: &Shared, response: &mut Response<Inbound>) -> Self {
        let settings = shared.settings.load_full();
        let (signals, status) = (&settings.cooldown.signals, response.status());
        let mut begin = Beginning::default();
        let refused = match dialect::verdict(signals, status, response.headers()) {
            Verdict::Fine => false,
            Verdict::Throttled => true,
            Verdict::AskBody => {
                begin = Beginning::read(response.body_mut()).await;
                dialect::body_says(signals, status, response.headers(), begin.data())
            }
        };
        let (headers, now) = (response.headers(), SystemTime::now());
        Self {
            asked: dialect::retry_after(&settings.dialect, headers, now).filter(|_| refused),
            readings: readings(&settings, headers),
            refused,
            begin,
        }
    }
}

/// What a response with these `headers` says is left.
fn readings(settings: &config::Upstream, headers: &HeaderMap) -> Vec<Reading> {
    let budgets = dialect::budgets(&settings.dialect, headers, SystemTime::now());
    let readings = budgets.into_iter().map(|budget| Reading {
        name: budget.name,
        remaining: budget.remaining,
        reset: budget.reset,
        each: budget.each,
    });
    readings.collect()
}

/// The response as the caller gets it; `begin` was read of its body already.
fn pass_on(
    shared: &Shared,
    response: Response<Inbound>,
    begin: Beginning,
    flight: Box<Flight>,
    offer: Option<Offer>,
) -> Result<Response<Passage>, Outcome> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return switch(shared, response, flight, offer);
    }
    let (mut parts, mut body) = response.into_parts();
    let settings = shared.settings();
    head::strip_hop_by_hop(&mut parts.headers);
    if settings.server_timing {
        let waited = flight.account.started() - flight.account.arrived();
        head::queue_time(waited, |text| match body.ready() {
            Some(ready) => ready.add(&head::SERVER_TIMING, &text),
            None => {
                if let Ok(value) = HeaderValue::from_bytes(&text.concat()) {
                    parts.headers.append(head::SERVER_TIMING, value);
                }
            }
        });
    }
    let passage = Passage::new(body, flight, &settings.timeouts).after(begin);
    Ok(Response::from_parts(parts, passage))
}

/// The 101 as the caller gets it, with the tunnel that follows.
///
/// # Errors
///
/// The change of protocol was not asked for.
fn switch(
    shared: &Shared,
    mut response: Response<Inbound>,
    flight: Box<Flight>,
    offer: Option<Offer>,
) -> Result<Response<Passage>, Outcome> {
    let asked = offer.and_then(|offer| Some((offer.accepted(&response)?, offer)));
    let Some((protocols, offer)) = asked else {
        return Err(flight.account.end(Outcome::UpstreamFailed(Break::Upgrade)));
    };
    head::strip_hop_by_hop(response.headers_mut());
    offer.open(&mut response, protocols, flight);
    let settings = shared.settings();
    Ok(response.map(|body| Passage::switched(body, &settings.timeouts)))
}
