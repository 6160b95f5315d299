//! What it takes to make one call: a slot in flight and a ready connection.
//!
//! A [`Lease`] goes from the worker, or the caller that is its own worker, into
//! the response body, so that the slot is taken until the body has ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ::http::header::UPGRADE;
use tokio::time::Instant;

use super::account::Account;
use super::link::Link;
use super::tunnel;
use super::worker::hire;
use super::{Core, Shared};
use crate::http::interim::Asker;
use crate::upstream::{Connection, Ear, Inbound, Outgoing, Sent};

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

/// What a call in flight holds, until its response body has ended.
#[derive(Debug)]
pub(super) struct Flight {
    // In this order: the account is settled before the slot is free.
    pub(super) account: Account,
    pub(super) lease: Lease,
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

    /// Sends `request`, whose turn has this number, on the connection, see
    /// [`Connection::send`].
    pub(super) fn send<E>(
        &mut self,
        request: Outgoing,
        turn: Option<u64>,
        ear: E,
        asker: Option<Asker>,
    ) -> impl Future<Output = Sent> + Send + use<E>
    where
        E: Ear + Send + Unpin,
    {
        let connection = self.connection.as_mut();
        let connection = connection.expect("a lease has its connection until it is finished");
        let apart = match &request {
            Outgoing::Parsed(request) => {
                connection.is_shared() && request.headers().contains_key(UPGRADE)
            }
            Outgoing::Plain(_) => false,
        };
        let sent = match apart {
            true => Err(Box::pin(tunnel::send_apart(
                Arc::clone(&self.core),
                Arc::clone(&self.link.dialer),
                request,
                turn,
                asker,
            ))),
            false => {
                let dialer = &self.link.dialer;
                Ok(connection.send(request, dialer, &self.core.runtime, ear, asker))
            }
        };
        async move {
            match sent {
                Ok(sent) => sent.await,
                Err(apart) => apart.await,
            }
        }
    }

    /// Takes back what a response `body` has of the connection, once that has
    /// ended.
    pub(super) fn take_back(&mut self, body: &mut Inbound) {
        if let Some(connection) = &mut self.connection {
            connection.take_back(body);
        }
    }

    /// Keeps others off the connection, see [`Connection::retire`].
    pub(super) fn retire(&self) {
        if let Some(connection) = &self.connection {
            connection.retire();
        }
    }

    /// Whether the connection can still be expected to work at `now`.
    pub(super) fn is_fresh(&mut self, now: Instant) -> bool {
        let current = Arc::ptr_eq(&self.link, &self.core.link.load());
        let connection = self.connection.as_mut();
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
