//! The limits of an API, and what its requests cost.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

/// One limit of an API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The limit as written, canonical: a metric label, unique in its lane.
    pub label: String,
    /// Requests per period.
    pub count: NonZeroU32,
    /// The period.
    pub period: Duration,
    /// Most requests at once.
    pub burst: NonZeroU32,
    /// Whether no window of `period` may hold more than `count` starts; not so
    /// for a documented token bucket.
    pub window: bool,
    /// What tells apart those of whom each has this limit; `None` when all
    /// share it.
    pub per: Option<Per>,
    /// What it counts.
    pub counts: Counts,
}

/// What tells callers apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Per {
    /// The value of a header field.
    Header(String),
    /// The value of a cookie.
    Cookie(String),
    /// The caller's IP address.
    Address,
    /// A segment of the path, counted from 1.
    Segment(NonZeroUsize),
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Counts {
    /// The cost of each request.
    #[default]
    Cost,
    /// Each request as one.
    Requests,
}

/// What some requests cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CostRule {
    /// A constant, for requests with this method and path.
    Fixed {
        /// Any, if `None`.
        method: Option<String>,
        /// The path that requests are sent to, whole segments; `*` stands for
        /// one segment, `**` at the end for any rest. Any path, if `None`.
        path: Option<String>,
        /// At least 1.
        cost: NonZeroU32,
    },
    /// What a header field says, which is not passed on. Does not apply where
    /// that is no whole number.
    Header(String),
}

impl Limit {
    /// How long what was spent matters.
    pub fn reach(&self) -> Duration {
        match self.window {
            true => self.period,
            false => self.period.saturating_mul(self.burst.get()) / self.count.get(),
        }
    }

    /// The most that it would ever let start at once.
    pub fn most(&self) -> NonZeroU32 {
        match self.window {
            true => self.count,
            false => self.burst,
        }
    }
}

/// How long a request can be on its way before the API has counted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Follows the measured round trip.
    Auto,
    /// A fixed time.
    Fixed(Duration),
}
