//! What HTTP asks of a gateway, and nothing of pacegate's own.
//!
//! `head` checks and rewrites message heads (RFC 9110, section 7.6), `response`
//! checks how those of answers are framed, `plain` does both for messages that stay
//! bytes; `body` carries request bodies to the upstream within their bounds,
//! `chunked` reads chunks by the `grammar`; `upgrade` knows the change to another
//! protocol, `interim` what may come before an answer, and `answer` writes the
//! responses that are ours, with the `date`.
//! None of it knows queues, limits or sockets.

/// Most frames, in the life of an HTTP/2 connection, for streams that were ended at
/// this side before the other knew. The library answers each with a reset, and
/// closes a connection on which more come.
pub(crate) const LATE_FRAMES: usize = 100_000;

pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod chunked;
pub(crate) mod date;
pub(crate) mod grammar;
pub(crate) mod head;
pub(crate) mod interim;
pub(crate) mod plain;
pub(crate) mod response;
pub(crate) mod upgrade;
