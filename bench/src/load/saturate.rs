//! As many requests as a peer can take: wrk with one thread where it is installed, as the published figures are made, else
//! the tool's own closed loop, which costs the load's core more.

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::Result;
use crate::bench::installed;
use crate::clock;
use crate::load::closed::Closed;
use crate::process::Process;

const POLL: Duration = Duration::from_millis(10);

/// What a saturated peer did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Saturated {
    /// Answers, whatever their status.
    pub(crate) requests: f64,
    /// Answers per second.
    pub(crate) per_second: f64,
    /// Answers other than 2xx and 3xx, and broken connections.
    pub(crate) bad: f64,
}

/// Which generator `saturate` uses on this machine.
pub(crate) fn generator() -> &'static str {
    if installed("wrk").is_some() {
        "wrk, 1 thread"
    } else {
        "own closed loop (wrk is not installed)"
    }
}

/// Keeps `connections` busy for so many seconds.
pub(crate) async fn saturate(
    addr: SocketAddr,
    connections: u32,
    seconds: u32,
) -> Result<Saturated> {
    match installed("wrk") {
        Some(wrk) => run_wrk(&wrk, addr, connections, seconds).await,
        None => Ok(run_own(addr, connections, seconds).await),
    }
}

async fn run_own(addr: SocketAddr, connections: u32, seconds: u32) -> Saturated {
    let limit = Duration::from_secs(u64::from(seconds));
    let tally = Closed {
        addr,
        connections,
        requests: u32::MAX,
        limit,
    }
    .run()
    .await;
    let requests = (tally.answered + tally.failed) as f64;
    Saturated {
        requests,
        per_second: requests / limit.as_secs_f64(),
        bad: tally.failed as f64,
    }
}

async fn run_wrk(
    wrk: &Path,
    addr: SocketAddr,
    connections: u32,
    seconds: u32,
) -> Result<Saturated> {
    let mut command = Command::new(wrk);
    command.args([
        "-t1",
        &format!("-c{connections}"),
        &format!("-d{seconds}s"),
        &format!("http://{addr}/"),
    ]);
    let mut process = Process::spawn(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null()),
    )?;
    let deadline = clock::now() + clock::nanos(Duration::from_secs(u64::from(seconds) + 30));
    while process.exited()?.is_none() {
        if clock::now() > deadline {
            return Err("wrk does not end".into());
        }
        tokio::time::sleep(POLL).await;
    }
    let mut output = String::new();
    process
        .stdout()
        .ok_or("wrk has no output")?
        .read_to_string(&mut output)?;
    parse(&output).ok_or_else(|| format!("wrk said something unknown:\n{output}").into())
}

fn parse(output: &str) -> Option<Saturated> {
    let after = |label: &str| {
        output
            .lines()
            .find_map(|line| line.trim().strip_prefix(label)?.trim().parse::<f64>().ok())
    };
    let requests = output
        .lines()
        .find_map(|line| line.trim().split_once(" requests in")?.0.parse().ok())?;
    let errors = output
        .lines()
        .find_map(|line| line.trim().strip_prefix("Socket errors:"));
    let errors: f64 = errors.map_or(0.0, |line| {
        line.split([' ', ','])
            .filter_map(|word| word.parse::<f64>().ok())
            .sum()
    });
    let bad = after("Non-2xx or 3xx responses:").unwrap_or(0.0) + errors;
    Some(Saturated {
        requests,
        per_second: after("Requests/sec:")?,
        bad,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_wrk_says() {
        let output = "Running 1s test @ http://127.0.0.1:1/\n  1 threads and 64 connections\n  \
                      60012 requests in 1.10s, 17.0MB read\n  Socket errors: connect 0, read 3, write 0, timeout 1\n  \
                      Non-2xx or 3xx responses: 10\nRequests/sec:  54556.10\nTransfer/sec: 15MB\n";
        assert_eq!(
            parse(output),
            Some(Saturated {
                requests: 60012.0,
                per_second: 54556.1,
                bad: 14.0
            })
        );
        assert_eq!(parse("unable to connect"), None);
    }
}
