//! `pacegate demo`: a burst of requests at an API that allows few, first
//! straight, then through pacegate. Needs no network and no file.
//!
//! The API (`origin`), the callers (`client`) and what is written (`show`) run
//! on the caller's runtime, in one task and what it owns. The proxy is a real
//! [`Daemon`], built from settings as a user would write them, with its own
//! core; its queue is read from its own metrics. `verdict` sums up.
//!
//! On a stop the show ends where it is, and so does everything here; after a
//! show that ran to its end the daemon is stopped first and drains; a second
//! stop ends the drain.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at};

use crate::config::{Config, Problems};
use crate::daemon::{Daemon, DaemonError, Stopped};
use client::{Burst, Levels, Reply};
use origin::Origin;
use show::{Frame, Screen};
use verdict::Run;

mod client;
mod origin;
mod show;
mod verdict;

/// Requests of a burst.
const REQUESTS: u32 = 100;

/// Requests that the API allows in any [`PERIOD`].
const LIMIT: u32 = 10;
const PERIOD: Duration = Duration::from_secs(1);

/// The lane's name.
const LANE: &str = "demo";

/// Between two batches of answers, so that no frame falls into one.
const FIRST_FRAME: Duration = Duration::from_millis(500);

/// Why the demo did not come to its end.
#[derive(Debug)]
pub enum DemoError {
    /// The demo's own settings are wrong.
    Config(Problems),
    /// The proxy cannot start, or failed.
    Daemon(DaemonError),
    /// The API or its callers cannot have a socket.
    Network(Box<dyn Error + Send + Sync>),
    /// Nothing can be written any more.
    Output(io::Error),
    /// It was told to stop before its end.
    Interrupted,
}

/// Where everything is.
#[derive(Debug)]
struct Stage {
    origin: Arc<Origin>,
    api: SocketAddr,
    proxy: SocketAddr,
    admin: SocketAddr,
}

/// Shows the queue at work. Returns whether every request was answered through
/// pacegate and none was refused. With `serve`, stays up until `stop` says so.
///
/// # Errors
///
/// The demo did not come to its end.
pub async fn run(serve: bool, mut stop: mpsc::Receiver<()>) -> Result<bool, DemoError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.map_err(DemoError::network)?;
    let api = listener.local_addr().map_err(DemoError::network)?;
    let daemon = Daemon::bind(settings(api).map_err(DemoError::Config)?)?;
    let stage = Stage::new(api, &daemon)?;
    // Ends when it is dropped.
    let mut background = JoinSet::new();
    background.spawn(Arc::clone(&stage.origin).run(listener));
    let (stop_daemon, stopped) = mpsc::channel(2);
    let mut daemon = pin!(daemon.run(stopped));

    let mut screen = Screen::new();
    let paced = tokio::select! {
        shown = stage.show(&mut screen) => shown?,
        ended = &mut daemon => return Err(DemoError::ended(ended.err())),
        _ = stop.recv() => {
            screen.end_frames()?;
            return Err(DemoError::Interrupted);
        }
    };
    if serve {
        stage.invite(&mut screen)?;
        tokio::select! {
            _ = stop.recv() => {}
            ended = &mut daemon => return Err(DemoError::ended(ended.err())),
        }
    }
    // There is room: of more than two the daemon would take no notice.
    let _ = stop_daemon.try_send(());
    let Stopped { finished, cut } = loop {
        tokio::select! {
            stopped = &mut daemon => break stopped?,
            Some(()) = stop.recv() => drop(stop_daemon.try_send(())),
        }
    };
    if serve {
        screen.say(&format!(
            "Stopped: {finished} requests were finished first, {cut} cut off."
        ))?;
    }
    Ok(paced.is_perfect())
}

/// The settings of a proxy in front of `api`.
fn settings(api: SocketAddr) -> Result<Config, Problems> {
    let text = format!(
        r#"
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
threads = 1

[log]
filter = "off"

[shutdown]
drain = "5s"

[upstream.{LANE}]
url = "http://{api}"
limits = ["{LIMIT}/s"]
"#
    );
    Config::parse("demo.toml", &text)
}

impl Stage {
    fn new(api: SocketAddr, daemon: &Daemon) -> Result<Self, DemoError> {
        let (proxy, admin) = (daemon.addresses().first(), daemon.admin_address());
        let lacking = || DemoError::network("the proxy has no address");
        Ok(Self {
            origin: Arc::new(Origin::new(LIMIT, PERIOD)),
            api,
            proxy: *proxy.ok_or_else(lacking)?,
            admin: admin.ok_or_else(lacking)?,
        })
    }

    /// Both bursts and the verdict. Returns how the one through pacegate went.
    async fn show(&self, screen: &mut Screen) -> Result<Run, DemoError> {
        let Self { api, proxy, .. } = self;
        screen.say(&format!(
            "{REQUESTS} requests want to go at once, to an API that allows {LIMIT} in any second and\n\
             answers 429 (too many requests) beyond. It is built in: http://{api}"
        ))?;
        screen.head("1. Straight to the API")?;
        let burst = Burst::start(*api, REQUESTS)
            .await
            .map_err(DemoError::Network)?;
        let straight = self.follow(burst, None).await?;
        screen.ended(&straight)?;
        self.origin.clear().await;

        screen.head(&format!("2. The same, through pacegate at http://{proxy}"))?;
        screen.say("  It holds them in a queue and lets each go when the limit allows.")?;
        let burst = Burst::start(*proxy, REQUESTS)
            .await
            .map_err(DemoError::Network)?;
        let paced = self.follow(burst, Some(screen)).await?;

        screen.head("Verdict")?;
        screen.say(&verdict::table(&straight, &paced))?;
        screen.say(&verdict::sentence(&paced))?;
        Ok(paced)
    }

    /// Follows a burst to its end, and shows it if there is a `screen`.
    async fn follow(
        &self,
        mut burst: Burst,
        mut screen: Option<&mut Screen>,
    ) -> Result<Run, DemoError> {
        let mut run = Run {
            sent: REQUESTS,
            ..Run::default()
        };
        let pace = screen.as_ref().map_or(PERIOD, |screen| screen.pace());
        let mut frames = interval_at(burst.started + FIRST_FRAME.min(pace), pace);
        loop {
            tokio::select! {
                reply = burst.next() => match reply {
                    Some(reply) => run.add(reply, burst.started),
                    None => break,
                },
                _ = frames.tick() => if let Some(screen) = &mut screen {
                    self.draw(screen, &run, burst.started).await?;
                }
            }
        }
        if let Some(screen) = screen {
            self.draw(screen, &run, burst.started).await?;
            screen.end_frames()?;
        }
        let tally = self.origin.take_tally();
        run.refused = tally.refused;
        run.overtaken = tally.overtaken;
        Ok(run)
    }

    /// Shows this moment of a burst that goes through pacegate.
    async fn draw(&self, screen: &mut Screen, run: &Run, started: Instant) -> io::Result<()> {
        let Ok(levels) = Levels::read(self.admin, LANE).await else {
            // The next moment is as good.
            return Ok(());
        };
        screen.frame(&Frame {
            sent: run.sent,
            answered: run.answered,
            levels,
            rate: self.origin.in_period(),
            time: started.elapsed(),
            wait: run.took,
        })
    }

    /// Says how to try it.
    fn invite(&self, screen: &mut Screen) -> io::Result<()> {
        let Self {
            api, proxy, admin, ..
        } = self;
        screen.head("Try it: this stays up until Ctrl-C")?;
        screen.say(&format!(
            "  pacegate  http://{proxy}\n  the API   http://{api}\n  metrics   http://{admin}/metrics\n\n\
             In another terminal, 30 requests at once:\n\n  \
             for i in $(seq 30); do curl -s http://{proxy}/hello & done; wait\n"
        ))
    }
}

impl Run {
    fn add(&mut self, reply: Reply, started: Instant) {
        match reply.status {
            Some(StatusCode::OK) => self.answered += 1,
            // The API counts these itself.
            Some(StatusCode::TOO_MANY_REQUESTS) => {}
            _ => self.lost += 1,
        }
        self.took = self.took.max(reply.at - started);
    }
}

impl DemoError {
    fn network(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Network(error.into())
    }

    /// The daemon ended although nobody had told it to.
    fn ended(error: Option<DaemonError>) -> Self {
        Self::Daemon(error.unwrap_or(DaemonError::CoreLost))
    }
}

impl From<DaemonError> for DemoError {
    fn from(error: DaemonError) -> Self {
        Self::Daemon(error)
    }
}

impl From<io::Error> for DemoError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config(_) => "the demo's own settings are wrong",
            Self::Daemon(_) => "the demo's proxy does not run",
            Self::Network(_) => "the demo cannot use the loopback network",
            Self::Output(_) => "nothing can be written",
            Self::Interrupted => "the demo was stopped before its end",
        })
    }
}

impl Error for DemoError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            Self::Daemon(error) => Some(error),
            Self::Network(error) => Some(error.as_ref()),
            Self::Output(error) => Some(error),
            Self::Interrupted => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_are_valid_and_state_the_limit() {
        let config = settings(SocketAddr::from((Ipv4Addr::LOCALHOST, 1))).unwrap();
        let limit = &config.upstreams[0].limits[0];
        assert_eq!((limit.count.get(), limit.period), (LIMIT, PERIOD));
        assert_eq!(config.upstreams[0].name, LANE);
    }
}
