//! Which answers refuse, and for how long.

use super::*;

#[test]
fn a_refusal_says_how_long_in_seconds_or_by_a_date() {
    let date = "Date: Wed, 25 Nov 2026 12:00:00 GMT";
    let then = "Retry-After: Wed, 25 Nov 2026 12:00:30 GMT";
    for (text, millis) in [
        ("Retry-After: 7", Some(7_000)),
        ("Retry-After: 2.0", Some(2_000)),
        ("Retry-After: 0.25", Some(250)),
        ("retry-after-ms: 1500\nRetry-After: 2", Some(1_500)),
        ("retry-after-ms: soon\nRetry-After: 2", Some(2_000)),
        (&format!("{date}\n{then}"), Some(30_000)),
        (then, Some(7_230_000)),
        ("Retry-After: Wed, 25 Nov 2026 09:00:00 GMT", None),
        ("Retry-After: 315360000", Some(86_400_000)),
        ("Retry-After: 0", None),
        ("Retry-After: -5", None),
        ("Retry-After: inf", None),
        ("Retry-After: soon", None),
        ("", None),
    ] {
        let asked = retry_after(&Dialect::RetryAfter, &head(text), now());
        assert_eq!(asked.map(|wait| wait.as_millis()), millis, "{text}");
        assert_eq!(retry_after(&Dialect::None, &head(text), now()), None);
    }
}

#[test]
fn without_settings_429_and_503_with_retry_after_are_refusals() {
    let signals = signals("");
    let judge = |status, text| {
        let status = StatusCode::from_u16(status).unwrap();
        verdict(&signals, status, &head(text))
    };
    assert_eq!(judge(429, ""), Verdict::Throttled);
    assert_eq!(judge(503, "Retry-After: soon"), Verdict::Throttled);
    assert_eq!(judge(503, ""), Verdict::Fine);
    assert_eq!(judge(200, "Retry-After: 1"), Verdict::Fine);
}

#[test]
fn a_signal_holds_when_all_of_it_does() {
    let signals = signals(
        "cooldown.signals = [\
            { status = 403, header = \"X-Left\", equals = \"none\" }, \
            { status = 403, body = \"Rate Limit\" }, \
            { status = 200, header = \"x-graphql\", body = \"THROTTLED\" }]",
    );
    let judge = |status, text| {
        let status = StatusCode::from_u16(status).unwrap();
        verdict(&signals, status, &head(text))
    };
    let says = |status, text, body: &str| {
        let status = StatusCode::from_u16(status).unwrap();
        body_says(&signals, status, &head(text), body.as_bytes())
    };
    assert_eq!(judge(403, "x-left: 1\nx-left: None"), Verdict::Throttled);
    assert_eq!(judge(403, "x-left: 1"), Verdict::AskBody);
    assert_eq!(judge(403, "content-encoding: gzip"), Verdict::AskBody);
    assert_eq!(judge(403, "content-encoding: br"), Verdict::Fine);
    assert_eq!(judge(200, "x-graphql: 1"), Verdict::AskBody);
    assert_eq!(judge(200, ""), Verdict::Fine);
    assert_eq!(judge(429, ""), Verdict::Fine);
    assert!(says(403, "", "{\"message\":\"API rate limit exceeded\"}"));
    assert!(!says(403, "", "forbidden"));
    assert!(!says(403, "", ""));
    assert!(says(200, "x-graphql: 1", "throttled"));
    assert!(!says(200, "", "throttled"));
    let far = format!("{}rate limit", " ".repeat(BODY_PREFIX - 9));
    assert!(!says(403, "", &far));
    assert!(says(403, "", &far[1..]));
}
