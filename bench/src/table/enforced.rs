//! `enforced`: saturated peers in front of upstreams that enforce exactly the limit the peer is set to, in every way APIs do, behind
//! a clean and a jittery network, with clocks that are a little off. Nothing should be refused, and next to nothing of the limit
//! left unused. What the figures mean exactly stands in `origin/arrivals`.
//!
//! Low rates need next to no core, so many of their runs share the machine, each with an upstream, a peer and callers of its own;
//! all of these are up before any of them is loaded. Higher rates have the machine to themselves. A run that fails fills its cell
//! and does not end the others.

mod kept;
pub(crate) mod scenario;

use std::collections::BTreeMap;
use std::time::Duration;

use clap::ValueEnum;
use tokio::task::{JoinSet, LocalSet};

use crate::Result;
use crate::bench::Bench;
use crate::cli::EnforcedArgs;
use crate::clock::{self, Timer};
use crate::load::closed::Closed;
use crate::origin::Origin;
use crate::origin::circumstances::Circumstances;
use crate::peer::{Contender, Peer, Program};
use crate::report::{Table, number};
use crate::table::enforced::kept::Kept;
use crate::table::enforced::scenario::{Condition, Scenario, name};

const CONTENDERS: [Contender; 4] = [
    Contender::new(PACEGATE, Program::Pacegate),
    Contender::new("nginx-limit", Program::Nginx),
    Contender::new("until_ready", Program::UntilReady),
    Contender::new("direct", Program::Direct),
];
const PACEGATE: &str = "pacegate";
/// Twenty windows of the longest limit.
const SECONDS: u32 = 60;
const QUICK_SECONDS: u32 = 7;
/// Share of the time without a core above which a run is called disturbed.
const DISTURBED: f64 = 0.05;

/// One cell of the matrix, in the order in which they are measured and shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    rate: u32,
    scenario: Scenario,
    peer: &'static str,
    condition: Condition,
}

/// One measurement to be made.
#[derive(Debug, Clone, Copy)]
struct Run {
    key: Key,
    contender: Contender,
    circumstances: Circumstances,
    seconds: u32,
}

/// What one measurement gave, or the worst of several.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Figures {
    arrived: usize,
    refused: usize,
    not_200: u64,
    utilization: f64,
    /// Most requests in any window, refused ones too.
    fullest: usize,
    /// Nanoseconds.
    deviation_p50: u64,
    deviation_p99: u64,
    /// Nanoseconds.
    longest_pause: u64,
    /// Share of the time in which the peer or the origin had no core to run on.
    starved: f64,
}

type Outcome = std::result::Result<Figures, String>;
type Results = BTreeMap<Key, Outcome>;

/// Tables with their names, and what is wrong with pacegate's cells.
pub(crate) type Measured = (Vec<(&'static str, Table)>, Vec<String>);

/// Measures the matrix: a table of pacegate, and one of the others.
pub(crate) async fn run(bench: &Bench, args: &EnforcedArgs) -> Result<Measured> {
    let seconds = bench.seconds_or(if bench.quick() {
        QUICK_SECONDS
    } else {
        SECONDS
    });
    let how = format!("saturated, {seconds} s, {}", at_a_time(&args.rates));
    let title = format!("pacegate at upstreams that enforce: {how}");
    let mut ours = Table::new(title, "N").keyed("upstream");
    let mut chosen = bench.choose(&CONTENDERS, &mut ours)?;
    chosen.retain(|peer| bench.named(peer));
    let mut runs = Vec::new();
    for _ in 0..bench.rounds(1) {
        runs.extend(planned(args, &chosen, seconds));
    }
    // Stable: the rounds of a rate stay apart.
    runs.sort_by_key(|run| run.key.rate);
    let mut results = Results::new();
    let mut kept = Kept::read(args.keep.as_deref())?;
    let mut missing = Vec::new();
    for run in runs {
        match kept.take(&run.what(bench)?) {
            Some(figures) => merge(&mut results, run.key, Ok(figures)),
            None => missing.push(run),
        }
    }
    let measured = measure_all(bench, &missing, &kept, &mut results);
    LocalSet::new().run_until(measured).await?;

    let mut tables = Vec::new();
    if chosen.iter().any(|peer| peer.name == PACEGATE) {
        show(&results, true, &mut ours);
        if let Some(disturbed) = disturbed(&results) {
            ours.note(disturbed);
        }
        tables.push(("enforced", ours));
    }
    if chosen.iter().any(|peer| peer.name != PACEGATE) {
        let title = format!("The others at the same upstreams: {how}");
        let mut others = Table::new(title, "N").keyed("peer, upstream");
        if tables.is_empty() {
            bench.choose(&CONTENDERS, &mut others)?;
        }
        show(&results, false, &mut others);
        others.note(
            "nginx spaces evenly whatever the upstream allows, and its starts are held against that; it has no setting for concurrency and several limits that makes callers wait",
        );
        others.note(
            "direct: as many callers as may be at once, no proxy, each sends again when it is answered",
        );
        tables.push(("enforced others", others));
    }
    if let Some((_, first)) = tables.first_mut() {
        explain(&results, first);
    }
    Ok((tables, failures(&results)))
}

fn planned(args: &EnforcedArgs, chosen: &[Contender], seconds: u32) -> Vec<Run> {
    let mut runs = Vec::new();
    for &rate in &args.rates {
        for scenario in selected(&args.policies) {
            for peer in chosen {
                for condition in selected(&args.conditions) {
                    let contender = scenario.contender(peer.name, peer.program, rate, condition);
                    let Some(contender) = contender.filter(|_| condition.matters(scenario)) else {
                        continue;
                    };
                    runs.push(Run {
                        key: Key {
                            rate,
                            scenario,
                            peer: peer.name,
                            condition,
                        },
                        contender,
                        circumstances: scenario.circumstances(rate, condition, args.seed),
                        seconds,
                    });
                }
            }
        }
    }
    runs
}

/// All values if none are named.
fn selected<T: ValueEnum + PartialEq + Copy>(named: &[T]) -> Vec<T> {
    let all = T::value_variants().iter().copied();
    all.filter(|value| named.is_empty() || named.contains(value))
        .collect()
}

/// Measurements at the same time. From 1000/s on a second one would be seen in the deviations.
fn side_by_side(rate: u32) -> usize {
    match rate {
        0..=10 => 64,
        11..=100 => 6,
        _ => 1,
    }
}

/// How many were run at a time, for the title.
fn at_a_time(rates: &[u32]) -> String {
    let each = rates.iter().map(|&rate| match side_by_side(rate) {
        1 => format!("{rate}/s alone"),
        several => format!("{rate}/s {several} at a time"),
    });
    each.collect::<Vec<_>>().join(", ")
}

/// What may run at the same time: of one rate, as many as it allows.
fn groups(runs: &[Run]) -> impl Iterator<Item = &[Run]> {
    let rates = runs.chunk_by(|one, next| one.key.rate == next.key.rate);
    rates.flat_map(|runs| runs.chunks(side_by_side(runs[0].key.rate)))
}

async fn measure_all(
    bench: &Bench,
    runs: &[Run],
    kept: &Kept,
    results: &mut Results,
) -> Result<()> {
    let (total, mut place) = (runs.len(), 0);
    for group in groups(runs) {
        let mut stands = Vec::new();
        for run in group {
            place += 1;
            eprintln!("enforced: {place} of {total}, {}", run.key);
            stands.push((*run, Stand::up(bench, run).await));
        }
        let mut running = JoinSet::new();
        let (begin, apart) = (clock::now(), 1_000_000_000 / group.len() as u64);
        for (nth, (run, stand)) in stands.into_iter().enumerate() {
            // Windows of one second that begin at once would all send their bursts at once.
            let at = begin + apart * nth as u64;
            running.spawn_local(async move {
                let measured = async {
                    let stand = stand?;
                    Timer::new()?.sleep_until(at).await?;
                    stand.measure(run).await
                };
                (run, measured.await)
            });
        }
        while let Some(done) = running.join_next().await {
            let (run, figures) = done?;
            report(run.key, &figures);
            if let Ok(figures) = &figures {
                kept.add(&run.what(bench)?, figures)?;
            }
            merge(results, run.key, figures);
        }
    }
    Ok(())
}

fn report(key: Key, figures: &Result<Figures>) {
    match figures {
        Ok(figures) => eprintln!(
            "enforced: {key}: {figures}, longest pause {:.1} ms, without a core {:.1} %",
            figures.longest_pause as f64 / 1e6,
            figures.starved * 100.0
        ),
        Err(error) => eprintln!("enforced: {key}: {error}"),
    }
}

/// The cells of pacegate in which something was refused, or not answered with 200, or that failed.
fn failures(results: &Results) -> Vec<String> {
    let mut ours = results
        .iter()
        .filter(|(key, _)| key.peer == PACEGATE)
        .peekable();
    if ours.peek().is_none() {
        return vec!["pacegate was not measured".to_owned()];
    }
    let wrong = |(key, outcome): (&Key, &Outcome)| match outcome {
        Ok(figures) if figures.refused == 0 && figures.not_200 == 0 => None,
        Ok(Figures {
            refused, not_200, ..
        }) => Some(format!("{key}: {refused} refused, {not_200} not 200")),
        Err(error) => Some(format!("{key}: {error}")),
    };
    ours.filter_map(wrong).collect()
}

/// Adds a measurement to its cell.
fn merge(results: &mut Results, key: Key, figures: Result<Figures>) {
    let figures = figures.map_err(|error| {
        error
            .to_string()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    });
    let merged = match (results.remove(&key), figures) {
        (Some(Ok(before)), Ok(figures)) => Ok(before.worse(figures)),
        (Some(Err(error)), _) => Err(error),
        (_, figures) => figures,
    };
    results.insert(key, merged);
}

impl Run {
    /// What is measured, of which build: the name under which its figures are kept.
    fn what(&self, bench: &Bench) -> Result<String> {
        let program = self.contender.program;
        let binary = bench.binary(program).ok_or("not installed")?;
        let build = kept::fingerprint(&binary)?;
        let (seconds, seed) = (self.seconds, self.circumstances.seed);
        Ok(format!("{}, {seconds} s, seed {seed}, {build}", self.key))
    }
}

/// An upstream with a peer in front, both up and not loaded yet.
struct Stand {
    origin: Origin,
    peer: Peer,
}

impl Stand {
    async fn up(bench: &Bench, run: &Run) -> Result<Self> {
        let policy = run.key.scenario.policy(run.key.rate);
        let origin = Origin::under(bench, &policy, run.circumstances).await?;
        let peer = Peer::start(bench, &run.contender, origin.addr).await?;
        Ok(Self { origin, peer })
    }

    async fn measure(self, run: Run) -> Result<Figures> {
        let Self { origin, peer } = self;
        let Key {
            rate,
            scenario,
            condition,
            ..
        } = run.key;
        let waited = || peer.starved_seconds().max(origin.starved_seconds());
        let before = waited();
        let tally = Closed {
            addr: peer.addr,
            connections: scenario.callers(run.contender.program, rate, condition),
            requests: u32::MAX,
            limit: Duration::from_secs(u64::from(run.seconds)),
        }
        .run()
        .await;
        let starved = (waited() - before).max(0.0) / f64::from(run.seconds);
        let arrivals = origin.arrivals().await?.until(tally.ended);

        let evenly = run.contender.program == Program::Nginx;
        let delay = run.circumstances.mean_delay(arrivals.0.len());
        let work = arrivals.mean_work().unwrap_or_default();
        let (width, _) = scenario.window(rate);
        let fit = arrivals
            .fit(scenario.ideal(rate, delay, work, evenly), tally.ended)
            .ok_or("less than one window was accepted")?;
        Ok(Figures {
            arrived: arrivals.0.len(),
            refused: arrivals.refused(),
            not_200: tally.failed,
            utilization: fit.utilization,
            fullest: arrivals.worst_window(width),
            deviation_p50: fit.deviation_p50,
            deviation_p99: fit.deviation_p99,
            longest_pause: arrivals.longest_pause(),
            starved,
        })
    }
}

/// A row per upstream and rate, a column per condition: of pacegate, or of each of the others.
fn show(results: &Results, ours: bool, table: &mut Table) {
    let mut cells: Vec<(&Key, &Outcome)> = results
        .iter()
        .filter(|(key, _)| (key.peer == PACEGATE) == ours)
        .collect();
    // Stable: of each peer, rate by rate.
    cells.sort_by_key(|(key, _)| key.peer);
    let mut not_200: BTreeMap<(String, String), u64> = BTreeMap::new();
    for (key, figures) in cells {
        let upstream = if ours {
            name(key.scenario)
        } else {
            format!("{}, {}", key.peer, name(key.scenario))
        };
        let case = key.rate.to_string();
        let (_, most) = key.scenario.window(key.rate);
        let text = match figures {
            Ok(figures) => figures.to_string(),
            Err(error) => {
                table.note(format!("{key}: {error}"));
                "failed".to_owned()
            }
        };
        table.text(&upstream, &case, "most", most.to_string());
        table.text(&upstream, &case, key.condition.heading(), text);
        let not_200 = not_200.entry((upstream, case)).or_default();
        *not_200 += figures.as_ref().map_or(0, |figures| figures.not_200);
    }
    for ((upstream, case), count) in not_200 {
        table.text(&upstream, &case, "not 200", count.to_string());
    }
}

/// What the cells of both tables say.
fn explain(results: &Results, table: &mut Table) {
    table.note(
        "cells: refused by the upstream, utilization, requests in the fullest window of any phase (by a clock that runs right); deviation from the earliest start that the limit allows, p50 and p99, µs",
    );
    table.note("most: what a window may hold; not 200: answers to callers, all conditions");
    table.note("jitter: each request takes 0 to 50 ms to the upstream; slow, fast clock: 0.1 %");
    let used = |scenario: &&Scenario| results.keys().any(|key| key.scenario == **scenario);
    for scenario in Scenario::value_variants().iter().filter(used) {
        table.note(scenario.explained());
    }
}

/// The cells of pacegate that the machine left without a core, if any. The threads of other peers take the core from each other:
/// there it would say nothing about the machine.
fn disturbed(results: &Results) -> Option<String> {
    let starved = |(key, figures): (&Key, &Outcome)| {
        let starved = figures.as_ref().map_or(0.0, |figures| figures.starved);
        let disturbed = key.peer == PACEGATE && starved > DISTURBED;
        disturbed.then(|| format!("{key} {:.1} %", starved * 100.0))
    };
    let disturbed: Vec<String> = results.iter().filter_map(starved).collect();
    (!disturbed.is_empty()).then(|| {
        format!(
            "disturbed, share of the time without a core to run on: {}",
            disturbed.join(", ")
        )
    })
}

impl Figures {
    fn worse(self, other: Self) -> Self {
        Self {
            arrived: self.arrived + other.arrived,
            refused: self.refused + other.refused,
            not_200: self.not_200 + other.not_200,
            utilization: self.utilization.min(other.utilization),
            fullest: self.fullest.max(other.fullest),
            deviation_p50: self.deviation_p50.max(other.deviation_p50),
            deviation_p99: self.deviation_p99.max(other.deviation_p99),
            longest_pause: self.longest_pause.max(other.longest_pause),
            starved: self.starved.max(other.starved),
        }
    }

    /// The figures as a line of a file.
    fn line(&self) -> String {
        format!(
            "{} {} {} {} {} {} {} {} {}",
            self.arrived,
            self.refused,
            self.not_200,
            self.utilization,
            self.fullest,
            self.deviation_p50,
            self.deviation_p99,
            self.longest_pause,
            self.starved
        )
    }

    /// Reads what [`Self::line`] writes.
    fn from_line(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let figures = Self {
            arrived: words.next()?.parse().ok()?,
            refused: words.next()?.parse().ok()?,
            not_200: words.next()?.parse().ok()?,
            utilization: words.next()?.parse().ok()?,
            fullest: words.next()?.parse().ok()?,
            deviation_p50: words.next()?.parse().ok()?,
            deviation_p99: words.next()?.parse().ok()?,
            longest_pause: words.next()?.parse().ok()?,
            starved: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(figures)
    }
}

/// A cell. The utilization is rounded down: 0.9999 is not 1.
impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let share = self.refused as f64 * 100.0 / self.arrived.max(1) as f64;
        let refused = match self.refused {
            0 => "0".to_owned(),
            few => format!("{few} ({share:.1} %)"),
        };
        let used = (self.utilization * 1e4).floor() / 1e4;
        let [p50, p99] = [self.deviation_p50, self.deviation_p99]
            .map(|nanos| number((nanos as f64 / 1e3).round()));
        write!(f, "{refused}, {used:.4}, {}; {p50}, {p99}", self.fullest)
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (scenario, condition) = (name(self.scenario), name(self.condition));
        write!(f, "{} {scenario} {}/s {condition}", self.peer, self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIGURES: Figures = Figures {
        arrived: 1000,
        refused: 0,
        not_200: 0,
        utilization: 0.999_99,
        fullest: 10,
        deviation_p50: 1400,
        deviation_p99: 99_600,
        longest_pause: 0,
        starved: 0.0,
    };

    #[test]
    fn the_whole_matrix_holds_every_upstream_at_every_rate() {
        let args = EnforcedArgs {
            policies: Vec::new(),
            rates: vec![10, 10_000],
            conditions: Vec::new(),
            keep: None,
            strict: false,
            seed: 1,
        };
        let runs = planned(&args, &CONTENDERS, 60);
        let of = |peer: &str| runs.iter().filter(|run| run.key.peer == peer).count();
        // All four conditions; a concurrency limit has no clock.
        assert_eq!(of("pacegate"), 2 * (10 * 4 + 2));
        assert_eq!(of("nginx-limit"), 2 * (6 * 4));
        assert_eq!(of("until_ready"), 2 * (10 * 4 + 2));
        assert_eq!(of("direct"), 2 * 2);
        let keys: std::collections::BTreeSet<Key> = runs.iter().map(|run| run.key).collect();
        assert_eq!(keys.len(), runs.len(), "each is measured once");
    }

    #[test]
    fn only_low_rates_share_the_machine_and_never_with_other_rates() {
        let args = EnforcedArgs {
            policies: Vec::new(),
            rates: vec![10, 100, 1000, 10_000],
            conditions: Vec::new(),
            keep: None,
            strict: false,
            seed: 1,
        };
        let runs = planned(&args, &CONTENDERS, 60);
        let mut sizes: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for group in groups(&runs) {
            let rate = group[0].key.rate;
            assert!(group.iter().all(|run| run.key.rate == rate));
            sizes.entry(rate).or_default().push(group.len());
        }
        assert_eq!(sizes[&10], [64, 46]);
        assert_eq!(sizes[&100][..10], [6; 10]);
        assert_eq!(sizes[&1000], [1; 110]);
        assert_eq!(sizes[&10_000], [1; 110]);
        assert_eq!(
            at_a_time(&[10, 100, 1000]),
            "10/s 64 at a time, 100/s 6 at a time, 1000/s alone"
        );
    }

    #[test]
    fn what_was_refused_or_failed_is_named_and_that_of_others_is_not() {
        let key = |peer, scenario| Key {
            rate: 10,
            scenario,
            peer,
            condition: Condition::Clean,
        };
        let refused = Figures {
            refused: 2,
            ..FIGURES
        };
        let mut results = Results::from([(key("nginx-limit", Scenario::Fixed), Ok(refused))]);
        assert_eq!(failures(&results), ["pacegate was not measured"]);
        results.insert(key(PACEGATE, Scenario::Fixed), Ok(FIGURES));
        assert!(failures(&results).is_empty());
        results.insert(key(PACEGATE, Scenario::Leaky), Ok(refused));
        results.insert(key(PACEGATE, Scenario::Several), Err("it broke".to_owned()));
        let expected = [
            "pacegate leaky 10/s clean: 2 refused, 0 not 200",
            "pacegate several 10/s clean: it broke",
        ];
        assert_eq!(failures(&results), expected);
    }

    #[test]
    fn a_cell_shows_the_worst_round_and_never_rounds_up() {
        assert_eq!(FIGURES.to_string(), "0, 0.9999, 10; 1, 100");
        let refused = Figures {
            refused: 5,
            utilization: 0.5,
            ..FIGURES
        };
        let worse = FIGURES.worse(refused).to_string();
        assert_eq!(worse, "5 (0.2 %), 0.5000, 10; 1, 100");
    }

    #[test]
    fn a_row_shows_all_conditions_and_a_failed_run_is_named() {
        let key = |condition| Key {
            rate: 10,
            scenario: Scenario::SlidingEven,
            peer: PACEGATE,
            condition,
        };
        let results = Results::from([
            (key(Condition::Clean), Ok(FIGURES)),
            (key(Condition::Jitter), Err("it broke".to_owned())),
        ]);
        let mut table = Table::new("Ours", "N").keyed("upstream");
        show(&results, true, &mut table);
        let text = table.to_string();
        assert!(text.contains("| upstream | N | most | clean |"), "{text}");
        assert!(
            text.contains("| sliding-even | 10 | 10 | 0, 0.9999, 10; 1, 100 | failed | 0 |"),
            "{text}"
        );
        assert!(
            text.contains("- pacegate sliding-even 10/s jitter: it broke\n"),
            "{text}"
        );
    }

    #[test]
    fn the_others_have_the_same_columns_peer_by_peer() {
        let key = |peer, rate, condition| Key {
            rate,
            scenario: Scenario::Sliding,
            peer,
            condition,
        };
        let results = Results::from([
            (key("until_ready", 10, Condition::Clean), Ok(FIGURES)),
            (key("nginx-limit", 10, Condition::Clean), Ok(FIGURES)),
            (key("nginx-limit", 10, Condition::Slow), Ok(FIGURES)),
            (key("nginx-limit", 100, Condition::Clean), Ok(FIGURES)),
            (key(PACEGATE, 10, Condition::Clean), Ok(FIGURES)),
        ]);
        let mut table = Table::new("Others", "N").keyed("peer, upstream");
        show(&results, false, &mut table);
        let text = table.to_string();
        let rows: Vec<&str> = text.lines().skip(4).take(4).collect();
        let expected = [
            "| nginx-limit, sliding | 10 | 10 | 0, 0.9999, 10; 1, 100 | 0, 0.9999, 10; 1, 100 | 0 |",
            "| nginx-limit, sliding | 100 | 100 | 0, 0.9999, 10; 1, 100 | - | 0 |",
            "| until_ready, sliding | 10 | 10 | 0, 0.9999, 10; 1, 100 | - | 0 |",
            "",
        ];
        assert_eq!(rows, expected, "{text}");
    }
}
