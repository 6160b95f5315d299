//! `startup`: how long from the spawn to the first answer through the peer, and what an idle peer weighs. The tool looks for the
//! answer every 200 µs, which is the resolution of the first figure.

use std::fs;
use std::time::Duration;

use crate::Result;
use crate::bench::Bench;
use crate::clock;
use crate::origin::Origin;
use crate::peer::{Contender, Peer, Program};
use crate::report::Table;

const IDLE: Duration = Duration::from_secs(1);

const CONTENDERS: [Contender; 3] = [
    Contender::new("nginx", Program::Nginx),
    Contender::new("haproxy", Program::Haproxy),
    Contender::new("pacegate", Program::Pacegate),
];

/// Measures the table.
pub(crate) async fn run(bench: &Bench) -> Result<Table> {
    let rounds = bench.rounds(5);
    let mut table = Table::new(format!("Start-up, idle memory, size, rounds: {rounds}"), "");
    let chosen = bench.choose(&CONTENDERS, &mut table)?;
    let origin = Origin::fast(bench).await?;
    for round in 1..=rounds {
        for contender in &chosen {
            eprintln!("startup: round {round} of {rounds}, {}", contender.name);
            measure(bench, contender, &origin, &mut table).await?;
        }
    }
    table.ratios("nginx", &["first 200, ms", "idle PSS, MB"]);
    table.note(
        "first 200: since the spawn, through the peer; nginx preallocates 19,900 connections",
    );
    Ok(table)
}

async fn measure(
    bench: &Bench,
    contender: &Contender,
    origin: &Origin,
    table: &mut Table,
) -> Result<()> {
    let start = clock::now();
    let mut peer = Peer::spawn(bench, contender, origin.addr)?;
    peer.first_answer()
        .await
        .map_err(|error| format!("{}: {error}", contender.name))?;
    let taken = clock::now() - start;
    tokio::time::sleep(IDLE).await;
    let mut sample = |column: &str, value: f64| table.sample(contender.name, "", column, value);
    sample("first 200, ms", taken as f64 / 1e6);
    sample("idle PSS, MB", peer.pss_bytes()? as f64 / 1e6);
    sample("threads", peer.threads()? as f64);
    if let Some(binary) = bench.binary(contender.program) {
        sample("binary, MB", fs::metadata(binary)?.len() as f64 / 1e6);
    }
    Ok(())
}
