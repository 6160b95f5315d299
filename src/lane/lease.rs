//! What it takes to make one call: a slot in flight and a ready connection.
//!
//! A [`Lease`] goes from the worker, or the caller that is its own worker, into
//! the response body, so that the slot is taken until the body has ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ::http::header::UPGRADE;
use ::http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::link::Link;
use super::tunnel;
use super::worker::hire;
use super::{Core, Shared};
use crate::http::body::Upload;
use crate::http::interim::Asker;
use crate::upstream::{Connection, SendError};

/// One of the `max_in_flight` slots.
#[derive(Debug)]
pub(super) struct Slot(Arc<Shared>);

/// A ready connection and a slot: what it takes to make one call.
/// [`Lease::finish`] keeps the connection; dropping the lease closes it. Either
/// way the slot is free and a worker is hired if a job waits for it.
#[derive(Debug)]
pub(super) struct Lease {
    core: Arc<Core>,
    link: Arc<Link>,
    connection: Option<Connection>,
    slot: Option<Slot>,
}

impl Slot {
    /// A slot, if one is free.
    pub(super) fn try_take(shared: &Arc<Shared>) -> Option<Self> {
        let max = shared.settings().max_in_flight.get();
        let free = |taken| (taken < max).then_some(taken + 1);
        let taken = &shared.in_flight;
        taken
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, free)
            .ok()?;
        Some(Self(Arc::clone(shared)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Lease {
    pub(super) fn new(
        core: &Arc<Core>,
        link: Arc<Link>,
        connection: Connection,
        slot: Slot,
    ) -> Self {
        Self {
            core: Arc::clone(core),
            link,
            connection: Some(connection),
            slot: Some(slot),
        }
    }

    /// Sends `request` on the connection, see [`Connection::send`].
    pub(super) fn send(
        &mut self,
        request: Request<Upload>,
        asker: Option<Asker>,
    ) -> impl Future<Output = Result<Response<Incoming>, Box<SendError>>> + Send + use<> {
        let connection = self.connection.as_mut();
        let connection = connection.expect("a lease has its connection until it is finished");
        let sent = match connection.is_shared() && request.headers().contains_key(UPGRADE) {
            true => Err(Box::pin(tunnel::send_apart(
                Arc::clone(&self.core),
                request,
                asker,
            ))),
            false => Ok(connection.send(request, self.link.dialer.origin(), asker)),
        };
        async move {
            match sent {
                Ok(sent) => sent.await,
                Err(apart) => apart.await,
            }
        }
    }

    /// Whether the connection can still be expected to work at `now`.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        let current = Arc::ptr_eq(&self.link, &self.core.link.load());
        let connection = self.connection.as_ref();
        current && connection.is_some_and(|connection| self.link.pool.is_fresh(connection, now))
    }

    /// Whether the upstream may be closing the connection this instant.
    pub(super) fn may_be_closing(&self) -> bool {
        let connection = self.connection.as_ref();
        connection.is_some_and(Connection::may_be_closing)
    }

    /// Closes the connection and keeps the slot, for another one.
    pub(super) fn close(mut self) -> Slot {
        let slot = self.slot.take();
        slot.expect("a lease has its slot until it is given up")
    }

    /// The call is over before all of its request was sent: that stops.
    pub(super) fn cut(mut self) {
        if let Some(connection) = self.connection.take() {
            connection.cut();
        }
    }

    /// The call is over and the connection can be used again.
    pub(super) fn finish(mut self) {
        if let Some(connection) = self.connection.take() {
            self.link.pool.put(connection, Instant::now());
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        // First the slot, then the look: a job that found no slot has counted
        // itself before, so one of the two sees the other.
        drop(slot);
        if self.core.shared.waiting() > 0 {
            hire(&self.core);
        }
    }
}
