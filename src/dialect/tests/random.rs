//! Heads at random: nothing breaks its word, whatever they hold.

use proptest::prelude::*;

use super::*;
use crate::fuzz::{self, Random};

/// Everything that reads a head; fails if it breaks its word.
fn read_all(headers: &HeaderMap, signals: &[Signal], body: &[u8]) {
    for dialect in NAMED.into_iter().chain(UNITS.map(fields)) {
        let budgets = budgets(&dialect, headers, now());
        assert!(budgets.len() <= MOST);
        for budget in budgets {
            assert!(budget.reset <= LONGEST && !budget.reset.is_zero());
        }
        let wait = retry_after(&dialect, headers, now());
        assert!(wait.is_none_or(|wait| wait <= LONGEST && !wait.is_zero()));
    }
    for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::FORBIDDEN] {
        let says = body_says(signals, status, headers, body);
        match verdict(signals, status, headers) {
            Verdict::Throttled => assert!(says),
            Verdict::AskBody => {}
            Verdict::Fine => assert!(!says || headers.contains_key("content-encoding")),
        }
    }
}

fn every_kind_of_signal() -> Arc<[Signal]> {
    signals(
        "cooldown.signals = [429, { status = 403, header = \"retry-after\", equals = \"0\" }, \
            { status = 403, body = \"limit\" }]",
    )
}

/// The names of all fields that are read.
const NAMES: [&str; 32] = [
    "age",
    "date",
    "retry-after",
    "retry-after-ms",
    "content-encoding",
    "x-left",
    "x-used",
    "x-limit",
    "x-reset",
    "ratelimit",
    "ratelimit-policy",
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-ratelimit-reset-after",
    "x-ratelimit-resource",
    "x-ratelimit-bucket",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "anthropic-ratelimit-requests-remaining",
    "anthropic-ratelimit-requests-reset",
    "anthropic-ratelimit-tokens-remaining",
    "anthropic-ratelimit-tokens-reset",
    "anthropic-ratelimit-input-tokens-remaining",
    "anthropic-ratelimit-input-tokens-reset",
    "x-hubspot-ratelimit-remaining",
    "x-hubspot-ratelimit-interval-milliseconds",
    "x-shopify-shop-api-call-limit",
];

proptest! {
    #[test]
    fn any_head_is_read_within_bounds(
        lines in prop::collection::vec((0..NAMES.len(), prop::collection::vec(any::<u8>(), 0..40)), 0..12),
        body in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.append(HeaderName::from_static(NAMES[name]), value);
            }
        }
        read_all(&headers, &every_kind_of_signal(), &body);
    }
}

/// Pieces of values, good and bad.
const PIECES: [&str; 40] = [
    "0",
    "1",
    "7",
    "41.0",
    "99999999999999999999",
    "1795603400",
    "1795603400000",
    "-",
    "+",
    ".",
    ",",
    ";",
    "=",
    "\"",
    "\\",
    " ",
    ":",
    "/",
    "32/40",
    "6m0s",
    "20ms",
    "2m59.56s",
    "d",
    "h",
    "ns",
    "2026-11-25T10:00:00Z",
    "T",
    "Z",
    "+01:00",
    "Wed, 25 Nov 2026 10:00:00 GMT",
    "limit=100",
    "remaining=50",
    "reset=5",
    "\"a\";r=50;t=30",
    "\"a\";q=100;w=60",
    ";qu=\"content-bytes\"",
    ";pk=:YQ==:",
    "inf",
    "e9",
    "\u{e9}",
];

/// A value of pieces, damaged now and then.
fn value(random: &mut Random) -> Vec<u8> {
    let pieces = (0..random.below(6)).map(|_| random.pick(&PIECES));
    let mut value = pieces.collect::<String>().into_bytes();
    if random.once_in(4) {
        random.mutate(&mut value);
    }
    value
}

#[test]
fn fuzz_heads_of_plausible_pieces() {
    let signals = every_kind_of_signal();
    fuzz::run(5_000, |random| {
        let mut headers = HeaderMap::new();
        for _ in 0..random.below(8) {
            if let Ok(value) = HeaderValue::from_bytes(&value(random)) {
                let name = random.pick(&NAMES);
                headers.append(HeaderName::from_static(name), value);
            }
        }
        let body = value(random);
        read_all(&headers, &signals, &body);
    });
}
