//! How a caller's HTTP/1 connection is to end, where that is not for hyper to
//! say: it goes on as a tunnel, or its last response has no other end than the
//! connection's, so that only a clean end may be taken for one (RFC 9112, section
//! 9.6 and 6.3).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use ::http::{Response, Version};
use hyper::body::Body;
use tokio::net::{TcpStream, UnixStream};

use crate::lane::Tunnel;
use crate::proxy::AnswerBody;

/// What the responses of one connection say about its end.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// Held to put it in or take it out.
    tunnel: Mutex<Option<Tunnel>>,
    open_ended: AtomicBool,
}

impl Ending {
    /// Looks at the `response` to a request of `version`.
    pub(super) fn note(&self, version: Version, response: &mut Response<AnswerBody>) {
        if let Some(opened) = Tunnel::of(response) {
            *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
        }
        if version == Version::HTTP_10 && response.body().size_hint().exact().is_none() {
            self.open_ended.store(true, Ordering::Relaxed);
        }
    }

    /// The tunnel that the connection is to become.
    pub(super) fn tunnel(&self) -> Option<Tunnel> {
        let mut tunnel = self.tunnel.lock().unwrap_or_else(PoisonError::into_inner);
        tunnel.take()
    }

    /// All has been written.
    pub(super) fn is_clean(&self) {
        self.open_ended.store(false, Ordering::Relaxed);
    }

    /// Whether a close would pass off half a response as a whole one.
    pub(super) fn would_deceive(&self) -> bool {
        self.open_ended.load(Ordering::Relaxed)
    }
}

/// A stream that can end in a way that nobody takes for a proper end.
pub(super) trait Reset {
    /// Makes the close a reset.
    fn reset(&self);
}

impl Reset for TcpStream {
    fn reset(&self) {
        // If that fails it is gone already.
        let _ = self.set_zero_linger();
    }
}

/// A Unix socket has no reset.
impl Reset for UnixStream {
    fn reset(&self) {}
}

#[cfg(test)]
impl Reset for tokio::io::DuplexStream {
    fn reset(&self) {}
}
