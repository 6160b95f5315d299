//! `latency`: what a peer adds to the direct way at 1000 and 5000 requests per second, open loop, counted from the intended
//! start. Each round measures the direct way first; what is added is the difference to that same round. The median is
//! solid; the 99.9th percentile is mostly the machine's scheduling.

use std::time::Duration;

use crate::Result;
use crate::bench::Bench;
use crate::load::open::{Open, Sample};
use crate::origin::Origin;
use crate::peer::{Contender, Peer, Program};
use crate::report::{Table, percentile};
use crate::table::UNHINDERED;

const RATES: [u32; 2] = [1000, 5000];
const CONNECTIONS: u32 = 64;
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];
/// After the last intended start.
const GRACE: Duration = Duration::from_secs(5);

/// The quantiles of one measurement in µs.
type Quantiles = [f64; QUANTILES.len()];

/// Measures the direct way and what the peers add to it, as two tables.
pub(crate) async fn run(bench: &Bench) -> Result<Vec<Table>> {
    let rounds = bench.rounds(3);
    let mut direct = Table::new("Direct latency in µs", "");
    let mut added = Table::new(
        format!(
            "Added latency in µs over direct: open loop, {} s, rounds: {rounds}",
            bench.seconds()
        ),
        "",
    );
    let chosen = bench.choose(&UNHINDERED, &mut added)?;
    let origin = Origin::fast(bench).await?;
    for round in 1..=rounds {
        let mut base = [Quantiles::default(); RATES.len()];
        for contender in &chosen {
            eprintln!("latency: round {round} of {rounds}, {}", contender.name);
            let peer = Peer::start(bench, contender, origin.addr).await?;
            for (rate, base) in RATES.into_iter().zip(&mut base) {
                let quantiles = measure(bench, contender, &peer, rate, &mut added).await?;
                if contender.program == Program::Direct {
                    *base = quantiles;
                    sample(&mut direct, contender.name, "", rate, quantiles);
                } else {
                    let difference = std::array::from_fn(|place| quantiles[place] - base[place]);
                    sample(&mut added, contender.name, "+", rate, difference);
                }
            }
        }
    }
    added.ratios("nginx", &["+p50 at 1000/s", "+p50 at 5000/s"]);
    Ok(vec![direct, added])
}

fn sample(table: &mut Table, peer: &str, sign: &str, rate: u32, quantiles: Quantiles) {
    for ((name, _), micros) in QUANTILES.into_iter().zip(quantiles) {
        table.sample(peer, "", &format!("{sign}{name} at {rate}/s"), micros);
    }
}

async fn measure(
    bench: &Bench,
    contender: &Contender,
    peer: &Peer,
    rate: u32,
    table: &mut Table,
) -> Result<Quantiles> {
    let requests = rate * bench.seconds();
    let limit = Duration::from_secs(u64::from(bench.seconds())) + GRACE;
    let warm_up = Open {
        addr: peer.addr,
        rate,
        requests: rate / 4,
        connections: CONNECTIONS,
        ahead: true,
        limit,
    };
    warm_up.run().await?;
    let samples = Open {
        requests,
        ..warm_up
    }
    .run()
    .await?;
    let mut latencies: Vec<u64> = samples
        .iter()
        .filter(|sample| sample.status == 200)
        .map(Sample::latency)
        .collect();
    latencies.sort_unstable();
    let missing = requests as usize - latencies.len();
    if missing > 0 {
        table.note(format!(
            "{} at {rate}/s: {missing} requests without a 200 in one round",
            contender.name
        ));
    }
    Ok(QUANTILES.map(|(_, quantile)| percentile(&latencies, quantile) as f64 / 1e3))
}
