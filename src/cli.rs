//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Queues HTTP requests and releases them at exactly the rate an API allows.
#[derive(Debug, Clone, Parser)]
#[command(name = "pacegate", version, about, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do; `run` when nothing is given.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The settings.
    #[arg(long, value_name = "FILE", default_value = "proxy.toml", global = true)]
    pub config: PathBuf,
    /// What is logged, such as `info` or `pacegate=debug`; wins over `log.filter`.
    #[arg(long, value_name = "FILTER", env = "PACEGATE_LOG", global = true)]
    pub log: Option<String>,
}

const EXIT_CODES: &str = "\
Exit codes: 0 stopped as asked, 1 failed while running, 2 wrong usage or configuration.
Signals: SIGTERM and SIGINT stop after the drain, a second one at once;
SIGHUP reads the settings again.";

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Serve until told to stop
    Run,
    /// Check the settings and exit: 0 if they are right, 2 if not
    Check,
    /// List the presets, or show one as it would stand in the settings
    Presets {
        /// The one to show.
        name: Option<String>,
    },
    /// Show the queue at work: a burst of requests at an API that allows 10 a second
    Demo(Demo),
}

/// Options of the demo.
#[derive(Debug, Clone, Args)]
pub struct Demo {
    /// Stay up afterwards, so that the proxy can be tried with curl.
    #[arg(long)]
    pub serve: bool,
}
