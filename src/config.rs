//! The checked settings: what the rest of the program is built from.
//!
//! `proxy.toml` becomes a [`Config`] in two steps. `file` mirrors the text as
//! the user wrote it and knows only about types; `check` resolves it, looks at
//! the values together and reports every problem of the file at once. Nothing
//! below this module ever sees an unchecked value, and no part takes the whole
//! [`Config`]: each takes its own struct from here. What concerns one API stands
//! in `upstream`: its limits in `limit`, what its answers say of them in `answers`.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub mod filter;
pub mod preset;

mod answers;
mod check;
mod duration;
mod fault;
mod file;
mod limit;
mod per;
mod rate;
mod report;
mod size;
mod upstream;

pub use answers::{Cooldown, Dialect, Fields, Signal, Unit};
pub use limit::{CostRule, Counts, Guard, Limit, Per};
pub use report::Problems;
pub use upstream::{
    Connection, Forwarded, Http2, Identity, Queue, Retry, Route, Timeouts, Tls, Upstream, Url,
    Value, WhenFull,
};

/// Everything `proxy.toml` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where callers connect; at least one.
    pub listen: Vec<Listen>,
    /// Where health and metrics are served; `None` when switched off.
    pub admin: Option<Listen>,
    /// Threads that serve callers, each with its own runtime.
    pub threads: NonZeroUsize,
    /// Bounds on callers and their connections.
    pub client: Client,
    /// What is logged, and how.
    pub log: Log,
    /// How long a stop may take.
    pub shutdown: Shutdown,
    /// Where what was spent is kept.
    pub state: State,
    /// The APIs, in the order of the file; at least one.
    pub upstreams: Vec<Upstream>,
}

/// One address to accept connections on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Listen {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The path of a Unix stream socket.
    Unix(PathBuf),
    /// The sockets inherited from the service manager (`LISTEN_FDS`).
    Systemd,
}

/// Bounds on callers and their connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Longest time for a complete request head, from its first byte; and for
    /// the first byte of a new connection.
    pub header_timeout: Duration,
    /// Longest time of a connection between two requests.
    pub idle_timeout: Duration,
    /// Longest time a caller may neither send nor take a byte of a body.
    pub stall_timeout: Duration,
    /// Most connections at once.
    pub max_connections: usize,
    /// Most bytes of a request head.
    pub max_header_bytes: usize,
    /// Most fields of a request head.
    pub max_headers: usize,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Text for people or JSON for machines.
    pub format: LogFormat,
    /// A `tracing` filter such as `info` or `pacegate=debug`.
    pub filter: String,
    /// Whether each request writes one line when it ends.
    pub requests: bool,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line.
    Text,
    /// One JSON object.
    Json,
}

/// How long a stop may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shutdown {
    /// Longest time to finish what waits and what is in flight.
    pub drain: Duration,
}

/// Where what was spent is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The folder, for one process alone; `None` if nothing is kept.
    pub dir: Option<PathBuf>,
    /// What an upstream starts with of which nothing is known.
    pub missing: Missing,
}

/// What counts as spent when nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Nothing in a folder that is new, everything in any other.
    Auto,
    /// Everything, just now.
    Spent,
    /// Nothing.
    Fresh,
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    ///
    /// Every problem found, in the order of the file, ready to print.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        match std::fs::read_to_string(path) {
            Ok(text) => check::config(path, &text),
            Err(error) => Err(Problems::unreadable(path, &error)),
        }
    }

    /// Checks `text`, calling it `name` in messages. Files that it names are
    /// looked for beside `name`.
    ///
    /// # Errors
    ///
    /// Every problem found, in the order of the text, ready to print.
    pub fn parse(name: &str, text: &str) -> Result<Self, Problems> {
        check::config(Path::new(name), text)
    }
}
