//! Measures pacegate side by side with its peers: `cargo run --release -p bench -- <table>`.
//!
//! The tool drives the built `pacegate` binary as a black box, next to nginx, HAProxy and the program one would write
//! first (`until_ready`, built in here). Each table is one run that visits all peers in turn, round after round, so that
//! a busy moment of the machine hits all of them; a cell is the median and (min-max) over the rounds. Compare inside a
//! table, never across tables.
//!
//! ```text
//!  bench (load, second core) ──▶ peer (first core, its own process) ──▶ bench origin (second core, its own process)
//!        └── /proc/PID: CPU seconds, PSS, threads ──┘                        └── recorded arrivals, fetched afterwards
//! ```
//!
//! Everything is loopback, bounded in count and in time, and every child process and temporary directory is a guard
//! value: dropping the run, also on SIGINT, SIGTERM and on any error, ends and removes them. Tables go to stdout, progress to
//! stderr.

mod bench;
mod certificate;
mod cli;
mod clock;
mod cores;
mod http;
mod instructions;
mod load;
mod metrics;
mod origin;
mod pace;
mod peer;
mod process;
mod report;
mod table;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::bench::Bench;
use crate::cli::{Cli, Command};

/// What every fallible step of the tool returns: the message is for the person who runs it.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Origin(args) => {
            process::die_with_parent()?;
            current_thread()?.block_on(origin::server::run(args))
        }
        Command::UntilReady(args) => {
            process::die_with_parent()?;
            Builder::new_multi_thread()
                .enable_all()
                .build()?
                .block_on(peer::until_ready::run(args))
        }
        command => {
            let bench = Bench::new(cli.options)?;
            current_thread()?.block_on(async {
                tokio::select! {
                    done = table::run(&bench, &command) => done,
                    stopped = interrupted() => stopped,
                }
            })
        }
    }
}

fn current_thread() -> Result<tokio::runtime::Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// Ends with an error at the first SIGINT, SIGTERM or SIGHUP, so that the run is dropped and its guards clean up.
async fn interrupted() -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Err("interrupted".into())
}
