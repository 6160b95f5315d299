//! Where each request of an HTTP/1.1 caller begins and ends, read strictly.
//!
//! Where hyper serves the connection, this reader sees each byte before it does and
//! refuses whatever is malformed or could be read in two ways (RFC 9112), so
//! that hyper only ever gets requests on whose ends everybody agrees. It holds
//! no bytes and does no I/O: `server::stream` feeds it, holds back heads that
//! are not whole yet, and acts on what it says. `head` reads request lines and
//! fields, also for `server::plain`, `http::chunked` bodies in chunks.

use crate::http::chunked::{Bounds, Chunks};
use crate::outcome::Fault;
use head::{Body, Head, Heading};

pub(super) mod head;

/// The reader of one connection.
#[derive(Debug)]
pub(super) struct Framing {
    bounds: Bounds,
    state: State,
    /// Heads that were whole and in order.
    heads: u64,
    /// Whether the method of the last request line was HEAD.
    head_only: bool,
    /// The numbers of requests for the server as a whole that were not yet taken.
    whole_server: Vec<u64>,
}

/// `Head` becomes what its head says, that becomes `Served`, and when it was
/// answered `Head` again; `Over`, `Broken` and `Raw` are for good.
#[derive(Debug)]
enum State {
    Head(Head),
    /// Bytes that are left of a body.
    Length(u64, After),
    Chunked(Chunks, After),
    /// A request has gone by. What comes after it waits for its answer: if it were
    /// let pass hyper would not see any more whether the caller hangs up.
    Served,
    /// A request to upgrade has gone by: what comes after it depends on the
    /// answer.
    Asked,
    /// Whatever comes is none of ours.
    Raw,
    /// The last request has gone by; what comes after it is not read.
    Over,
    /// Nothing can be believed any more.
    Broken,
}

/// What comes after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Next,
    Upgrade,
    Nothing,
}

/// What is known of the bytes at hand.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// So many at the start are in order and may pass.
    pub(super) pass: usize,
    /// What to do with the rest.
    pub(super) rest: Rest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// It is the beginning of a head (or nothing): to be shown again with more.
    More,
    /// The head that begins there is refused.
    Refused(Fault),
    /// The body that goes on there is malformed.
    Broken(Fault),
    /// It follows a request that must be answered first: to be kept until then.
    Keep,
    /// It follows the last request: to be thrown away.
    Waste,
}

impl Framing {
    /// The reader of a connection that has brought so many `heads` before.
    pub(super) fn new(bounds: Bounds, heads: u64) -> Self {
        Self {
            bounds,
            state: State::Head(Head::default()),
            heads,
            head_only: false,
            whole_server: Vec::new(),
        }
    }

    /// Lets everything pass.
    pub(super) fn raw() -> Self {
        Self {
            state: State::Raw,
            ..Self::new(
                Bounds {
                    bytes: 0,
                    fields: 0,
                },
                0,
            )
        }
    }

    /// Heads that were let pass.
    pub(super) fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether the method of the last request line was HEAD.
    pub(super) fn head_only(&self) -> bool {
        self.head_only
    }

    /// Of the heads that were let pass since this was last asked, the numbers of
    /// those for the server as a whole, counted from 0.
    pub(super) fn take_whole_server(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.whole_server)
    }

    /// Whether the bytes that were let pass end with the end of a request.
    pub(super) fn is_whole(&self) -> bool {
        matches!(
            self.state,
            State::Head(_) | State::Served | State::Asked | State::Over
        )
    }

    /// Whether everything is let pass.
    pub(super) fn is_raw(&self) -> bool {
        matches!(self.state, State::Raw)
    }

    /// Whether a request line has begun.
    pub(super) fn has_begun(&self) -> bool {
        matches!(&self.state, State::Head(head) if head.has_begun())
    }

    /// Whether what comes next waits for an answer.
    pub(super) fn waits(&self) -> bool {
        matches!(self.state, State::Served | State::Asked)
    }

    /// Whether that is the answer to an upgrade.
    pub(super) fn asks_to_upgrade(&self) -> bool {
        matches!(self.state, State::Asked)
    }

    /// It was given, and an upgrade `granted` or not.
    pub(super) fn go_on(&mut self, granted: bool) {
        self.state = match granted {
            true => State::Raw,
            false => State::Head(Head::default()),
        };
    }

    /// Nothing that comes is read any more.
    pub(super) fn end(&mut self) {
        self.state = State::Over;
    }

    /// Looks at `bytes`, which begin where the last scan stopped to let pass.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Scan {
        let mut at = 0;
        loop {
            let left = &bytes[at..];
            let rest = match &mut self.state {
                State::Head(head) => match head.read(left, &self.bounds) {
                    Ok(Some((end, heading))) => {
                        at += end;
                        self.begin(heading);
                        continue;
                    }
                    Ok(None) => Rest::More,
                    Err(fault) => {
                        self.head_only = head.is_head_only();
                        self.state = State::Broken;
                        Rest::Refused(fault)
                    }
                },
                State::Length(length, after) => {
                    let some = usize::try_from(*length).map_or(left.len(), |l| l.min(left.len()));
                    at += some;
                    *length -= some as u64;
                    if *length == 0 {
                        self.state = after.state();
                        continue;
                    }
                    Rest::More
                }
                State::Chunked(chunks, after) => match chunks.read(left, &self.bounds) {
                    Ok((read, true)) => {
                        at += read;
                        self.state = after.state();
                        continue;
                    }
                    Ok((read, false)) => {
                        at += read;
                        Rest::More
                    }
                    Err((read, fault)) => {
                        at += read;
                        self.state = State::Broken;
                        Rest::Broken(fault)
                    }
                },
                State::Served if left.is_empty() => Rest::More,
                State::Served | State::Asked => Rest::Keep,
                State::Raw => {
                    at = bytes.len();
                    Rest::More
                }
                State::Over | State::Broken => Rest::Waste,
            };
            return Scan { pass: at, rest };
        }
    }

    fn begin(&mut self, heading: Heading) {
        if heading.whole_server {
            self.whole_server.push(self.heads);
        }
        self.heads += 1;
        self.head_only = heading.head_only;
        let after = match (heading.upgrade, heading.last) {
            (true, _) => After::Upgrade,
            (false, true) => After::Nothing,
            (false, false) => After::Next,
        };
        self.state = match heading.body {
            Body::Length(0) => after.state(),
            Body::Length(length) => State::Length(length, after),
            Body::Chunked => State::Chunked(Chunks::default(), after),
        };
    }
}

impl After {
    fn state(self) -> State {
        match self {
            Self::Next => State::Served,
            Self::Upgrade => State::Asked,
            Self::Nothing => State::Over,
        }
    }
}

#[cfg(test)]
mod tests;
