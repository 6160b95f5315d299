//! The responses that are pacegate's own.
//!
//! Each carries a problem document (RFC 9457) and `Proxy-Status` (RFC 9209), so
//! that a caller can tell our 503 from the upstream's.

use std::time::Duration;

use ::http::Response;
use ::http::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use bytes::Bytes;
use http_body_util::Full;

use crate::outcome::Outcome;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// The answer to a request that ended as `outcome`. `retry_after` is how long
/// the caller had better stay away; it is rounded up to whole seconds, at least
/// one, and sent where the outcome has it.
pub(crate) fn answer(outcome: Outcome, retry_after: Duration) -> Response<Full<Bytes>> {
    let status = outcome.status();
    let (label, text, error) = (outcome.label(), outcome.text(), outcome.proxy_error());
    let seconds = whole_seconds(retry_after);
    let retry = match outcome.retry_after() {
        true => format!(r#","retry_after":{seconds}"#),
        false => String::new(),
    };
    let problem = format!(
        r#"{{"type":"urn:pacegate:{label}","title":"{text}","status":{}{retry}}}"#,
        status.as_u16()
    );
    let mut response = Response::new(Full::new(Bytes::from(problem)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    let proxy_status = format!(r#"pacegate; error={error}; details="{label}""#);
    if let Ok(value) = HeaderValue::try_from(proxy_status) {
        headers.insert(PROXY_STATUS, value);
    }
    if outcome.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if outcome.closes() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Rounded up, at least one.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up_and_never_zero() {
        for (wait, expected) in [(0, 1), (1000, 1), (1001, 2), (59_500, 60)] {
            assert_eq!(whole_seconds(Duration::from_millis(wait)), expected);
        }
    }

    #[test]
    fn a_refusal_says_why_and_when_to_come_back() {
        let response = answer(Outcome::QueueFull, Duration::from_millis(4200));
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[RETRY_AFTER], "5");
        let status = r#"pacegate; error=connection_limit_reached; details="queue_full""#;
        assert_eq!(response.headers()["proxy-status"], status);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    }

    #[test]
    fn connection_is_closed_only_where_the_rest_cannot_be_trusted() {
        let wait = Duration::ZERO;
        assert!(
            answer(Outcome::Draining, wait)
                .headers()
                .contains_key(CONNECTION)
        );
        assert!(
            !answer(Outcome::NoRoute, wait)
                .headers()
                .contains_key(CONNECTION)
        );
        assert!(
            !answer(Outcome::NoRoute, wait)
                .headers()
                .contains_key(RETRY_AFTER)
        );
    }
}
