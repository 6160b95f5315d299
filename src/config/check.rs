//! From what the user wrote to what the program may rely on.
//!
//! Fills in defaults, resolves texts into types, looks at values together, and
//! reports every problem rather than the first. A value that could not be read
//! counts as unknown, not as absent: no check complains about its consequence.
//! Each setting's default stands where the setting is resolved; `proxy.toml`
//! repeats them, and a test compares.

use std::ffi::OsString;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use toml::Spanned;

use super::fault::{Fault, nearest, quote};
use super::file::{self, Bytes, Count, Placed, Written};
use super::filter;
use super::report::{Problems, Report};
use super::size;
use super::{Client, Config, Log, LogFormat, Missing, Shutdown, State};

mod address;
mod cooldown;
mod cost;
mod dialect;
mod header;
mod host;
mod key;
mod limit;
mod preset;
mod route;
mod tls;
mod upstream;
mod url;

pub(super) use dialect::name as dialect_name;
pub(super) use preset::all as presets;
pub(super) use upstream::Settings;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// More threads than any machine has cores; a slip of the finger.
const MOST_THREADS: u32 = 1024;

/// Less than the map of the fields holds, and more than anybody needs.
const MOST_HEADERS: u32 = 10_000;

/// Where files that the configuration names are looked for.
#[derive(Debug)]
struct Places {
    /// The directory of the configuration file.
    directory: PathBuf,
    /// `$CREDENTIALS_DIRECTORY`, where systemd puts what `LoadCredential=` names.
    credentials: Option<OsString>,
    /// `$STATE_DIRECTORY`, where systemd keeps what `StateDirectory=` names.
    state: Option<OsString>,
}

/// Checks `text`, the content of the file at `path`.
///
/// # Errors
///
/// Every problem found.
pub(super) fn config(path: &Path, text: &str) -> Result<Config, Problems> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let places = Places {
        directory: path.parent().unwrap_or(Path::new("")).to_owned(),
        credentials: std::env::var_os("CREDENTIALS_DIRECTORY"),
        state: std::env::var_os("STATE_DIRECTORY"),
    };
    let (file, mut report) = file::read::<file::File>(text);
    match resolve(&file, &places, &mut report) {
        Some(config) if report.is_empty() => Ok(config),
        _ => Err(report.finish(&path.display().to_string())),
    }
}

/// `None` only when something was reported.
fn resolve(file: &file::File, places: &Places, report: &mut Report<'_>) -> Option<Config> {
    let (listen, admin) = address::sockets(file, report);
    let threads = threads(file.threads.as_ref(), report);
    let client = client(&file.client, report);
    let log = log(&file.log, report);
    let state = state(&file.state, places, report);
    let upstreams = upstream::all(&file.upstream, places, report);
    Some(Config {
        listen,
        admin,
        threads,
        client,
        log: log?,
        shutdown: Shutdown {
            drain: time(file.shutdown.drain, seconds(30)),
        },
        state: state?,
        upstreams,
    })
}

fn threads(written: Option<&Spanned<Count>>, report: &mut Report<'_>) -> NonZeroUsize {
    let Some(written) = written else {
        return available_parallelism().unwrap_or(NonZeroUsize::MIN);
    };
    let count = written.get_ref().0;
    if count.get() > MOST_THREADS {
        let text = format!("`{count}` is too large, expected at most {MOST_THREADS}");
        report.add(written.span(), Fault::new(text));
    }
    size_of_count(count)
}

fn client(written: &file::Client, report: &mut Report<'_>) -> Client {
    let range = 8 * KIB..=16 * MIB;
    let header_bytes = bytes(&written.max_header_bytes, 64 * KIB);
    if let Some(wrong) = &written.max_header_bytes
        && !range.contains(&header_bytes)
    {
        let text = format!(
            "{} is out of bounds, expected `{}` to `{}`",
            quote(&size::show(header_bytes)),
            size::show(*range.start()),
            size::show(*range.end()),
        );
        report.add(wrong.span(), Fault::new(text));
    }
    let max_headers = written.max_headers.as_ref().map(|count| *count.get_ref());
    if let (Some(Count(count)), Some(wrong)) = (max_headers, &written.max_headers)
        && count.get() > MOST_HEADERS
    {
        let text = format!("`{count}` is too large, expected at most {MOST_HEADERS}");
        report.add(wrong.span(), Fault::new(text));
    }
    Client {
        header_timeout: time(written.header_timeout, seconds(30)),
        idle_timeout: time(written.idle_timeout, seconds(75)),
        stall_timeout: time(written.stall_timeout, seconds(60)),
        max_connections: count(written.max_connections, 16_384).get(),
        max_header_bytes: in_memory(header_bytes),
        max_headers: count(max_headers, 100).get(),
    }
}

fn log(written: &file::Log, report: &mut Report<'_>) -> Option<Log> {
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let filter = written.filter.as_ref();
    if let Some(written) = filter {
        report.check(written.span(), filter::parse(written.get_ref()));
    }
    Some(Log {
        format: choice(written.format.as_ref(), &formats, report)?,
        filter: filter.map_or("info", |filter| filter.get_ref()).to_owned(),
        requests: written.requests.unwrap_or(false),
    })
}

/// `None` only when something was reported.
fn state(written: &file::State, places: &Places, report: &mut Report<'_>) -> Option<State> {
    let variants = [
        ("auto", Missing::Auto),
        ("spent", Missing::Spent),
        ("fresh", Missing::Fresh),
    ];
    let given = || {
        // Several are separated by colons.
        let folders = std::env::split_paths(places.state.as_ref()?).next();
        folders.filter(|folder| folder.is_absolute())
    };
    let dir = match &written.dir {
        None => given(),
        Some(dir) if dir.get_ref() == "off" => None,
        Some(dir) => {
            if dir.get_ref().is_empty() {
                let fault = Fault::new("is empty, expected a folder or `off`");
                report.add(dir.span(), fault);
            }
            Some(places.directory.join(dir.get_ref()))
        }
    };
    Some(State {
        dir,
        missing: choice(written.missing.as_ref(), &variants, report)?,
    })
}

/// The variant of that name; the first when absent.
fn choice<T: Copy>(
    written: Option<&Spanned<String>>,
    variants: &[(&str, T)],
    report: &mut Report<'_>,
) -> Option<T> {
    let Some(written) = written else {
        return variants.first().map(|&(_, variant)| variant);
    };
    let name = written.get_ref();
    let found = variants.iter().find(|(variant, _)| variant == name);
    if found.is_none() {
        let names = || variants.iter().map(|&(variant, _)| variant);
        let expected: Vec<_> = names().map(|name| format!("`{name}`")).collect();
        let expected = expected.join(" or ");
        let text = format!("{} is not known, expected {expected}", quote(name));
        report.add(
            written.span(),
            Fault::new(text).meant(nearest(name, names())),
        );
    }
    found.map(|&(_, variant)| variant)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn time(written: Option<Written<Duration>>, default: Duration) -> Duration {
    written.map_or(default, |Written(time)| time)
}

fn bytes(written: &Placed<Bytes>, default: u64) -> u64 {
    written
        .as_ref()
        .map_or(default, |bytes| bytes.get_ref().0.0)
}

/// `bytes` as the length of something in memory; all there is, if that is less.
fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn count(written: Option<Count>, default: usize) -> NonZeroUsize {
    let default = NonZeroUsize::new(default).unwrap_or(NonZeroUsize::MIN);
    written.map_or(default, |Count(count)| size_of_count(count))
}

fn size_of_count(count: NonZeroU32) -> NonZeroUsize {
    NonZeroUsize::try_from(count).unwrap_or(NonZeroUsize::MAX)
}

#[cfg(test)]
mod tests;
