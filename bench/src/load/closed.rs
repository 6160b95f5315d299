//! The closed loop: so many callers, each sending its next request as soon as the last one is answered, until a number of
//! requests has been sent or an instant has come.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::clock;
use crate::http;
use crate::load::Caller;

/// After an error a caller waits this long, so that a dead peer is not a busy loop.
const PAUSE: Duration = Duration::from_millis(10);

/// What a closed loop sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Closed {
    /// Where to.
    pub(crate) addr: SocketAddr,
    /// Callers, each with a connection of its own.
    pub(crate) connections: u32,
    /// Requests in all; `u32::MAX` means as many as fit.
    pub(crate) requests: u32,
    /// No answer is waited for any longer.
    pub(crate) limit: Duration,
}

/// What became of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tally {
    /// Answers with status 200.
    pub(crate) answered: u64,
    /// Other answers and broken connections.
    pub(crate) failed: u64,
    /// First send to last answer, seconds.
    pub(crate) taken: f64,
    /// When callers that still waited began to hang up.
    pub(crate) ended: u64,
}

#[derive(Debug, Default)]
struct Counters {
    next: AtomicU32,
    answered: AtomicU64,
    failed: AtomicU64,
    last: AtomicU64,
}

impl Closed {
    /// Sends numbered GETs until all are answered or the time is up.
    pub(crate) async fn run(self) -> Tally {
        self.sending(http::get).await
    }

    /// Sends what `request` makes of the numbers from 0 on until all are answered or the time is up.
    pub(crate) async fn sending<F>(self, request: F) -> Tally
    where
        F: Fn(u32) -> Vec<u8> + Clone + Send + Sync + 'static,
    {
        let counters = Arc::new(Counters::default());
        let start = clock::now();
        let deadline = Instant::now() + self.limit;
        let mut callers = JoinSet::new();
        for _ in 0..self.connections {
            callers.spawn(call(self, Arc::clone(&counters), request.clone()));
        }
        // Dropping the set ends callers that still wait.
        while let Ok(Some(_)) = timeout_at(deadline, callers.join_next()).await {}
        let ended = clock::now();
        drop(callers);
        let last = counters.last.load(Ordering::Relaxed).max(start);
        Tally {
            answered: counters.answered.load(Ordering::Relaxed),
            failed: counters.failed.load(Ordering::Relaxed),
            taken: clock::seconds(last - start),
            ended,
        }
    }
}

async fn call<F>(load: Closed, counters: Arc<Counters>, request: F)
where
    F: Fn(u32) -> Vec<u8> + Send + Sync,
{
    let mut caller = Caller::new(load.addr);
    loop {
        let number = counters.next.fetch_add(1, Ordering::Relaxed);
        if number >= load.requests {
            return;
        }
        let status = caller.send(&request(number)).await;
        counters.last.fetch_max(clock::now(), Ordering::Relaxed);
        match status {
            Ok(200) => counters.answered.fetch_add(1, Ordering::Relaxed),
            _ => counters.failed.fetch_add(1, Ordering::Relaxed),
        };
        if status.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}
