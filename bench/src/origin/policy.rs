//! How an origin treats a request: always answer, never answer, or enforce limits the way third-party APIs do, with 429 beyond
//! them. Several limits decide as one. The arithmetic of each is in `meter`, the origin's own clock in `circumstances`.

use std::fmt;
use std::str::FromStr;

use crate::origin::meter::Meter;
use crate::pace::Pace;

/// What an origin does, as it travels on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Answers everything.
    Open,
    /// Reads and never answers.
    Silent,
    /// Accepts what all of these allow.
    Enforce(Vec<Rule>),
}

/// One limit that an origin enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// At most so many accepted requests in any window of the period.
    Sliding(Pace),
    /// At most so many accepted requests in each period of its clock.
    Fixed(Pace),
    /// Sliding counter: the last period's requests are estimated from two windows of its clock.
    Counter(Pace),
    /// Token bucket, full at first.
    Bucket(Pace),
    /// Leaky bucket without a queue, empty at first; its depth is the pace's burst.
    Leaky(Pace),
    /// At most so many at once.
    Concurrency(u32),
}

/// The counts behind a policy.
#[derive(Debug)]
pub(crate) struct Enforcer(Vec<Meter>);

impl Policy {
    /// Whether how long a request takes matters.
    pub(crate) fn limits_concurrency(&self) -> bool {
        matches!(self, Self::Enforce(rules)
            if rules.iter().any(|rule| matches!(rule, Rule::Concurrency(_))))
    }
}

impl From<Rule> for Policy {
    fn from(rule: Rule) -> Self {
        Self::Enforce(vec![rule])
    }
}

impl Enforcer {
    /// Nothing spent yet.
    pub(crate) fn new(policy: &Policy) -> Self {
        match policy {
            Policy::Open | Policy::Silent => Self(Vec::new()),
            Policy::Enforce(rules) => Self(rules.iter().map(Rule::meter).collect()),
        }
    }

    /// Whether a request that arrives at `now` (nanoseconds of the origin's clock, not decreasing) is within all limits; if so it
    /// counts in all, else in none.
    pub(crate) fn accepts(&mut self, now: u64) -> bool {
        let accepted = self.0.iter_mut().all(|meter| meter.admits(now));
        if accepted {
            self.0.iter_mut().for_each(|meter| meter.charge(now));
        }
        accepted
    }

    /// A request that was accepted has been answered.
    pub(crate) fn answered(&mut self) {
        self.0.iter_mut().for_each(Meter::answered);
    }
}

impl Rule {
    fn meter(&self) -> Meter {
        match *self {
            Self::Sliding(pace) => Meter::log(pace),
            Self::Fixed(pace) => Meter::fixed(pace),
            Self::Counter(pace) => Meter::counter(pace),
            Self::Bucket(pace) | Self::Leaky(pace) => Meter::bucket(pace),
            Self::Concurrency(limit) => Meter::slots(limit),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => write!(f, "open"),
            Self::Silent => write!(f, "silent"),
            Self::Enforce(rules) => {
                let rules: Vec<String> = rules.iter().map(Rule::to_string).collect();
                write!(f, "{}", rules.join("+"))
            }
        }
    }
}

impl FromStr for Policy {
    type Err = String;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "open" => Ok(Self::Open),
            "silent" => Ok(Self::Silent),
            _ => {
                let rules = text.split('+').map(str::parse);
                Ok(Self::Enforce(rules.collect::<Result<_, _>>()?))
            }
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sliding(pace) => write!(f, "sliding:{pace}"),
            Self::Fixed(pace) => write!(f, "fixed:{pace}"),
            Self::Counter(pace) => write!(f, "counter:{pace}"),
            Self::Bucket(pace) => write!(f, "bucket:{pace}"),
            Self::Leaky(pace) => write!(f, "leaky:{pace}"),
            Self::Concurrency(limit) => write!(f, "concurrency:{limit}"),
        }
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, value) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "sliding" => value.parse().map(Self::Sliding),
            "fixed" => value.parse().map(Self::Fixed),
            "counter" => value.parse().map(Self::Counter),
            "bucket" => value.parse().map(Self::Bucket),
            "leaky" => value.parse().map(Self::Leaky),
            "concurrency" => value
                .parse()
                .map(Self::Concurrency)
                .map_err(|error| format!("`{value}` is not a number: {error}")),
            _ => Err(format!("`{text}` is not a policy")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn several_limits_charge_all_or_none() {
        let mut enforcer = Enforcer::new(&"sliding:3/s+fixed:4/2s+concurrency:2".parse().unwrap());
        assert!(enforcer.accepts(0));
        assert!(enforcer.accepts(MS));
        // Two are in progress. Had this been charged to the log, the last of the next three would not fit.
        assert!(!enforcer.accepts(2 * MS));
        enforcer.answered();
        assert!(enforcer.accepts(3 * MS));
        enforcer.answered();
        assert!(!enforcer.accepts(4 * MS), "three in a second");
        assert!(enforcer.accepts(1001 * MS));
        enforcer.answered();
        enforcer.answered();
        assert!(!enforcer.accepts(1100 * MS), "four in two seconds");
        assert!(enforcer.accepts(2000 * MS));
    }

    #[test]
    fn an_open_or_silent_origin_refuses_nothing() {
        assert!(Enforcer::new(&Policy::Open).accepts(0));
        assert!(Enforcer::new(&Policy::Silent).accepts(0));
    }

    #[test]
    fn reads_what_it_writes() {
        for text in [
            "open",
            "silent",
            "sliding:10/s",
            "fixed:30/2s",
            "counter:10/s",
            "bucket:2/s bucket 40",
            "leaky:10/s burst 1",
            "concurrency:8",
            "sliding:10/s+sliding:20/3s+concurrency:8",
        ] {
            assert_eq!(text.parse::<Policy>().unwrap().to_string(), text);
        }
        for text in ["", "sliding", "sliding:10/s+", "concurrency:x", "open+open"] {
            assert!(text.parse::<Policy>().is_err(), "{text}");
        }
    }
}
