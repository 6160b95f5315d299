//! The file as the user wrote it: every key, none of them checked together.
//!
//! The only place of serde derives. A key that is absent is `None`; what it
//! then means is `check`'s business, and so is everything that concerns more
//! than one value. Values that `check` may complain about carry their place.
//! `file/read` gets from text to a [`File`] past every error, `file/value`
//! knows the values with units, `file/tree` what stands where, `file/home` where a
//! misplaced key belongs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::{Guard, Http2};

mod entry;
mod home;
mod read;
mod tree;
mod value;

pub(super) use entry::{Addresses, Dialect, Header, Limit, Signal};
pub(super) use read::read;
pub(super) use tree::Tree;
pub(super) use value::{Bound, Bytes, Count, Number, Pause, Percent, Status, Written};

/// Tables that the user names, by name; sort by place for the file's order.
pub(super) type Named<T> = BTreeMap<Spanned<String>, Spanned<T>>;

/// A value with a unit, and its place.
pub(super) type Placed<T> = Option<Spanned<Written<T>>>;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) listen: Option<Spanned<Addresses>>,
    pub(super) admin: Option<Spanned<String>>,
    pub(super) threads: Option<Spanned<Count>>,
    #[serde(default)]
    pub(super) client: Client,
    #[serde(default)]
    pub(super) log: Log,
    #[serde(default)]
    pub(super) shutdown: Shutdown,
    #[serde(default)]
    pub(super) state: State,
    #[serde(default)]
    pub(super) upstream: Named<Upstream>,
}

/// `[client]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Client {
    pub(super) header_timeout: Option<Written<Duration>>,
    pub(super) idle_timeout: Option<Written<Duration>>,
    pub(super) stall_timeout: Option<Written<Duration>>,
    pub(super) max_connections: Option<Count>,
    pub(super) max_header_bytes: Placed<Bytes>,
    pub(super) max_headers: Option<Spanned<Count>>,
}

/// `[log]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) format: Option<Spanned<String>>,
    pub(super) filter: Option<Spanned<String>>,
    pub(super) requests: Option<bool>,
}

/// `[shutdown]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shutdown {
    pub(super) drain: Option<Written<Duration>>,
}

/// `[state]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    pub(super) dir: Option<Spanned<String>>,
    pub(super) missing: Option<Spanned<String>>,
}

/// `[upstream.NAME]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Upstream {
    pub(super) preset: Option<Spanned<String>>,
    pub(super) url: Option<Spanned<String>>,
    #[serde(rename = "match")]
    pub(super) route: Option<Spanned<Match>>,
    pub(super) limits: Option<Vec<Spanned<Limit>>>,
    pub(super) guard: Option<Written<Guard>>,
    pub(super) dialect: Option<Spanned<Dialect>>,
    pub(super) max_in_flight: Option<Count>,
    pub(super) max_upgrades: Option<Spanned<Count>>,
    pub(super) buffer_body: Placed<Bytes>,
    pub(super) max_body: Option<Written<Bytes>>,
    pub(super) server_timing: Option<bool>,
    pub(super) keep_host: Option<bool>,
    pub(super) via: Option<bool>,
    pub(super) forwarded: Option<Spanned<String>>,
    pub(super) costs: Option<Vec<Spanned<Cost>>>,
    #[serde(default)]
    pub(super) keys: Keys,
    #[serde(default)]
    pub(super) cooldown: Cooldown,
    #[serde(default)]
    pub(super) retry: Retry,
    #[serde(default)]
    pub(super) queue: Queue,
    #[serde(default)]
    pub(super) timeouts: Timeouts,
    #[serde(default)]
    pub(super) connection: Connection,
    #[serde(default)]
    pub(super) tls: Tls,
    #[serde(default)]
    pub(super) headers: Named<Header>,
}

/// `match = { ... }`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Match {
    pub(super) host: Option<Spanned<String>>,
    pub(super) prefix: Option<Spanned<String>>,
    pub(super) keep_prefix: Option<Spanned<bool>>,
}

/// One of `costs`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cost {
    pub(super) method: Option<Spanned<String>>,
    pub(super) path: Option<Spanned<String>>,
    pub(super) cost: Option<Spanned<Count>>,
    pub(super) header: Option<Spanned<String>>,
}

/// `[upstream.NAME.keys]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    pub(super) max: Option<Count>,
    pub(super) max_waiting: Option<Count>,
}

/// `dialect = { ... }`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fields {
    pub(super) remaining: Option<Spanned<String>>,
    pub(super) used: Option<Spanned<String>>,
    pub(super) limit: Option<Spanned<String>>,
    pub(super) reset: Option<Spanned<String>>,
    pub(super) unit: Option<Spanned<String>>,
}

/// `[upstream.NAME.cooldown]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cooldown {
    pub(super) per: Option<Spanned<String>>,
    pub(super) signals: Option<Spanned<Vec<Spanned<Signal>>>>,
    pub(super) first: Placed<Duration>,
    pub(super) longest: Placed<Duration>,
}

/// `[upstream.NAME.retry]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Retry {
    pub(super) attempts: Option<Count>,
    pub(super) budget: Option<Written<Percent>>,
    pub(super) hold: Option<Written<Pause>>,
}

/// A signal as a table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SignalTable {
    pub(super) status: Option<Status>,
    pub(super) header: Option<Spanned<String>>,
    pub(super) equals: Option<Spanned<String>>,
    pub(super) body: Option<Spanned<String>>,
}

/// All presets, by name.
pub(super) type Presets = Named<Preset>;

/// `[NAME]` of the presets: where it is from, and keys of `[upstream.NAME]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Preset {
    pub(super) page: Option<Spanned<String>>,
    pub(super) date: Option<Spanned<String>>,
    pub(super) note: Option<Spanned<String>>,
    pub(super) url: Option<Spanned<String>>,
    pub(super) limits: Option<Spanned<Vec<Spanned<Limit>>>>,
    pub(super) costs: Option<Spanned<Vec<Spanned<Cost>>>>,
    pub(super) dialect: Option<Spanned<Dialect>>,
    pub(super) max_in_flight: Option<Spanned<Count>>,
    #[serde(default)]
    pub(super) cooldown: Cooldown,
}

/// `[upstream.NAME.queue]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Queue {
    pub(super) max_requests: Option<Count>,
    pub(super) max_bytes: Placed<Bytes>,
    pub(super) max_wait: Option<Written<Duration>>,
    pub(super) when_full: Option<Spanned<String>>,
}

/// `[upstream.NAME.timeouts]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Timeouts {
    pub(super) dns: Option<Written<Duration>>,
    pub(super) connect: Option<Written<Duration>>,
    pub(super) tls: Option<Written<Duration>>,
    pub(super) response: Option<Written<Duration>>,
    pub(super) stall: Option<Written<Duration>>,
    pub(super) tunnel_idle: Option<Written<Duration>>,
    pub(super) total: Option<Written<Bound>>,
}

/// `[upstream.NAME.connection]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Connection {
    pub(super) attempts: Option<Count>,
    pub(super) idle_timeout: Option<Written<Duration>>,
    pub(super) max_age: Option<Written<Duration>>,
    pub(super) warm: Option<Spanned<Number>>,
    pub(super) http2: Option<Http2>,
}

/// `[upstream.NAME.tls]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) ca: Option<Spanned<String>>,
    pub(super) certificate: Option<Spanned<String>>,
    pub(super) key: Option<Spanned<String>>,
    pub(super) server_name: Option<Spanned<String>>,
}

/// A limit as a table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitTable {
    pub(super) rate: Option<Written<super::rate::Rate>>,
    pub(super) burst: Option<Spanned<Count>>,
    pub(super) bucket: Option<Spanned<Count>>,
    pub(super) per: Option<Spanned<String>>,
    pub(super) counts: Option<Spanned<String>>,
}

/// Where the value of a header field comes from.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Source {
    pub(super) file: Option<Spanned<String>>,
    pub(super) credential: Option<Spanned<String>>,
    pub(super) prefix: Option<Spanned<String>>,
}
