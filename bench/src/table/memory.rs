//! `memory`: what a waiting caller costs, what is given back when the crowd has gone, and whether one more request is
//! admitted as fast beside 19,000 waiting ones as beside 1000. PSS of the process tree; the kernel's own socket memory is the
//! same for all peers and not in it.

use std::time::Duration;

use crate::Result;
use crate::bench::Bench;
use crate::clock;
use crate::load::parked::Parked;
use crate::metrics::{ADMITTED, Metrics};
use crate::origin::Origin;
use crate::pace::Pace;
use crate::peer::{Contender, Peer, Program};
use crate::report::{Table, percentile};

const WAITING: [usize; 3] = [1000, 10_000, 19_000];
const ONE_PER_SECOND: Pace = Pace::even(1);
const ADMISSIONS: usize = 11;
const ADMISSION_LIMIT: Duration = Duration::from_secs(5);
/// After a start or a change, before memory is read.
const SETTLE: Duration = Duration::from_secs(2);

const CONTENDERS: [Contender; 4] = [
    Contender::new("nginx-limit", Program::Nginx).paced(ONE_PER_SECOND),
    Contender::new("haproxy-queue", Program::Haproxy).paced(ONE_PER_SECOND),
    Contender::new("pacegate", Program::Pacegate).paced(ONE_PER_SECOND),
    Contender::new("pacegate-2-threads", Program::Pacegate)
        .paced(ONE_PER_SECOND)
        .threads(2),
];

/// Measures the table.
pub(crate) async fn run(bench: &Bench) -> Result<Table> {
    let rounds = bench.rounds(1);
    let title = format!("Memory: one GET of about 110 bytes per waiting caller, rounds: {rounds}");
    let mut table = Table::new(title, "waiting");
    let chosen = bench.choose(&CONTENDERS, &mut table)?;
    let sizes = if bench.quick() {
        &WAITING[..1]
    } else {
        &WAITING[..]
    };
    // Every crowd comes from addresses of its own, see `Parked`.
    let mut batches = (1..=200).cycle();
    for round in 1..=rounds {
        for &size in sizes {
            let size = bench.affordable(size);
            for contender in &chosen {
                eprintln!(
                    "memory: round {round} of {rounds}, {size} callers, {}",
                    contender.name
                );
                measure(
                    bench,
                    contender,
                    size,
                    batches.next().unwrap_or(1),
                    &mut table,
                )
                .await?;
            }
        }
    }
    table.ratios("nginx-limit", &["KiB each", "after 5 s, MB"]);
    table.note(
        "KiB each: PSS less idle PSS (nginx's holds preallocated connections) per waiting caller",
    );
    table.note(
        "admitting: connect, send, read the counter until it has gone up; scrape: one reading",
    );
    Ok(table)
}

async fn measure(
    bench: &Bench,
    contender: &Contender,
    size: usize,
    batch: u8,
    table: &mut Table,
) -> Result<()> {
    let origin = match contender.program {
        Program::Haproxy => Origin::silent(bench).await?,
        _ => Origin::fast(bench).await?,
    };
    let peer = Peer::start(bench, contender, origin.addr).await?;
    tokio::time::sleep(SETTLE).await;
    let case = size.to_string();
    let mut sample = |column: &str, value: f64| table.sample(contender.name, &case, column, value);
    let idle = peer.pss_bytes()?;
    sample("idle, MB", megabytes(idle));

    let mut parked = Parked::open(peer.addr, size, batch).await?;
    tokio::time::sleep(SETTLE).await;
    let full = peer.pss_bytes()?;
    let gone = parked.gone();
    sample("waiting, MB", megabytes(full));
    let waiting = (size - gone).max(1) as f64;
    sample(
        "KiB each",
        full.saturating_sub(idle) as f64 / 1024.0 / waiting,
    );
    sample("answered or lost", gone as f64);
    let admission = match peer.admin {
        Some(admin) => Some(admit(&mut parked, admin).await?),
        None => None,
    };

    drop(parked);
    tokio::time::sleep(Duration::from_secs(1)).await;
    sample("after 1 s, MB", megabytes(peer.pss_bytes()?));
    tokio::time::sleep(Duration::from_secs(4)).await;
    sample("after 5 s, MB", megabytes(peer.pss_bytes()?));
    if let Some((admitting, scraping)) = admission {
        sample("admitting, ms", admitting);
        sample("scrape, ms", scraping);
    }
    Ok(())
}

/// The median time in milliseconds until one more request is seen to be admitted, and that of a look at the counter.
async fn admit(parked: &mut Parked, admin: std::net::SocketAddr) -> Result<(f64, f64)> {
    let mut metrics = Metrics::new(admin);
    let (mut admitting, mut scraping) = (Vec::new(), Vec::new());
    for _ in 0..ADMISSIONS {
        metrics.read(ADMITTED).await?;
        let start = clock::now();
        let before = metrics.read(ADMITTED).await?;
        scraping.push(clock::now() - start);

        let start = clock::now();
        parked.add().await?;
        while metrics.read(ADMITTED).await? <= before {
            if clock::now() - start > clock::nanos(ADMISSION_LIMIT) {
                return Err(
                    format!("`{ADMITTED}` did not go up within 5 s of one more request").into(),
                );
            }
        }
        admitting.push(clock::now() - start);
    }
    let millis = |mut nanos: Vec<u64>| {
        nanos.sort_unstable();
        percentile(&nanos, 0.5) as f64 / 1e6
    };
    Ok((millis(admitting), millis(scraping)))
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
