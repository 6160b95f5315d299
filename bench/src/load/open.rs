//! The open loop: request number i starts at start + i / rate whatever became of the earlier ones, and its latency counts
//! from that intended instant, so that a stall of the peer (or of this tool) is not hidden by sending less meanwhile.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::clock::{self, Timer};
use crate::load::Caller;

/// Between the start of the callers and the first request.
const LEAD: Duration = Duration::from_millis(50);

/// What an open loop sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Open {
    /// Where to.
    pub(crate) addr: SocketAddr,
    /// Requests per second.
    pub(crate) rate: u32,
    /// Requests in all.
    pub(crate) requests: u32,
    /// Callers; more than can ever be waiting at once.
    pub(crate) connections: u32,
    /// Connect before the first request, else at each caller's first.
    pub(crate) ahead: bool,
    /// From the start: no answer is waited for any longer.
    pub(crate) limit: Duration,
}

/// One request that was answered, or whose connection broke.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Intended start since the start of the run, nanoseconds.
    pub(crate) intended: u64,
    /// Last byte of the answer since the start of the run, nanoseconds.
    pub(crate) ended: u64,
    /// The status, 0 for a broken connection.
    pub(crate) status: u16,
}

impl Sample {
    /// Intended start to last byte, nanoseconds.
    pub(crate) fn latency(&self) -> u64 {
        self.ended - self.intended
    }
}

struct Shared {
    load: Open,
    start: u64,
    next: AtomicU32,
    samples: Mutex<Vec<Sample>>,
}

impl Open {
    /// The intended starts since the start of the run, nanoseconds.
    pub(crate) fn schedule(&self) -> Vec<u64> {
        (0..self.requests)
            .map(|number| self.intended(number))
            .collect()
    }

    /// Runs until all requests have ended or the time is up; requests without an answer have no sample.
    pub(crate) async fn run(self) -> io::Result<Vec<Sample>> {
        let mut callers = Vec::new();
        for _ in 0..self.connections {
            let mut caller = Caller::new(self.addr);
            if self.ahead {
                caller.connect().await?;
            }
            callers.push((caller, Timer::new()?));
        }
        let start = clock::now() + clock::nanos(LEAD);
        let deadline = Instant::now() + LEAD + self.limit;
        let shared = Arc::new(Shared {
            load: self,
            start,
            next: AtomicU32::new(0),
            samples: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        for (caller, timer) in callers {
            tasks.spawn(call(caller, timer, Arc::clone(&shared)));
        }
        while let Ok(Some(_)) = timeout_at(deadline, tasks.join_next()).await {}
        drop(tasks);
        let mut samples = shared
            .samples
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut samples))
    }

    fn intended(&self, number: u32) -> u64 {
        u64::from(number) * 1_000_000_000 / u64::from(self.rate)
    }
}

/// Each caller takes the next start that nobody has taken, so all of them are due in turn and none is needed twice at once.
async fn call(mut caller: Caller, mut timer: Timer, shared: Arc<Shared>) -> io::Result<()> {
    loop {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        if number >= shared.load.requests {
            return Ok(());
        }
        let intended = shared.load.intended(number);
        timer.sleep_until(shared.start + intended).await?;
        let status = caller.get(number).await.unwrap_or(0);
        let sample = Sample {
            intended,
            ended: clock::now() - shared.start,
            status,
        };
        shared
            .samples
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(sample);
    }
}
