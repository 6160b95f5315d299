//! Bytes both ways after a change of protocol (RFC 9110, section 7.8).
//!
//! A request for an upgrade takes a [`Seat`] on its arrival, of which there are
//! fewer than calls in flight, so that tunnels never keep all slots from other
//! requests. Where the upstream answers 101, the [`Tunnel`] goes to the caller's
//! connection in the response's extensions; once that connection has written
//! the 101 its task runs the tunnel. The call's slot, turn and account are in it
//! to its end. A side that ends its half leaves the other half open (half-close).
//!
//! Shutdown: a tunnel may go on for the drain time; then both sides are closed.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::http::header::HeaderValue;
use ::http::{Request, Response, request};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::time::{Instant, sleep_until, timeout};

use super::account::Account;
use super::lease::Lease;
use super::{Core, Lane, Shared};
use crate::http::body::Upload;
use crate::http::interim::Asker;
use crate::http::upgrade;
use crate::outcome::Outcome;
use crate::upstream::SendError;

/// Bytes read at once, each way.
const PIECE: usize = 16 * 1024;

/// For both sides to end their halves after we have ended ours.
const FAREWELL: Duration = Duration::from_millis(250);

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
    call: Option<(Lease, Account)>,
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
        (lease, account): (Lease, Account),
    ) {
        let upstream = hyper::upgrade::on(&mut *response);
        upgrade::write(response.headers_mut(), protocols);
        let shared = Arc::clone(&self.seat.0);
        let tunnel = Tunnel {
            caller: self.caller,
            upstream,
            call: Some((lease, account)),
            idle: shared.settings().timeouts.tunnel_idle,
            shared,
            _seat: self.seat,
        };
        let passed = Passed(Arc::new(Mutex::new(Some(tunnel))));
        response.extensions_mut().insert(passed);
    }
}

/// Sends a request for an upgrade over an HTTP/1.1 connection of its own, where
/// the lane's are HTTP/2, which has no upgrades (RFC 9113, section 8.6).
pub(super) async fn send_apart(
    core: Arc<Core>,
    request: Request<Upload>,
    asker: Option<Asker>,
) -> Result<Response<Incoming>, Box<SendError>> {
    let dialer = core.shared.dialer.load_full();
    match dialer.connect_http1().await {
        Ok((mut connection, driver)) => {
            core.link.load().drive(&core, driver);
            let answered = connection.send(request, dialer.origin(), asker).await;
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
        if let Some((lease, account)) = self.call.take() {
            account.end(outcome);
            drop(lease);
        }
    }

    async fn carry(&self, caller: Upgraded, upstream: Upgraded) -> Outcome {
        let (from_caller, to_caller) = split(TokioIo::new(caller));
        let (from_upstream, to_upstream) = split(TokioIo::new(upstream));
        let moved = Moved::new();
        let mut there = Pipe::new(from_caller, to_upstream, &moved);
        let mut back = Pipe::new(from_upstream, to_caller, &moved);
        let ended = tokio::select! {
            ended = async { tokio::try_join!(there.carry(), back.carry()) } => ended,
            () = moved.nothing_for(self.idle) => Err(io::ErrorKind::TimedOut.into()),
            () = self.shared.cut() => Err(io::ErrorKind::Interrupted.into()),
        };
        match ended {
            Ok(_) => Outcome::Completed,
            Err(error) => {
                tracing::debug!(%error, upstream = self.shared.name, "a tunnel ended");
                let farewell = async { tokio::join!(there.close(), back.close()) };
                // Whoever takes no notice is cut off.
                let _ = timeout(FAREWELL, farewell).await;
                Outcome::Aborted
            }
        }
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}

/// When bytes were last moved, in either direction.
struct Moved {
    start: Instant,
    /// Since `start`, in µs.
    last: AtomicU64,
}

impl Moved {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            last: AtomicU64::new(0),
        }
    }

    fn now(&self) {
        let micros = self.start.elapsed().as_micros();
        self.last.store(micros as u64, Ordering::Relaxed);
    }

    /// Returns when nothing has moved for `span`.
    async fn nothing_for(&self, span: Duration) {
        loop {
            let last = self.last.load(Ordering::Relaxed);
            sleep_until(self.start + Duration::from_micros(last) + span).await;
            if self.last.load(Ordering::Relaxed) == last {
                return;
            }
        }
    }
}

type Stream = TokioIo<Upgraded>;

/// One direction. A writer that is behind holds its reader back.
struct Pipe<'a> {
    from: ReadHalf<Stream>,
    to: WriteHalf<Stream>,
    moved: &'a Moved,
}

impl<'a> Pipe<'a> {
    fn new(from: ReadHalf<Stream>, to: WriteHalf<Stream>, moved: &'a Moved) -> Self {
        Self { from, to, moved }
    }

    /// Passes bytes on until there are no more, and then says so.
    async fn carry(&mut self) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            let length = self.from.read(&mut piece).await?;
            self.moved.now();
            if length == 0 {
                return self.to.shutdown().await;
            }
            self.to.write_all(&piece[..length]).await?;
            self.to.flush().await?;
            self.moved.now();
        }
    }

    /// Ends the half that is written, and reads the other to its end: what is
    /// unread when a socket closes would throw away what was written to it.
    async fn close(&mut self) -> io::Result<()> {
        self.to.shutdown().await?;
        let mut piece = [0; 1024];
        while self.from.read(&mut piece).await? > 0 {}
        Ok(())
    }
}
