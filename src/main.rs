//! Parses the arguments, loads the settings, starts the logs, runs, and chooses
//! the exit code.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use pacegate::cli::{self, Cli, Command};
use pacegate::config::Config;
use pacegate::daemon::{Daemon, DaemonError};
use pacegate::demo;
use pacegate::{signals, telemetry};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const FAILED: u8 = 1;
const MISUSED: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match &cli.command {
        None | Some(Command::Run) => run(&cli),
        Some(Command::Check) => check(&cli.config),
        Some(Command::Demo(options)) => demo(options),
    }
}

fn run(cli: &Cli) -> ExitCode {
    let config = match Config::load(&cli.config) {
        Ok(config) => config,
        Err(problems) => return fail(MISUSED, &problems.to_string()),
    };
    if let Err(error) = telemetry::start(&config.log, cli.log.as_deref()) {
        return fail(
            MISUSED,
            &format!("pacegate: the log filter is wrong: {error}"),
        );
    }
    signals::raise_file_limit();
    let ran = block_on(async {
        let stop = signals::stop().map_err(DaemonError::System)?;
        Daemon::bind(config)?.run(stop).await
    });
    match ran {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            let code = match error {
                DaemonError::Listen(_) | DaemonError::Upstream(..) => MISUSED,
                DaemonError::System(_) | DaemonError::CoreLost => FAILED,
            };
            fail(code, &format!("pacegate: {}", chain(&error)))
        }
    }
}

fn check(path: &Path) -> ExitCode {
    match Config::load(path) {
        Ok(config) => {
            let upstreams = config.upstreams.len();
            println!("{}: right, {upstreams} upstream(s)", path.display());
            ExitCode::SUCCESS
        }
        Err(problems) => fail(MISUSED, &problems.to_string()),
    }
}

fn demo(options: &cli::Demo) -> ExitCode {
    signals::raise_file_limit();
    let shown = block_on(async {
        let stop = signals::stop().map_err(DaemonError::System)?;
        demo::run(options.serve, stop).await
    });
    match shown {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => fail(FAILED, &format!("pacegate: {}", chain(&error))),
    }
}

fn block_on<T, E: From<DaemonError>>(future: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(DaemonError::System)?
        .block_on(future)
}

fn fail(code: u8, text: &str) -> ExitCode {
    eprintln!("{text}");
    ExitCode::from(code)
}

/// An error and its causes on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
