//! pacegate as its callers, its upstreams and its operator see it: real sockets,
//! real time, and the binary where only that will do.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

/// What the operator sees while it runs.
mod admin;
/// Upstreams that answer wrongly, in two senses, too early or without being asked.
mod answers;
/// Requests and answers that are meant to be read in two ways.
mod attacks;
/// The program: arguments, exit codes, signals.
mod binary;
/// Request and response bodies on their way through.
mod bodies;
/// Configuration files as users write them: good ones, bad ones, the sample.
mod config;
/// No request is lost: the counts add up at every instant.
mod conservation;
/// `pacegate demo` from outside.
mod demo;
/// Callers that ask before they send a body.
mod expect;
/// Where requests begin and end, and what is refused for it.
mod framing;
/// What changes in a message head, and what does not.
mod heads;
/// Callers that send nothing, too little or too much.
mod hostile;
/// Callers that speak HTTP/2.
mod http2;
/// Answers before the answer.
mod interim;
/// Rates, calls in flight, lanes, and the room in the queue.
mod limits;
/// Every way a request can end, as its caller sees it.
mod outcomes;
/// Plain requests and all others, which mean the same.
mod plain;
/// Other settings while it runs.
mod reload;
/// What is sent again after a broken connection, and what never is.
mod retry;
/// Refusals that only the text of their bodies tells.
mod signals;
/// How each kind of unfinished work ends at a stop.
mod stop;
/// Bodies that are longer than any buffer.
mod streaming;
/// The daemon, the upstream and the callers of the tests.
mod support;
/// What request targets mean, and how they are passed on.
mod targets;
/// Answers that break off, and how each caller can tell.
mod truncation;
/// Changes to another protocol: WebSocket and others.
mod upgrades;
/// Every mix of HTTP/1.1 and HTTP/2 between a caller and an upstream.
mod versions;
/// Connections that are there before a request needs them.
mod warm;
mod windows;
