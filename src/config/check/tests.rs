//! What is wrong with a whole file: all of it at once, and slips that many make with
//! what to write instead.
//!
//! Then texts at random: whatever stands in a file, every parser ends with a value or
//! with what is wrong, and what it accepts it prints so that it reads it again.

use std::time::Duration;

use proptest::prelude::*;

use super::{address, cost, header, host, route, url};
use crate::config::duration::{self, LONGEST};
use crate::config::fault::Fault;
use crate::config::{Config, Listen, per, rate, size};
use crate::fuzz::{self, Random};

const GOOD: &str = include_str!("../../../proxy.toml");

/// Each of the last four was only told once those before it were right.
#[test]
fn one_fault_hides_no_other() {
    let text = r#"
listen = "127.0.0.1:8080"
[upstream.a]
url = "a b"
match = { prefix = "/" }
dialect = "githup"
max_in_flight = 4
forwarded = "strips"
queue = { when_full = "wiat" }
connection = { warm = 5 }
cooldown = { per = "keys", signals = [{ header = "a b", body = "" }] }
"#;
    let problems = Config::parse("proxy.toml", text).unwrap_err();
    let said = problems.to_string();
    let paths = [
        "url",
        "match.prefix",
        "dialect",
        "forwarded",
        "queue.when_full",
        "cooldown.signals[0].status",
        "cooldown.signals[0].header",
        "cooldown.signals[0].body",
        "cooldown.per",
        "connection.warm",
    ];
    for path in paths {
        assert!(said.contains(&format!(" upstream.a.{path}: ")), "{said}");
    }
    assert_eq!(problems.len(), paths.len(), "{said}");
}

#[test]
fn common_slips_are_told_what_to_write() {
    let say = |slip: &str| {
        let before = "listen = \"127.0.0.1:8080\"\nupstream.a.url = \"http://a\"\n";
        let problems = Config::parse("proxy.toml", &format!("{before}{slip}\n")).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems}");
        problems.to_string()
    };
    for (slip, hint) in [
        ("admin = false", "did you mean \"off\"?"),
        ("state.dir = false", "did you mean \"off\"?"),
        ("log.level = \"debug\"", "write `filter`"),
        ("upstream.a.guard = 100", "did you mean \"100ms\"?"),
        ("upstream.a.cooldown.signals = 429", "did you mean [429]?"),
        (
            "upstream.a.timeouts = { total = false }",
            "did you mean \"off\"?",
        ),
        (
            "upstream.a.rate = \"5/s\"",
            "write limits = [\"10/s\"], with your rate in it",
        ),
        (
            "upstream.a.retries = 3",
            "write `retry.attempts`, which counts the first try as well",
        ),
    ] {
        let said = say(slip);
        assert!(said.ends_with(&format!("\nhint: {hint}")), "{said}");
    }
    let said = say("upstream.a.limits = [-5]");
    assert!(said.contains(" `-5` is negative, expected "), "{said}");
}

/// Fails if the words for what is wrong cannot be shown, or what they suggest is
/// not even of the right form.
fn explained<T>(fault: &Fault, parse: impl Fn(&str) -> Result<T, Fault>) {
    assert!(!fault.text.is_empty() && !fault.text.contains(['\n', '\0']));
    let hint = fault.hint.as_deref().unwrap_or_default();
    let meant = hint.strip_prefix("did you mean `");
    if let Some(meant) = meant.and_then(|meant| meant.strip_suffix("`?"))
        && let Err(again) = parse(meant)
    {
        // It may be out of bounds, but it must not be another slip.
        let hint = again.hint.as_deref().unwrap_or_default();
        assert!(!hint.contains("did you mean"), "{fault:?}: {again:?}");
    }
}

#[test]
fn fuzz_durations() {
    let pieces = [
        "1", "30", "0", "ms", "s", "min", "h", "d", "day", "seconds", " ", "m", "off", "auto",
        "week", ".",
    ];
    fuzz::run(20_000, |random| {
        let text = random.text(&pieces);
        match duration::parse(&text) {
            Ok(time) => {
                assert!(time > Duration::ZERO && time <= LONGEST);
                let shown = format!("{}ms", time.as_millis());
                assert_eq!(duration::parse(&shown), Ok(time), "{text}");
                assert_eq!(duration::parse_or_zero(&text), Ok(time));
            }
            Err(fault) => explained(&fault, duration::parse_or_zero),
        }
    });
}

#[test]
fn fuzz_rates() {
    let pieces = [
        "10", "1", "0", "/", "/s", "/min", "/10s", "/day", "/h", "ms", " per ", "second", "s", "x",
    ];
    fuzz::run(20_000, |random| {
        let text = random.text(&pieces);
        match rate::parse(&text) {
            Ok(rate) => assert_eq!(rate::parse(&rate.to_string()), Ok(rate), "{text}"),
            Err(fault) => explained(&fault, rate::parse),
        }
    });
}

#[test]
fn fuzz_sizes() {
    let pieces = [
        "1", "64", "0", "KiB", "KB", "MiB", "B", "K", "k", "TiB", " ", "mb", "iB",
    ];
    fuzz::run(20_000, |random| {
        let text = random.text(&pieces);
        match size::parse(&text) {
            Ok(size) => assert_eq!(size::parse(&size::show(size)), Ok(size), "{text}"),
            Err(fault) => explained(&fault, size::parse),
        }
    });
}

#[test]
fn fuzz_addresses() {
    let pieces = [
        "127.0.0.1",
        "localhost",
        ":",
        ":8080",
        "8080",
        "*",
        "[::1]",
        "::",
        "unix:",
        "/run/a",
        "0",
        "systemd",
        "http://",
        "[",
        "]",
        "%1",
    ];
    let parse = |text: &str| address::parse(text, 8080);
    fuzz::run(20_000, |random| {
        let text = random.text(&pieces);
        match parse(&text) {
            Ok(listen) => {
                let shown = match &listen {
                    Listen::Tcp(address) => address.to_string(),
                    Listen::Unix(path) => format!("unix:{}", path.display()),
                    Listen::Systemd => "systemd".to_owned(),
                };
                assert_eq!(parse(&shown), Ok(listen), "{text}");
            }
            Err(fault) => explained(&fault, parse),
        }
    });
}

#[test]
fn fuzz_urls_and_hosts() {
    let pieces = [
        "http",
        "https",
        "://",
        "api.example.com",
        "a",
        ".",
        ":",
        ":443",
        "80",
        "/",
        "[::1]",
        "127.0.0.1",
        "user:secret@",
        "?",
        "#",
        "xn--",
        "_",
        "-",
    ];
    fuzz::run(20_000, |random| {
        let text = random.text(&pieces);
        match url::parse(&text) {
            Ok(url) => {
                let scheme = if url.https { "https" } else { "http" };
                let shown = format!("{scheme}://{}", url.authority);
                assert_eq!(url::parse(&shown), Ok(url), "{text}");
            }
            Err(fault) => {
                assert!(!fault.text.contains("secret@"), "{fault:?}");
                explained(&fault, url::parse);
            }
        }
        for parse in [host::parse, route::request_host] {
            match parse(&text) {
                Ok(host) => assert_eq!(parse(&host), Ok(host.clone()), "{text}"),
                Err(fault) => explained(&fault, parse),
            }
        }
    });
}

#[test]
fn fuzz_keys_names_paths_and_methods() {
    let pieces = [
        "header",
        "cookie",
        "address",
        "segment",
        ":",
        "1",
        "32",
        "authorization",
        "Host",
        "x-key",
        "/",
        "/*",
        "/**",
        "/v1",
        "%2f",
        "%",
        "*",
        "POST",
        "get",
        "_",
        "sid",
        "?",
        "te",
    ];
    let per = |text: &str| per::parse(text, header::field_name);
    fuzz::run(20_000, |random| {
        let text = random.text(&pieces);
        match per(&text) {
            Ok(read) => assert_eq!(per(&read.to_string()), Ok(read), "{text}"),
            Err(fault) => explained(&fault, per),
        }
        for parse in [
            header::field_name,
            route::prefix,
            cost::pattern,
            cost::method,
        ] {
            match parse(&text) {
                Ok(read) => assert_eq!(parse(&read), Ok(read.clone()), "{text}"),
                Err(fault) => explained(&fault, parse),
            }
        }
    });
}

/// The sample, with what is commented out in it made settings at random, and
/// damaged in some places.
fn damaged(random: &mut Random) -> String {
    const PARTS: [&str; 24] = [
        "=",
        "\"",
        "'",
        "[",
        "]",
        "{",
        "}",
        ",",
        ".",
        "#",
        "\n",
        "\"\"\"",
        "\r\n",
        "\0",
        "é",
        "\t",
        "true",
        "0",
        "-1",
        "1e400",
        "\"10/s\"",
        "1979-05-27",
        "limits",
        "[upstream.a]\n",
    ];
    let commented = |line: &str| {
        let setting = line.strip_prefix("# ")?;
        let name = setting.split_once(" = ")?.0;
        let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        is_name.then(|| setting.to_owned())
    };
    let mut lines: Vec<String> = Vec::new();
    for line in GOOD.lines() {
        match commented(line) {
            Some(setting) if random.once_in(2) => lines.push(setting),
            // Most of the sample is prose.
            None if line.starts_with('#') && !random.once_in(20) => {}
            _ => lines.push(line.to_owned()),
        }
    }
    for _ in 0..random.below(3) {
        let (from, to) = (random.below(lines.len()), random.below(lines.len()));
        match random.below(3) {
            0 => lines.swap(from, to),
            1 => lines.insert(to, lines[from].clone()),
            _ => drop(lines.remove(from)),
        }
    }
    let mut text = lines.join("\n");
    for _ in 0..random.below(4) {
        let at = text.floor_char_boundary(random.below(text.len() + 1));
        let end = text.floor_char_boundary(at + random.below(12));
        match random.below(3) {
            0 => text.replace_range(at..end.max(at), ""),
            1 => text.insert_str(at, random.pick(&PARTS)),
            _ => text.insert(at, char::from(random.byte())),
        }
    }
    text
}

/// Fails unless each problem has words, and a place in the text if it has one.
fn placed(said: &str, text: &str) {
    let lines: Vec<&str> = text.split('\n').collect();
    for problem in said.split("\n\npacegate: ") {
        let problem = problem.strip_prefix("pacegate: ").unwrap_or(problem);
        let rest = problem.strip_prefix("proxy.toml:").unwrap();
        let mut parts = rest.splitn(3, ':');
        let mut number = || parts.next().and_then(|part| part.parse::<usize>().ok());
        if let Some((line, column)) = number().zip(number()) {
            let line = lines[line - 1];
            let length = line.chars().count();
            assert!((1..=length + 1).contains(&column), "{problem}\n{text}");
        } else {
            // Only what is missing from the whole file has no place.
            assert!(rest.contains("is missing"), "{problem}\n{text}");
        }
    }
}

#[test]
fn fuzz_files() {
    fuzz::run(150, |random| {
        let text = damaged(random);
        let read = Config::parse("proxy.toml", &text);
        assert_eq!(read, Config::parse("proxy.toml", &text), "{text}");
        if let Err(problems) = read {
            assert!(problems.len() > 0);
            let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
            placed(&problems.to_string(), text);
        }
    });
}

proptest! {
    #[test]
    fn never_panics(text in ".*") {
        let _ = Config::parse("proxy.toml", &text);
    }

    #[test]
    fn never_panics_on_a_damaged_file(at in 0..GOOD.len(), length in 0..200usize, text in "[\\[\\]{}=\"'\n,.a1é\t]{0,6}") {
        let mut damaged = GOOD.to_owned();
        let start = damaged.floor_char_boundary(at);
        let end = damaged.floor_char_boundary(at + length);
        damaged.replace_range(start..end, &text);
        if let Err(problems) = Config::parse("proxy.toml", &damaged) {
            prop_assert!(problems.len() > 0);
            prop_assert!(problems.to_string().starts_with("pacegate: proxy.toml:"));
        }
    }
}
