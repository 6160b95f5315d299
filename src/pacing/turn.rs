//! What goes in and out of the limits: what a request costs, the turn that it
//! gets, and how that ends.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

/// What a request costs, and whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Charge {
    /// What limits count that do not count requests.
    pub(crate) cost: NonZeroU32,
    /// Its key of each kind, in the order of [`Upstream::kinds`](crate::config::Upstream::kinds).
    pub(crate) keys: Option<Box<[u64]>>,
    /// Which kinds these are, see [`Limits::kinds`](super::Limits::kinds); 0 without keys.
    pub(crate) kinds: u32,
}

/// A place in the order of those who wait: the lower, the sooner.
pub(crate) type Rank = (Duration, u64);

/// A turn that was taken. It must be given to [`Limits::close`](super::Limits::close) at its end.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(super) number: u64,
    pub(super) charge: Charge,
    pub(super) kinds: u32,
    /// When it was taken, since the lane's epoch.
    pub(super) start: Duration,
    /// How many of the lane had no answer then.
    pub(super) ahead: u64,
}

impl Turn {
    /// What it costs, and whom.
    pub(crate) fn charge(&self) -> &Charge {
        &self.charge
    }

    /// Its number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

/// How the request of a turn ended, as far as the limits are concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End<'a> {
    /// It was answered, and the answer told these counts.
    Answered(&'a [Reading]),
    /// The upstream refused it, for so long if it said so.
    Refused(Option<Duration>, &'a [Reading]),
    /// The upstream broke off or did not answer.
    Failed,
    /// It never left: its places come back. Tokens do not.
    Canceled,
    /// Nobody knows: the caller has gone.
    Lost,
}

/// What an answer says is left of one of the upstream's budgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Which of its budgets.
    pub(crate) name: u64,
    /// What is left.
    pub(crate) remaining: u64,
    /// How long until it is whole again.
    pub(crate) reset: Duration,
    /// How long it takes to regain one; `None` if all comes back at once.
    pub(crate) each: Option<Duration>,
}

impl Reading {
    /// How long until one can start, where nothing is left.
    pub(crate) fn pause(&self) -> Option<Duration> {
        let pause = self.each.unwrap_or(self.reset).min(self.reset);
        (self.remaining == 0).then_some(pause)
    }
}

/// Why a request cannot start yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hold {
    /// It cannot before; it can turn out that it cannot then either.
    pub(crate) until: Instant,
    /// Whether only requests with the same keys are held.
    pub(crate) keyed: bool,
}

/// What the end of a request changes for those who wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Closed {
    /// The end of the cooldown, if one began or was prolonged.
    pub(crate) cooldown: Option<Instant>,
    /// Whether a request may start sooner than was said.
    pub(crate) sooner: bool,
    /// The same for one that its own keys do not hold.
    pub(crate) early: bool,
}

/// Those who wait, for those who watch.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    /// What they cost on average.
    pub(crate) cost: NonZeroU32,
    /// The place of a kind among the kinds of keys, and a key of it that somebody has.
    pub(crate) keys: Vec<(usize, u64)>,
}

/// One limit, for those who watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gauge {
    /// The limit as written.
    pub(crate) label: String,
    /// The most that it ever lets start at once, if that is known.
    pub(crate) capacity: Option<u64>,
    /// What it would let start now; of a limit with keys, for the busiest one.
    pub(crate) left: u64,
    /// How long it lets nothing start, if that is known; otherwise zero.
    pub(crate) wait: Duration,
    /// Whether somebody waits, and for this limit the longest.
    pub(crate) binding: bool,
}

impl Charge {
    /// One request without keys.
    pub(crate) const ONE: Self = Self::of(NonZeroU32::MIN);

    /// A request without keys.
    pub(crate) const fn of(cost: NonZeroU32) -> Self {
        Self {
            cost,
            keys: None,
            kinds: 0,
        }
    }

    /// A request with these keys, if there are any, of the kinds with this number.
    pub(crate) fn new(cost: NonZeroU32, keys: Box<[u64]>, kinds: u32) -> Self {
        match keys.is_empty() {
            true => Self::of(cost),
            false => Self {
                cost,
                keys: Some(keys),
                kinds,
            },
        }
    }

    /// Its key of each kind.
    pub(crate) fn keys(&self) -> &[u64] {
        self.keys.as_deref().unwrap_or_default()
    }

    /// The line it stands in: one for each combination of keys.
    pub(crate) fn line(&self) -> u64 {
        let mix = |line: u64, key: &u64| line.rotate_left(31) ^ key;
        self.keys().iter().fold(0, mix)
    }
}
