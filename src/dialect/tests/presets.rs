//! What the presets make of the answers of their APIs.

use super::*;

#[test]
fn presets_know_the_refusals_of_their_apis() {
    const SECONDARY: &str = "{\"message\":\"You have exceeded a secondary rate limit.\"}";
    const RATELIMITED: &str = "{\"errors\":[{\"extensions\":{\"code\":\"RATELIMITED\"}}]}";
    const INVALID: &str = "{\"errors\":[{\"extensions\":{\"code\":\"INVALID_INPUT\"}}]}";
    const USER: &str = "{\"error\":{\"errors\":[{\"reason\":\"userRateLimitExceeded\"}]}}";
    for (preset, status, fields, body, refuses) in [
        ("github", 403, "X-RateLimit-Remaining: 0", "", true),
        ("github", 403, "Retry-After: 60", "", true),
        ("github", 403, "X-RateLimit-Remaining: 9", SECONDARY, true),
        ("github", 403, "X-RateLimit-Remaining: 9", INVALID, false),
        ("linear", 400, "", RATELIMITED, true),
        ("linear", 400, "", INVALID, false),
        ("google-drive", 403, "", USER, true),
        ("google-drive", 403, "", INVALID, false),
        ("anthropic", 529, "", "", true),
        ("notion", 529, "", "", true),
        ("openai", 529, "", "", false),
        ("openai", 429, "", "", true),
    ] {
        let signals = signals(&format!("preset = \"{preset}\""));
        let (status, fields) = (StatusCode::from_u16(status).unwrap(), head(fields));
        let says = match verdict(&signals, status, &fields) {
            Verdict::Fine => false,
            Verdict::Throttled => true,
            Verdict::AskBody => body_says(&signals, status, &fields, body.as_bytes()),
        };
        assert_eq!(says, refuses, "{preset}: {status} {fields:?} {body}");
    }
}

#[test]
fn presets_read_what_their_apis_say_is_left() {
    const LINEAR: &str = "
        X-RateLimit-Requests-Limit: 1500
        X-RateLimit-Requests-Remaining: 1200
        X-RateLimit-Requests-Reset: 1795600805000";
    const GITLAB: &str = "
        RateLimit-Limit: 2000
        RateLimit-Remaining: 1200
        RateLimit-Reset: 1795600805";
    for (preset, text, told) in [
        ("github", GITHUB, [(4987, 2_600_000)]),
        ("discord", DISCORD, [(0, 1250)]),
        ("reddit", REDDIT, [(941, 297_000)]),
        ("linear", LINEAR, [(1200, 5000)]),
        ("gitlab", GITLAB, [(1200, 5000)]),
        (
            "x",
            &GITLAB.replace("RateLimit", "x-rate-limit"),
            [(1200, 5000)],
        ),
    ] {
        let dialect = upstream(&format!("preset = \"{preset}\"")).dialect;
        assert_eq!(left(&dialect, text), told, "{preset}");
    }
}
