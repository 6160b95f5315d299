//! `throughput`: how many requests per second each peer passes on when no limit is reached, and the CPU time it needs for them. The
//! CPU time moves less from run to run than the requests per second: it is the figure to track.

use crate::Result;
use crate::bench::Bench;
use crate::load::saturate::{generator, saturate};
use crate::origin::Origin;
use crate::peer::{Contender, Peer, Program};
use crate::report::{Table, number};
use crate::table::UNHINDERED;

const CONNECTIONS: [u32; 2] = [64, 512];
/// Seconds of load before a peer's first measurement: pools filled, pages touched.
const WARM_UP: u32 = 1;

/// Measures the table.
pub(crate) async fn run(bench: &Bench) -> Result<Table> {
    let (rounds, seconds) = (bench.rounds(3), bench.seconds());
    let title = format!(
        "Throughput: {}, {seconds} s, rounds: {rounds}, answers of 200 bytes",
        generator()
    );
    let mut table = Table::new(title, "");
    let chosen = bench.choose(&UNHINDERED, &mut table)?;
    let origin = Origin::fast(bench).await?;
    for round in 1..=rounds {
        for contender in &chosen {
            eprintln!("throughput: round {round} of {rounds}, {}", contender.name);
            measure(bench, contender, &origin, &mut table).await?;
        }
    }
    table.ratios(
        "nginx",
        &["rps 64", "rps 512", "CPU s/100k 64", "CPU s/100k 512"],
    );
    Ok(table)
}

async fn measure(
    bench: &Bench,
    contender: &Contender,
    origin: &Origin,
    table: &mut Table,
) -> Result<()> {
    let peer = Peer::start(bench, contender, origin.addr).await?;
    saturate(peer.addr, CONNECTIONS[0], WARM_UP).await?;
    let mut figures = Vec::new();
    for connections in CONNECTIONS {
        let before = peer.cpu_seconds()?;
        let load = saturate(peer.addr, connections, bench.seconds()).await?;
        let cpu = peer.cpu_seconds()? - before;
        if load.bad > 0.0 {
            table.note(format!(
                "{} at {connections}: {} bad answers in one round",
                contender.name,
                number(load.bad)
            ));
        }
        figures.push((connections, load, cpu));
    }
    for (connections, load, _) in &figures {
        table.sample(
            contender.name,
            "",
            &format!("rps {connections}"),
            load.per_second,
        );
    }
    for (connections, load, cpu) in figures {
        if contender.program != Program::Direct {
            table.sample(
                contender.name,
                "",
                &format!("CPU s/100k {connections}"),
                cpu / load.requests * 1e5,
            );
        }
    }
    Ok(())
}
