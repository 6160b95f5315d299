//! The cores: one thread each, with a current-thread runtime, its own listeners,
//! its own part of every lane, and the routes to them.
//!
//! A core serves until its listeners have ended, follows the roster of lanes as
//! reloads change it, and ends when the daemon says that all have been answered.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{DaemonError, Parts};
use crate::lane::{Lane, Roster, WeakLane};
use crate::listen::Listener;
use crate::pacing::alarm::Alarm;
use crate::proxy::Proxy;
use crate::server::Server;

/// For connections to the upstreams to be closed properly.
const FAREWELL: Duration = Duration::from_millis(20);

/// Starts one thread per core and waits until all of them serve. The receiver
/// gets a message from a core that fails, and ends when all cores have.
pub(super) async fn start_cores(
    parts: &Parts,
    listeners: Vec<Vec<Listener>>,
) -> Result<mpsc::Receiver<()>, DaemonError> {
    let (alive, lost) = mpsc::channel(1);
    let mut starts = Vec::new();
    for (number, listeners) in listeners.into_iter().enumerate() {
        let (parts, alive) = (parts.clone(), alive.clone());
        let (serving, started) = oneshot::channel();
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(DaemonError::System)?;
        let core = move || {
            let mut alive = Alive(Some(alive));
            match runtime.block_on(run_core(&parts, number, listeners, serving)) {
                Ok(()) => {
                    // The connections' tasks end here, before the core counts as ended.
                    drop(runtime);
                    alive.0 = None;
                }
                Err(error) => tracing::error!(%error, core = number, "a core failed"),
            }
        };
        let thread = thread::Builder::new().name(format!("core-{number}"));
        thread.spawn(core).map_err(DaemonError::System)?;
        starts.push(started);
    }
    for started in starts {
        started.await.map_err(|_gone| DaemonError::CoreLost)?;
    }
    Ok(lost)
}

/// Says so when its core is lost, in whatever way.
struct Alive(Option<mpsc::Sender<()>>);

impl Drop for Alive {
    fn drop(&mut self) {
        if let Some(alive) = &self.0 {
            // Once is enough.
            let _ = alive.try_send(());
        }
    }
}

/// One core's life: serves until the daemon has ended.
async fn run_core(
    parts: &Parts,
    number: usize,
    listeners: Vec<Listener>,
    serving: oneshot::Sender<()>,
) -> io::Result<()> {
    let mut roster = parts.roster.clone();
    let mut known = Vec::new();
    let proxy = parts.proxy(&mut known, &roster.borrow_and_update().clone(), number)?;
    let server = Server {
        proxy: Arc::new(ArcSwap::from_pointee(proxy)),
        settings: Arc::clone(&parts.client),
        connections: Arc::clone(&parts.connections),
        draining: parts.draining.clone(),
    };
    let mut servers = JoinSet::new();
    for listener in listeners {
        servers.spawn(server.clone().run(listener));
    }
    // Whether anybody still waits for it does not matter here.
    let _ = serving.send(());
    loop {
        tokio::select! {
            ran = servers.join_next() => match ran {
                Some(ran) => ran.map_err(io::Error::other)??,
                None => break,
            },
            Ok(()) = roster.changed() => {
                let roster = roster.borrow_and_update().clone();
                match parts.proxy(&mut known, &roster, number) {
                    Ok(proxy) => server.proxy.store(Arc::new(proxy)),
                    Err(error) => tracing::error!(%error, core = number, "a core cannot follow"),
                }
                parts.followed.add_permits(1);
            }
        }
    }
    let mut ended = parts.ended.clone();
    // The sender lives until all cores have ended.
    let _ = ended.wait_for(|ended| *ended).await;
    // Without their senders, which the lanes of its routes have, the upstream
    // connections close; a moment for their drivers to say so to the other end.
    drop(server);
    sleep(FAREWELL).await;
    Ok(())
}

impl Parts {
    /// What core `number` serves by `roster`. It has had the lanes that are `known`:
    /// one that was taken out and comes back while requests wait in it must follow,
    /// or they would go where it was before.
    fn proxy(
        &self,
        known: &mut Vec<WeakLane>,
        roster: &Roster,
        number: usize,
    ) -> io::Result<Proxy> {
        known.retain(|lane| lane.upgrade().is_some());
        let mut next = Vec::new();
        for shared in &roster.lanes {
            let mut alive = known.iter().filter_map(WeakLane::upgrade);
            let lane = match alive.find(|lane| lane.is_of(shared)) {
                Some(lane) => {
                    lane.follow();
                    lane
                }
                None => {
                    let lane = Lane::new(shared, number, Alarm::precise()?);
                    known.push(lane.downgrade());
                    lane
                }
            };
            next.push(lane);
        }
        let unrouted = Arc::clone(&self.unrouted);
        let max_headers = self.client.max_headers;
        Ok(Proxy::new(next, unrouted, roster.log_requests, max_headers))
    }
}
