//! `[upstream.NAME]`: one API, checked alone, then against the others.
//!
//! Puts together what `url`, `route`, `limit`, `dialect`, `cooldown`, `tls` and
//! `header` check, and owns the defaults of everything else in the table. A
//! preset replaces the defaults of the keys that it has.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;

use http::StatusCode;
use http::header::RETRY_AFTER;

use toml::Spanned;

use super::route::{self, Claim};
use super::{
    KIB, MIB, Places, bytes, choice, cooldown, cost, count, dialect, header, in_memory, key, limit,
    seconds, size_of_count, time, tls, url,
};
use crate::config::fault::{Fault, quote};
use crate::config::file::{self, Bound, Bytes, Count, Named, Number, Pause, Percent, Written};
use crate::config::preset;
use crate::config::report::Report;
use crate::config::size;
use crate::config::{
    Connection, Cooldown, CostRule, Dialect, Forwarded, Guard, Http2, Limit, Queue, Retry, Route,
    Signal, Timeouts, Upstream, Url, WhenFull,
};

const BUFFER_BODY: u64 = 64 * KIB;
const MAX_BYTES: u64 = 64 * MIB;
const MAX_REQUESTS: usize = 10_000;
const MAX_IN_FLIGHT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);
const ATTEMPTS: NonZeroU32 = NonZeroU32::MIN.saturating_add(2);
const RETRY_ATTEMPTS: NonZeroU32 = NonZeroU32::MIN.saturating_add(4);

const FORWARDED: [(&str, Forwarded); 3] = [
    ("strip", Forwarded::Strip),
    ("keep", Forwarded::Keep),
    ("set", Forwarded::Set),
];

/// What a preset may fill in; by default what holds without one.
#[derive(Debug)]
pub(in crate::config) struct Settings {
    /// `None` when there is none to start from.
    pub(in crate::config) url: Option<Url>,
    pub(in crate::config) limits: Vec<Limit>,
    pub(in crate::config) costs: Vec<CostRule>,
    pub(in crate::config) dialect: Dialect,
    pub(in crate::config) max_in_flight: NonZeroUsize,
    pub(in crate::config) cooldown: Cooldown,
}

impl Default for Settings {
    fn default() -> Self {
        let signal = |status, header| Signal {
            status,
            header,
            equals: None,
            body: None,
        };
        Self {
            url: None,
            limits: Vec::new(),
            costs: Vec::new(),
            dialect: Dialect::RetryAfter,
            max_in_flight: MAX_IN_FLIGHT,
            cooldown: Cooldown {
                signals: Arc::new([
                    signal(StatusCode::TOO_MANY_REQUESTS, None),
                    signal(StatusCode::SERVICE_UNAVAILABLE, Some(RETRY_AFTER)),
                ]),
                first: seconds(1),
                longest: seconds(600),
                keyed: true,
            },
        }
    }
}

/// An upstream under way.
struct Scope<'a> {
    name: &'a Spanned<String>,
    table: &'a Spanned<file::Upstream>,
    /// The path of its table, such as `upstream.github`.
    path: String,
}

/// Checks all upstreams, in the order of the file; those with a problem are
/// reported, and may be left out.
pub(super) fn all(
    written: &Named<file::Upstream>,
    places: &Places,
    report: &mut Report<'_>,
) -> Vec<Upstream> {
    let mut scopes: Vec<_> = written
        .iter()
        .map(|(name, table)| Scope {
            name,
            table,
            path: report.tree().path(&table.span()),
        })
        .collect();
    scopes.sort_by_key(|scope| scope.name.span().start);
    if scopes.is_empty() {
        let fault = Fault::new("is missing, expected at least one `[upstream.NAME]` with a `url`");
        report.missing(None, "upstream".to_owned(), fault);
    }
    let mut claims = Vec::new();
    let mut upstreams = Vec::new();
    for scope in &scopes {
        check_name(scope.name, report);
        let written = scope.table.get_ref().route.as_ref();
        let route = route::one(written, &scope.path, report);
        claims.push(Claim {
            path: &scope.path,
            at: written.map_or(scope.table.span(), Spanned::span),
            route: route.clone(),
        });
        upstreams.extend(one(scope, route, places, report));
    }
    route::apart(&claims, report);
    upstreams
}

fn check_name(name: &Spanned<String>, report: &mut Report<'_>) {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let text = name.get_ref();
    if text.is_empty() || !text.chars().all(good) {
        let what = "is not a name, expected ascii letters, digits, `-` and `_`";
        report.add(name.span(), Fault::new(format!("{} {what}", quote(text))));
    }
}

/// `None` only when something was reported.
fn one(
    scope: &Scope<'_>,
    route: Option<Route>,
    places: &Places,
    report: &mut Report<'_>,
) -> Option<Upstream> {
    let (table, path) = (scope.table.get_ref(), &scope.path);
    let preset = table.preset.as_ref().map(|name| {
        let found = report.check(name.span(), preset::find(name.get_ref()));
        found.map(|preset| preset.settings)
    });
    // A preset that is not known might have had a URL.
    let unknown = matches!(preset, Some(None)) || report.is_lost(&format!("{path}.preset"));
    let preset = preset.flatten().unwrap_or_default();
    let url = target(scope, preset.url, unknown, report);
    let max_in_flight = table
        .max_in_flight
        .map_or(preset.max_in_flight, |Count(count)| size_of_count(count));
    let max_upgrades = upgrades(table, max_in_flight, report);
    let (limits, costs) = limits_and_costs(scope, preset.limits, preset.costs, report);
    let dialect = dialect::one(table.dialect.as_ref(), &preset.dialect, report);
    let cooldown = cooldown::one(&table.cooldown, &preset.cooldown, path, report);
    let queue = queue(scope, report);
    let forwarded = choice(table.forwarded.as_ref(), &FORWARDED, report);
    let tls = tls::check(&table.tls, path, places, report);
    let headers = header::all(&table.headers, places, report);
    let connection = connection(&table.connection, max_in_flight, report);
    if let (Some(written), Some(forwarded)) = (&table.limits, forwarded) {
        key::all(written, &table.headers, forwarded, report);
    }
    Some(Upstream {
        name: scope.name.get_ref().clone(),
        url: url?,
        route: route?,
        limits,
        guard: table.guard.map_or(Guard::Auto, |Written(guard)| guard),
        dialect: dialect?,
        costs,
        max_keys: count(table.keys.max, 10_000),
        max_waiting_per_key: max_waiting(table),
        cooldown: cooldown?,
        retry: retry(&table.retry),
        max_in_flight,
        max_upgrades,
        buffer_body: in_memory(bytes(&table.buffer_body, BUFFER_BODY)),
        max_body: table
            .max_body
            .map_or(128 * MIB, |Written(Bytes(bytes))| bytes),
        server_timing: table.server_timing.unwrap_or(true),
        keep_host: table.keep_host.unwrap_or(false),
        via: table.via.unwrap_or(true),
        forwarded: forwarded?,
        queue: queue?,
        timeouts: timeouts(&table.timeouts),
        connection,
        tls,
        headers,
    })
}

/// Its URL, written or from a preset, which may be `unknown`.
fn target(
    scope: &Scope<'_>,
    preset: Option<Url>,
    unknown: bool,
    report: &mut Report<'_>,
) -> Option<Url> {
    match (&scope.table.get_ref().url, preset) {
        (Some(text), _) => report.check(text.span(), url::parse(text.get_ref())),
        (None, Some(url)) => Some(url),
        (None, None) if unknown => None,
        (None, None) => {
            let fault = Fault::new("is missing, expected one such as `https://api.example.com`");
            report.missing(
                Some(scope.table.span()),
                format!("{}.url", scope.path),
                fault,
            );
            None
        }
    }
}

/// What is written, or what the preset has: its costs only with its limits, for
/// under others they might never be paid.
fn limits_and_costs(
    scope: &Scope<'_>,
    limits: Vec<Limit>,
    costs: Vec<CostRule>,
    report: &mut Report<'_>,
) -> (Vec<Limit>, Vec<CostRule>) {
    let table = scope.table.get_ref();
    let (limits, costs, known) = match &table.limits {
        None => (limits, costs, true),
        Some(written) => {
            let limits = limit::all(written, report);
            let known = limits.len() == written.len();
            (limits, Vec::new(), known)
        }
    };
    let known = known && !limits_are_lost(scope, report);
    let costs = match &table.costs {
        Some(written) => cost::all(written, known.then_some(&limits), report),
        None => costs,
    };
    (limits, costs)
}

/// Whether a limit could not be read.
fn limits_are_lost(scope: &Scope<'_>, report: &Report<'_>) -> bool {
    // One of the first is lost if any is: the others have moved up.
    let entries = 0..=scope.table.get_ref().limits.as_ref().map_or(0, Vec::len);
    let mut lost = entries.map(|index| report.is_lost(&format!("{}.limits[{index}]", scope.path)));
    lost.any(|lost| lost)
}

/// Unless it is said, ten keys fill the queue.
fn max_waiting(table: &file::Upstream) -> NonZeroUsize {
    let places = count(table.queue.max_requests, MAX_REQUESTS).get();
    count(table.keys.max_waiting, (places / 10).max(1))
}

fn retry(written: &file::Retry) -> Retry {
    Retry {
        attempts: written
            .attempts
            .map_or(RETRY_ATTEMPTS, |Count(count)| count),
        budget: written.budget.map_or(20, |Written(Percent(budget))| budget),
        hold: written
            .hold
            .map_or(seconds(30), |Written(Pause(hold))| hold),
    }
}

/// `max_upgrades`, which leaves calls to other requests.
fn upgrades(table: &file::Upstream, calls: NonZeroUsize, report: &mut Report<'_>) -> usize {
    let calls = calls.get();
    let Some(written) = &table.max_upgrades else {
        return calls / 2;
    };
    let upgrades = count(Some(*written.get_ref()), 0).get();
    if upgrades >= calls {
        let fault = format!("`{upgrades}` is not below `max_in_flight`, which is {calls}");
        let hint = "tunnels must leave calls to other requests";
        report.add(written.span(), Fault::new(fault).hint(hint));
    }
    upgrades
}

/// `None` only when something was reported.
fn queue(scope: &Scope<'_>, report: &mut Report<'_>) -> Option<Queue> {
    let table = scope.table.get_ref();
    let written = &table.queue;
    let max_bytes = room(scope, report);
    let variants = [("wait", WhenFull::Wait), ("reject", WhenFull::Reject)];
    Some(Queue {
        max_requests: count(written.max_requests, MAX_REQUESTS),
        max_bytes: in_memory(max_bytes),
        // Above a minute, so that a limit per minute can be waited for.
        max_wait: time(written.max_wait, seconds(120)),
        when_full: choice(written.when_full.as_ref(), &variants, report)?,
    })
}

/// `queue.max_bytes`, in which the longest buffered body must find room.
fn room(scope: &Scope<'_>, report: &mut Report<'_>) -> u64 {
    let table = scope.table.get_ref();
    let room = bytes(&table.queue.max_bytes, MAX_BYTES);
    let body = bytes(&table.buffer_body, BUFFER_BODY);
    let lost = ["buffer_body", "queue.max_bytes"]
        .map(|key| report.is_lost(&format!("{}.{key}", scope.path)));
    let (shown_room, shown_body) = (quote(&size::show(room)), quote(&size::show(body)));
    match (&table.queue.max_bytes, &table.buffer_body) {
        (Some(written), _) if room == 0 => {
            let fault = format!("{shown_room} leaves no room, expected more than zero");
            report.add(written.span(), Fault::new(fault));
        }
        _ if room >= body || lost != [false, false] => {}
        (_, Some(written)) => {
            let fault = format!(
                "{shown_body} is more than `queue.max_bytes`, expected at most {shown_room}"
            );
            report.add(written.span(), Fault::new(fault));
        }
        (Some(written), None) => {
            let fault =
                format!("{shown_room} is less than `buffer_body`, expected at least {shown_body}");
            let hint = "to allow less here, set `buffer_body` as well";
            report.add(written.span(), Fault::new(fault).hint(hint));
        }
        (None, None) => {}
    }
    room
}

fn timeouts(written: &file::Timeouts) -> Timeouts {
    Timeouts {
        dns: time(written.dns, seconds(5)),
        connect: time(written.connect, seconds(5)),
        tls: time(written.tls, seconds(10)),
        response: time(written.response, seconds(60)),
        stall: time(written.stall, seconds(60)),
        tunnel_idle: time(written.tunnel_idle, seconds(300)),
        total: written.total.and_then(|Written(Bound(bound))| bound),
    }
}

fn connection(
    written: &file::Connection,
    calls: NonZeroUsize,
    report: &mut Report<'_>,
) -> Connection {
    Connection {
        warm: warm(written, calls, report),
        attempts: written.attempts.map_or(ATTEMPTS, |Count(count)| count),
        idle_timeout: time(written.idle_timeout, seconds(15)),
        max_age: time(written.max_age, seconds(600)),
        http2: written.http2.unwrap_or(Http2::Offered),
    }
}

/// `connection.warm`: more than there can be calls would never be used.
fn warm(written: &file::Connection, calls: NonZeroUsize, report: &mut Report<'_>) -> usize {
    let Some(written) = &written.warm else {
        return 0;
    };
    let Number(warm) = *written.get_ref();
    if u64::from(warm) > calls.get() as u64 {
        let fault = format!("`{warm}` is more than `max_in_flight`, expected at most {calls}");
        let hint = "a connection carries one call at a time, so no more are ever used";
        report.add(written.span(), Fault::new(fault).hint(hint));
    }
    usize::try_from(warm).unwrap_or(usize::MAX)
}
