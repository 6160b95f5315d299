//! Parses the arguments, loads the settings, starts the logs, runs, and chooses
//! the exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use pacegate::cli::{self, Cli, Command};
use pacegate::config::{self, Config, filter, preset};
use pacegate::daemon::{Daemon, DaemonError, Reload};
use pacegate::demo;
use pacegate::{signals, telemetry};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const FAILED: u8 = 1;
const MISUSED: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse_all();
    match &cli.command {
        None | Some(Command::Run(_)) => run(&cli),
        Some(Command::Check(_)) => check(&cli),
        Some(Command::Presets { name }) => presets(name.as_deref()),
        Some(Command::Demo(options)) => demo(options),
    }
}

fn run(cli: &Cli) -> ExitCode {
    let config = match load(cli) {
        Ok(config) => config,
        Err(text) => return fail(MISUSED, &text),
    };
    // The filter was checked with the settings.
    let _ = telemetry::start(&config.log, cli.log.as_deref());
    signals::raise_file_limit();
    let ran = block_on(async {
        let stop = signals::stop().map_err(DaemonError::System)?;
        let reloads = signals::reload().map_err(DaemonError::System)?;
        let (daemon, cli) = (Daemon::bind(config)?, cli.clone());
        let reload = Reload::new(reloads, move || load(&cli));
        daemon.reloaded_by(reload).run(stop).await
    });
    match ran {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => fail(
            code(&error),
            &format!("pacegate: {}", telemetry::say(&error)),
        ),
    }
}

/// What is paced how: that limits are missing is no fault, and should be seen.
fn told(upstream: &config::Upstream) -> String {
    let (name, host) = (&upstream.name, &upstream.url.authority);
    let labels: Vec<_> = upstream
        .limits
        .iter()
        .map(|limit| limit.label.as_str())
        .collect();
    match labels.is_empty() {
        true => format!("upstream.{name}: {host}, no limits but `max_in_flight`"),
        false => format!("upstream.{name}: {host}, {}", labels.join(", ")),
    }
}

fn check(cli: &Cli) -> ExitCode {
    match load(cli) {
        Ok(config) => match Daemon::check(&config) {
            Ok(()) => {
                println!("{}: ok", cli.config.display());
                config
                    .upstreams
                    .iter()
                    .map(told)
                    .for_each(|told| println!("{told}"));
                ExitCode::SUCCESS
            }
            Err(error) => fail(
                code(&error),
                &format!("pacegate: {}", telemetry::say(&error)),
            ),
        },
        Err(text) => fail(MISUSED, &text),
    }
}

fn presets(name: Option<&str>) -> ExitCode {
    match name.map_or_else(|| Ok(preset::list()), preset::show) {
        Ok(text) => {
            // Nobody is left to complain to when the reader has enough.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(text) => fail(MISUSED, &text),
    }
}

/// The settings, or what is wrong with them.
fn load(cli: &Cli) -> Result<Config, String> {
    let config = Config::load(&cli.config).map_err(|problems| problems.to_string())?;
    cli.log.as_deref().map_or(Ok(()), filter::check)?;
    match telemetry::filter(&config.log, cli.log.as_deref()) {
        Ok(_) => Ok(config),
        Err(error) => Err(format!("pacegate: the log filter is wrong: {error}")),
    }
}

fn code(error: &DaemonError) -> u8 {
    match error {
        DaemonError::Listen(_)
        | DaemonError::Admin(_)
        | DaemonError::Upstream(..)
        | DaemonError::State(_) => MISUSED,
        DaemonError::System(_) | DaemonError::CoreLost => FAILED,
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
        Err(error) => fail(FAILED, &format!("pacegate: {}", telemetry::say(&error))),
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
