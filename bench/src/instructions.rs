//! `instructions`: how many instructions pacegate needs for one request, as valgrind's callgrind counts them. Unlike a time the
//! count hardly depends on what else the machine does, so a regression of a few percent shows, also in CI.
//!
//! A count is the difference of two runs of the whole program, one with twice the requests of the other, so that start, warm-up
//! and stop cancel out. Nothing in it waits for a time: how often that makes a program wake up differs from run to run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::bench::{Bench, installed};
use crate::cli::InstructionsArgs;
use crate::load::closed::Closed;
use crate::origin::Origin;
use crate::pace::Pace;
use crate::peer::{Contender, Peer, Program};
use crate::report::Table;
use crate::{Result, http};

/// More than so much above the expected count is a regression; as much below it, and the file should be renewed.
const TOLERANCE: f64 = 0.05;
const PACEGATE: Contender = Contender::new("pacegate", Program::Pacegate).counted();
/// Never reached, and without a log, which is longer the more starts there were in a period.
const PACE: Pace = Pace::bucket(1_000_000, 1_000_000);
/// In the shorter of the two runs: enough to drown what differs between two starts.
const REQUESTS: u32 = 3000;
/// No run takes so long.
const LIMIT: Duration = Duration::from_secs(120);
const BODY: usize = 1024;
const COUNTED: &str = "counted";
/// The first lines of the file.
const HEADING: &str = "# Instructions of pacegate per request: what `.ci/instructions` compares with.\n\
    # `.ci/instructions renew` writes this file.\n";

/// Counts by the name of the way.
type Counts = BTreeMap<String, f64>;

/// The ways of a request through pacegate.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// One caller; there is no limit.
    Get,
    /// The same with a body of 1 KiB.
    Post,
    /// Four callers and one call at once: three wait in the queue for their turn.
    Queued,
}

impl Way {
    const ALL: [Self; 3] = [Self::Get, Self::Post, Self::Queued];

    fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Queued => "queued",
        }
    }

    fn contender(self) -> Contender {
        match self {
            Self::Get | Self::Post => PACEGATE,
            Self::Queued => PACEGATE.paced(PACE).in_flight(1),
        }
    }

    fn request(self) -> Vec<u8> {
        match self {
            Self::Get | Self::Queued => http::get(0),
            Self::Post => http::post(&[b'x'; BODY]),
        }
    }

    fn callers(self) -> u32 {
        match self {
            Self::Get | Self::Post => 1,
            Self::Queued => 4,
        }
    }
}

/// Counts and prints; then compares with the file, or writes it.
///
/// # Errors
/// When a count is more than 5 % above what the file says.
pub(crate) async fn run(bench: &Bench, args: InstructionsArgs) -> Result<()> {
    if installed("valgrind").is_none() {
        return Err("valgrind is not installed\nhint: `.ci/instructions` installs it".into());
    }
    let rounds = bench.rounds(1);
    let title = format!("Instructions per request, rounds: {rounds}");
    let mut table = Table::new(title, "").keyed("request");
    bench.choose(&[PACEGATE], &mut table)?;
    let origin = Origin::fast(bench).await?;
    for round in 1..=rounds {
        for way in Way::ALL {
            eprintln!("instructions: round {round} of {rounds}, {}", way.name());
            let count = count(bench, way, &origin).await?;
            table.sample(way.name(), "", COUNTED, count);
        }
    }
    let median = |way: Way| Some((way.name().to_owned(), table.median(way.name(), COUNTED)?));
    let counts: Counts = Way::ALL.into_iter().filter_map(median).collect();
    if args.renew {
        println!("{table}");
        return Ok(fs::write(file(), written(&counts))?);
    }
    let text = fs::read_to_string(file())?;
    let expected = read(&text)?;
    for (name, count) in &counts {
        if let Some(expected) = expected.get(name) {
            table.sample(name, "", "expected", *expected);
            table.sample(name, "", "change, %", (count / expected - 1.0) * 100.0);
        }
    }
    if !text.contains(&compiler()) {
        let compiler = compiler();
        table.note(format!("counted with {compiler}, expected with another"));
    }
    println!("{table}");
    judge(&counts, &expected)
}

/// Instructions per request.
async fn count(bench: &Bench, way: Way, origin: &Origin) -> Result<f64> {
    let once = life(bench, way, origin, REQUESTS).await?;
    let twice = life(bench, way, origin, 2 * REQUESTS).await?;
    Ok((twice as f64 - once as f64) / f64::from(REQUESTS))
}

/// The instructions of a whole life with so many requests.
async fn life(bench: &Bench, way: Way, origin: &Origin, requests: u32) -> Result<u64> {
    let peer = Peer::start(bench, &way.contender(), origin.addr).await?;
    let request = way.request();
    let load = Closed {
        addr: peer.addr,
        connections: way.callers(),
        requests,
        limit: LIMIT,
    };
    let tally = load.sending(move |_| request.clone()).await;
    if tally.answered != u64::from(requests) {
        return Err(format!("{} of {requests} requests were answered", tally.answered).into());
    }
    peer.instructions().await
}

/// Whether all that was counted is expected, and none of it a regression.
fn judge(counts: &Counts, expected: &Counts) -> Result<()> {
    let mut worse = Vec::new();
    for (name, count) in counts {
        let expected = expected
            .get(name)
            .ok_or_else(|| format!("no count of `{name}` in {}", file().display()))?;
        let change = count / expected - 1.0;
        if change > TOLERANCE {
            worse.push(format!("`{name}` by {:.1} %", change * 100.0));
        } else if change < -TOLERANCE {
            println!(
                "- `{name}` needs less than expected: `.ci/instructions renew` holds the gain"
            );
        }
    }
    if worse.is_empty() {
        return Ok(());
    }
    let worse = worse.join(", ");
    let hint = "hint: if it must be, `.ci/instructions renew`, and the commit says why";
    Err(format!("more instructions than expected: {worse}\n{hint}").into())
}

/// What the file says: a name and a count on each line.
fn read(text: &str) -> Result<Counts> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let count = |line: &str| {
        let (name, count) = line.split_once(' ')?;
        Some((name.to_owned(), count.trim().parse::<f64>().ok()?))
    };
    lines
        .map(|line| count(line).ok_or_else(|| format!("`{line}` is not a name and a count").into()))
        .collect()
}

/// What `read` reads.
fn written(counts: &Counts) -> String {
    let line = |(name, count): (&String, &f64)| format!("{name} {count:.0}\n");
    let lines: String = counts.iter().map(line).collect();
    format!("{HEADING}# Counted with {}.\n{lines}", compiler())
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.txt")
}

/// Another compiler makes other instructions. (A processor with other vector instructions changes the count a little as well.)
fn compiler() -> String {
    let said = Command::new("rustc").arg("--version").output();
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let compiler = said.unwrap_or_else(|_| "an unknown compiler".to_owned());
    format!("{compiler}, {}", std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(get: f64, post: f64) -> Counts {
        [("get".to_owned(), get), ("post".to_owned(), post)].into()
    }

    #[test]
    fn only_more_than_five_percent_above_the_file_is_a_regression() {
        let expected = counts(10_000.0, 20_000.0);
        assert!(judge(&counts(10_499.0, 5_000.0), &expected).is_ok());
        let error = judge(&counts(10_600.0, 20_000.0), &expected).unwrap_err();
        assert!(error.to_string().contains("`get` by 6.0 %"), "{error}");
        assert!(judge(&expected, &Counts::new()).is_err());
    }

    #[test]
    fn what_is_written_can_be_read() {
        let counted = counts(10_499.0, 5_000.0);
        assert_eq!(read(&written(&counted)).unwrap(), counted);
        assert!(read("get").is_err());
        assert!(read("get many").is_err());
    }

    #[test]
    fn the_file_of_the_repository_has_every_way() {
        let expected = read(&fs::read_to_string(file()).unwrap()).unwrap();
        assert!(Way::ALL.iter().all(|way| expected.contains_key(way.name())));
    }
}
