//! pacegate: a rate-limited HTTP proxy daemon.
//!
//! It stands between programs and an HTTP API with a strict rate limit. Each
//! request waits in a bounded queue, leaves when the API's limits allow it, and
//! its response goes to the caller that waits for it.
//!
//! # The path of a request
//!
//! ```text
//! caller -> server -> proxy -> queue -----> gate ---------> worker -> upstream
//!   ^       accept    route    bounded,     one worker      owns a
//!   |       parse     admit    in order     at a time:      ready
//!   |                   ^                   1. a job waits  connection
//!   |                   |                   2. my connection is ready
//!   |                   |                   3. every limit says go
//!   |                   |                   4. take the best live job
//!   +-------------------+--- oneshot <------ response head; the body streams
//! ```
//!
//! `server` accepts and parses, `proxy` finds the lane and rewrites the head,
//! and the lane does the rest: one per upstream, sharing nothing with the others.
//! While nobody waits and the limits allow, the caller's own task takes the turn
//! and sends; no request then changes its task or its core. A request that is whole
//! when it is first seen and has nothing special in it is plain (`http::plain`): it
//! stays bytes from socket to socket. All others go through hyper, on both sides;
//! the tests hold both ways to the same meaning.
//!
//! # Threads and tasks
//!
//! One thread per core with a current-thread runtime: its own listeners, its own
//! upstream connections, and the workers that its callers or its connections
//! call for. The lane's line, its gate and its limits are shared by all cores
//! behind short locks. The main thread has the signals and the admin listener.
//!
//! | task | spawned by | ends |
//! | --- | --- | --- |
//! | accept loop, one per listener and core | `daemon` | when the stop begins |
//! | connection of a caller | `server` | when it closes, or with its core |
//! | request of a caller over HTTP/2 | hyper | when its answer has ended |
//! | watcher of an answer over HTTP/2 | `server::unread` | with the answer |
//! | worker, at most `max_in_flight` per lane | `lane::worker` | when its response head is passed on or nobody waits |
//! | tender of the journals | `daemon` | when the daemon ends |
//! | driver of an HTTP/2 connection to an upstream | `lane::link` | when the connection closes |
//! | driver of one exchange of hyper's over HTTP/1.1 | `upstream::lent` | when the exchange has ended |
//! | sweeper of idle connections, one per lane and core | `lane` | with its core |
//! | keeper of warm connections, one per lane and core | `lane` | with its core |
//! | taker of places that a reload takes away | `lane::bound`, `lane::queue` | when it has them |
//! | admin loop, watchdog, and a connection to the former | `daemon`, `admin` | when the daemon ends |
//! | signals | `signals` | with the process |
//!
//! # Bounds
//!
//! | what waits | where | bound |
//! | --- | --- | --- |
//! | connections not yet accepted | the kernel | backlog of 4096 |
//! | connections of callers | `server::connections` | `client.max_connections` |
//! | a request head under way | `server::stream` | `client.max_header_bytes`, `client.max_headers`, `client.header_timeout` |
//! | a plain request under way | `server::plain` | 8 KiB, 250 ms |
//! | what a caller sends ahead | `server::plain`, `server::stream` | 64 KiB, 4 KiB |
//! | requests and their bytes | `lane::queue` | `queue.max_requests`, `queue.max_bytes`, `queue.max_wait` |
//! | jobs on the way to the line | the mpsc channel | `queue.max_requests` |
//! | requests of one key | `lane::share` | `keys.max_waiting` |
//! | calls | `lane::worker` | `max_in_flight`, of them tunnels `max_upgrades` |
//! | a body over HTTP/2 that is not read yet | hyper | 64 KiB of a caller's, 512 KiB of an API's, in frames of 16 bytes or more |
//! | an answer over HTTP/2 that its caller does not read | `server::unread` | `client.stall_timeout`, `timeouts.total` |
//! | interim answers to one request | `upstream::interim` | 100, and 64 KiB |
//! | turns of one request | `lane::exchange` | `retry.attempts`, `retry.budget` |
//!
//! # Where to change what
//!
//! How requests end: `outcome`. When they start: `pacing` (the arithmetic) and
//! `lane::gate` (the order). What an API's answers say of its limits:
//! `dialect`. What changes in a message: `http`. Connections to an API:
//! `upstream`. What was spent, over restarts: `state`. What a reload changes:
//! `daemon::reload`. Numbers: `metrics`. Settings: [`config`]. The order of a
//! stop is written once, in [`daemon`]. What `cargo bench` measures: `bench`.

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod signals;
pub mod telemetry;

mod admin;
mod dialect;
#[cfg(test)]
mod fuzz;
mod http;
mod lane;
mod listen;
mod metrics;
mod outcome;
mod pacing;
mod proxy;
mod scratch;
mod server;
mod stall;
mod state;
mod systemd;
mod timer;
mod upstream;
