//! Heads as the APIs send them; `refusals` has those that say no, `random` those that
//! nobody should send, `presets` what is read with the settings of a preset.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::*;
use crate::config::{Config, Signal, Upstream};

mod presets;
mod random;
mod refusals;

/// 2026-11-25T10:00:00Z, in seconds since 1970.
const NOW: u64 = 1_795_600_800;

/// Dialects without a table of the user's.
const NAMED: [Dialect; 10] = [
    Dialect::None,
    Dialect::RetryAfter,
    Dialect::Github,
    Dialect::Openai,
    Dialect::Anthropic,
    Dialect::Discord,
    Dialect::Shopify,
    Dialect::Reddit,
    Dialect::Hubspot,
    Dialect::Ietf,
];

const UNITS: [Unit; 6] = [
    Unit::Seconds,
    Unit::Milliseconds,
    Unit::EpochSeconds,
    Unit::EpochMilliseconds,
    Unit::Rfc3339,
    Unit::Duration,
];

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

/// The head in `text`, a field a line.
fn head(text: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (name, value) = line.trim().split_once(':').unwrap();
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_str(value.trim()).unwrap());
    }
    headers
}

/// What is left, and for how many milliseconds, by each budget of a head.
fn left(dialect: &Dialect, text: &str) -> Vec<(u64, u128)> {
    let budgets = budgets(dialect, &head(text), now());
    budgets
        .iter()
        .map(|budget| (budget.remaining, budget.reset.as_millis()))
        .collect()
}

fn fields(unit: Unit) -> Dialect {
    let field = |name| Some(HeaderName::from_static(name));
    Dialect::Fields(Fields {
        remaining: field("x-left"),
        used: field("x-used"),
        limit: field("x-limit"),
        reset: HeaderName::from_static("x-reset"),
        unit,
    })
}

/// An upstream with these lines in its table.
fn upstream(lines: &str) -> Upstream {
    let text = format!("listen = \"127.0.0.1:0\"\n[upstream.a]\nurl = \"http://a\"\n{lines}\n");
    let mut config = Config::parse("proxy.toml", &text).unwrap();
    config.upstreams.remove(0)
}

/// The signals of an upstream with these lines in its table.
fn signals(lines: &str) -> Arc<[Signal]> {
    upstream(lines).cooldown.signals
}

const GITHUB: &str = "
    Date: Wed, 25 Nov 2026 10:00:00 GMT
    X-RateLimit-Limit: 5000
    X-RateLimit-Remaining: 4987
    X-RateLimit-Reset: 1795603400
    X-RateLimit-Used: 13
    X-RateLimit-Resource: core";

const OPENAI: &str = "
    x-ratelimit-limit-requests: 60
    x-ratelimit-limit-tokens: 150000
    x-ratelimit-remaining-requests: 59
    x-ratelimit-remaining-tokens: 0
    x-ratelimit-reset-requests: 1s
    x-ratelimit-reset-tokens: 6m0s";

const ANTHROPIC: &str = "
    date: Wed, 25 Nov 2026 10:00:00 GMT
    anthropic-ratelimit-requests-limit: 50
    anthropic-ratelimit-requests-remaining: 49
    anthropic-ratelimit-requests-reset: 2026-11-25T10:00:01Z
    anthropic-ratelimit-input-tokens-limit: 30000
    anthropic-ratelimit-input-tokens-remaining: 29000
    anthropic-ratelimit-input-tokens-reset: 2026-11-25T10:00:02Z
    anthropic-ratelimit-output-tokens-limit: 8000
    anthropic-ratelimit-output-tokens-remaining: 0
    anthropic-ratelimit-output-tokens-reset: 2026-11-25T10:01:00Z";

const DISCORD: &str = "
    X-RateLimit-Limit: 5
    X-RateLimit-Remaining: 0
    X-RateLimit-Reset: 1795600801.250
    X-RateLimit-Reset-After: 1.25
    X-RateLimit-Bucket: abcd1234";

const REDDIT: &str = "
    x-ratelimit-used: 59
    x-ratelimit-remaining: 941.0
    x-ratelimit-reset: 297";

const HUBSPOT: &str = "
    X-HubSpot-RateLimit-Daily: 250000
    X-HubSpot-RateLimit-Daily-Remaining: 249000
    X-HubSpot-RateLimit-Interval-Milliseconds: 10000
    X-HubSpot-RateLimit-Max: 100
    X-HubSpot-RateLimit-Remaining: 99";

const LISTS: &str = r#"
    RateLimit-Policy: "burst";q=100;w=60,"day";q=1000;w=86400, "bytes";q=65535;qu="content-bytes";w=10
    RateLimit-Policy: "calls";q=5;qu="concurrent-requests";w=10, "a;b,\"c";q=9;w=7
    RateLimit: "burst";r=50;t=30, "day";r=900
    RateLimit: "bytes";r=0;t=10,"calls";r=0;t=1, "a;b,\"c";r=4;pk=:c2VjcmV0:"#;

#[test]
fn github_tells_the_end_of_the_hour() {
    assert_eq!(left(&Dialect::Github, GITHUB), [(4987, 2_600_000)]);
}

#[test]
fn openai_tells_requests_and_when_no_token_is_left() {
    let told = left(&Dialect::Openai, OPENAI);
    assert_eq!(told, [(59, 1000), (0, 360_000)]);
    let some = OPENAI.replace("tokens: 0", "tokens: 149984");
    assert_eq!(left(&Dialect::Openai, &some), [(59, 1000)]);
}

#[test]
fn anthropic_tells_requests_and_when_no_token_is_left() {
    let told = left(&Dialect::Anthropic, ANTHROPIC);
    assert_eq!(told, [(49, 1000), (0, 60_000)]);
}

#[test]
fn what_grows_back_by_and_by_tells_how_long_each_takes() {
    let each = |dialect, text: &str| {
        let budgets = budgets(dialect, &head(text), now());
        let each = budgets.iter().map(|budget| budget.each);
        each.map(|each| each.map(|each| each.as_millis()))
            .collect::<Vec<_>>()
    };
    assert_eq!(each(&Dialect::Openai, OPENAI), [Some(1000), None]);
    let day = "
        x-ratelimit-limit-requests: 1000
        x-ratelimit-remaining-requests: 0
        x-ratelimit-reset-requests: 24h0m0s";
    assert_eq!(each(&Dialect::Openai, day), [Some(86_400)]);
    let unknown = day.replace("limit-requests", "of-requests");
    assert_eq!(each(&Dialect::Openai, &unknown), [None]);
    assert_eq!(each(&Dialect::Anthropic, ANTHROPIC), [Some(1000), None]);
    let shopify = "X-Shopify-Shop-Api-Call-Limit: 32/40";
    assert_eq!(each(&Dialect::Shopify, shopify), [Some(500)]);
    assert_eq!(each(&Dialect::Github, GITHUB), [None]);
}

#[test]
fn discord_tells_fractions_of_seconds_and_a_budget_per_bucket() {
    assert_eq!(left(&Dialect::Discord, DISCORD), [(0, 1250)]);
    let other = DISCORD.replace("abcd1234", "ffff");
    let name = |text: &str| budgets(&Dialect::Discord, &head(text), now())[0].name;
    assert_ne!(name(DISCORD), name(&other));
    assert_eq!(name(DISCORD), name(DISCORD));
}

#[test]
fn shopify_tells_how_full_the_bucket_is() {
    let shopify = |value| {
        left(
            &Dialect::Shopify,
            &format!("X-Shopify-Shop-Api-Call-Limit: {value}"),
        )
    };
    assert_eq!(shopify("32/40"), [(8, 16_000)]);
    assert_eq!(shopify("40/40"), [(0, 20_000)]);
    assert_eq!(shopify("41/40"), [(0, 20_000)]);
    assert_eq!(shopify("100/400"), [(300, 5_000)]);
    for whole_or_wrong in ["0/40", "0/0", "32", "/40", "a/b", "-1/40"] {
        assert_eq!(shopify(whole_or_wrong), []);
    }
}

#[test]
fn reddit_tells_decimals() {
    assert_eq!(left(&Dialect::Reddit, REDDIT), [(941, 297_000)]);
    let less = REDDIT.replace("941.0", "0.9");
    assert_eq!(left(&Dialect::Reddit, &less), [(0, 297_000)]);
}

#[test]
fn hubspot_tells_its_rolling_window() {
    assert_eq!(left(&Dialect::Hubspot, HUBSPOT), [(99, 10_000)]);
}

#[test]
fn the_ietf_has_three_generations() {
    let ietf = |text: &str| left(&Dialect::Ietf, text);
    let separate = "RateLimit-Limit: 100, 100;w=60\nRateLimit-Remaining: 12\nRateLimit-Reset: 30";
    assert_eq!(ietf(separate), [(12, 30_000)]);
    let dictionary = "RateLimit: limit=100, remaining=50, reset=5\nRateLimit-Policy: 100;w=60";
    assert_eq!(ietf(dictionary), [(50, 5_000)]);
    let lists = [(50, 30_000), (900, 86_400_000), (0, 10_000), (4, 7_000)];
    assert_eq!(ietf(LISTS), lists);
    assert_eq!(ietf("RateLimit: default;r=50;t=30"), [(50, 30_000)]);
    for wrong in [
        "RateLimit: ",
        "RateLimit: \"a\";r=-1;t=3",
        "RateLimit: \"a\";r=1",
        "RateLimit: \"a;r=1;t=3",
        "RateLimit: remaining=1",
        "RateLimit-Remaining: 1",
    ] {
        assert_eq!(ietf(wrong), [], "{wrong}");
    }
}

#[test]
fn an_old_response_of_a_cache_tells_nothing() {
    assert_eq!(
        left(&Dialect::Github, &format!("{GITHUB}\nAge: 0")).len(),
        1
    );
    assert_eq!(left(&Dialect::Github, &format!("{GITHUB}\nAge: 7")), []);
}

#[test]
fn fields_of_any_name_are_read_in_their_unit() {
    for (unit, reset) in [
        (Unit::Seconds, "90"),
        (Unit::Milliseconds, "90000"),
        (Unit::EpochSeconds, "1795600890"),
        (Unit::EpochMilliseconds, "1795600890000"),
        (Unit::Rfc3339, "2026-11-25T10:01:30Z"),
        (Unit::Duration, "1m30s"),
    ] {
        let tells = |text: &str| left(&fields(unit), &format!("{text}\nx-reset: {reset}"));
        assert_eq!(tells("x-left: 3"), [(3, 90_000)], "{unit:?}");
        assert_eq!(tells("x-used: 7\nx-limit: 10"), [(3, 90_000)]);
        assert_eq!(tells("x-used: 12\nx-limit: 10"), [(0, 90_000)]);
        assert_eq!(tells("x-left: none\nx-used: 7\nx-limit: 10"), [(3, 90_000)]);
        assert_eq!(tells("x-used: 7"), []);
    }
}

#[test]
fn a_time_is_taken_against_the_clock_of_the_response() {
    let late = GITHUB.replace("10:00:00", "10:43:00");
    assert_eq!(left(&Dialect::Github, &late), [(4987, 20_000)]);
    let undated = GITHUB.replace("Date", "X-Date");
    assert_eq!(left(&Dialect::Github, &undated), [(4987, 2_600_000)]);
    let over = GITHUB.replace("10:00:00", "11:00:00");
    assert_eq!(left(&Dialect::Github, &over), []);
}

#[test]
fn no_reset_is_believed_beyond_a_day() {
    for (unit, reset) in [
        (Unit::Seconds, "99999999999999999999999"),
        (Unit::EpochSeconds, "99999999999"),
        (Unit::EpochMilliseconds, "1795600890000000"),
        (Unit::Rfc3339, "9999-12-31T23:59:59Z"),
        (Unit::Duration, "1000000h"),
    ] {
        let text = format!("x-left: 3\nx-reset: {reset}");
        assert_eq!(left(&fields(unit), &text), [(3, 86_400_000)], "{unit:?}");
    }
}
