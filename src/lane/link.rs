//! One core's way to the upstream: what opens connections, and those that are
//! open and not in use.
//!
//! A reload that changes how the upstream is reached gives each core another
//! link. What is in flight keeps the old one, which closes with the last of its
//! connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use super::Core;
use crate::config;
use crate::metrics::Cells;
use crate::upstream::{Connection, Dialer, Driver, Guard, Pool};

/// What one core's connections to the upstream have in common.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) dialer: Arc<Dialer>,
    pub(super) pool: Pool,
    /// Held while a connection is opened that others may then share.
    pub(super) dialing: Mutex<()>,
    /// Whether one is opened that nobody waits for any more.
    pub(super) left: AtomicBool,
    /// Whether the last connection could be shared; true until it is known.
    shares: AtomicBool,
    /// Connections that are kept however long they are unused.
    warm: usize,
    /// Connections that are open, in use or not.
    open: Arc<AtomicUsize>,
}

/// Counts a connection while it is open.
#[derive(Debug)]
struct Open {
    count: Arc<AtomicUsize>,
    cells: Arc<Cells>,
    closed: Arc<watch::Sender<()>>,
}

impl Link {
    /// Core `number` of `cores` keeps its share of the connections that are kept
    /// warm.
    pub(super) fn new(
        dialer: Arc<Dialer>,
        settings: &config::Connection,
        (number, cores): (usize, usize),
    ) -> Self {
        let warm = settings.warm / cores + usize::from(number < settings.warm % cores);
        Self {
            pool: Pool::new(settings, warm),
            dialing: Mutex::default(),
            left: AtomicBool::new(false),
            shares: AtomicBool::new(dialer.offers_http2()),
            warm,
            open: Arc::default(),
            dialer,
        }
    }

    /// Whether the next connection may be one that others can share.
    pub(super) fn may_share(&self) -> bool {
        self.shares.load(Ordering::Relaxed)
    }

    /// Takes a new connection, which tells whether the next may be shared, and is
    /// if it can be.
    pub(super) fn opened(&self, core: &Core, opened: (Connection, Option<Driver>)) -> Connection {
        self.shares.store(opened.0.is_shared(), Ordering::Relaxed);
        let connection = self.count(core, opened);
        self.pool.offer(&connection);
        connection
    }

    /// Counts a new connection until it closes, and has it driven until then.
    pub(super) fn count(
        &self,
        core: &Core,
        (mut connection, driver): (Connection, Option<Driver>),
    ) -> Connection {
        let open = Open::new(self, core);
        match driver {
            Some(driver) => {
                core.runtime.spawn(async move {
                    driver.await;
                    drop(open);
                });
            }
            None => connection.hold(Box::new(open)),
        }
        connection
    }

    /// How many connections are missing of those that are kept warm.
    pub(super) fn lacks(&self, now: Instant) -> usize {
        match self.may_share() {
            true => usize::from(self.warm > 0 && !self.pool.has_shared(now)),
            false => self.warm.saturating_sub(self.open.load(Ordering::SeqCst)),
        }
    }
}

impl Open {
    fn new(link: &Link, core: &Core) -> Self {
        link.open.fetch_add(1, Ordering::SeqCst);
        core.cells.connections(1);
        Self {
            count: Arc::clone(&link.open),
            cells: Arc::clone(&core.cells),
            closed: Arc::clone(&core.closed),
        }
    }
}

impl Guard for Open {}

impl Drop for Open {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
        self.cells.connections(-1);
        self.closed.send_replace(());
    }
}
