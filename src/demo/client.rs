//! The demo's callers: a burst of requests, each on its own connection, and the
//! reader of the daemon's metrics.
//!
//! A burst is one task per request; they end when the [`Burst`] is dropped, and
//! each of them by itself after [`LONGEST_CALL`].

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use ::http::header::HOST;
use ::http::{Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Longest time for one request of a burst, its wait in the queue included.
const LONGEST_CALL: Duration = Duration::from_secs(30);

/// Longest time for a connection, and for a look at the metrics.
const LONGEST_STEP: Duration = Duration::from_secs(5);

/// Time for the server to accept the connections of a burst. Of connections that
/// it has not accepted yet, it may read the later ones first.
const SETTLE: Duration = Duration::from_millis(200);

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;
type Sender = http1::SendRequest<Empty<Bytes>>;
type Connection = http1::Connection<TokioIo<TcpStream>, Empty<Bytes>>;

/// Requests that were sent at once.
#[derive(Debug)]
pub(super) struct Burst {
    replies: JoinSet<Reply>,
    /// When the first was sent.
    pub(super) started: Instant,
}

/// How one request of a burst ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reply {
    /// `None` when no complete answer came.
    pub(super) status: Option<StatusCode>,
    pub(super) at: Instant,
}

/// What the daemon's metrics say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Levels {
    pub(super) waiting: u64,
    pub(super) in_flight: u64,
}

impl Burst {
    /// Sends `requests` requests to `to`: `/1`, `/2` and so on, without waiting
    /// for answers.
    ///
    /// # Errors
    ///
    /// A connection cannot be opened or used.
    pub(super) async fn start(to: SocketAddr, requests: u32) -> Result<Self> {
        let mut connections = Vec::new();
        for _ in 0..requests {
            connections.push(connect(to).await?);
        }
        sleep(SETTLE).await;
        let mut replies = JoinSet::new();
        let started = Instant::now();
        for ((mut sender, connection), number) in connections.into_iter().zip(1..) {
            let answer = sender.send_request(request(to, &format!("/{number}"))?);
            replies.spawn(async move {
                let exchange = exchange(sender, answer, connection);
                let answer = timeout(LONGEST_CALL, exchange).await;
                let answer = answer.map_err(Into::into).and_then(|answer| answer);
                Reply {
                    status: answer.ok().map(|answer| answer.status()),
                    at: Instant::now(),
                }
            });
        }
        Ok(Self { replies, started })
    }

    /// The next end of a request; `None` after the last.
    pub(super) async fn next(&mut self) -> Option<Reply> {
        let reply = self.replies.join_next().await?;
        Some(reply.unwrap_or_else(|_| Reply {
            status: None,
            at: Instant::now(),
        }))
    }
}

impl Levels {
    /// Reads them at the daemon's admin address.
    ///
    /// # Errors
    ///
    /// No answer, or one without these numbers.
    pub(super) async fn read(admin: SocketAddr, lane: &str) -> Result<Self> {
        let read = async {
            let (mut sender, connection) = connect(admin).await?;
            let answer = sender.send_request(request(admin, "/metrics")?);
            exchange(sender, answer, connection).await
        };
        let metrics = timeout(LONGEST_STEP, read).await??;
        let metrics = std::str::from_utf8(metrics.body())?;
        Self::find(metrics, lane).ok_or_else(|| "the metrics lack the queue".into())
    }

    fn find(metrics: &str, lane: &str) -> Option<Self> {
        let value = |name: &str| {
            let start = format!("{name}{{upstream=\"{lane}\"}} ");
            let value = metrics.lines().find_map(|line| line.strip_prefix(&start));
            value?.parse().ok()
        };
        Some(Self {
            waiting: value("pacegate_queue_requests")?,
            in_flight: value("pacegate_in_flight_requests")?,
        })
    }
}

async fn connect(to: SocketAddr) -> Result<(Sender, Connection)> {
    let stream = timeout(LONGEST_STEP, TcpStream::connect(to)).await??;
    stream.set_nodelay(true)?;
    Ok(http1::handshake(TokioIo::new(stream)).await?)
}

fn request(to: SocketAddr, path: &str) -> Result<Request<Empty<Bytes>>> {
    let request = Request::get(path).header(HOST, to.to_string());
    Ok(request.body(Empty::new())?)
}

/// Drives `connection` until the whole answer is there, then closes it.
async fn exchange(
    sender: Sender,
    answer: impl Future<Output = hyper::Result<Response<Incoming>>>,
    connection: Connection,
) -> Result<Response<Bytes>> {
    let read = async {
        let (head, body) = answer.await?.into_parts();
        let body = body.collect().await?.to_bytes();
        // The connection ends when nobody can send on it any more.
        drop(sender);
        Ok(Response::from_parts(head, body))
    };
    // What breaks the connection breaks the answer as well.
    let (answer, _) = tokio::join!(read, connection);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_levels_of_one_lane_among_the_metrics() {
        let metrics = "\
# HELP pacegate_queue_requests Requests waiting.
pacegate_queue_requests{upstream=\"other\"} 1
pacegate_queue_requests{upstream=\"demo\"} 90
pacegate_in_flight_requests{upstream=\"demo\"} 2
";
        let levels = Levels {
            waiting: 90,
            in_flight: 2,
        };
        assert_eq!(Levels::find(metrics, "demo"), Some(levels));
        assert_eq!(Levels::find(metrics, "another"), None);
    }
}
