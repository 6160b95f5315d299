//! Under what circumstances an origin judges: how long requests are still on their way when it has read them, what its clock
//! makes of a second, and how long the work of a request takes. All of it is drawn from a seed: the same in every run.

use std::time::Duration;

use clap::Args;

use crate::clock::NANOS_PER_MILLI;

const MILLION: u128 = 1_000_000;

/// The way to the origin and the origin's clock, as they travel on the command line.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Circumstances {
    /// The longest delay of a request on its way; each draws its own, evenly from 0 on
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1000))]
    pub(crate) jitter_ms: u32,
    /// How much faster than real time its clock runs, in millionths
    #[arg(long, default_value_t = 0, allow_hyphen_values = true, value_parser = clap::value_parser!(i32).range(-100_000..=100_000))]
    pub(crate) clock_ppm: i32,
    /// What its clock shows at the first request: where in a window of the clock the load begins
    #[arg(long, default_value_t = 500)]
    pub(crate) phase_ms: u32,
    /// What the delays are drawn from
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u32,
    /// What an accepted request takes
    #[arg(long, default_value_t = 0)]
    pub(crate) work_ms: u32,
}

impl Default for Circumstances {
    /// No delay, a true clock.
    fn default() -> Self {
        Self {
            jitter_ms: 0,
            clock_ppm: 0,
            phase_ms: 500,
            seed: 1,
            work_ms: 0,
        }
    }
}

impl Circumstances {
    /// The options that carry them to the child process.
    pub(crate) fn arguments(&self) -> [String; 5] {
        [
            format!("--jitter-ms={}", self.jitter_ms),
            format!("--clock-ppm={}", self.clock_ppm),
            format!("--phase-ms={}", self.phase_ms),
            format!("--seed={}", self.seed),
            format!("--work-ms={}", self.work_ms),
        ]
    }

    /// The delay of the request with this number, nanoseconds.
    pub(crate) fn delay(&self, request: u64) -> u64 {
        draw(
            self.seed,
            request,
            u64::from(self.jitter_ms) * NANOS_PER_MILLI,
        )
    }

    /// The mean delay of so many requests.
    pub(crate) fn mean_delay(&self, requests: usize) -> Duration {
        let requests = requests as u64;
        let total: u64 = (1..=requests).map(|request| self.delay(request)).sum();
        Duration::from_nanos(total / requests.max(1))
    }
}

/// The number `place` of a random sequence, from 0 to `most`: SplitMix64.
pub(crate) fn draw(seed: u32, place: u64, most: u64) -> u64 {
    let mut mixed = (u64::from(seed) << 32)
        .wrapping_add(place)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % (most + 1)
}

/// The clock by which an origin counts. It starts at the first request.
#[derive(Debug)]
pub(crate) struct UpstreamClock {
    circumstances: Circumstances,
    start: Option<u64>,
}

impl UpstreamClock {
    /// Not started yet.
    pub(crate) fn new(circumstances: Circumstances) -> Self {
        Self {
            circumstances,
            start: None,
        }
    }

    /// What it shows at the real instant `now`, nanoseconds.
    pub(crate) fn at(&mut self, now: u64) -> u64 {
        let start = *self.start.get_or_insert(now);
        let speed = MILLION.saturating_add_signed(i128::from(self.circumstances.clock_ppm));
        let passed = u128::from(now - start) * speed / MILLION;
        let phase = u64::from(self.circumstances.phase_ms) * NANOS_PER_MILLI;
        phase.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_fill_their_range_evenly_and_are_the_same_in_every_run() {
        let jitter = |seed| Circumstances {
            jitter_ms: 50,
            seed,
            ..Circumstances::default()
        };
        let delays: Vec<u64> = (0..10_000).map(|place| jitter(1).delay(place)).collect();
        let mean = delays.iter().sum::<u64>() / 10_000;
        assert!((24_000_000..26_000_000).contains(&mean), "{mean}");
        assert!(delays.iter().any(|&delay| delay < 500_000));
        assert!(delays.iter().any(|&delay| delay > 49_500_000));
        assert!(delays.iter().all(|&delay| delay <= 50_000_000));
        assert_eq!(delays[7], jitter(1).delay(7));
        assert_ne!(delays[7], jitter(2).delay(7));
        assert_eq!(Circumstances::default().delay(7), 0);
    }

    #[test]
    fn a_slow_clock_needs_longer_for_its_second() {
        let second = 1_000_000_000;
        for (clock_ppm, shown) in [(-1000, 999_000_000), (0, second), (1000, 1_001_000_000)] {
            let mut clock = UpstreamClock::new(Circumstances {
                clock_ppm,
                phase_ms: 0,
                ..Circumstances::default()
            });
            assert_eq!(clock.at(77), 0);
            assert_eq!(clock.at(77 + second), shown);
        }
    }

    #[test]
    fn the_first_request_finds_the_clock_at_its_phase() {
        let mut clock = UpstreamClock::new(Circumstances {
            phase_ms: 990,
            ..Circumstances::default()
        });
        assert_eq!(clock.at(123), 990_000_000);
        assert_eq!(clock.at(124), 990_000_001);
    }
}
