//! What HTTP asks of a gateway, and nothing of pacegate's own.
//!
//! `head` checks and rewrites message heads (RFC 9110, section 7.6), `body`
//! carries request bodies to the upstream within their bounds, `upgrade` knows
//! the change to another protocol, `interim` what may come before an answer, and
//! `answer` writes the responses that are ours.
//! None of it knows queues, limits or sockets.

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
