//! `pacing`: how exactly a saturated peer keeps a limit, evenly spaced and in bursts, judged where an API judges it: from the instants
//! at which the origin read the requests. What the figures mean exactly stands in `origin/arrivals`. All callers wait all the time, so
//! the CPU time is that of a peer with a full queue.
//!
//! `near` is even spacing that lets 1 % of the rate start at once, so that what a stall of the machine cost can be made up for.

use std::time::Duration;

use crate::Result;
use crate::bench::Bench;
use crate::clock;
use crate::load::closed::Closed;
use crate::origin::Origin;
use crate::origin::policy::Policy;
use crate::pace::{Form, Pace};
use crate::peer::{Contender, Peer, Program};
use crate::report::Table;

/// Requests per second and the callers that saturate it.
const CASES: [(u32, u32); 4] = [(10, 64), (100, 64), (1000, 256), (10_000, 512)];

/// nginx knows no bursts.
const CONTENDERS: [Contender; 6] = [
    Contender::new("nginx-limit", Program::Nginx),
    Contender::new("pacegate", Program::Pacegate),
    Contender::new("until_ready", Program::UntilReady),
    Contender::new("pacegate-near", Program::Pacegate),
    Contender::new("pacegate-burst", Program::Pacegate),
    Contender::new("until_ready-burst", Program::UntilReady),
];

/// Measures the table.
pub(crate) async fn run(bench: &Bench) -> Result<Table> {
    let (rounds, seconds) = (bench.rounds(1), bench.seconds());
    let title = format!(
        "Pacing: saturated closed loop, evenly spaced unless `near` (up to 1 % of the rate at once) or `burst`, {seconds} s, rounds: {rounds}, seen at the origin"
    );
    let mut table = Table::new(title, "limit");
    let chosen = bench.choose(&CONTENDERS, &mut table)?;
    for round in 1..=rounds {
        for (rate, connections) in CASES {
            for contender in &chosen {
                eprintln!(
                    "pacing: round {round} of {rounds}, {rate}/s, {}",
                    contender.name
                );
                let pace = match contender.name.rsplit_once('-') {
                    Some((_, "burst")) => Pace::window(rate, 1),
                    Some((_, "near")) => Pace::spaced(rate, (rate / 100).max(1)),
                    _ => Pace::even(rate),
                };
                measure(
                    bench,
                    &contender.paced(pace),
                    (pace, connections),
                    &mut table,
                )
                .await?;
            }
        }
    }
    table.ratios("nginx-limit", &["jitter p50, µs", "CPU s/s"]);
    table.note("worst 1 s, 100 ms: most arrivals in any such window; jitter: |gap - ideal gap|; late: |start - earliest start the limit allows|");
    Ok(table)
}

async fn measure(
    bench: &Bench,
    contender: &Contender,
    (pace, connections): (Pace, u32),
    table: &mut Table,
) -> Result<()> {
    let origin = Origin::recording(bench, &Policy::Open).await?;
    let peer = Peer::start(bench, contender, origin.addr).await?;
    let limit = Duration::from_secs(u64::from(bench.seconds()));
    let (cpu, start) = (peer.cpu_seconds()?, clock::now());
    let tally = Closed {
        addr: peer.addr,
        connections,
        requests: u32::MAX,
        limit,
    }
    .run()
    .await;
    let cpu_share = (peer.cpu_seconds()? - cpu) / clock::seconds(clock::now() - start);

    let arrivals = origin.arrivals().await?.until(tally.ended);
    let case = format!("{}/s", pace.count);
    let Some(fit) = arrivals.fit(pace, tally.ended) else {
        table.text(contender.name, &case, "utilization", "nothing arrived");
        return Ok(());
    };
    let mut sample = |column: &str, value: f64| table.sample(contender.name, &case, column, value);
    sample("utilization", fit.utilization);
    sample("worst 1 s", arrivals.worst_window(1_000_000_000) as f64);
    sample("worst 100 ms", arrivals.worst_window(100_000_000) as f64);
    // Columns of their own: how even gaps are and how late a burst comes cannot be compared.
    let [p50, p99] = match pace.form {
        Form::Spaced(_) => ["jitter p50, µs", "jitter p99, µs"],
        Form::Window | Form::Bucket(_) => ["late p50, µs", "late p99, µs"],
    };
    sample(p50, fit.deviation_p50 as f64 / 1e3);
    sample(p99, fit.deviation_p99 as f64 / 1e3);
    sample("CPU s/s", cpu_share);
    Ok(())
}
