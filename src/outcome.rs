//! How a request can end: the closed list, and what each end means to the
//! caller.
//!
//! Every request that reached pacegate ends in exactly one [`Outcome`]. Status,
//! label, text and `Proxy-Status` error are one `match` each, so that a new
//! outcome does not compile until all of them are filled in. Who counts an
//! outcome, and when, is `lane::account`'s business; how it is written as a
//! response is `http::answer`'s.

use std::error::Error;
use std::fmt;

use http::StatusCode;

/// The end of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    /// The upstream answered and the whole body was passed on.
    Completed,
    /// No place in the queue.
    QueueFull,
    /// No seat for another upgrade.
    UpgradesFull,
    /// At admission the projected wait was longer than allowed.
    WaitTooLong,
    /// Its time ran out while it waited.
    Expired,
    /// The caller went away before its turn.
    Abandoned,
    /// No connection to the upstream.
    ConnectFailed,
    /// The upstream gave no response that can be passed on.
    UpstreamFailed(Break),
    /// No response head in time.
    UpstreamTimeout,
    /// Either side broke after the turn was taken, or while the body streamed.
    Aborted,
    /// The body is longer than allowed.
    TooLarge,
    /// The daemon is stopping and its drain time ran out.
    Draining,
    /// No upstream matches.
    NoRoute,
    /// The request is malformed, ambiguous or of a kind that is not proxied.
    BadRequest(Fault),
}

/// Why there is no response that can be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Break {
    /// The connection ended before a byte of the response.
    Unanswered,
    /// The connection ended inside the response head.
    Incomplete,
    /// What came is not HTTP, or not of one meaning (RFC 9112, section 6.3).
    Malformed,
    /// The head is longer than allowed or has more fields.
    HeadTooLong,
    /// A transfer coding other than exactly `chunked`, which nobody else could
    /// undo (RFC 9112, section 6.1).
    TransferCoding,
    /// A 101 that nobody asked for, or to another protocol (RFC 9110, section
    /// 15.2.2).
    Upgrade,
    /// More interim answers (1xx) than are taken.
    Interim,
    /// The HTTP/2 stream was reset (RFC 9113, section 5.4.2).
    Reset,
}

/// What is wrong with a request that is refused as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// The request line is not `method SP target SP version` (RFC 9112, section 3).
    RequestLine,
    /// The version is not 1.0 or 1.1 (RFC 9110, section 2.5).
    Version,
    /// The target is not one that can be forwarded (RFC 9112, section 3.2).
    Target,
    /// The request line is longer than allowed (RFC 9110, section 15.5.15).
    TargetTooLong,
    /// A field line is malformed, or one is folded (RFC 9112, section 5).
    Field,
    /// The head is longer than allowed or has too many fields (RFC 6585, section 5).
    HeadTooLarge,
    /// The head did not come in time (RFC 9110, section 15.5.9).
    HeadTimeout,
    /// Not exactly one valid `Host` field (RFC 9112, section 3.2).
    Host,
    /// `CONNECT` is for forward proxies (RFC 9110, section 9.3.6).
    Connect,
    /// Not exactly one valid `Content-Length` field (RFC 9112, section 6.3).
    Length,
    /// A transfer coding other than exactly `chunked` (RFC 9112, section 6.1).
    TransferCoding,
    /// Both `Content-Length` and `Transfer-Encoding`, or the latter twice or in
    /// HTTP/1.0 (RFC 9112, section 6.1).
    Framing,
    /// A chunk or a trailer field is malformed (RFC 9112, section 7.1).
    Chunk,
    /// An expectation other than `100-continue` (RFC 9110, section 10.1.1).
    Expectation,
    /// `TRACE` has come to its last hop, and that is us (RFC 9110, section 7.6.2).
    Trace,
    /// It has come through here before (RFC 5842, section 7.2).
    Loop,
}

impl Outcome {
    /// One of each label, in the order of `index`.
    pub(crate) const ALL: [Self; 14] = [
        Self::Completed,
        Self::QueueFull,
        Self::WaitTooLong,
        Self::Expired,
        Self::Abandoned,
        Self::ConnectFailed,
        Self::UpstreamFailed(Break::Unanswered),
        Self::UpstreamTimeout,
        Self::Aborted,
        Self::TooLarge,
        Self::Draining,
        Self::NoRoute,
        Self::BadRequest(Fault::Target),
        Self::UpgradesFull,
    ];

    /// Its position in [`Outcome::ALL`].
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Completed => 0,
            Self::QueueFull => 1,
            Self::WaitTooLong => 2,
            Self::Expired => 3,
            Self::Abandoned => 4,
            Self::ConnectFailed => 5,
            Self::UpstreamFailed(_) => 6,
            Self::UpstreamTimeout => 7,
            Self::Aborted => 8,
            Self::TooLarge => 9,
            Self::Draining => 10,
            Self::NoRoute => 11,
            Self::BadRequest(_) => 12,
            Self::UpgradesFull => 13,
        }
    }

    /// The word for it in metrics, logs and problem types.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::QueueFull => "queue_full",
            Self::UpgradesFull => "upgrades_full",
            Self::WaitTooLong => "wait_too_long",
            Self::Expired => "expired",
            Self::Abandoned => "abandoned",
            Self::ConnectFailed => "connect_failed",
            Self::UpstreamFailed(_) => "upstream_failed",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::Aborted => "aborted",
            Self::TooLarge => "too_large",
            Self::Draining => "draining",
            Self::NoRoute => "no_route",
            Self::BadRequest(_) => "bad_request",
        }
    }

    /// The status of our own answer. The two ends that have none of ours
    /// (`completed`) or nobody to read it (`abandoned`) name the nearest.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Completed => StatusCode::OK,
            Self::QueueFull | Self::UpgradesFull | Self::WaitTooLong | Self::Draining => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Expired | Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::ConnectFailed | Self::UpstreamFailed(_) => StatusCode::BAD_GATEWAY,
            Self::Abandoned | Self::Aborted => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::BadRequest(fault) => fault.status(),
        }
    }

    /// One sentence for the caller.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Completed => "the upstream answered",
            Self::QueueFull => "the queue has no place",
            Self::UpgradesFull => "as many upgrades as allowed are open",
            Self::WaitTooLong => "the wait would be longer than allowed",
            Self::Expired => "the longest wait has passed",
            Self::Abandoned => "the caller went away",
            Self::ConnectFailed => "no connection to the upstream",
            Self::UpstreamFailed(broken) => broken.text(),
            Self::UpstreamTimeout => "the upstream did not answer in time",
            Self::Aborted => "the request body stopped before its end",
            Self::TooLarge => "the request body is longer than allowed",
            Self::Draining => "the proxy is stopping",
            Self::NoRoute => "no upstream takes this host and path",
            Self::BadRequest(fault) => fault.text(),
        }
    }

    /// The error type of RFC 9209, section 2.3, for `Proxy-Status`.
    pub(crate) fn proxy_error(self) -> &'static str {
        match self {
            Self::Completed => "",
            Self::QueueFull | Self::UpgradesFull | Self::WaitTooLong => "connection_limit_reached",
            Self::Expired | Self::UpstreamTimeout => "http_response_timeout",
            Self::Abandoned | Self::Aborted => "http_request_error",
            Self::ConnectFailed => "destination_unavailable",
            Self::UpstreamFailed(broken) => broken.proxy_error(),
            Self::TooLarge | Self::BadRequest(_) => "http_request_denied",
            Self::Draining => "proxy_internal_response",
            Self::NoRoute => "destination_not_found",
        }
    }

    /// Whether the caller is told when to come back.
    pub(crate) fn retry_after(self) -> bool {
        match self {
            Self::QueueFull
            | Self::UpgradesFull
            | Self::WaitTooLong
            | Self::Expired
            | Self::Draining => true,
            Self::Completed
            | Self::Abandoned
            | Self::ConnectFailed
            | Self::UpstreamFailed(_)
            | Self::UpstreamTimeout
            | Self::Aborted
            | Self::TooLarge
            | Self::NoRoute
            | Self::BadRequest(_) => false,
        }
    }

    /// Whether the caller's connection is closed after the answer: the rest of
    /// its request cannot be trusted, or we are about to leave.
    pub(crate) fn closes(self) -> bool {
        match self {
            Self::TooLarge | Self::Draining | Self::BadRequest(_) | Self::Aborted => true,
            Self::Completed
            | Self::QueueFull
            | Self::UpgradesFull
            | Self::WaitTooLong
            | Self::Expired
            | Self::Abandoned
            | Self::ConnectFailed
            | Self::UpstreamFailed(_)
            | Self::UpstreamTimeout
            | Self::NoRoute => false,
        }
    }
}

impl Fault {
    fn status(self) -> StatusCode {
        match self {
            Self::RequestLine
            | Self::Target
            | Self::Field
            | Self::Host
            | Self::Length
            | Self::Framing
            | Self::Chunk => StatusCode::BAD_REQUEST,
            Self::HeadTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Connect | Self::TransferCoding | Self::Trace => StatusCode::NOT_IMPLEMENTED,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Loop => StatusCode::LOOP_DETECTED,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::RequestLine => "the request line is malformed",
            Self::Version => "only HTTP/1.0, HTTP/1.1 and HTTP/2 are understood",
            Self::Target => "the request target cannot be forwarded",
            Self::TargetTooLong => "the request line is longer than allowed",
            Self::Field => "a header field is malformed",
            Self::HeadTooLarge => "the request head is larger than allowed",
            Self::HeadTimeout => "the request head did not come in time",
            Self::Host => "the request needs exactly one valid Host field",
            Self::Connect => "CONNECT is not proxied",
            Self::Length => "the Content-Length is not one number",
            Self::TransferCoding => "only the transfer coding `chunked` is understood",
            Self::Framing => "a request has either Content-Length or Transfer-Encoding",
            Self::Chunk => "the request body is not well chunked",
            Self::Expectation => "only the expectation `100-continue` is understood",
            Self::Trace => "TRACE is not answered here",
            Self::Loop => "the request has come through here before",
        }
    }
}

impl Break {
    /// One sentence for the caller.
    fn text(self) -> &'static str {
        match self {
            Self::Unanswered => "the upstream closed the connection without an answer",
            Self::Incomplete => "the upstream closed the connection inside the head of its answer",
            Self::Malformed => "the upstream's answer is not valid HTTP",
            Self::HeadTooLong => "the head of the upstream's answer is too long",
            Self::TransferCoding => "the upstream's answer is coded in a way other than `chunked`",
            Self::Upgrade => "the upstream changed to a protocol that was not asked for",
            Self::Interim => "the upstream sent interim answers without end",
            Self::Reset => "the upstream reset the request",
        }
    }

    /// The error type of RFC 9209, section 2.3.
    fn proxy_error(self) -> &'static str {
        match self {
            Self::Unanswered => "connection_terminated",
            Self::Incomplete => "http_response_incomplete",
            Self::Malformed | Self::Interim | Self::Reset => "http_protocol_error",
            Self::HeadTooLong => "http_response_header_section_size",
            Self::TransferCoding => "http_response_transfer_coding",
            Self::Upgrade => "http_upgrade_failed",
        }
    }
}

/// As the error of a caller's stream, where a body turns out to be malformed.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_stands_at_its_own_index_with_its_own_label() {
        for (position, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(outcome.index(), position);
        }
        let labels: std::collections::HashSet<_> =
            Outcome::ALL.iter().map(|outcome| outcome.label()).collect();
        assert_eq!(labels.len(), Outcome::ALL.len());
    }
}
