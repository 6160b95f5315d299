//! The composition root: binds the sockets, builds the lanes, starts the cores
//! and knows the order in which everything stops.
//!
//! One thread per core, each with a current-thread runtime of its own, its own
//! listeners and its own connections to the upstreams; they share the lanes'
//! order and limits. The admin listener and the stop run on the caller's
//! runtime, so they answer however busy the cores are.
//!
//! The order of a stop: not ready; no new connections; what waits and what is
//! in flight ends, at most `shutdown.drain`; the rest is answered `draining`;
//! the cores end; the admin listener ends last.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{self, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::admin::Admin;
use crate::config::{self, Config, Listen};
use crate::lane::{Roster, Shared};
use crate::listen::{Bound, ListenError};
use crate::metrics::{Cells, Reloads};
use crate::outcome::Outcome;
use crate::server::Connections;
use crate::state::{Clock, State, StateError};
use crate::systemd;
use crate::upstream::Dialer;

mod core;
mod reload;

use reload::Lanes;
pub use reload::Reload;

/// For the last answers to reach their callers after the drain time.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// What was written to the journals is on disk after so long at the latest.
const TEND_INTERVAL: Duration = Duration::from_secs(1);

/// A daemon whose sockets are bound and that serves nobody yet.
#[derive(Debug)]
pub struct Daemon {
    config: Config,
    dialers: Vec<Dialer>,
    bound: Bound,
    admin: Bound,
    state: State,
    reload: Option<Reload>,
}

/// Why the daemon cannot start, or why it failed while running.
#[derive(Debug)]
pub enum DaemonError {
    /// A socket for callers cannot be had.
    Listen(ListenError),
    /// The admin socket cannot be had.
    Admin(ListenError),
    /// An upstream cannot be set up.
    Upstream(String, Box<dyn Error + Send + Sync>),
    /// What was spent cannot be kept.
    State(StateError),
    /// The system refused a thread or a runtime.
    System(io::Error),
    /// A core ended before it was told to.
    CoreLost,
}

/// How a stop went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// Requests that ended properly after the stop began.
    pub finished: u64,
    /// Requests that were cut off.
    pub cut: u64,
}

/// What the cores have in common.
#[derive(Debug, Clone)]
struct Parts {
    roster: watch::Receiver<Roster>,
    reloads: Arc<Reloads>,
    followed: Arc<Semaphore>,
    unrouted: Arc<Cells>,
    connections: Arc<Connections>,
    client: Arc<config::Client>,
    draining: watch::Receiver<bool>,
    ended: watch::Receiver<bool>,
}

impl Daemon {
    /// Checks what can only be checked on this machine and binds the sockets.
    ///
    /// # Errors
    ///
    /// A certificate cannot be used, a socket cannot be had, or the state belongs
    /// to another process.
    pub fn bind(config: Config) -> Result<Self, DaemonError> {
        let admin: Vec<Listen> = config.admin.iter().cloned().collect();
        Ok(Self {
            dialers: dialers(&config)?,
            bound: Bound::new(&config.listen, config.threads.get()).map_err(DaemonError::Listen)?,
            admin: Bound::new(&admin, 1).map_err(DaemonError::Admin)?,
            state: State::open(&config.state).map_err(DaemonError::State)?,
            reload: None,
            config,
        })
    }

    /// Reads the settings anew while it runs.
    pub fn reloaded_by(mut self, reload: Reload) -> Self {
        self.reload = Some(reload);
        self
    }

    /// Checks what [`Daemon::bind`] does, but for the sockets.
    ///
    /// # Errors
    ///
    /// A certificate cannot be used.
    pub fn check(config: &Config) -> Result<(), DaemonError> {
        dialers(config).map(drop)
    }

    /// The TCP addresses where callers connect.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.bound.addresses
    }

    /// The TCP address of the admin listener.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.addresses.first().copied()
    }

    /// Serves until `stop` says so once; a second time ends the drain.
    ///
    /// # Errors
    ///
    /// The state cannot be used, the system refuses a thread or a runtime, or a
    /// core was lost.
    pub async fn run(self, mut stop: mpsc::Receiver<()>) -> Result<Stopped, DaemonError> {
        let stages = Stages::default();
        let cut = stages.cut.subscribe();
        let most = self.config.client.max_connections;
        let connections = Arc::new(Connections::new(most));
        let hears = Arc::clone(&connections);
        let mut lanes = Lanes::new(self.config, self.dialers, self.state, cut, hears)?;
        let parts = Parts::new(&lanes, connections, &stages);
        let mut lost = core::start_cores(&parts, self.bound.cores).await?;
        // Both end with this function, so last of all.
        let mut beside: JoinSet<io::Result<()>> = JoinSet::new();
        beside.spawn(keep_watchdog());
        beside.spawn(keep_state(parts.roster.clone()));
        for listener in self.admin.cores.into_iter().flatten() {
            beside.spawn(parts.admin().run(listener));
        }
        systemd::ready("serving");
        tracing::info!(
            addresses = ?self.bound.addresses,
            admin = ?self.admin.addresses,
            upstreams = ?lanes.names(),
            "ready"
        );
        if !self
            .bound
            .addresses
            .iter()
            .all(|address| address.ip().is_loopback())
        {
            tracing::warn!("callers are not authenticated: whoever can connect spends the limits");
        }
        let mut reload = self.reload.unwrap_or_else(Reload::never);
        loop {
            tokio::select! {
                _ = stop.recv() => break,
                _ = lost.recv() => return Err(DaemonError::CoreLost),
                Some(ended) = beside.join_next() => {
                    if let Err(error) = ended.map_err(io::Error::other).flatten() {
                        tracing::error!(%error, "a task of the daemon has failed");
                    }
                }
                () = reload.wanted() => lanes.reload(&mut reload).await,
            }
        }
        // Held until the end, so that what a removed one does still counts.
        let lanes_left = parts.roster.borrow().all();
        let before = Tally::of(&lanes_left);
        drop(self.bound.files);
        let drain = lanes.config().shutdown.drain;
        stages.pass(&parts, drain, &mut stop).await;
        while lost.recv().await.is_some() {}
        parts.close_journals();
        let stopped = Tally::of(&lanes_left).since(&before);
        tracing::info!(finished = stopped.finished, cut = stopped.cut, "stopped");
        Ok(stopped)
    }
}

/// What opens the connections to each upstream.
fn dialers(config: &Config) -> Result<Vec<Dialer>, DaemonError> {
    let dialers = config.upstreams.iter().map(|upstream| {
        Dialer::new(upstream)
            .map_err(|error| DaemonError::Upstream(upstream.name.clone(), error.into()))
    });
    dialers.collect()
}

/// The stages of a stop, in their order; each becomes true once.
#[derive(Debug, Default)]
struct Stages {
    /// Not ready, and no new connections.
    draining: watch::Sender<bool>,
    /// The drain time is over: what waits is answered.
    cut: watch::Sender<bool>,
    /// The cores end.
    ended: watch::Sender<bool>,
}

impl Stages {
    /// Goes through all stages; a message of `stop` ends the drain.
    async fn pass(&self, parts: &Parts, drain: Duration, stop: &mut mpsc::Receiver<()>) {
        tracing::info!(drain_seconds = drain.as_secs(), "stopping");
        systemd::stopping(drain);
        self.draining.send_replace(true);
        parts.connections.wake_all();
        tokio::select! {
            () = parts.connections.all_closed() => {}
            () = sleep(drain) => tracing::warn!("the drain time is over"),
            _ = stop.recv() => tracing::warn!("told again to stop: the drain ends"),
        }
        self.cut.send_replace(true);
        parts.connections.wake_all();
        // Whoever has not taken its answer by then is cut off.
        let _ = timeout(LAST_ANSWERS, parts.connections.all_closed()).await;
        self.ended.send_replace(true);
    }
}

/// Tells the service manager that we live, if it wants to know.
async fn keep_watchdog() -> io::Result<()> {
    let Some(interval) = systemd::watchdog_interval() else {
        return Ok(());
    };
    loop {
        systemd::watchdog();
        sleep(interval).await;
    }
}

/// Tends the journals; their work is for the disk, not for this thread.
async fn keep_state(roster: watch::Receiver<Roster>) -> io::Result<()> {
    loop {
        sleep(TEND_INTERVAL).await;
        let lanes = roster.borrow().all();
        for lane in lanes.into_iter().filter(|lane| lane.journal().is_some()) {
            let tend = move || lane.journal().map(|journal| journal.tend(Clock::now()));
            task::spawn_blocking(tend).await.map_err(io::Error::other)?;
        }
    }
}

/// The ends of requests so far.
#[derive(Debug, Default)]
struct Tally {
    all: u64,
    cut: u64,
}

impl Tally {
    fn of(lanes: &[Arc<Shared>]) -> Self {
        let mut tally = Self::default();
        for lane in lanes.iter().map(|lane| lane.snapshot()) {
            let ended = Outcome::ALL.iter().map(|end| lane.ended(*end));
            tally.all += ended.sum::<u64>();
            tally.cut += lane.ended(Outcome::Draining) + lane.ended(Outcome::Aborted);
        }
        tally
    }

    fn since(&self, before: &Self) -> Stopped {
        let cut = self.cut - before.cut;
        Stopped {
            finished: (self.all - before.all).saturating_sub(cut),
            cut,
        }
    }
}

impl Parts {
    fn new(lanes: &Lanes, connections: Arc<Connections>, stages: &Stages) -> Self {
        let client = &lanes.config().client;
        Self {
            roster: lanes.roster(),
            reloads: Arc::clone(lanes.reloads()),
            followed: Arc::clone(lanes.followed()),
            unrouted: Arc::default(),
            connections,
            client: Arc::new(client.clone()),
            draining: stages.draining.subscribe(),
            ended: stages.ended.subscribe(),
        }
    }

    /// What was spent is on disk after this; the cores have ended.
    fn close_journals(&self) {
        let lanes = self.roster.borrow().all();
        let journals = lanes.iter().filter_map(|lane| lane.journal());
        journals.for_each(|journal| journal.close());
    }

    fn admin(&self) -> Arc<Admin> {
        Arc::new(Admin {
            roster: self.roster.clone(),
            reloads: Arc::clone(&self.reloads),
            unrouted: Arc::clone(&self.unrouted),
            connections: Arc::clone(&self.connections),
            draining: self.draining.clone(),
            since: Instant::now(),
        })
    }
}

impl fmt::Display for DaemonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(error) => write!(f, "`listen`: {error}"),
            Self::Admin(error) => write!(
                f,
                "`admin`, by default 127.0.0.1:8081 (\"off\" for none): {error}"
            ),
            Self::Upstream(name, error) => write!(f, "upstream.{name}: {error}"),
            Self::State(error) => error.fmt(f),
            Self::System(_) => f.write_str("the system refuses a thread"),
            Self::CoreLost => f.write_str("a core was lost"),
        }
    }
}

impl Error for DaemonError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Listen(error) | Self::Admin(error) => error.source(),
            Self::Upstream(_, error) => error.source(),
            Self::State(error) => error.source(),
            Self::System(error) => Some(error),
            Self::CoreLost => None,
        }
    }
}
