//! An HTTP/1.1 connection that hyper has for one exchange.
//!
//! hyper gives it back when the exchange has ended well and both sides mean to go
//! on; a connection of which that is not certain is closed.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::http::header::{CONNECTION, UPGRADE};
use ::http::{HeaderMap, Request, Version};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Duration, sleep};

use super::interim::Tap;
use super::plain::Line;
use super::wire::Wire;
use super::{Inbound, SendError, Sent};
use crate::http::body::Upload;
use crate::http::grammar::members;
use crate::http::response;

/// For what is still to be written on a connection that nobody needs any more.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// How an exchange ends that nobody waits for any more; without a word, when what is
/// to be written is written, or soon.
#[derive(Debug)]
pub(super) enum Leave {
    /// By itself.
    LetGo,
    /// At once.
    Cut,
}

/// The claim on a connection that was lent. Dropping it ends the exchange on it.
#[derive(Debug)]
pub(super) struct Loan {
    back: oneshot::Receiver<Line>,
    leash: oneshot::Sender<Leave>,
    /// Whether the upstream has said that it goes on.
    keeps: Arc<AtomicBool>,
}

impl Loan {
    /// The connection if it is back: `Some(None)` if it never will be.
    pub(super) fn returned(&mut self) -> Option<Option<Line>> {
        match self.back.try_recv() {
            Ok(line) => Some(self.kept(line)),
            Err(oneshot::error::TryRecvError::Closed) => Some(None),
            Err(oneshot::error::TryRecvError::Empty) => None,
        }
    }

    /// Waits until it is back; `None` if it never will be.
    pub(super) async fn wait(&mut self) -> Option<Line> {
        let line = (&mut self.back).await.ok()?;
        self.kept(line)
    }

    fn kept(&self, line: Line) -> Option<Line> {
        self.keeps.load(Ordering::Acquire).then_some(line)
    }

    /// Says how the exchange is to end.
    pub(super) fn leave(self, how: Leave) {
        // A driver that has ended needs no word.
        let _ = self.leash.send(how);
    }
}

/// Sends `request` on `line`, of which `tap` sees the interim answers; hyper's part
/// runs on `runtime`.
pub(super) fn send(
    line: Line,
    request: Request<Upload>,
    tap: Tap,
    runtime: &Handle,
) -> (Loan, impl Future<Output = Sent> + Send + use<>) {
    let (give, back) = oneshot::channel();
    let (leash, held) = oneshot::channel();
    let keeps = Arc::<AtomicBool>::default();
    let loan = Loan {
        back,
        leash,
        keeps: Arc::clone(&keeps),
    };
    let runtime = runtime.clone();
    let sent = async move {
        let (wire, traffic) = Wire::new(line, tap);
        let opened = http1::Builder::new()
            .preserve_header_case(true)
            // RFC 9112, section 5.1: a gateway takes the space away.
            .allow_spaces_after_header_name_in_responses(true)
            .handshake::<_, Upload>(TokioIo::new(wire))
            .await;
        let (mut sender, connection) = match opened {
            Ok(opened) => opened,
            Err(error) => return Err(SendError::broken(Some(request), error, false, true).into()),
        };
        runtime.spawn(drive(connection, &request, give, held));
        let sent = sender.try_send_request(request);
        // It is the only exchange: the connection ends with it.
        drop(sender);
        let mut response = sent.await.map_err(|mut failed| {
            let unsent = failed.take_message();
            let (heard, unsaid) = (traffic.heard(), !traffic.said());
            Box::new(SendError::broken(
                unsent,
                failed.into_error(),
                heard,
                unsaid,
            ))
        })?;
        response::check(&mut response).map_err(|flaw| Box::new(SendError::refused(flaw)))?;
        let goes_on = response.version() == Version::HTTP_11 && !closes(response.headers());
        keeps.store(goes_on, Ordering::Release);
        Ok(response.map(|body| Inbound::Hyper(body, Version::HTTP_11)))
    };
    (loan, sent)
}

/// Drives the exchange of `request`, and gives the connection back after it.
fn drive(
    mut connection: http1::Connection<TokioIo<Wire>, Upload>,
    request: &Request<Upload>,
    give: oneshot::Sender<Line>,
    held: oneshot::Receiver<Leave>,
) -> impl Future<Output = ()> + Send + use<> {
    let upgrades = request.headers().contains_key(UPGRADE);
    async move {
        let driven = async {
            if upgrades {
                return connection.with_upgrades().await;
            }
            poll_fn(|cx| connection.poll_without_shutdown(cx)).await?;
            let parts = connection.into_parts();
            if parts.read_buf.is_empty() {
                // Who does not want it any more has dropped the other end.
                let _ = give.send(parts.io.into_inner().into_line());
            }
            Ok(())
        };
        let ended = tokio::select! {
            biased;
            ended = driven => ended,
            () = given_up(held) => return,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "an upstream connection ended");
        }
    }
}

/// Whether the upstream closes the connection after its response.
fn closes(headers: &HeaderMap) -> bool {
    let options = headers.get_all(CONNECTION).iter();
    let mut options = options.flat_map(|value| members(value.as_bytes()));
    options.any(|option| option.eq_ignore_ascii_case(b"close"))
}

/// Returns when the connection is dropped and has not ended in a while: an
/// upstream that reads no more would keep it, and the request on it, for good.
async fn given_up(held: oneshot::Receiver<Leave>) {
    match held.await {
        Ok(Leave::LetGo) => std::future::pending().await,
        Ok(Leave::Cut) => {}
        Err(_dropped) => sleep(LAST_BYTES).await,
    }
}
