//! pacegate as others meet it: the real binary between real programs (curl,
//! Python, Node, systemd) and an HTTPS API that enforces its limit.
//!
//! `tests/programs/install` brings the programs; a missing one fails the suite.
//! The figures of `rates` are written past libtest's capture.
#![allow(
    clippy::unwrap_used,
    reason = "a test ends where something unexpected is met"
)]

/// A service manager hands the socket over.
mod activation;
/// What the programs print and write, checked.
mod answers;
/// What the upstream saw, and the limit it enforces.
mod arrivals;
/// A Unix socket, large bodies, a caller that is killed.
mod curl;
/// The daemon under test: started, asked and stopped.
mod daemon;
/// Callers that speak HTTP/2.
mod http2;
/// Other people's programs, each with a bound on its time.
mod program;
/// WebSocket and gRPC.
mod protocols;
/// The main job: each program at each limit, all answered and none too early.
mod rates;
/// An HTTPS API with its own authority and a limit.
mod upstream;

use std::time::Duration;

use tokio::time::timeout;

/// Longest time for what needs no waiting for a turn: a start, a stop, a metric.
const SOON: Duration = Duration::from_secs(15);

/// Looks again until `look` finds something; `what` names it should it not. Each
/// look waits for an answer itself.
async fn until<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    let found = timeout(SOON, looking).await;
    found.unwrap_or_else(|_elapsed| panic!("{what}: not within {SOON:?}"))
}
