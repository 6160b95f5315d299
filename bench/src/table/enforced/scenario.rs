//! What is measured in `enforced`: the upstreams and how a peer is set for each (`Scenario`), and the circumstances (`Condition`). A
//! peer is always set to exactly what the upstream enforces.

use std::time::Duration;

use clap::ValueEnum;

use crate::origin::circumstances::{Circumstances, draw};
use crate::origin::policy::{Policy, Rule};
use crate::pace::Pace;
use crate::peer::{Contender, Program};

/// The longest delay on the way, in the condition that has one.
const JITTER_MS: u32 = 50;
/// How far off a clock is: 0.1 %.
const CLOCK_PPM: i32 = 1000;
/// In flight at once, unless the upstream limits it: pacegate's default.
const IN_FLIGHT: u32 = 1024;

/// An upstream and the setting for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Scenario {
    /// N in each second of its clock, in bursts
    Fixed,
    /// The same, evenly spaced
    FixedEven,
    /// N in any second, in bursts
    Sliding,
    /// The same, evenly spaced
    SlidingEven,
    /// The same, but 1 % at once
    SlidingNear,
    /// The same in bursts, each answer takes 100 ms
    SlidingSlow,
    /// N/s by a sliding counter, evenly spaced
    Counter,
    /// N/s from a token bucket of 2N
    Bucket,
    /// N/s, exact spacing demanded
    Leaky,
    /// So many at once that N/s are possible
    Concurrency,
    /// N in any second, 2N in any three, N/20 at once
    Several,
}

/// Under what circumstances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Condition {
    /// The loopback as it is
    Clean,
    /// 0 to 50 ms on the way there
    Jitter,
    /// The upstream's clock runs 0.1 % slow
    Slow,
    /// The upstream's clock runs 0.1 % fast
    Fast,
}

impl Scenario {
    /// What the upstream is and how a peer is set, for the notes.
    pub(crate) fn explained(self) -> &'static str {
        match self {
            Self::Fixed => "fixed: N in each second of its clock; set to `\"N/s\"`",
            Self::FixedEven => "fixed-even: the same; set to `{ rate = \"N/s\", burst = 1 }`",
            Self::Sliding => "sliding: N in any second (a log); set to `\"N/s\"`",
            Self::SlidingEven => "sliding-even: the same; set to `{ rate = \"N/s\", burst = 1 }`",
            Self::SlidingNear => {
                "sliding-near: the same; set to `{ rate = \"N/s\", burst = N/100 }` (at least 1)"
            }
            Self::SlidingSlow => {
                "sliding-slow: the same, each answer 100 ms after its request was counted; set to `\"N/s\"`"
            }
            Self::Counter => {
                "counter: refuses when previous second x its overlap + current second reaches N; set to `{ rate = \"N/s\", burst = 1 }`"
            }
            Self::Bucket => {
                "bucket: tokens at N/s, up to 2N, full at first; set to `{ rate = \"N/s\", bucket = 2N }`"
            }
            Self::Leaky => {
                "leaky: leaks N/s, depth 1, so no gap below 1/N s; set to `{ rate = \"N/s\", bucket = 1 }`; a start must wait for the answer before it, so that with jitter nobody can use more than 1/(1 + N/40)"
            }
            Self::Concurrency => {
                "concurrency: C at once, each taking C/N s (40 ms; 400 ms at 10/s; and what the upstream's timers and core add); set to `max_in_flight = C`"
            }
            Self::Several => {
                "several: N in any second, 2N in any 3 s (rated by these), N/20 (at least 2) at once, each taking 5 ms; all of them set"
            }
        }
    }

    /// What the upstream enforces.
    pub(crate) fn policy(self, rate: u32) -> Policy {
        let window = Pace::window(rate, 1);
        match self {
            Self::Fixed | Self::FixedEven => Rule::Fixed(window).into(),
            Self::Sliding | Self::SlidingEven | Self::SlidingNear | Self::SlidingSlow => {
                Rule::Sliding(window).into()
            }
            Self::Counter => Rule::Counter(window).into(),
            Self::Bucket => Rule::Bucket(self.pace(rate)).into(),
            Self::Leaky => Rule::Leaky(self.pace(rate)).into(),
            Self::Concurrency => Rule::Concurrency(self.at_once(rate)).into(),
            Self::Several => Policy::Enforce(vec![
                Rule::Sliding(window),
                Rule::Sliding(long(rate)),
                Rule::Concurrency(self.at_once(rate)),
            ]),
        }
    }

    /// The peer, set to the limit; none if nothing it has would hold callers back so.
    pub(crate) fn contender(
        self,
        name: &'static str,
        program: Program,
        rate: u32,
        condition: Condition,
    ) -> Option<Contender> {
        let contender = Contender::new(name, program);
        let pace = self.pace(rate);
        match (program, self) {
            (Program::Pacegate | Program::UntilReady, Self::Concurrency) => {
                Some(contender.in_flight(self.at_once(rate)))
            }
            (Program::Pacegate | Program::UntilReady, Self::Several) => Some(
                contender
                    .paced(pace)
                    .beside(long(rate))
                    .in_flight(self.at_once(rate)),
            ),
            (Program::Pacegate, _) => {
                let at_once = IN_FLIGHT + self.on_the_way(rate);
                Some(contender.paced(pace).in_flight(at_once))
            }
            (Program::Direct, Self::Concurrency) => Some(contender),
            (Program::Direct | Program::Haproxy, _) => None,
            // nginx does not make callers wait for a call to end.
            (Program::Nginx, Self::Concurrency | Self::Several) => None,
            // It knows even spacing only: the other forms would be the same again.
            (Program::Nginx, Self::FixedEven | Self::SlidingEven | Self::SlidingNear) => None,
            (Program::Nginx, _) => Some(contender.paced(pace)),
            // A worker is busy for as long as its request is on the way.
            (Program::UntilReady, _) => {
                let on_the_way = if condition == Condition::Jitter {
                    rate / 20
                } else {
                    0
                };
                let workers = 64 + on_the_way + self.on_the_way(rate);
                Some(contender.paced(pace).in_flight(workers))
            }
        }
    }

    /// The limit that decides the rate.
    fn pace(self, rate: u32) -> Pace {
        match self {
            Self::Fixed | Self::Sliding | Self::SlidingSlow | Self::Concurrency | Self::Several => {
                Pace::window(rate, 1)
            }
            Self::FixedEven | Self::SlidingEven | Self::Counter => Pace::even(rate),
            Self::SlidingNear => Pace::spaced(rate, (rate / 100).max(1)),
            Self::Bucket => Pace::bucket(rate, rate * 2),
            Self::Leaky => Pace::bucket(rate, 1),
        }
    }

    /// What a peer can do at best if requests are on their way for `delay` on average. A concurrency limit is as good as a window as
    /// long as its calls take, which is `work` there on average, and the way there takes up a place too.
    pub(crate) fn ideal(self, rate: u32, delay: Duration, work: Duration, evenly: bool) -> Pace {
        match self {
            Self::Concurrency => Pace {
                period: delay + work,
                ..Pace::window(self.at_once(rate), 1)
            },
            Self::Several => long(rate),
            Self::Fixed | Self::Sliding | Self::SlidingSlow if evenly => Pace::even(rate),
            Self::Leaky => Pace::even(rate),
            _ => self.pace(rate),
        }
    }

    /// How long the windows are in which the fullest is looked for, nanoseconds, and what they may hold.
    pub(crate) fn window(self, rate: u32) -> (u64, u32) {
        let (count, period) = match self {
            Self::Concurrency => (
                self.at_once(rate),
                u64::from(self.work_ms(rate)) * 1_000_000,
            ),
            Self::Several => (rate * 2, 3_000_000_000),
            Self::Bucket => (rate * 3, 1_000_000_000),
            _ => (rate, 1_000_000_000),
        };
        (period, count)
    }

    /// The circumstances of one run.
    pub(crate) fn circumstances(self, rate: u32, condition: Condition, seed: u32) -> Circumstances {
        let run = u64::from(rate) << 16 | (self as u64) << 8 | condition as u64;
        Circumstances {
            jitter_ms: if condition == Condition::Jitter {
                JITTER_MS
            } else {
                0
            },
            clock_ppm: match condition {
                Condition::Slow => -CLOCK_PPM,
                Condition::Fast => CLOCK_PPM,
                Condition::Clean | Condition::Jitter => 0,
            },
            phase_ms: u32::try_from(draw(seed, run, 999)).unwrap_or(0),
            seed,
            work_ms: self.work_ms(rate),
        }
    }

    /// Callers that keep it saturated: they could send more than twice as much as is allowed, and some always wait. Where nothing
    /// would hold them back, so many as are allowed at once.
    pub(crate) fn callers(self, program: Program, rate: u32, condition: Condition) -> u32 {
        if program == Program::Direct {
            return self.at_once(rate);
        }
        let waiting = (rate * 2).clamp(64, 512);
        let on_the_way = match (self, condition) {
            (_, Condition::Jitter) => rate / 20,
            _ => 0,
        };
        let busy = match self {
            Self::Concurrency | Self::Several => self.at_once(rate),
            _ => self.on_the_way(rate),
        };
        waiting + on_the_way + busy
    }

    /// What a call takes there, milliseconds.
    fn work_ms(self, rate: u32) -> u32 {
        match self {
            Self::Several => 5,
            Self::SlidingSlow => 100,
            Self::Concurrency if rate < 100 => 400,
            Self::Concurrency => 40,
            _ => 0,
        }
    }

    /// Calls under way at once where they take their time without a limit on that.
    fn on_the_way(self, rate: u32) -> u32 {
        match self {
            Self::SlidingSlow => rate * self.work_ms(rate) / 1000,
            _ => 0,
        }
    }

    fn at_once(self, rate: u32) -> u32 {
        match self {
            Self::Several => (rate / 20).max(2),
            _ => (rate * self.work_ms(rate) / 1000).max(1),
        }
    }
}

impl Condition {
    /// The column's name.
    pub(crate) fn heading(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Jitter => "jitter",
            Self::Slow => "slow clock",
            Self::Fast => "fast clock",
        }
    }

    /// Whether `scenario` can tell the difference.
    pub(crate) fn matters(self, scenario: Scenario) -> bool {
        scenario != Scenario::Concurrency || matches!(self, Self::Clean | Self::Jitter)
    }
}

/// The second window of `several`: two thirds of the rate.
fn long(rate: u32) -> Pace {
    Pace::window(rate * 2, 3)
}

/// The name used on the command line and in the table.
pub(crate) fn name(value: impl ValueEnum) -> String {
    value
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_set_to_what_the_upstream_enforces() {
        for scenario in Scenario::value_variants() {
            for rate in [10, 100, 1000, 10_000] {
                let peer = scenario.contender("p", Program::Pacegate, rate, Condition::Clean);
                assert!(peer.is_some(), "{scenario:?}");
                let policy = scenario.policy(rate);
                assert_eq!(policy.to_string().parse::<Policy>(), Ok(policy));
                let work = Duration::from_millis(u64::from(scenario.work_ms(rate)));
                let ideal = scenario
                    .ideal(rate, Duration::ZERO, work, false)
                    .per_second();
                let share = ideal / f64::from(rate);
                let expected = if *scenario == Scenario::Several {
                    2.0 / 3.0
                } else {
                    1.0
                };
                assert!(
                    (share - expected).abs() < 1e-9,
                    "{scenario:?} {rate}: {share}"
                );
            }
        }
    }

    #[test]
    fn every_run_has_a_phase_of_its_own() {
        let phase = |condition| {
            let run = Scenario::Fixed.circumstances(10, condition, 1);
            run.phase_ms
        };
        assert_ne!(phase(Condition::Clean), phase(Condition::Jitter));
        assert_eq!(phase(Condition::Clean), phase(Condition::Clean));
    }
}
