//! `scaling`: pacegate's CPU time per request as what it holds grows by factors of ten: jobs that wait for their turn, lanes,
//! keys that are told apart, and open connections. What does not depend on a number stays at 1.00x.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::Result;
use crate::bench::Bench;
use crate::load::Caller;
use crate::load::closed::Closed;
use crate::metrics::{ADMITTED, Metrics, WAITING};
use crate::origin::Origin;
use crate::pace::Pace;
use crate::peer::{Contender, Peer, Program};
use crate::report::Table;
use crate::{clock, http};

const PACEGATE: Contender = Contender::new("pacegate", Program::Pacegate);
/// Far less than it can do, so that all others wait all the time.
const PACE: Pace = Pace::even(5000);
/// Callers at a time, where their number is not what grows.
const CALLERS: u32 = 64;
/// Requests at a time, where the number of connections grows.
const AT_ONCE: u32 = 10;
/// For the crowd to be there, and each connection to have been used.
const CROWD_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// The rows, from the first number of each column on.
const GROWTH: [&str; 5] = ["smallest", "x 10", "x 100", "x 1000", "x 10000"];

/// What grows.
#[derive(Debug, Clone, Copy)]
enum Column {
    Waiting,
    Lanes,
    Keys,
    Connections,
}

impl Column {
    const ALL: [Self; 4] = [Self::Waiting, Self::Lanes, Self::Keys, Self::Connections];

    fn heading(self) -> &'static str {
        match self {
            Self::Waiting => "waiting jobs, from 10, µs",
            Self::Lanes => "lanes, from 1, µs",
            Self::Keys => "keys, from 1, µs",
            Self::Connections => "connections, from 10, µs",
        }
    }

    fn sizes(self) -> &'static [u32] {
        match self {
            Self::Waiting | Self::Connections => &[10, 100, 1000, 10_000],
            Self::Lanes => &[1, 10, 100],
            Self::Keys => &[1, 10, 100, 1000, 10_000],
        }
    }

    fn contender(self, size: u32) -> Contender {
        match self {
            Self::Waiting => PACEGATE.paced(PACE),
            Self::Lanes => PACEGATE.lanes(size),
            Self::Keys => PACEGATE.keyed(),
            Self::Connections => PACEGATE,
        }
    }

    /// Sends until it is dropped.
    async fn load(self, addr: SocketAddr, size: u32) -> Result<()> {
        let closed = |connections| Closed {
            addr,
            connections,
            requests: u32::MAX,
            limit: Duration::from_secs(3600),
        };
        match self {
            Self::Waiting => closed(size).run().await,
            Self::Lanes => {
                let request = move |number| http::get_path(&format!("/l{}/", number % size));
                closed(CALLERS).sending(request).await
            }
            Self::Keys => {
                let request = move |number| http::keyed(number % size);
                closed(CALLERS).sending(request).await
            }
            Self::Connections => return take_turns(addr, size).await,
        };
        Ok(())
    }
}

/// Measures the table.
pub(crate) async fn run(bench: &Bench) -> Result<Table> {
    let (rounds, seconds) = (bench.rounds(3), bench.seconds());
    let title = format!("Scaling: CPU time per request, {seconds} s, rounds: {rounds}");
    let mut table = Table::new(title, "").keyed("growth");
    bench.choose(&[PACEGATE], &mut table)?;
    let origin = Origin::fast(bench).await?;
    for round in 1..=rounds {
        for column in Column::ALL {
            for (row, &size) in GROWTH.iter().zip(column.sizes()) {
                let heading = column.heading();
                eprintln!("scaling: round {round} of {rounds}, {heading}: {size}");
                if bench.quick() && size > 1000 || bench.affordable(size as usize) < size as usize {
                    table.text(row, "", heading, "left out");
                    continue;
                }
                let micros = measure(bench, column, size, &origin).await?;
                table.sample(row, "", heading, micros);
            }
        }
    }
    let headings = Column::ALL.map(Column::heading);
    table.ratios(GROWTH[0], &headings);
    table.note(format!(
        "waiting: so many callers at {PACE}, each on a connection of its own; lanes, keys: {CALLERS} callers, in turn for each; \
         connections: {AT_ONCE} requests at a time, on each connection in turn"
    ));
    Ok(table)
}

/// Microseconds of CPU time per request.
async fn measure(bench: &Bench, column: Column, size: u32, origin: &Origin) -> Result<f64> {
    let peer = Peer::start(bench, &column.contender(size), origin.addr).await?;
    let mut metrics = Metrics::new(peer.admin.ok_or("pacegate has no admin listener")?);
    let watch = async {
        crowd(&mut metrics, column, size).await?;
        let (requests, cpu) = (metrics.read(ADMITTED).await?, peer.cpu_seconds()?);
        sleep(Duration::from_secs(u64::from(bench.seconds()))).await;
        let requests = metrics.read(ADMITTED).await? - requests;
        Ok((peer.cpu_seconds()? - cpu) / requests.max(1.0) * 1e6)
    };
    tokio::select! {
        ended = column.load(peer.addr, size) => {
            ended?;
            Err("the load has ended too early".into())
        }
        micros = watch => micros,
    }
}

/// Returns when as many wait as should, or when all has been used once.
async fn crowd(metrics: &mut Metrics, column: Column, size: u32) -> Result<()> {
    let (metric, enough) = match column {
        // Some are on their way at any instant.
        Column::Waiting => (WAITING, f64::from(size) * 0.5),
        _ => (ADMITTED, f64::from(size.max(1000)) * 2.0),
    };
    let deadline = clock::now() + clock::nanos(CROWD_LIMIT);
    while metrics.read(metric).await? < enough {
        if clock::now() > deadline {
            return Err(format!("`{metric}` is not {enough} after a minute").into());
        }
        sleep(POLL).await;
    }
    // What came with the crowd is over.
    sleep(Duration::from_secs(1)).await;
    Ok(())
}

/// So many connections, used one after the other; ends only with an error.
async fn take_turns(addr: SocketAddr, connections: u32) -> Result<()> {
    let mut hands = JoinSet::new();
    for _ in 0..AT_ONCE {
        hands.spawn(take_turns_alone(addr, connections / AT_ONCE));
    }
    hands.join_next().await.map_or(Ok(()), |ended| Ok(ended??))
}

async fn take_turns_alone(addr: SocketAddr, connections: u32) -> io::Result<()> {
    let mut callers: Vec<Caller> = (0..connections).map(|_| Caller::new(addr)).collect();
    loop {
        for caller in &mut callers {
            caller.get(0).await?;
        }
    }
}
