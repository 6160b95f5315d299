//! The checked settings of one API: where it is, what it allows, and how its
//! requests wait, are sent and are sent again.

use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use super::answers::{Cooldown, Dialect};
use super::limit::{CostRule, Counts, Guard, Limit, Per};

/// One API behind the proxy, with its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The name of its table; a metric label.
    pub name: String,
    /// Where its requests go.
    pub url: Url,
    /// Which requests are its own.
    pub route: Route,
    /// Limits that hold together; empty when the API has none.
    pub limits: Vec<Limit>,
    /// How long a request can be on its way before the API has counted it.
    pub guard: Guard,
    /// What a request costs; the first rule that applies decides.
    pub costs: Vec<CostRule>,
    /// Most keys of one kind that are told apart.
    pub max_keys: NonZeroUsize,
    /// Most requests of one key waiting.
    pub max_waiting_per_key: NonZeroUsize,
    /// How a request is sent again.
    pub retry: Retry,
    /// How its responses say what is left of its budget.
    pub dialect: Dialect,
    /// When it is paused, and for how long.
    pub cooldown: Cooldown,
    /// Most calls at once.
    pub max_in_flight: NonZeroUsize,
    /// Most requests for an upgrade and tunnels at once, below `max_in_flight`;
    /// 0 where no upgrade is passed on.
    pub max_upgrades: usize,
    /// The longest body that is read before the request is queued, in bytes.
    pub buffer_body: usize,
    /// The longest body of a request, in bytes.
    pub max_body: u64,
    /// Whether forwarded responses tell the time spent in the queue.
    pub server_timing: bool,
    /// Whether the caller's `Host` is sent instead of the URL's.
    pub keep_host: bool,
    /// Whether requests say that they came through here.
    pub via: bool,
    /// What becomes of the fields that tell where a request came from.
    pub forwarded: Forwarded,
    /// The bounds of its queue.
    pub queue: Queue,
    /// Bounds on the time of each step of a call.
    pub timeouts: Timeouts,
    /// Its connections.
    pub connection: Connection,
    /// How its certificate is verified, and ours shown; used for `https`.
    pub tls: Tls,
    /// Fields set on every request, replacing the caller's.
    pub headers: Vec<(String, Value)>,
}

/// Scheme, host and port of an API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Whether the scheme is `https`.
    pub https: bool,
    /// Host name, or IP address without brackets.
    pub host: String,
    /// Port, given or implied by the scheme.
    pub port: u16,
    /// `host[:port]` as it goes into the `Host` field.
    pub authority: String,
}

impl Url {
    /// `host:port`, the port always written.
    pub fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

/// Which requests belong to an upstream. An empty route takes all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Route {
    /// The request's host, lower case, without port.
    pub host: Option<String>,
    /// The start of the request's path: `/github` takes `/github` and `/github/...`.
    pub prefix: Option<String>,
    /// Whether the prefix stays on the path that is sent upstream.
    pub keep_prefix: bool,
}

/// How a request is sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Most turns of one request.
    pub attempts: NonZeroU32,
    /// Requests sent again after a failure, per hundred.
    pub budget: u32,
    /// How long a request is held while the API cannot be reached.
    pub hold: Duration,
}

impl Upstream {
    /// How long a request may wait for its turn.
    pub(crate) fn longest_wait(&self) -> Duration {
        let longest = self.queue.max_wait;
        self.timeouts
            .total
            .map_or(longest, |total| total.min(longest))
    }

    /// The kinds of keys that its limits name, each once.
    pub fn kinds(&self) -> Vec<&Per> {
        let mut kinds = Vec::new();
        for per in self.limits.iter().filter_map(|limit| limit.per.as_ref()) {
            if !kinds.contains(&per) {
                kinds.push(per);
            }
        }
        kinds
    }

    /// The most that one request can cost: what the smallest of the limits that
    /// count costs would let start at once.
    pub fn most_cost(&self) -> NonZeroU32 {
        let limits = self.limits.iter();
        let counting = limits.filter(|limit| limit.counts == Counts::Cost);
        counting.map(Limit::most).min().unwrap_or(NonZeroU32::MAX)
    }

    /// The most that a request costs by the rules.
    pub fn dearest(&self) -> NonZeroU32 {
        let costs = self.costs.iter().map(|rule| match rule {
            CostRule::Fixed { cost, .. } => *cost,
            CostRule::Header(_) => self.most_cost(),
        });
        costs.max().unwrap_or(NonZeroU32::MIN)
    }
}

/// What becomes of `Forwarded`, `X-Forwarded-*` and `X-Real-IP`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// The caller's are removed.
    Strip,
    /// The caller's are passed on.
    Keep,
    /// The caller's are replaced by ours.
    Set,
}

/// The bounds of a lane's queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Most requests waiting.
    pub max_requests: NonZeroUsize,
    /// Most bytes of heads and buffered bodies waiting.
    pub max_bytes: usize,
    /// Longest wait, from arrival.
    pub max_wait: Duration,
    /// What a caller meets when there is no place.
    pub when_full: WhenFull,
}

/// What a caller meets when the queue has no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It waits for a place.
    Wait,
    /// It is refused at once.
    Reject,
}

/// Bounds on the time of each step of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// Name resolution.
    pub dns: Duration,
    /// The TCP connection, over all addresses.
    pub connect: Duration,
    /// The TLS handshake.
    pub tls: Duration,
    /// From the start of the request, or the last piece of a body that streams,
    /// to the response head.
    pub response: Duration,
    /// Between two pieces of the response body.
    pub stall: Duration,
    /// Between two pieces of a tunnel, in either direction.
    pub tunnel_idle: Duration,
    /// From arrival to the end of the response; `None` for no bound.
    pub total: Option<Duration>,
}

/// The connections to an API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Tries to open a connection before a request fails for want of one.
    pub attempts: NonZeroU32,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// How old a connection may get.
    pub max_age: Duration,
    /// Connections that are opened ahead of time and kept, over all cores.
    pub warm: usize,
    /// When HTTP/2 is spoken.
    pub http2: Http2,
}

/// When HTTP/2 is spoken with an API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http2 {
    /// Never.
    Off,
    /// If the API takes it when TLS is negotiated.
    Offered,
    /// Always, without asking (RFC 9113, section 3.3).
    PriorKnowledge,
}

/// How the API's certificate is verified, and ours shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// Trust only the authorities in this PEM file instead of the system's.
    pub ca: Option<PathBuf>,
    /// Our own certificate chain and key, both PEM.
    pub identity: Option<Identity>,
    /// The name to ask for and to verify, instead of the URL's host.
    pub server_name: Option<String>,
}

/// A client certificate and its key, both as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// The value of a configured header field. `Debug` never shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Value(pub(crate) String);

impl Value {
    /// The text to send.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}
