//! The demo's API: an upstream that really enforces its limit.
//!
//! It answers every request at once: 200 while the limit has room, 429 beyond.
//! A sliding log decides, the strictest way to count: in no window of the
//! period, at any phase, does it let more than `count` requests pass.
//!
//! [`Origin::run`] is one task with one task per connection in it; they end when
//! it is dropped.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use ::http::{Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// Most connections at once; the next waits in the kernel's backlog.
const MAX_CONNECTIONS: usize = 256;

/// Longest time for a request head and for an idle connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);

/// The pause after an error of `accept`.
const PAUSE: Duration = Duration::from_millis(100);

/// An API with a limit.
#[derive(Debug)]
pub(super) struct Origin {
    /// Held for a few lines of arithmetic, never over an await.
    books: Mutex<Books>,
}

/// What the API saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    /// Requests answered 429.
    pub(super) refused: u32,
    /// Requests that arrived after one whose number is higher by `count` or
    /// more. Closer ones may travel side by side, on connections of their own;
    /// which of these is read first says nothing about who sent them.
    pub(super) overtaken: u32,
}

#[derive(Debug)]
struct Books {
    log: Log,
    tally: Tally,
    /// The highest number seen since the tally began.
    highest: u32,
}

/// When the latest requests passed.
#[derive(Debug)]
struct Log {
    count: usize,
    period: Duration,
    /// Ascending; at most `count`.
    passed: VecDeque<Instant>,
}

impl Origin {
    /// An API that lets `count` requests pass in any `period`.
    pub(super) fn new(count: u32, period: Duration) -> Self {
        Self {
            books: Mutex::new(Books {
                log: Log::new(count, period),
                tally: Tally::default(),
                highest: 0,
            }),
        }
    }

    /// Serves on `listener` until dropped.
    pub(super) async fn run(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                    match accepted {
                        Ok((stream, _)) => drop(connections.spawn(Arc::clone(&self).serve(stream))),
                        Err(_) => sleep(PAUSE).await,
                    }
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }

    /// Requests that passed in the last period.
    pub(super) fn in_period(&self) -> usize {
        let mut books = self.books();
        books.log.forget(Instant::now());
        books.log.passed.len()
    }

    /// Returns when the last period holds no request.
    pub(super) async fn clear(&self) {
        let clear_at = self.books().log.clear_at();
        if let Some(clear_at) = clear_at {
            sleep_until(clear_at).await;
        }
    }

    /// What was seen since the last call.
    pub(super) fn take_tally(&self) -> Tally {
        let mut books = self.books();
        books.highest = 0;
        std::mem::take(&mut books.tally)
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        // Without it the answers still come, only later.
        let _ = stream.set_nodelay(true);
        let service = service_fn(|request: Request<Incoming>| {
            let response = self.answer(request.uri().path());
            async move { Ok::<_, Infallible>(response) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        // A caller that breaks off is no concern of an API.
        let _ = served.await;
    }

    fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        let mut books = self.books();
        books.arrived(path);
        let passes = books.log.try_pass(Instant::now());
        let (place, count) = (books.log.passed.len(), books.log.count);
        books.tally.refused += u32::from(!passes);
        drop(books);
        let text = match passes {
            true => format!("200: you are number {place} of {count} in this second\n"),
            false => format!("429: {count} were here in this second already\n"),
        };
        let mut response = Response::new(Full::new(text.into()));
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        if !passes {
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            let later = HeaderValue::from_static("1");
            response.headers_mut().insert(RETRY_AFTER, later);
        }
        response
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    /// Notes the order of arrival of paths such as `/17`; others have no number.
    fn arrived(&mut self, path: &str) {
        let Some(number) = path.strip_prefix('/').and_then(|text| text.parse().ok()) else {
            return;
        };
        let late = self.highest.saturating_sub(number) >= self.log.count as u32;
        self.tally.overtaken += u32::from(late);
        self.highest = self.highest.max(number);
    }
}

impl Log {
    fn new(count: u32, period: Duration) -> Self {
        Self {
            count: count as usize,
            period,
            passed: VecDeque::new(),
        }
    }

    /// Lets a request pass at `now`, if the period that ends now has room.
    fn try_pass(&mut self, now: Instant) -> bool {
        self.forget(now);
        let passes = self.passed.len() < self.count;
        if passes {
            self.passed.push_back(now);
        }
        passes
    }

    /// Drops what passed a whole period before `now`.
    fn forget(&mut self, now: Instant) {
        let gone = self.passed.partition_point(|at| *at + self.period <= now);
        self.passed.drain(..gone);
    }

    /// When a period without a request will have passed.
    fn clear_at(&self) -> Option<Instant> {
        self.passed.back().map(|at| *at + self.period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_place_comes_back_exactly_one_period_after_it_was_taken() {
        let mut log = Log::new(2, ms(1000));
        let start = Instant::now();
        assert!(log.try_pass(start));
        assert!(log.try_pass(start + ms(400)));
        assert!(!log.try_pass(start + ms(999)));
        assert!(log.try_pass(start + ms(1000)));
        assert!(!log.try_pass(start + ms(1399)));
        assert!(log.try_pass(start + ms(1400)));
        assert_eq!(log.clear_at(), Some(start + ms(2400)));
        log.forget(start + ms(2400));
        assert_eq!(log.clear_at(), None);
    }

    #[test]
    fn no_window_at_any_phase_holds_more_than_the_limit() {
        let mut log = Log::new(10, ms(1000));
        let start = Instant::now();
        let passed: Vec<u64> = (0..5000)
            .filter(|at| log.try_pass(start + ms(*at)))
            .collect();
        assert_eq!(passed.len(), 50);
        for window in passed.windows(11) {
            assert!(window[10] - window[0] >= 1000, "{window:?}");
        }
    }

    #[test]
    fn refused_requests_take_no_place_and_are_counted() {
        let origin = Origin::new(1, ms(60_000));
        let statuses = ["/hello", "/1", "/2"].map(|path| origin.answer(path).status().as_u16());
        assert_eq!(statuses, [200, 429, 429]);
        let tally = Tally {
            refused: 2,
            overtaken: 0,
        };
        assert_eq!(origin.take_tally(), tally);
        assert_eq!(origin.take_tally(), Tally::default());
        assert_eq!(origin.in_period(), 1);
    }

    #[test]
    fn a_request_is_late_when_one_of_a_later_batch_came_before_it() {
        let origin = Origin::new(2, ms(1000));
        for (path, late) in [("/2", 0), ("/1", 0), ("/5", 0), ("/4", 0), ("/3", 1)] {
            origin.answer(path);
            assert_eq!(origin.books().tally.overtaken, late, "{path}");
        }
    }
}
