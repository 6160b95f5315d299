//! Configuration files as users write them: good ones, bad ones, the sample.
//!
//! Every file in `config/valid` loads. Every file in `config/invalid` has a
//! `.expected` beside it with the whole message; after a deliberate change,
//! `PACEGATE_BLESS=1 cargo test config` rewrites them for review.

use std::fs;
use std::path::{Path, PathBuf};

use pacegate::config::Config;

const SAMPLE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/proxy.toml"));

/// The sample's own settings, and nothing else.
const MINIMAL: &str = r#"
listen = "127.0.0.1:8080"
[upstream.example]
url = "https://api.example.com"
limits = ["10/s"]
"#;

fn cases(kind: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let mut cases: Vec<_> = fs::read_dir(directory.join(kind))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    cases.sort();
    assert!(
        !cases.is_empty(),
        "no {kind} cases in {}",
        directory.display()
    );
    cases
}

/// The message about `path`, as if it had been given without its directory.
fn message(path: &Path) -> String {
    let problems = match Config::load(path) {
        Ok(config) => panic!("{} is accepted: {config:#?}", path.display()),
        Err(problems) => problems,
    };
    let directory = format!("{}/", path.parent().unwrap().display());
    problems.to_string().replace(&directory, "") + "\n"
}

#[test]
fn every_valid_file_loads() {
    for path in cases("valid") {
        if let Err(problems) = Config::load(&path) {
            panic!("{} is refused:\n{problems}", path.display());
        }
    }
}

#[test]
fn everything_arrives_as_written() {
    let path = cases("valid");
    let path = path.iter().find(|path| path.ends_with("everything.toml"));
    let config = Config::load(path.unwrap()).unwrap();
    let github = &config.upstreams[0];
    let labels: Vec<_> = github.limits.iter().map(|l| l.label.as_str()).collect();
    assert_eq!(
        labels,
        [
            "10/s",
            "600/min",
            "5000/h",
            "100/10s",
            "20000/day",
            "10/s burst 1",
            "2/s bucket 40",
            "10/s per header:x-user",
            "3/s burst 1 per cookie:Sid counts requests"
        ]
    );
    let kinds: Vec<_> = github.kinds().iter().map(ToString::to_string).collect();
    assert_eq!(kinds, ["header:x-user", "cookie:Sid"]);
    assert_eq!(github.costs.len(), 3);
    assert_eq!(
        (github.max_keys.get(), github.max_waiting_per_key.get()),
        (5, 2)
    );
    assert!(!github.cooldown.keyed);
    let retry = &github.retry;
    assert_eq!(
        (retry.attempts.get(), retry.budget, retry.hold.as_secs()),
        (2, 0, 0)
    );
    let bucket = github.limits.iter().find(|limit| !limit.window).unwrap();
    assert_eq!((bucket.burst.get(), bucket.window), (40, false));
    assert_eq!(github.url.authority, "api.github.com:8443");
    assert_eq!(github.route.host.as_deref(), Some("github.local"));
    let fields: Vec<_> = github
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.reveal()))
        .collect();
    assert_eq!(
        fields,
        [
            ("authorization", "Bearer token"),
            ("x-client", "pacegate ü")
        ]
    );
    assert!(!format!("{config:?}").contains("Bearer"));
    assert!(github.tls.ca.as_ref().is_some_and(|ca| ca.is_file()));
    assert_eq!(config.listen.len(), 4);
}

#[test]
fn upstreams_keep_the_order_of_the_file() {
    let text = r#"
listen = "systemd"
upstream.z.url = "http://z"
upstream.b = { url = "http://b", match = { prefix = "/b" } }
upstream.a = { url = "http://a", match = { prefix = "/a" } }
"#;
    let config = Config::parse("proxy.toml", text).unwrap();
    let names: Vec<_> = config
        .upstreams
        .iter()
        .map(|upstream| upstream.name.as_str())
        .collect();
    assert_eq!(names, ["z", "b", "a"]);
}

#[test]
fn every_invalid_file_is_explained() {
    let mut wrong = Vec::new();
    for path in cases("invalid") {
        let said = message(&path);
        let beside = path.with_extension("expected");
        if std::env::var_os("PACEGATE_BLESS").is_some() {
            fs::write(&beside, &said).unwrap();
        }
        let expected = fs::read_to_string(&beside).unwrap_or_default();
        if said != expected {
            wrong.push(format!(
                "{}\nexpected:\n{expected}\nsaid:\n{said}",
                path.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_message_shows_a_secret() {
    for path in cases("invalid") {
        let said = message(&path);
        assert!(!said.contains("s3cret"), "{}:\n{said}", path.display());
    }
}

#[test]
fn the_sample_says_the_defaults() {
    let sample = Config::parse("proxy.toml", SAMPLE).unwrap();
    let minimal = Config::parse("minimal.toml", MINIMAL).unwrap();
    assert_eq!(sample, minimal);
}

#[test]
fn the_sample_has_every_key() {
    for (table, keys) in known_keys() {
        for key in keys {
            let there = SAMPLE.lines().any(|line| {
                let line = line.trim_start_matches("# ");
                line.starts_with(&format!("{key} ="))
                    || line.starts_with("match = {") && line.contains(&format!(" {key} ="))
                    || line.contains(&format!("{{ rate = \"10/s\", {key} ="))
                    || line.contains(&format!("{{ rate = \"2/s\", {key} ="))
                    || line.contains(&format!("{{ {key} = "))
                    || line.contains(&format!("{{ method = \"POST\", {key} = "))
                    || line.contains(&format!("/**\", {key} = "))
                    || line.contains(&format!(", {key} = \"Bearer \""))
                    || line.contains(&format!(", {key} = \""))
                    || line.contains(&format!("{key}]"))
                    || line.starts_with(&format!("[{key}."))
            });
            assert!(there, "`{key}` of `{table}` is not in proxy.toml");
        }
    }
}

/// Every table with the keys that its error of an unknown key offers.
fn known_keys() -> Vec<(&'static str, Vec<String>)> {
    let tables = [
        "",
        "client.",
        "log.",
        "shutdown.",
        "state.",
        "upstream.a.",
        "upstream.a.match.",
        "upstream.a.keys.",
        "upstream.a.retry.",
        "upstream.a.dialect.",
        "upstream.a.cooldown.",
        "upstream.a.queue.",
        "upstream.a.timeouts.",
        "upstream.a.connection.",
        "upstream.a.tls.",
        "upstream.a.headers.x.",
    ];
    let ask = |table: &'static str, text: String| {
        let problems = Config::parse("proxy.toml", &text).unwrap_err().to_string();
        let line = problems.lines().find(|line| line.contains("unknown key"));
        let line = line.unwrap_or_else(|| panic!("no unknown key in {table}: {problems}"));
        let (_, expected) = line.rsplit_once("expected ").unwrap();
        let keys = expected.split('`').skip(1).step_by(2);
        (table, keys.map(str::to_owned).collect::<Vec<_>>())
    };
    let mut known: Vec<_> = tables
        .into_iter()
        .map(|table| ask(table, format!("{table}unheard_of = 1")))
        .collect();
    let limit = "upstream.a.limits = [{ unheard_of = 1 }]".to_owned();
    known.push(ask("upstream.a.limits", limit));
    let cost = "upstream.a.costs = [{ unheard_of = 1 }]".to_owned();
    known.push(ask("upstream.a.costs", cost));
    let signal = "upstream.a.cooldown.signals = [{ unheard_of = 1 }]".to_owned();
    known.push(ask("upstream.a.cooldown.signals", signal));
    assert!(known.iter().all(|(_, keys)| !keys.is_empty()));
    known
}
