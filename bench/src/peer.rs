//! The proxies that are compared: who they are (`Contender`), and one of them running in front of an origin (`Peer`), on
//! the proxy's core, with a generated configuration in a temporary directory. Dropping a peer ends the process, then removes the directory.

mod haproxy;
mod nginx;
mod pacegate;
pub(crate) mod until_ready;

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::Result;
use crate::bench::Bench;
use crate::pace::Pace;
use crate::process::{self, Process};

/// Another process may take a free port between our asking and the peer's binding: try again.
const ATTEMPTS: u32 = 3;
const LOG_FILE: &str = "log";
/// What valgrind writes, in the peer's directory.
const COUNTS_FILE: &str = "callgrind.out";
/// Keeps pacegate's allocator from tidying up by the clock, which would make counts differ by percents.
const STEADY_MALLOC: &str = "background_thread:false,tcache_gc_incr_bytes:1099511627776";

/// The programs that can stand between load and origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// Nothing: the load speaks to the origin.
    Direct,
    /// One process, a pool of upstream connections; a pace becomes `limit_req`, always evenly spaced.
    Nginx,
    /// It has no pacing: a pace becomes one request at a time (`maxconn 1`).
    Haproxy,
    /// The binary under test.
    Pacegate,
    /// The program one would write first: workers in governor's `until_ready`.
    UntilReady,
}

/// One row of a table: a program and how it is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contender {
    /// The row's name.
    pub(crate) name: &'static str,
    /// What is started.
    pub(crate) program: Program,
    pace: Option<Pace>,
    /// A second limit beside the pace (not for nginx).
    beside: Option<Pace>,
    max_in_flight: Option<u32>,
    threads: u32,
    wire: Wire,
    shape: Shape,
    counted: bool,
}

/// How a contender speaks, unless HTTP/1.1 without TLS on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Plain,
    /// HTTP/2 without TLS to callers.
    Http2,
    /// TLS to the origin.
    Tls,
}

/// What stands in pacegate's configuration besides one upstream for all (others: nothing).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    One,
    /// So many upstreams; the n-th takes the paths below `/ln`.
    Lanes(u32),
    /// A limit, never reached, for each value of the field `x-key`.
    Keyed,
}

impl Contender {
    /// Without a limit, on one thread.
    pub(crate) const fn new(name: &'static str, program: Program) -> Self {
        Self {
            name,
            program,
            pace: None,
            beside: None,
            max_in_flight: None,
            threads: 1,
            wire: Wire::Plain,
            shape: Shape::One,
            counted: false,
        }
    }

    /// With a limit.
    pub(crate) const fn paced(self, pace: Pace) -> Self {
        Self {
            pace: Some(pace),
            ..self
        }
    }

    /// With a second limit; not for nginx.
    pub(crate) const fn beside(self, pace: Pace) -> Self {
        Self {
            beside: Some(pace),
            ..self
        }
    }

    /// With at most so many calls at once (pacegate), or so many workers (`until_ready`).
    pub(crate) const fn in_flight(self, most: u32) -> Self {
        Self {
            max_in_flight: Some(most),
            ..self
        }
    }

    /// With HTTP/2 to callers; not for `until_ready`.
    pub(crate) const fn http2(self) -> Self {
        Self {
            wire: Wire::Http2,
            ..self
        }
    }

    /// In front of an origin that speaks TLS; not for `until_ready`.
    pub(crate) const fn tls(self) -> Self {
        Self {
            wire: Wire::Tls,
            ..self
        }
    }

    /// With so many upstreams that are all the origin, the n-th (from 0 on) for paths below `/ln` (pacegate only).
    pub(crate) const fn lanes(self, lanes: u32) -> Self {
        Self {
            shape: Shape::Lanes(lanes),
            ..self
        }
    }

    /// With a limit, never reached, for each value of the field `x-key` (pacegate only).
    pub(crate) const fn keyed(self) -> Self {
        Self {
            shape: Shape::Keyed,
            ..self
        }
    }

    /// Under valgrind, which counts its instructions; see `Peer::instructions`.
    pub(crate) const fn counted(self) -> Self {
        Self {
            counted: true,
            ..self
        }
    }

    /// With so many threads (pacegate only).
    pub(crate) const fn threads(self, threads: u32) -> Self {
        Self { threads, ..self }
    }
}

/// Where a peer listens and what it stands in front of.
#[derive(Debug, Clone, Copy)]
struct Place {
    listen: SocketAddr,
    admin: SocketAddr,
    origin: SocketAddr,
}

/// A peer that is ready for requests.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Where requests go.
    pub(crate) addr: SocketAddr,
    /// Where pacegate's metrics are; others have none.
    pub(crate) admin: Option<SocketAddr>,
    /// None for the direct way. Dropped before the directory is.
    process: Option<Process>,
    _dir: TempDir,
}

impl Peer {
    /// Starts `contender` in front of `origin` and waits until it is ready, without sending a request through it.
    pub(crate) async fn start(
        bench: &Bench,
        contender: &Contender,
        origin: SocketAddr,
    ) -> Result<Self> {
        let mut attempt = 1;
        loop {
            let mut peer = Self::spawn(bench, contender, origin)?;
            match peer.ready().await {
                Ok(()) => return Ok(peer),
                Err(_) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => {
                    return Err(format!("{}: {error}\n{}", contender.name, peer.log()).into());
                }
            }
        }
    }

    /// Starts `contender` without waiting for anything.
    pub(crate) fn spawn(bench: &Bench, contender: &Contender, origin: SocketAddr) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("pacegate-bench-")
            .tempdir()?;
        if contender.program == Program::Direct {
            return Ok(Self {
                addr: origin,
                admin: None,
                process: None,
                _dir: dir,
            });
        }
        let place = Place {
            listen: process::free_port()?,
            admin: process::free_port()?,
            origin,
        };
        let mut command = command(bench, contender, place, dir.path())?;
        if contender.counted {
            command = under_valgrind(&command);
        }
        let log = File::create(dir.path().join(LOG_FILE))?;
        command
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let process = bench.cores.on_proxy_core(|| Process::spawn(&mut command))?;
        let admin = (contender.program == Program::Pacegate).then_some(place.admin);
        Ok(Self {
            addr: place.listen,
            admin,
            process: Some(process),
            _dir: dir,
        })
    }

    /// Waits until a request through the peer is answered 200.
    pub(crate) async fn first_answer(&mut self) -> Result<()> {
        let addr = self.addr;
        match &mut self.process {
            Some(process) => process.answers(addr, "/").await,
            None => Ok(()),
        }
    }

    /// User and system seconds so far; 0 for the direct way.
    pub(crate) fn cpu_seconds(&self) -> io::Result<f64> {
        self.process.as_ref().map_or(Ok(0.0), Process::cpu_seconds)
    }

    /// Seconds so far in which the peer had to wait for a core; 0 for the direct way.
    pub(crate) fn starved_seconds(&self) -> f64 {
        self.process.as_ref().map_or(0.0, Process::starved_seconds)
    }

    /// Proportional set size in bytes; 0 for the direct way.
    pub(crate) fn pss_bytes(&self) -> io::Result<u64> {
        self.process.as_ref().map_or(Ok(0), Process::pss_bytes)
    }

    /// Threads; 0 for the direct way.
    pub(crate) fn threads(&self) -> io::Result<u64> {
        self.process.as_ref().map_or(Ok(0), Process::threads)
    }

    /// Stops a peer that was counted; the instructions of its whole life.
    pub(crate) async fn instructions(mut self) -> Result<u64> {
        if let Some(process) = &mut self.process {
            process.stop().await?;
        }
        let counts = fs::read_to_string(self._dir.path().join(COUNTS_FILE))?;
        let total = counts
            .lines()
            .find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok());
        total.ok_or_else(|| format!("no total in what valgrind wrote\n{}", self.log()).into())
    }

    async fn ready(&mut self) -> Result<()> {
        match (&mut self.process, self.admin) {
            (Some(process), Some(admin)) => process.answers(admin, "/readyz").await,
            (Some(process), None) => process.listens(self.addr).await,
            (None, _) => Ok(()),
        }
    }

    /// What the peer has written, for the error message of a failed start.
    fn log(&self) -> String {
        fs::read_to_string(self._dir.path().join(LOG_FILE)).unwrap_or_default()
    }
}

/// The same command with its instructions counted.
fn under_valgrind(command: &Command) -> Command {
    let mut counted = Command::new("valgrind");
    counted
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={COUNTS_FILE}"))
        .arg(command.get_program())
        .args(command.get_args())
        .env("_RJEM_MALLOC_CONF", STEADY_MALLOC);
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            counted.env(name, value);
        }
    }
    counted
}

/// Writes the configuration into `dir`; the command that runs the peer in the foreground.
fn command(bench: &Bench, contender: &Contender, place: Place, dir: &Path) -> Result<Command> {
    let binary = bench
        .binary(contender.program)
        .ok_or_else(|| format!("{} is not installed", contender.name))?;
    let config = dir.join("config");
    let mut command = Command::new(binary);
    match contender.program {
        Program::Direct => {}
        Program::Nginx => {
            fs::write(&config, nginx::config(contender, place, dir))?;
            command
                .arg("-p")
                .arg(dir)
                .arg("-e")
                .arg(dir.join(LOG_FILE))
                .arg("-c")
                .arg(&config);
        }
        Program::Haproxy => {
            fs::write(&config, haproxy::config(contender, place))?;
            command.arg("-db").arg("-f").arg(&config);
        }
        Program::Pacegate => {
            let ca = match contender.wire {
                Wire::Tls => Some(bench.certificate()?.file()),
                Wire::Plain | Wire::Http2 => None,
            };
            fs::write(&config, pacegate::config(contender, place, ca.as_deref()))?;
            command.arg("run").arg("--config").arg(&config);
            // As under a service manager, so that the journal's cost is in the figures; a folder for each run.
            command.env("STATE_DIRECTORY", dir);
        }
        Program::UntilReady => {
            command.args(["until-ready", "--listen", &place.listen.to_string()]);
            command.args(["--upstream", &place.origin.to_string()]);
            let workers = contender.max_in_flight.unwrap_or(until_ready::WORKERS);
            command.args(["--workers", &workers.to_string()]);
            for pace in [contender.pace, contender.beside].into_iter().flatten() {
                command.args(["--pace", &pace.to_string()]);
            }
        }
    }
    Ok(command)
}
