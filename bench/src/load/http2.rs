//! The closed loop over HTTP/2 without TLS: eight callers on each connection, each sending its next GET as soon as the last
//! one is answered. The h2 crate does the protocol; it takes more of the load's core than wrk does for HTTP/1.1.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{self, SendRequest};
use http::{Request, StatusCode};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::Result;

/// Callers on one connection.
pub(crate) const STREAMS: u32 = 8;
/// After an error a connection waits this long, so that a dead peer is not a busy loop.
const PAUSE: Duration = Duration::from_millis(10);

/// What became of the requests.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Answers with status 200.
    pub(super) answered: AtomicU64,
    /// Other answers and broken connections.
    pub(super) failed: AtomicU64,
}

/// Keeps `callers`, a multiple of eight, busy for so long.
pub(super) async fn run(addr: SocketAddr, callers: u32, limit: Duration) -> Arc<Counters> {
    let counters = Arc::new(Counters::default());
    let deadline = Instant::now() + limit;
    let mut connections = JoinSet::new();
    for _ in 0..callers / STREAMS {
        connections.spawn(connect(addr, Arc::clone(&counters)));
    }
    while let Ok(Some(_)) = timeout_at(deadline, connections.join_next()).await {}
    drop(connections);
    counters
}

/// Connects again whenever the connection ends.
async fn connect(addr: SocketAddr, counters: Arc<Counters>) {
    loop {
        if converse(addr, &counters).await.is_err() {
            counters.failed.fetch_add(1, Ordering::Relaxed);
            sleep(PAUSE).await;
        }
    }
}

/// Ends with the connection, or with the first request that gets no answer.
async fn converse(addr: SocketAddr, counters: &Arc<Counters>) -> Result<()> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = client::handshake(stream).await?;
    let mut callers = JoinSet::new();
    for _ in 0..STREAMS {
        callers.spawn(call(sender.clone(), addr, Arc::clone(counters)));
    }
    drop(sender);
    tokio::select! {
        ended = connection => Ok(ended?),
        broken = callers.join_next() => broken.map_or(Ok(()), |broken| broken?),
    }
}

async fn call(
    mut sender: SendRequest<Bytes>,
    addr: SocketAddr,
    counters: Arc<Counters>,
) -> Result<()> {
    loop {
        sender = sender.ready().await?;
        let request = Request::get(format!("http://{addr}/")).body(())?;
        let (response, _) = sender.send_request(request, true)?;
        let (head, mut body) = response.await?.into_parts();
        while let Some(piece) = body.data().await {
            let size = piece?.len();
            body.flow_control().release_capacity(size)?;
        }
        match head.status {
            StatusCode::OK => counters.answered.fetch_add(1, Ordering::Relaxed),
            _ => counters.failed.fetch_add(1, Ordering::Relaxed),
        };
    }
}
