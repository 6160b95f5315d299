//! `loss`: what becomes of 1000 requests that arrive at 100 per second in front of an upstream that allows 10 per second and
//! refuses the rest. The ideal is computed from the limit: the earliest starts that it allows for these arrivals.

use std::time::Duration;

use crate::Result;
use crate::bench::Bench;
use crate::cli::{Enforcement, LossArgs};
use crate::clock;
use crate::load::open::{Open, Sample};
use crate::origin::Origin;
use crate::origin::policy::{Policy, Rule};
use crate::pace::Pace;
use crate::peer::{Contender, Peer, Program};
use crate::report::{Table, percentile};

const ARRIVING: u32 = 100;
const REQUESTS: u32 = 1000;
const EVEN: Pace = Pace::even(10);
const WINDOW: Pace = Pace::window(10, 1);
/// After the ideal end: then what is not answered is lost.
const GRACE: Duration = Duration::from_secs(20);

/// Each with the limit it was given, none if it knows of none.
const CONTENDERS: [(Contender, Option<Pace>); 4] = [
    (Contender::new("nginx", Program::Nginx), None),
    (
        Contender::new("nginx-limit", Program::Nginx).paced(EVEN),
        Some(EVEN),
    ),
    (
        Contender::new("pacegate", Program::Pacegate).paced(WINDOW),
        Some(WINDOW),
    ),
    (
        Contender::new("pacegate-even", Program::Pacegate).paced(EVEN),
        Some(EVEN),
    ),
];

/// Measures the table.
pub(crate) async fn run(bench: &Bench, args: LossArgs) -> Result<Table> {
    let rule = match args.enforcement {
        Enforcement::Sliding => Rule::Sliding(WINDOW),
        Enforcement::Fixed => Rule::Fixed(WINDOW),
        Enforcement::Concurrency => Rule::Concurrency(WINDOW.count),
    };
    let policy = Policy::from(rule);
    let requests = if bench.quick() {
        REQUESTS / 10
    } else {
        REQUESTS
    };
    let rounds = bench.rounds(1);
    let mut table = Table::new(
        format!("Loss: {requests} requests at {ARRIVING}/s, upstream enforces {policy}"),
        "limit",
    );
    let chosen = bench.choose(&CONTENDERS.map(|(contender, _)| contender), &mut table)?;
    for round in 1..=rounds {
        for (contender, pace) in CONTENDERS {
            if chosen.iter().any(|chosen| chosen.name == contender.name) {
                eprintln!("loss: round {round} of {rounds}, {}", contender.name);
                measure(
                    bench,
                    Case {
                        contender,
                        pace,
                        policy: policy.clone(),
                        requests,
                    },
                    &mut table,
                )
                .await?;
            }
        }
    }
    table.note("waits: intended start to answer; last answer: since the first intended start");
    table.note("ideal: the earliest starts the limit allows; of plain nginx that of an even limit");
    Ok(table)
}

/// Who stands before what.
struct Case {
    contender: Contender,
    pace: Option<Pace>,
    policy: Policy,
    requests: u32,
}

async fn measure(bench: &Bench, case: Case, table: &mut Table) -> Result<()> {
    let origin = Origin::recording(bench, &case.policy).await?;
    let peer = Peer::start(bench, &case.contender, origin.addr).await?;
    let (requests, connections) = (case.requests, case.requests);
    let mut load = Open {
        addr: peer.addr,
        rate: ARRIVING,
        requests,
        connections,
        ahead: false,
        limit: GRACE,
    };
    let schedule = load.schedule();
    let ideal = case.pace.unwrap_or(EVEN).earliest_starts(&schedule);
    load.limit += Duration::from_nanos(ideal.last().copied().unwrap_or(0));
    let mut answered = load.run().await?;
    answered.retain(|sample| sample.status == 200);
    let seen = origin.arrivals().await?;

    let limit = case
        .pace
        .map_or_else(|| "-".to_owned(), |pace| pace.to_string());
    let mut sample = |column: &str, value: usize| {
        table.sample(case.contender.name, &limit, column, value as f64);
    };
    sample("answered", answered.len());
    sample("lost", requests as usize - answered.len());
    sample("refused by upstream", seen.refused());
    sample("out of order", seen.overtaken());
    times(&answered, &schedule, &ideal)
        .into_iter()
        .for_each(|(column, seconds)| {
            table.sample(case.contender.name, &limit, column, seconds);
        });
    Ok(())
}

/// What the callers waited, in seconds, each figure beside its ideal.
fn times(answered: &[Sample], schedule: &[u64], ideal: &[u64]) -> [(&'static str, f64); 6] {
    let sorted = |waits: &mut dyn Iterator<Item = u64>| {
        let mut waits: Vec<u64> = waits.collect();
        waits.sort_unstable();
        waits
    };
    let waits = sorted(&mut answered.iter().map(Sample::latency));
    let ideal_waits = sorted(&mut ideal.iter().zip(schedule).map(|(start, due)| start - due));
    let last = answered
        .iter()
        .map(|sample| sample.ended)
        .max()
        .unwrap_or(0);
    [
        ("p50 wait, s", percentile(&waits, 0.5)),
        ("ideal p50", percentile(&ideal_waits, 0.5)),
        ("longest wait, s", percentile(&waits, 1.0)),
        ("ideal longest", percentile(&ideal_waits, 1.0)),
        ("last answer, s", last),
        ("ideal last", ideal.last().copied().unwrap_or(0)),
    ]
    .map(|(column, nanos)| (column, clock::seconds(nanos)))
}
