//! Where log lines go, and in which form: standard error, text or JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::{Log, LogFormat};

/// Starts logging as `settings` say; `filter` wins over the settings' own.
///
/// # Errors
///
/// The filter cannot be understood.
pub fn start(settings: &Log, filter: Option<&str>) -> Result<(), ParseError> {
    let filter = self::filter(settings, filter)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // Started twice in one process, the first stays: the tests do that.
    let _ = match settings.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// What is logged: `filter` if given, else what the settings say.
///
/// # Errors
///
/// It cannot be understood.
pub fn filter(settings: &Log, filter: Option<&str>) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(filter.unwrap_or(&settings.filter))
}
