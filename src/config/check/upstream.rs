//! `[upstream.NAME]`: one API, checked alone, then against the others.
//!
//! Puts together what `url`, `route`, `limit`, `tls` and `header` check, and
//! owns the defaults of everything else in the table.

use std::num::{NonZeroU32, NonZeroUsize};

use toml::Spanned;

use super::route::{self, Claim};
use super::{
    KIB, MIB, Places, bytes, choice, cost, count, header, in_memory, limit, seconds, time, tls, url,
};
use crate::config::fault::{Fault, quote};
use crate::config::file::{self, Bound, Bytes, Count, Named, Pause, Percent, Written};
use crate::config::report::Report;
use crate::config::size;
use crate::config::{
    Connection, Cooldown, Forwarded, Guard, Http2, Queue, Retry, Route, Timeouts, Upstream,
    WhenFull,
};

const BUFFER_BODY: u64 = 64 * KIB;
const MAX_BYTES: u64 = 64 * MIB;
const MAX_REQUESTS: usize = 10_000;
const MAX_IN_FLIGHT: usize = 1024;
const ATTEMPTS: NonZeroU32 = NonZeroU32::MIN.saturating_add(2);
const RETRY_ATTEMPTS: NonZeroU32 = NonZeroU32::MIN.saturating_add(4);

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
    let url = match &table.url {
        Some(text) => report.check(text.span(), url::parse(text.get_ref())),
        None => {
            let fault = Fault::new("is missing, expected one such as `https://api.example.com`");
            report.missing(Some(scope.table.span()), format!("{path}.url"), fault);
            None
        }
    };
    let limits = limit::all(&table.limits, report);
    let known = !limits_are_lost(scope, report) && limits.len() == table.limits.len();
    let costs = cost::all(&table.costs, known.then_some(&limits), report);
    let cooldown = cooldown(&table.cooldown, report);
    let max_upgrades = upgrades(table, report);
    let queue = queue(scope, report);
    let variants = [
        ("strip", Forwarded::Strip),
        ("keep", Forwarded::Keep),
        ("set", Forwarded::Set),
    ];
    let forwarded = choice(table.forwarded.as_ref(), &variants, report);
    let tls = tls::check(&table.tls, path, places, report);
    let headers = header::all(&table.headers, places, report);
    Some(Upstream {
        name: scope.name.get_ref().clone(),
        url: url?,
        route: route?,
        limits,
        guard: table.guard.map_or(Guard::Auto, |Written(guard)| guard),
        costs,
        max_keys: count(table.keys.max, 10_000),
        max_waiting_per_key: max_waiting(table),
        cooldown: cooldown?,
        retry: retry(&table.retry),
        max_in_flight: count(table.max_in_flight, MAX_IN_FLIGHT),
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
        connection: connection(&table.connection),
        tls,
        headers,
    })
}

/// Whether a limit could not be read.
fn limits_are_lost(scope: &Scope<'_>, report: &Report<'_>) -> bool {
    // One of the first is lost if any is: the others have moved up.
    let entries = 0..=scope.table.get_ref().limits.len();
    let mut lost = entries.map(|index| report.is_lost(&format!("{}.limits[{index}]", scope.path)));
    lost.any(|lost| lost)
}

/// Unless it is said, ten keys fill the queue.
fn max_waiting(table: &file::Upstream) -> NonZeroUsize {
    let places = count(table.queue.max_requests, MAX_REQUESTS).get();
    count(table.keys.max_waiting, (places / 10).max(1))
}

/// `None` only when something was reported.
fn cooldown(written: &file::Cooldown, report: &mut Report<'_>) -> Option<Cooldown> {
    let scopes = [("key", true), ("lane", false)];
    Some(Cooldown {
        keyed: choice(written.per.as_ref(), &scopes, report)?,
        ..Cooldown::default()
    })
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
fn upgrades(table: &file::Upstream, report: &mut Report<'_>) -> usize {
    let calls = count(table.max_in_flight, MAX_IN_FLIGHT).get();
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
        max_wait: time(written.max_wait, seconds(60)),
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

fn connection(written: &file::Connection) -> Connection {
    Connection {
        attempts: written.attempts.map_or(ATTEMPTS, |Count(count)| count),
        idle_timeout: time(written.idle_timeout, seconds(15)),
        max_age: time(written.max_age, seconds(600)),
        http2: written.http2.unwrap_or(Http2::Offered),
    }
}
