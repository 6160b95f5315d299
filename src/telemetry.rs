//! Where log lines go, and in which form: standard error, text or JSON.

use std::io::IsTerminal;

use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

use crate::config::{Log, LogFormat};

/// Starts logging as `settings` say; `filter` wins over the settings' own.
///
/// # Errors
///
/// The filter cannot be understood.
pub fn start(settings: &Log, filter: Option<&str>) -> Result<(), ParseError> {
    let filter = self::filter(settings, filter)?;
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match settings.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(lines).with(filter);
    // Started twice in one process, the first stays: the tests do that.
    let _ = subscriber.try_init();
    Ok(())
}

/// What is logged: `filter` if given, else what the settings say.
///
/// # Errors
///
/// It cannot be understood.
pub fn filter(settings: &Log, filter: Option<&str>) -> Result<Targets, ParseError> {
    filter.unwrap_or(&settings.filter).parse()
}

/// An error and its causes on one line.
pub fn say(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
