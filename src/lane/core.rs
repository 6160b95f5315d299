//! One core's part of a lane: its link to the upstream, its alarm, and what it puts
//! on requests. A [`Lane`] is the handle of it.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use ::http::request;
use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::link::Link;
use super::{Dress, Shared, warm, worker};
use crate::config;
use crate::metrics::Cells;
use crate::outcome::Outcome;
use crate::pacing::Charge;
use crate::pacing::alarm::Alarm;

/// One core's part of a lane. Cloning it is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Lane(pub(super) Arc<Core>);

/// A [`Lane`] that others keep alive: the routes to it, and its requests.
#[derive(Debug)]
pub(crate) struct WeakLane(Weak<Core>);

#[derive(Debug)]
pub(super) struct Core {
    pub(super) shared: Arc<Shared>,
    pub(super) cells: Arc<Cells>,
    pub(super) link: ArcSwap<Link>,
    /// What is put on requests: it changes with the link, so that no address sees a
    /// secret that is for another.
    pub(super) dress: ArcSwap<Dress>,
    /// Its place among the cores.
    pub(super) number: usize,
    /// Tells that a connection has closed, or that there is another link.
    pub(super) closed: Arc<watch::Sender<()>>,
    pub(super) alarm: Alarm,
    pub(super) runtime: Handle,
}

impl Lane {
    /// The part of `shared` that runs on the current runtime, as core `core`.
    pub(crate) fn new(shared: &Arc<Shared>, core: usize, alarm: Alarm) -> Self {
        let lane = Self(Arc::new(Core {
            cells: Arc::clone(&shared.cells[core]),
            link: ArcSwap::from_pointee(shared.link(core)),
            dress: ArcSwap::new(shared.dress.load_full()),
            number: core,
            closed: Arc::default(),
            alarm,
            runtime: Handle::current(),
            shared: Arc::clone(shared),
        }));
        let closed = lane.0.closed.subscribe();
        tokio::spawn(warm::keep(Arc::downgrade(&lane.0), closed));
        tokio::spawn(sweep(Arc::downgrade(&lane.0)));
        lane
    }

    /// Whether it is a part of `shared`.
    pub(crate) fn is_of(&self, shared: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.0.shared, shared)
    }

    /// Follows a change of the settings, on the core's own thread.
    pub(crate) fn follow(&self) {
        let core = &self.0;
        let current = core.shared.dialer.load_full();
        if !Arc::ptr_eq(&core.link.load().dialer, &current) {
            core.link.store(Arc::new(core.shared.link(core.number)));
            core.closed.send_replace(());
        }
        // Together with the link: nothing is sent on this thread meanwhile.
        core.dress.store(core.shared.dress.load_full());
        // More calls may be allowed at once.
        worker::hire(core);
    }

    /// The same, for as long as somebody else has it.
    pub(crate) fn downgrade(&self) -> WeakLane {
        WeakLane(Arc::downgrade(&self.0))
    }

    /// The settings of the lane.
    pub(crate) fn settings(&self) -> Arc<config::Upstream> {
        self.0.shared.settings.load_full()
    }

    /// What is to be put on requests of this core.
    pub(crate) fn dress(&self) -> Arc<Dress> {
        self.0.dress.load_full()
    }

    /// What the request with `head` from `caller` costs. Takes from the head
    /// what is meant for us alone.
    pub(crate) fn charge(&self, head: &mut request::Parts, caller: Option<IpAddr>) -> Charge {
        self.0.shared.tariff.load().charge(head, caller)
    }

    /// How long a request of `charge` that ended as `outcome` had better stay
    /// away.
    pub(crate) fn retry_after(&self, charge: &Charge, outcome: Outcome) -> Duration {
        let shared = &self.0.shared;
        let wait = shared.wait(charge);
        match outcome {
            // By then so many have gone that this one would have been admitted.
            Outcome::WaitTooLong => wait.saturating_sub(shared.settings().longest_wait()),
            _ => wait,
        }
    }
}

impl WeakLane {
    /// The lane, unless it is gone.
    pub(crate) fn upgrade(&self) -> Option<Lane> {
        self.0.upgrade().map(Lane)
    }
}

/// Drops connections that are not used any more, from time to time and when one
/// closes, as long as there is `core`.
async fn sweep(core: Weak<Core>) {
    let mut pause = pin!(sleep(Duration::ZERO));
    poll_fn(|cx| {
        let Some(core) = core.upgrade() else {
            return Poll::Ready(());
        };
        let now = Instant::now();
        core.link.load().pool.sweep(now, cx.waker());
        if pause.as_mut().poll(cx).is_ready() {
            let idle = core.shared.settings().connection.idle_timeout;
            pause.as_mut().reset(now + idle / 2);
            // Asks to be woken then.
            let _: Poll<()> = pause.as_mut().poll(cx);
        }
        Poll::Pending
    })
    .await;
}
