//! One file per table; here is only which run when. Each table is published as soon as it is done.

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
use enforced::scenario::name;
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
        Command::Scaling => bench.publish("scaling", &[scaling::run(bench).await?])?,
        Command::Latency => bench.publish("latency", &latency::run(bench).await?)?,
        Command::Memory => bench.publish("memory", &[memory::run(bench).await?])?,
        Command::Loss(args) => bench.publish("loss", &[loss::run(bench, *args).await?])?,
        Command::Pacing => bench.publish("pacing", &[pacing::run(bench).await?])?,
        Command::Enforced(args) => {
            let (tables, failures) = enforced::run(bench, args).await?;
            for (name, table) in tables {
                bench.publish(name, &[table])?;
            }
            if args.strict && !failures.is_empty() {
                return Err(failures.join("; ").into());
            }
        }
        Command::Real => bench.publish("real", &[real::run(bench).await?])?,
        Command::Startup => bench.publish("startup", &[startup::run(bench).await?])?,
        Command::All => {
            throughput(bench, &Kind::ALL).await?;
            bench.publish("latency", &latency::run(bench).await?)?;
            bench.publish("startup", &[startup::run(bench).await?])?;
            bench.publish("memory", &[memory::run(bench).await?])?;
            bench.publish("pacing", &[pacing::run(bench).await?])?;
            bench.publish("real", &[real::run(bench).await?])?;
            let sliding = LossArgs {
                enforcement: Enforcement::Sliding,
            };
            bench.publish("loss", &[loss::run(bench, sliding).await?])?;
            bench.publish("scaling", &[scaling::run(bench).await?])?;
        }
        Command::Instructions(args) => instructions::run(bench, *args).await?,
        // Not tables: `main` runs them in processes of their own.
        Command::Origin(_) | Command::UntilReady(_) => {}
    }
    Ok(())
}

async fn throughput(bench: &Bench, kinds: &[Kind]) -> Result<()> {
    for kind in kinds {
        let table = throughput::run(bench, *kind).await?;
        bench.publish(&format!("throughput {}", name(*kind)), &[table])?;
    }
    Ok(())
}
