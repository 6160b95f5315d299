//! The peer `until_ready`: the program one would write first, in a process of its own. hyper's server takes a request,
//! puts it into a bounded channel, one of 64 workers (more where a table says so) takes it, waits in governor's `until_ready`, sends it with hyper-util's
//! pooled client, and hands the response back by oneshot. Multi-thread runtime, every default kept.
//!
//! It stands here to show what pacegate's shape is worth, so its faults are left in: the caller that has gone still costs a turn, the
//! workers race for turns, and order is lost.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::Result;
use crate::cli::UntilReadyArgs;
use crate::pace::Pace;

/// Unless a table says otherwise.
pub(super) const WORKERS: u32 = 64;
const QUEUE: usize = 1024;

type Answer = Response<Either<Incoming, Full<Bytes>>>;
type Pool = Client<HttpConnector, Incoming>;

struct Job {
    request: Request<Incoming>,
    reply: oneshot::Sender<Response<Incoming>>,
}

/// Serves for ever.
pub(crate) async fn run(args: UntilReadyArgs) -> Result<()> {
    let (jobs, backlog) = mpsc::channel(QUEUE);
    let backlog = Arc::new(Mutex::new(backlog));
    let limiters: Arc<[_]> = args.pace.into_iter().map(limiter).collect::<Result<_>>()?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let pool: Pool = Client::builder(TokioExecutor::new()).build(connector);
    for _ in 0..args.workers {
        tokio::spawn(work(
            Arc::clone(&backlog),
            Arc::clone(&limiters),
            pool.clone(),
        ));
    }
    let listener = TcpListener::bind(args.listen).await?;
    let upstream = args.upstream.to_string();
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve(stream, jobs.clone(), upstream.clone()));
    }
}

/// Evenly spaced, with governor's own burst of a whole period, or with that of the bucket.
fn limiter(pace: Pace) -> Result<DefaultDirectRateLimiter> {
    let quota = Quota::with_period(pace.interval()).ok_or("a pace without an interval")?;
    Ok(RateLimiter::direct(
        quota.allow_burst(pace.burst().try_into()?),
    ))
}

async fn serve(stream: TcpStream, jobs: mpsc::Sender<Job>, upstream: String) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let service = service_fn(|request| answer(request, &jobs, &upstream));
    hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(io::Error::other)
}

async fn answer(
    mut request: Request<Incoming>,
    jobs: &mpsc::Sender<Job>,
    upstream: &str,
) -> std::result::Result<Answer, Infallible> {
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let Ok(uri) = format!("http://{upstream}{path}").parse::<Uri>() else {
        return Ok(failure());
    };
    *request.uri_mut() = uri;
    let (reply, response) = oneshot::channel();
    if jobs.send(Job { request, reply }).await.is_err() {
        return Ok(failure());
    }
    Ok(response
        .await
        .map_or_else(|_| failure(), |response| response.map(Either::Left)))
}

async fn work(
    backlog: Arc<Mutex<mpsc::Receiver<Job>>>,
    limiters: Arc<[DefaultDirectRateLimiter]>,
    pool: Pool,
) {
    loop {
        let job = backlog.lock().await.recv().await;
        let Some(job) = job else {
            return;
        };
        for limiter in &*limiters {
            #[expect(clippy::disallowed_methods, reason = "this peer shows what it costs")]
            limiter.until_ready().await;
        }
        if let Ok(response) = pool.request(job.request).await {
            let _caller_gone = job.reply.send(response);
        }
    }
}

fn failure() -> Answer {
    let mut answer = Response::new(Either::Right(Full::default()));
    *answer.status_mut() = StatusCode::BAD_GATEWAY;
    answer
}
