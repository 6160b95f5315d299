//! Bytes both ways after a change of protocol (RFC 9110, section 7.8).
//!
//! A request for an upgrade takes a [`Seat`] on its arrival, of which there are
//! fewer than calls in flight, so that tunnels never keep all slots from other
//! requests. Where the upstream answers 101, the [`Tunnel`] goes to the caller's
//! connection in the response's extensions; once that connection has written
//! the 101 its task runs the tunnel. The call's slot, turn and account are in it
//! to its end. A side that ends its half leaves the other half open (half-close).
//!
//! Shutdown: a tunnel may go on for the drain time; then both sides of a WebSocket
//! are told that we go away, and have a moment to close (`frames`, `pipe`); others
//! are closed.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::http::header::HeaderValue;
use ::http::{Response, request};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::split;
use tokio::time::{Instant, timeout};

use super::lease::Flight;
use super::turn::Leaving;
use super::{Core, Lane, Shared};
use crate::http::interim::Asker;
use crate::http::upgrade;
use crate::outcome::Outcome;
use crate::upstream::{Dialer, Outgoing, SendError, Sent};
use pipe::{Moved, Pipe};

mod frames;
mod pipe;

/// For both sides to end their halves after we have ended ours.
const FAREWELL: Duration = Duration::from_millis(250);

/// For both sides of a WebSocket to close when they are told to. With `FAREWELL`
/// it is less than the daemon waits for last answers.
const GOODBYE: Duration = Duration::from_millis(600);

/// One of the `max_upgrades` seats.
#[derive(Debug)]
struct Seat(Arc<Shared>);

/// A caller's offer to change the protocol; goes with its request.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    protocols: HeaderValue,
    caller: OnUpgrade,
    seat: Arc<Seat>,
}

/// The two ends of a changed connection, and the call that it is.
pub(crate) struct Tunnel {
    caller: OnUpgrade,
    upstream: OnUpgrade,
    websocket: bool,
    flight: Option<Box<Flight>>,
    idle: Duration,
    shared: Arc<Shared>,
    _seat: Arc<Seat>,
}

/// A tunnel on its way through a response's extensions, which are cloned.
#[derive(Debug, Clone)]
struct Passed(Arc<Mutex<Option<Tunnel>>>);

impl Lane {
    /// Lets a request for an upgrade go on as one, with a seat of its own.
    ///
    /// # Errors
    ///
    /// All seats are taken.
    pub(crate) fn offer_upgrade(
        &self,
        head: &mut request::Parts,
        protocols: HeaderValue,
    ) -> Result<(), Outcome> {
        let shared = &self.0.shared;
        let caller = head.extensions.remove::<OnUpgrade>();
        let (Some(caller), 1..) = (caller, shared.settings().max_upgrades) else {
            // A server may go on as if nobody had asked.
            return Ok(());
        };
        let seat = Seat::try_take(shared).ok_or(Outcome::UpgradesFull)?;
        upgrade::write(&mut head.headers, protocols.clone());
        head.extensions.insert(Offer {
            protocols,
            caller,
            seat: Arc::new(seat),
        });
        Ok(())
    }
}

impl Seat {
    fn try_take(shared: &Arc<Shared>) -> Option<Self> {
        let max = shared.settings().max_upgrades;
        let free = |taken| (taken < max).then_some(taken + 1);
        let taken = &shared.upgrades;
        taken
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, free)
            .ok()?;
        Some(Self(Arc::clone(shared)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.upgrades.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Offer {
    /// What `response`, a 101, changes to, if that was offered.
    pub(super) fn accepted<B>(&self, response: &Response<B>) -> Option<HeaderValue> {
        upgrade::accepted(response.headers(), &self.protocols)
    }

    /// Puts the tunnel into `response`, whose fields are those of the caller's
    /// connection already.
    pub(super) fn open<B>(
        self,
        response: &mut Response<B>,
        protocols: HeaderValue,
        flight: Box<Flight>,
    ) {
        let upstream = hyper::upgrade::on(&mut *response);
        let websocket = protocols.as_bytes().eq_ignore_ascii_case(b"websocket");
        upgrade::write(response.headers_mut(), protocols);
        let shared = Arc::clone(&self.seat.0);
        let tunnel = Tunnel {
            caller: self.caller,
            upstream,
            websocket,
            flight: Some(flight),
            idle: shared.settings().timeouts.tunnel_idle,
            shared,
            _seat: self.seat,
        };
        let passed = Passed(Arc::new(Mutex::new(Some(tunnel))));
        response.extensions_mut().insert(passed);
    }
}

/// A request that has its turn and no connection yet.
struct Dialing<'a> {
    shared: &'a Shared,
    turn: u64,
    leaving: Option<Leaving<'a>>,
}

impl<'a> Dialing<'a> {
    fn new(shared: &'a Shared, turn: u64, longest: Duration) -> Self {
        Self {
            shared,
            turn,
            leaving: Some(Leaving::new(shared, turn, longest)),
        }
    }
}

impl Drop for Dialing<'_> {
    fn drop(&mut self) {
        let charge = self.shared.limits().charge(self.turn);
        // It was written down when the turn was taken, which may be long ago; a restart
        // must count it from now on.
        if let (Some(journal), Some(charge)) = (&self.shared.journal, charge) {
            journal.spend(&charge, Instant::now());
        }
        self.leaving = None;
        // Who started after it had to be taken for not yet counted.
        self.shared.gate.ring(true);
    }
}

/// Sends a request for an upgrade, whose turn has this number, over an HTTP/1.1
/// connection of its own, where the lane's are HTTP/2, which has no upgrades
/// (RFC 9113, section 8.6).
pub(super) async fn send_apart(
    core: Arc<Core>,
    dialer: Arc<Dialer>,
    request: Outgoing,
    turn: Option<u64>,
    asker: Option<Asker>,
) -> Sent {
    let dialing = turn.map(|turn| Dialing::new(&core.shared, turn, dialer.longest()));
    let dialed = dialer.connect_http1().await;
    drop(dialing);
    match dialed {
        Ok(opened) => {
            let mut connection = core.link.load().count(&core, opened);
            let sent = connection.send(request, &dialer, &core.runtime, (), asker);
            let answered = sent.await;
            connection.let_go();
            answered
        }
        Err(error) => Err(Box::new(SendError::unconnected(request, error))),
    }
}

impl Tunnel {
    /// The tunnel of a response, if it has one.
    pub(crate) fn of<B>(response: &mut Response<B>) -> Option<Self> {
        let passed = response.extensions_mut().remove::<Passed>()?;
        passed
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Carries bytes both ways until both sides have ended, one breaks, nothing
    /// moves for too long, or the drain time is over.
    pub(crate) async fn run(mut self) {
        // Both connections have let go of their streams, or will in a moment.
        let both = async { tokio::try_join!(&mut self.caller, &mut self.upstream) };
        let outcome = match timeout(FAREWELL * 4, both).await {
            Ok(Ok((caller, upstream))) => self.carry(caller, upstream).await,
            Ok(Err(_)) | Err(_) => Outcome::Aborted,
        };
        if let Some(flight) = self.flight.take() {
            flight.account.end(outcome);
        }
    }

    async fn carry(&self, caller: Upgraded, upstream: Upgraded) -> Outcome {
        let (from_caller, to_caller) = split(TokioIo::new(caller));
        let (from_upstream, to_upstream) = split(TokioIo::new(upstream));
        let moved = Moved::new();
        let mut there = Pipe::new(from_caller, to_upstream, &moved, self.websocket);
        let mut back = Pipe::new(from_upstream, to_caller, &moved, self.websocket);
        let ended = tokio::select! {
            ended = async { tokio::try_join!(there.carry(), back.carry()) } => ended,
            () = moved.nothing_for(self.idle) => Err(io::ErrorKind::TimedOut.into()),
            () = self.shared.cut() => Err(io::ErrorKind::Interrupted.into()),
        };
        let Err(error) = ended else {
            return Outcome::Completed;
        };
        tracing::debug!(%error, upstream = self.shared.name, "a tunnel ended");
        let stops = error.kind() == io::ErrorKind::Interrupted;
        let parted = stops && part(&mut there, &mut back).await;
        let farewell = async { tokio::join!(there.close(), back.close()) };
        // Whoever takes no notice is cut off.
        let _ = timeout(FAREWELL, farewell).await;
        match parted {
            true => Outcome::Completed,
            false => Outcome::Aborted,
        }
    }
}

/// Has both sides of a WebSocket close it; whether they did.
async fn part(there: &mut Pipe<'_>, back: &mut Pipe<'_>) -> bool {
    // Towards a server frames are masked with what it cannot foresee (RFC 6455,
    // section 5.3).
    let mask = RandomState::new().hash_one(0).to_be_bytes();
    let mask = [mask[0], mask[1], mask[2], mask[3]];
    let parting = async {
        let told = tokio::try_join!(there.say_goodbye(Some(mask)), back.say_goodbye(None))?;
        if told != (true, true) {
            return Ok(false);
        }
        tokio::try_join!(there.hear_goodbye(), back.hear_goodbye())?;
        io::Result::Ok(true)
    };
    matches!(timeout(GOODBYE, parting).await, Ok(Ok(true)))
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}
