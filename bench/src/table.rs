//! One file per table; here is only which run when. Each table prints as soon as it is done.

pub(crate) mod enforced;
mod latency;
mod loss;
mod memory;
mod pacing;
mod real;
mod scaling;
mod startup;
pub(crate) mod throughput;

use crate::Result;
use crate::bench::Bench;
use crate::cli::{Command, Enforcement, LossArgs};
use crate::instructions;
use crate::pace::Pace;
use crate::peer::{Contender, Program};
use crate::report::Table;
use throughput::Kind;

/// The limiter runs but never waits.
const NEVER_REACHED: Pace = Pace::window(1_000_000, 1);

/// The peers of the tables in which no limit holds anything back.
const UNHINDERED: [Contender; 6] = [
    Contender::new("direct", Program::Direct),
    Contender::new("nginx", Program::Nginx),
    Contender::new("haproxy", Program::Haproxy),
    Contender::new("pacegate", Program::Pacegate),
    Contender::new("pacegate-limit", Program::Pacegate).paced(NEVER_REACHED),
    Contender::new("until_ready", Program::UntilReady).paced(NEVER_REACHED),
];

/// Measures and prints what the command asks for.
pub(crate) async fn run(bench: &Bench, command: &Command) -> Result<()> {
    match command {
        Command::Throughput(args) => throughput(bench, &args.kinds).await?,
        Command::Scaling => print(&[scaling::run(bench).await?]),
        Command::Latency => print(&latency::run(bench).await?),
        Command::Memory => print(&[memory::run(bench).await?]),
        Command::Loss(args) => print(&[loss::run(bench, *args).await?]),
        Command::Pacing => print(&[pacing::run(bench).await?]),
        Command::Enforced(args) => print(&enforced::run(bench, args).await?),
        Command::Real => print(&[real::run(bench).await?]),
        Command::Startup => print(&[startup::run(bench).await?]),
        Command::All => {
            throughput(bench, &Kind::ALL).await?;
            print(&latency::run(bench).await?);
            print(&[startup::run(bench).await?]);
            print(&[memory::run(bench).await?]);
            print(&[pacing::run(bench).await?]);
            print(&[real::run(bench).await?]);
            print(&[loss::run(
                bench,
                LossArgs {
                    enforcement: Enforcement::Sliding,
                },
            )
            .await?]);
            print(&[scaling::run(bench).await?]);
        }
        Command::Instructions(args) => instructions::run(bench, *args).await?,
        // Not tables: `main` runs them in processes of their own.
        Command::Origin(_) | Command::UntilReady(_) => {}
    }
    Ok(())
}

async fn throughput(bench: &Bench, kinds: &[Kind]) -> Result<()> {
    for kind in kinds {
        print(&[throughput::run(bench, *kind).await?]);
    }
    Ok(())
}

fn print(tables: &[Table]) {
    for table in tables {
        println!("{table}");
    }
}
