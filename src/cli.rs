//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Queues HTTP requests and releases them at exactly the rate an API allows.
#[derive(Debug, Clone, Parser)]
#[command(name = "pacegate", version, about, after_help = NOTES)]
pub struct Cli {
    /// What to do; `run` when nothing is given.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The settings.
    #[arg(long, value_name = "FILE", default_value = "proxy.toml")]
    pub config: PathBuf,
    /// What is logged, such as `info` or `pacegate=debug`; wins over `log.filter`.
    #[arg(long, value_name = "FILTER", env = "PACEGATE_LOG")]
    pub log: Option<String>,
}

const NOTES: &str = "\
Without a command, pacegate starts the daemon: the same as `pacegate run`.
Exit codes: 0 stopped as asked, 1 failed while running, 2 wrong usage or configuration.
Signals: SIGTERM and SIGINT stop after the drain, a second one at once;
SIGHUP reads the settings again.";

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Start the daemon and serve until told to stop; the default
    Run(Given),
    /// Check the settings and exit: 0 if they are right, 2 if not
    Check(Given),
    /// List the presets, or show one as it would stand in the settings
    Presets {
        /// The one to show.
        name: Option<String>,
    },
    /// Show the queue at work: a burst of requests at an API that allows 10 a second
    Demo(Demo),
}

/// The options of [`Cli`], given behind a command that has a use for them.
#[derive(Debug, Clone, Args)]
pub struct Given {
    /// The settings [default: proxy.toml].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What is logged, such as `info` or `pacegate=debug`; wins over `log.filter`
    /// [env: PACEGATE_LOG].
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

/// Options of the demo.
#[derive(Debug, Clone, Args)]
pub struct Demo {
    /// Stay up afterwards, so that the proxy can be tried with curl.
    #[arg(long)]
    pub serve: bool,
}

impl Cli {
    /// The arguments, with those behind the command in the place of those before.
    pub fn parse_all() -> Self {
        let mut cli = Self::parse();
        if let Some(Command::Run(given) | Command::Check(given)) = &mut cli.command {
            if let Some(config) = given.config.take() {
                cli.config = config;
            }
            cli.log = given.log.take().or(cli.log);
        }
        cli
    }
}
