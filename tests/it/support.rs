//! What the tests stand on: the daemon in this process, an upstream that does
//! as it is told, and callers that speak in bytes.
//!
//! Every wait is for an event and has a bound; a test that fails prints what
//! its upstream saw.

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;

mod caller;
mod message;
mod modern;
mod proxy;
mod upstream;

pub(crate) use caller::{Caller, Response};
pub(crate) use message::Fields;
pub(crate) use modern::Modern;
pub(crate) use proxy::{Metrics, Proxy};
pub(crate) use upstream::{Log, Seen, Step, Upstream};

/// The longest that anything may take here, on a busy machine too.
const BOUND: Duration = Duration::from_secs(10);

/// Waits for `future`, and fails the test if that takes too long.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = timeout(BOUND, future).await else {
        panic!("not within {BOUND:?}: {what}");
    };
    value
}

/// A `200` with a body of that text.
pub(crate) fn ok(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// A GET without a body.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: caller\r\n\r\n").into_bytes()
}

/// A POST with a body of that text.
pub(crate) fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: caller\r\nContent-Length: {length}");
    format!("{head}\r\n\r\n{body}").into_bytes()
}
