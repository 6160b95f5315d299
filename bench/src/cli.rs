//! The command line: one subcommand per table, the options they share, and two hidden subcommands that are not tables
//! but child processes of a run (the origin and the peer `until_ready`), since only a process can be pinned and measured alone.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::origin::circumstances::Circumstances;
use crate::origin::policy::Policy;
use crate::pace::Pace;
use crate::table::enforced::scenario::{Condition, Scenario};
use crate::table::throughput::Kind;

/// Measures the pacegate binary side by side with nginx, HAProxy and the obvious program.
#[derive(Debug, Parser)]
#[command(name = "bench", arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What all tables share.
    #[command(flatten)]
    pub(crate) options: Options,
    /// The table to measure.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What all tables share.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The binary under test [default: target/release/pacegate of the workspace]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) pacegate: Option<PathBuf>,
    /// Rounds over all peers [default: 3, of `startup` 5, of the long tables 1]
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: Option<u32>,
    /// Seconds of load per measurement [default: 3, of `enforced` 60]
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: Option<u32>,
    /// Only these peers, such as `nginx,pacegate` (variants such as `nginx-limit` included)
    #[arg(long, global = true, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) peers: Vec<String>,
    /// Also write each table to its place in this file, between `<!-- bench TABLE -->` and `<!-- end -->`
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "quick")]
    pub(crate) write: Option<PathBuf>,
    /// Small batches in `loss` and `real`, only the smallest `memory`, `scaling` to 1000, few seconds of `enforced`, one round: to see that all works
    #[arg(long, global = true)]
    pub(crate) quick: bool,
}

/// One table, all tables, or one of the tool's own child processes.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Requests per second and CPU time per request, no limit reached
    Throughput(ThroughputArgs),
    /// CPU time per request as waiting jobs, lanes, keys and connections grow by factors of ten
    Scaling,
    /// Latency added over the direct way at 1000 and 5000 requests/s
    Latency,
    /// Memory per waiting caller, and what is given back afterwards
    Memory,
    /// What becomes of requests that arrive at ten times the limit
    Loss(LossArgs),
    /// How exactly a saturated peer keeps 10, 100, 1000 and 10000 requests/s
    Pacing,
    /// Refusals and rate at upstreams that enforce exactly the limit, in every way APIs do
    Enforced(EnforcedArgs),
    /// The time taken for a batch against the shortest time the limit allows
    Real,
    /// Spawn to first answer, idle memory, threads, size
    Startup,
    /// All of the above but `enforced`, which takes more than three hours
    All,
    /// Instructions per request, counted by valgrind, against those in bench/instructions.txt
    Instructions(InstructionsArgs),
    #[command(hide = true)]
    Origin(OriginArgs),
    #[command(hide = true)]
    UntilReady(UntilReadyArgs),
}

/// What is particular to the table `throughput`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ThroughputArgs {
    /// Only these kinds of requests
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAMES", default_values_t = Kind::ALL)]
    pub(crate) kinds: Vec<Kind>,
}

/// What is particular to `instructions`.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct InstructionsArgs {
    /// Write the file instead of comparing with it
    #[arg(long)]
    pub(crate) renew: bool,
}

/// What is particular to the table `loss`.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct LossArgs {
    /// How the upstream enforces its limit
    #[arg(long, value_enum, default_value_t = Enforcement::Sliding)]
    pub(crate) enforcement: Enforcement,
}

/// The ways an upstream may count.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Enforcement {
    /// At most 10 in any window of one second
    Sliding,
    /// At most 10 in each second of its clock
    Fixed,
    /// At most 10 at once, each taking 40 ms
    Concurrency,
}

/// What is particular to the table `enforced`: which part of the matrix, all of it unless told otherwise.
#[derive(Debug, Clone, Args)]
pub(crate) struct EnforcedArgs {
    /// Only these upstreams
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) policies: Vec<Scenario>,
    /// Requests per second
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 1000, 10_000], value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) rates: Vec<u32>,
    /// Only these circumstances
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) conditions: Vec<Condition>,
    /// Add each cell to this file when it has been measured, and take those that are there already from it: a run that was ended
    /// goes on where it stopped
    #[arg(long, value_name = "FILE")]
    pub(crate) keep: Option<PathBuf>,
    /// Fail if the upstream refused pacegate anything, a caller got no 200, or a cell of pacegate could not be measured
    #[arg(long)]
    pub(crate) strict: bool,
    /// What the delays and the phase of the upstream's windows are drawn from
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u32,
}

/// The child process that stands for the upstream.
#[derive(Debug, Args)]
pub(crate) struct OriginArgs {
    /// Where to listen.
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// What to answer.
    #[arg(long)]
    pub(crate) policy: Policy,
    /// Whether to record arrivals.
    #[arg(long)]
    pub(crate) record: bool,
    /// Bytes of an answer's body.
    #[arg(long, default_value_t = 200)]
    pub(crate) answer_bytes: usize,
    /// The directory of the certificate with which to speak TLS, none if absent.
    #[arg(long)]
    pub(crate) certificate: Option<PathBuf>,
    /// The way there and the clock.
    #[command(flatten)]
    pub(crate) circumstances: Circumstances,
}

/// The child process that is the peer `until_ready`.
#[derive(Debug, Args)]
pub(crate) struct UntilReadyArgs {
    /// Where to listen.
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// Where to send the requests.
    #[arg(long)]
    pub(crate) upstream: SocketAddr,
    /// The limits, one after the other.
    #[arg(long)]
    pub(crate) pace: Vec<Pace>,
    /// Requests in progress at most.
    #[arg(long)]
    pub(crate) workers: u32,
}
