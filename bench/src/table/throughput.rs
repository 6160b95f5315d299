//! `throughput`: how many requests per second each peer passes on when no limit is reached, and the CPU time it needs for them,
//! for each kind of request. The CPU time moves less from run to run than the requests per second: it is the figure to track, and
//! the only one where the load's core is saturated before the peer's, as it is with HTTP/2.

use clap::ValueEnum;

use crate::Result;
use crate::bench::Bench;
use crate::load::saturate::Load;
use crate::origin::Origin;
use crate::peer::{Contender, Peer, Program};
use crate::report::{Table, number};
use crate::table::UNHINDERED;

/// Callers; multiples of the eight that share a connection of HTTP/2.
const CALLERS: [u32; 2] = [64, 512];
/// Seconds of load before a measurement: connections opened, pools filled, pages touched.
const WARM_UP: u32 = 1;
const LARGE_ANSWER: usize = 16 * 1024;
const BODY: usize = 1024;

/// The kinds of requests, each a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// GETs with answers of 200 bytes
    Plain,
    /// GETs with answers of 16 KiB
    #[value(name = "16k")]
    Large,
    /// POSTs with 1 KiB
    Post,
    /// GETs over HTTP/2 without TLS
    Http2,
    /// GETs, the origin behind TLS
    Https,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [
        Self::Plain,
        Self::Large,
        Self::Post,
        Self::Http2,
        Self::Https,
    ];

    fn load(self) -> Load {
        match self {
            Self::Plain | Self::Large | Self::Https => Load::Get,
            Self::Post => Load::Post(BODY),
            Self::Http2 => Load::Http2,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Plain => "answers of 200 bytes",
            Self::Large => "answers of 16 KiB",
            Self::Post => "POSTs with 1 KiB, answers of 200 bytes",
            Self::Http2 => "HTTP/2 callers, answers of 200 bytes",
            Self::Https => "HTTPS to the origin, answers of 200 bytes",
        }
    }

    /// The peers that know this kind; those that do not are named under the table.
    fn contenders(self, table: &mut Table) -> Vec<Contender> {
        let fit = |contender: &Contender| match self {
            Self::Plain | Self::Large | Self::Post => Ok(*contender),
            _ if contender.program == Program::UntilReady => {
                Err("it knows only HTTP/1.1 without TLS")
            }
            _ if contender.program == Program::Direct => {
                Err("the load and the origin have no such connection")
            }
            Self::Http2 => Ok(contender.http2()),
            Self::Https => Ok(contender.tls()),
        };
        let mut fitting = Vec::new();
        for contender in &UNHINDERED {
            match fit(contender) {
                Ok(contender) => fitting.push(contender),
                Err(why) => table.note(format!("{}: left out ({why})", contender.name)),
            }
        }
        fitting
    }

    async fn origin(self, bench: &Bench) -> Result<Origin> {
        match self {
            Self::Plain | Self::Post | Self::Http2 => Origin::fast(bench).await,
            Self::Large => Origin::answering(bench, LARGE_ANSWER).await,
            Self::Https => Origin::tls(bench).await,
        }
    }
}

/// Measures one table.
pub(crate) async fn run(bench: &Bench, kind: Kind) -> Result<Table> {
    let (rounds, seconds) = (bench.rounds(3), bench.seconds());
    let title = format!(
        "Throughput, {}: {}, {seconds} s, rounds: {rounds}",
        kind.title(),
        kind.load().generator(),
    );
    let mut table = Table::new(title, "");
    let contenders = kind.contenders(&mut table);
    let chosen = bench.choose(&contenders, &mut table)?;
    let origin = kind.origin(bench).await?;
    for round in 1..=rounds {
        for contender in &chosen {
            eprintln!(
                "throughput, {}: round {round} of {rounds}, {}",
                kind.title(),
                contender.name
            );
            measure(bench, kind.load(), contender, &origin, &mut table).await?;
        }
    }
    table.ratios(
        "nginx",
        &["rps 64", "rps 512", "CPU s/100k 64", "CPU s/100k 512"],
    );
    if kind == Kind::Http2 {
        table.note("HTTP/2: the load's core may be saturated before the peer's; then only the CPU time compares");
    }
    Ok(table)
}

async fn measure(
    bench: &Bench,
    load: Load,
    contender: &Contender,
    origin: &Origin,
    table: &mut Table,
) -> Result<()> {
    let peer = Peer::start(bench, contender, origin.addr).await?;
    let mut figures = Vec::new();
    for callers in CALLERS {
        load.saturate(peer.addr, callers, WARM_UP).await?;
        let before = peer.cpu_seconds()?;
        let saturated = load.saturate(peer.addr, callers, bench.seconds()).await?;
        let cpu = peer.cpu_seconds()? - before;
        if saturated.bad > 0.0 {
            table.note(format!(
                "{} at {callers}: {} bad answers in one round",
                contender.name,
                number(saturated.bad)
            ));
        }
        figures.push((callers, saturated, cpu));
    }
    for (callers, saturated, _) in &figures {
        table.sample(
            contender.name,
            "",
            &format!("rps {callers}"),
            saturated.per_second,
        );
    }
    for (callers, saturated, cpu) in figures {
        if contender.program != Program::Direct {
            table.sample(
                contender.name,
                "",
                &format!("CPU s/100k {callers}"),
                cpu / saturated.requests * 1e5,
            );
        }
    }
    Ok(())
}
