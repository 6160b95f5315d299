//! What SIGHUP does: other settings for a daemon that runs.
//!
//! Everything that can fail is done first, so settings that cannot be used
//! change nothing. Then each lane that stays takes its new settings, and the
//! cores follow the new roster on their own threads. What a lane holds, its
//! queue, its calls and what its limits have spent, is untouched by that.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;

use super::{DaemonError, dialers};
use crate::config::{self, Config};
use crate::http::interim::Audience;
use crate::lane::{Departed, Roster, Shared};
use crate::metrics::Reloads;
use crate::state::{Clock, State};
use crate::systemd;
use crate::telemetry;
use crate::upstream::Dialer;

/// The longest that a reload waits for the cores to follow.
const FOLLOW: Duration = Duration::from_secs(5);

/// When the settings are read anew, and how.
pub struct Reload {
    signals: mpsc::Receiver<()>,
    read: Box<dyn FnMut() -> Result<Config, String> + Send>,
}

impl Reload {
    /// At each message of `signals`, `read` tells the settings, or in words what
    /// is wrong with them.
    pub fn new(
        signals: mpsc::Receiver<()>,
        read: impl FnMut() -> Result<Config, String> + Send + 'static,
    ) -> Self {
        Self {
            signals,
            read: Box::new(read),
        }
    }

    pub(super) fn never() -> Self {
        Self::new(mpsc::channel(1).1, || Err(String::new()))
    }

    /// Returns when the settings are to be read; never, if nobody will say so.
    pub(super) async fn wanted(&mut self) {
        if self.signals.recv().await.is_none() {
            std::future::pending().await
        }
    }
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reload").finish_non_exhaustive()
    }
}

/// The lanes of a daemon that runs, and where they come from.
#[derive(Debug)]
pub(super) struct Lanes {
    /// The settings that are in force.
    config: Config,
    state: State,
    /// What lanes have spent that were taken out.
    departed: Arc<Departed>,
    roster: watch::Sender<Roster>,
    reloads: Arc<Reloads>,
    /// A permit from each core that follows the roster.
    followed: Arc<Semaphore>,
    /// For the lanes: becomes true when the drain time is over.
    cut: watch::Receiver<bool>,
    /// Takes interim answers to their callers.
    audience: Arc<dyn Audience>,
}

impl Lanes {
    /// The lanes of `config`.
    ///
    /// # Errors
    ///
    /// What was spent cannot be read.
    pub(super) fn new(
        config: Config,
        dialers: Vec<Dialer>,
        state: State,
        cut: watch::Receiver<bool>,
        audience: Arc<dyn Audience>,
    ) -> Result<Self, DaemonError> {
        let log_requests = config.log.requests;
        let mut this = Self {
            config,
            state,
            departed: Arc::default(),
            roster: watch::Sender::default(),
            reloads: Arc::default(),
            followed: Arc::new(Semaphore::new(0)),
            cut,
            audience,
        };
        let upstreams = this.config.upstreams.iter().zip(dialers);
        let lanes = upstreams.map(|(upstream, dialer)| this.lane(upstream, dialer));
        let lanes = lanes.collect::<Result<_, _>>()?;
        this.state.has_begun();
        this.roster = watch::Sender::new(Roster::new(lanes, log_requests));
        Ok(this)
    }

    /// The settings that are in force.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// The lanes, as they change.
    pub(super) fn roster(&self) -> watch::Receiver<Roster> {
        self.roster.subscribe()
    }

    /// The names of the upstreams, in the order of the settings.
    pub(super) fn names(&self) -> Vec<&str> {
        let upstreams = self.config.upstreams.iter();
        upstreams.map(|upstream| upstream.name.as_str()).collect()
    }

    /// How reloads went.
    pub(super) fn reloads(&self) -> &Arc<Reloads> {
        &self.reloads
    }

    /// Where each core adds a permit when it has followed the roster.
    pub(super) fn followed(&self) -> &Arc<Semaphore> {
        &self.followed
    }

    /// Reads the settings, takes them if they can be used, and says what became
    /// of that.
    pub(super) async fn reload(&mut self, how: &mut Reload) {
        systemd::reloading();
        // Of a core that took too long to follow the last one.
        self.followed.forget_permits(usize::MAX);
        let applied = (how.read)()
            .and_then(|config| self.apply(config).map_err(|error| telemetry::say(&error)));
        let status = match applied {
            Ok(()) => {
                let cores = u32::try_from(self.config.threads.get()).unwrap_or(u32::MAX);
                if let Ok(Ok(all)) = timeout(FOLLOW, self.followed.acquire_many(cores)).await {
                    all.forget();
                }
                self.reloads.applied();
                tracing::info!("the settings were reloaded");
                "serving; the settings were reloaded"
            }
            Err(problems) => {
                self.reloads.refused();
                tracing::error!("the settings stay as they were: {problems}");
                "serving; the settings stay as they were, the log says why"
            }
        };
        systemd::ready(status);
    }

    fn apply(&mut self, config: Config) -> Result<(), DaemonError> {
        let dialers = dialers(&config)?;
        let known = self.roster.borrow().all();
        if let Some((from, to)) = renamed(&self.config, &config) {
            let why = format!(
                "it is what `upstream.{from}` was, whose limits would begin anew beside what \
                 waits there: an upstream is renamed while pacegate does not run"
            );
            return Err(DaemonError::Upstream(to, why.into()));
        }
        let mut lanes = Vec::new();
        let mut kept = Vec::new();
        for (upstream, dialer) in config.upstreams.iter().zip(dialers) {
            match known.iter().find(|lane| lane.name() == upstream.name) {
                Some(lane) => {
                    lanes.push(Arc::clone(lane));
                    kept.push((Arc::clone(lane), upstream.clone(), dialer));
                }
                None => lanes.push(self.lane(upstream, dialer)?),
            }
        }
        // From here on nothing can fail.
        self.tell(&config);
        for (lane, upstream, dialer) in kept {
            let before = self.upstream(&upstream.name);
            if before == Some(&upstream) && !has_files(&upstream.tls) {
                continue;
            }
            let same = before.is_some_and(|before| is_reached_as(before, &upstream));
            let dialer = dialer.heard_by(Arc::clone(&self.audience));
            lane.reconfigure(upstream, (!same).then_some(dialer));
        }
        let next = self.roster.borrow().next(lanes, config.log.requests);
        self.roster.send_replace(next);
        // What takes effect at a start only is as it was.
        self.config = Config {
            listen: std::mem::take(&mut self.config.listen),
            admin: self.config.admin.take(),
            threads: self.config.threads,
            client: self.config.client.clone(),
            log: config::Log {
                requests: config.log.requests,
                ..self.config.log.clone()
            },
            state: self.config.state.clone(),
            ..config
        };
        Ok(())
    }

    /// A lane that begins, with what was spent before.
    fn lane(
        &self,
        upstream: &config::Upstream,
        dialer: Dialer,
    ) -> Result<Arc<Shared>, DaemonError> {
        let clock = Clock::now();
        let kept = self.state.journal(upstream, clock);
        let kept = kept.map_err(DaemonError::State)?;
        let (client, cores) = (&self.config.client, self.config.threads.get());
        let (upstream, cut) = (upstream.clone(), self.cut.clone());
        let dialer = dialer.heard_by(Arc::clone(&self.audience));
        let lane = Shared::new(upstream, client, dialer, cores, cut, self.state.seed());
        Ok(Arc::new(match kept {
            Some((journal, past)) => lane.remember(journal, &past, &clock),
            None => lane.resume(&self.departed),
        }))
    }

    fn upstream(&self, name: &str) -> Option<&config::Upstream> {
        let mut upstreams = self.config.upstreams.iter();
        upstreams.find(|upstream| upstream.name == name)
    }

    /// Logs what `new` changes.
    fn tell(&self, new: &Config) {
        let old = &self.config;
        let waits = [
            ("listen", old.listen != new.listen),
            ("admin", old.admin != new.admin),
            ("threads", old.threads != new.threads),
            ("client", old.client != new.client),
            ("log.format", old.log.format != new.log.format),
            ("log.filter", old.log.filter != new.log.filter),
            ("state", old.state != new.state),
        ];
        for (setting, _) in waits.iter().filter(|(_, changed)| *changed) {
            tracing::warn!(setting, "changed, but takes effect only at the next start");
        }
        let now = [
            ("log.requests", old.log.requests != new.log.requests),
            ("shutdown", old.shutdown != new.shutdown),
        ];
        for (setting, _) in now.iter().filter(|(_, changed)| *changed) {
            tracing::info!(setting, "changed");
        }
        for upstream in &new.upstreams {
            match self.upstream(&upstream.name) {
                None => tracing::info!(upstream = upstream.name, "added"),
                Some(before) => tell_upstream(before, upstream),
            }
        }
        let stays = |name: &str| new.upstreams.iter().any(|upstream| upstream.name == name);
        for upstream in old.upstreams.iter().filter(|old| !stays(&old.name)) {
            let upstream = &upstream.name;
            tracing::info!(upstream, "removed: what it has still waits for its turn");
        }
    }
}

/// Logs which settings of an upstream change; never a value, it may be secret.
fn tell_upstream(old: &config::Upstream, new: &config::Upstream) {
    let settings = [
        ("url", old.url != new.url),
        ("match", old.route != new.route),
        ("limits", old.limits != new.limits),
        ("guard", old.guard != new.guard),
        ("costs", old.costs != new.costs),
        ("keys.max", old.max_keys != new.max_keys),
        (
            "keys.max_waiting",
            old.max_waiting_per_key != new.max_waiting_per_key,
        ),
        ("cooldown", old.cooldown != new.cooldown),
        ("retry", old.retry != new.retry),
        ("max_in_flight", old.max_in_flight != new.max_in_flight),
        ("max_upgrades", old.max_upgrades != new.max_upgrades),
        ("buffer_body", old.buffer_body != new.buffer_body),
        ("max_body", old.max_body != new.max_body),
        ("server_timing", old.server_timing != new.server_timing),
        ("keep_host", old.keep_host != new.keep_host),
        ("via", old.via != new.via),
        ("forwarded", old.forwarded != new.forwarded),
        ("dialect", old.dialect != new.dialect),
        ("queue", old.queue != new.queue),
        ("timeouts", old.timeouts != new.timeouts),
        ("connection", old.connection != new.connection),
        ("tls", old.tls != new.tls),
        ("headers", old.headers != new.headers),
    ];
    for (setting, _) in settings.iter().filter(|(_, changed)| *changed) {
        tracing::info!(upstream = new.name, setting, "changed");
    }
}

/// Whether the connections of `old` are those of `new`.
fn is_reached_as(old: &config::Upstream, new: &config::Upstream) -> bool {
    let steps = |timeouts: &config::Timeouts| [timeouts.dns, timeouts.connect, timeouts.tls];
    old.url == new.url
        && old.keep_host == new.keep_host
        && old.tls == new.tls
        && old.connection == new.connection
        && steps(&old.timeouts) == steps(&new.timeouts)
        // What is in the files may have changed.
        && !has_files(&new.tls)
}

/// The old and the new name of an upstream with limits that `new` has under another
/// name. One with another secret is another's, and so are its limits.
fn renamed(old: &Config, new: &Config) -> Option<(String, String)> {
    let has = |config: &Config, name: &str| config.upstreams.iter().any(|known| known.name == name);
    let gone = |before: &&config::Upstream| !has(new, &before.name) && !before.limits.is_empty();
    let added = |upstream: &&config::Upstream| !has(old, &upstream.name);
    new.upstreams.iter().filter(added).find_map(|upstream| {
        let same = |before: &&config::Upstream| {
            before.url == upstream.url
                && before.route == upstream.route
                && before.headers == upstream.headers
        };
        let before = old.upstreams.iter().filter(gone).find(same)?;
        Some((before.name.clone(), upstream.name.clone()))
    })
}

fn has_files(tls: &config::Tls) -> bool {
    tls.ca.is_some() || tls.identity.is_some()
}
