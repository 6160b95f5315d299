//! As many requests as a peer can take: wrk with one thread where it is installed, as the published figures are made, else
//! the tool's own closed loop, which costs the load's core more. HTTP/2 is always the tool's own.

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::Result;
use crate::bench::installed;
use crate::load::closed::{Closed, Tally};
use crate::load::http2;
use crate::process::Process;
use crate::{clock, http};

const POLL: Duration = Duration::from_millis(10);

/// The requests that callers send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// A GET over HTTP/1.1.
    Get,
    /// A POST over HTTP/1.1, with a body of so many bytes.
    Post(usize),
    /// A GET over HTTP/2, eight callers on each connection.
    Http2,
}

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

impl Load {
    /// Which generator is used on this machine.
    pub(crate) fn generator(self) -> &'static str {
        match self {
            Self::Http2 => "own closed loop, 8 callers on each connection",
            _ if installed("wrk").is_some() => "wrk, 1 thread",
            _ => "own closed loop (wrk is not installed)",
        }
    }

    /// Keeps `callers` busy for so many seconds, each on a connection of its own unless that is HTTP/2.
    pub(crate) async fn saturate(
        self,
        addr: SocketAddr,
        callers: u32,
        seconds: u32,
    ) -> Result<Saturated> {
        match installed("wrk").filter(|_| self != Self::Http2) {
            Some(wrk) => run_wrk(&wrk, self, addr, [callers, seconds]).await,
            None => Ok(run_own(self, addr, [callers, seconds]).await),
        }
    }
}

async fn run_own(load: Load, addr: SocketAddr, [callers, seconds]: [u32; 2]) -> Saturated {
    let limit = Duration::from_secs(u64::from(seconds));
    let closed = Closed {
        addr,
        connections: callers,
        requests: u32::MAX,
        limit,
    };
    let tally = |tally: Tally| (tally.answered, tally.failed);
    let (answered, failed) = match load {
        Load::Get => tally(closed.run().await),
        Load::Post(size) => {
            let request = http::post(&vec![b'x'; size]);
            tally(closed.sending(move |_| request.clone()).await)
        }
        Load::Http2 => {
            let counters = http2::run(addr, callers, limit).await;
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            (read(&counters.answered), read(&counters.failed))
        }
    };
    let requests = (answered + failed) as f64;
    Saturated {
        requests,
        per_second: requests / limit.as_secs_f64(),
        bad: failed as f64,
    }
}

async fn run_wrk(
    wrk: &Path,
    load: Load,
    addr: SocketAddr,
    [callers, seconds]: [u32; 2],
) -> Result<Saturated> {
    let dir = tempfile::Builder::new()
        .prefix("pacegate-bench-")
        .tempdir()?;
    let mut command = Command::new(wrk);
    command.args(["-t1", &format!("-c{callers}"), &format!("-d{seconds}s")]);
    if let Load::Post(size) = load {
        let script = dir.path().join("post.lua");
        let text = format!("wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", {size})\n");
        fs::write(&script, text)?;
        command.arg("-s").arg(script);
    }
    command.arg(format!("http://{addr}/"));
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
