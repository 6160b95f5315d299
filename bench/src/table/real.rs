//! `real`: the everyday task. A batch of requests is sent all at once, up to 50 in parallel, through the peer to an upstream that
//! enforces the limit as a sliding log. Every answer should be 200, nothing refused, and the time taken within 2 % of the
//! shortest that the limit allows: (ceil(n / N) - 1) periods.

use std::time::Duration;

use crate::Result;
use crate::bench::Bench;
use crate::clock;
use crate::load::closed::Closed;
use crate::origin::Origin;
use crate::origin::policy::Rule;
use crate::pace::Pace;
use crate::peer::{Contender, Peer, Program};
use crate::report::Table;

const IN_PARALLEL: u32 = 50;
const CASES: [(u32, Pace); 3] = [
    (100, Pace::window(10, 1)),
    (1000, Pace::window(100, 1)),
    (150, Pace::window(30, 2)),
];
/// With `--quick`: the shortest batches that still need two more periods.
const QUICK_CASES: [(u32, Pace); 3] = [
    (30, Pace::window(10, 1)),
    (300, Pace::window(100, 1)),
    (60, Pace::window(30, 2)),
];

const CONTENDERS: [Contender; 3] = [
    Contender::new("nginx-limit", Program::Nginx),
    Contender::new("until_ready", Program::UntilReady),
    Contender::new("pacegate", Program::Pacegate),
];

/// Measures the table.
pub(crate) async fn run(bench: &Bench) -> Result<Table> {
    let rounds = bench.rounds(1);
    let title = format!(
        "The time taken: {IN_PARALLEL} in parallel, sliding log at the upstream, rounds: {rounds}"
    );
    let mut table = Table::new(title, "batch");
    let chosen = bench.choose(&CONTENDERS, &mut table)?;
    let cases = if bench.quick() { QUICK_CASES } else { CASES };
    for round in 1..=rounds {
        for (requests, pace) in cases {
            for contender in &chosen {
                eprintln!(
                    "real: round {round} of {rounds}, {requests} at {pace}, {}",
                    contender.name
                );
                measure(bench, &contender.paced(pace), (requests, pace), &mut table).await?;
            }
        }
    }
    table.note(
        "nginx spaces evenly: at best (n - 1) / rate; until_ready has a burst of a whole period",
    );
    Ok(table)
}

async fn measure(
    bench: &Bench,
    contender: &Contender,
    (requests, pace): (u32, Pace),
    table: &mut Table,
) -> Result<()> {
    let origin = Origin::recording(bench, &Rule::Sliding(pace).into()).await?;
    let peer = Peer::start(bench, contender, origin.addr).await?;
    let at_once = vec![0; requests as usize];
    let ideal = clock::seconds(pace.earliest_starts(&at_once).last().copied().unwrap_or(0));
    let limit = Duration::from_secs_f64(ideal * 3.0 + 10.0);
    let tally = Closed {
        addr: peer.addr,
        connections: IN_PARALLEL,
        requests,
        limit,
    }
    .run()
    .await;
    let refused = origin.arrivals().await?.refused();

    let case = format!("{requests} at {pace}");
    let mut sample = |column: &str, value: f64| table.sample(contender.name, &case, column, value);
    sample("answered 200", tally.answered as f64);
    sample("refused by upstream", refused as f64);
    sample("ideal, s", ideal);
    sample("taken, s", tally.taken);
    // The time taken says nothing when part of the work was not done.
    if tally.answered == u64::from(requests) {
        sample("deviation, %", (tally.taken / ideal - 1.0) * 100.0);
    } else {
        table.text(contender.name, &case, "deviation, %", "not all answered");
    }
    Ok(())
}
