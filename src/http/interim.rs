//! Interim answers (1xx) on their way from an HTTP/1.1 upstream to an HTTP/1.1
//! caller (RFC 9110, section 15.2; RFC 8297 for 103).
//!
//! They go beside the answer: who reads from the upstream sees them come
//! (`upstream::interim` before hyper, which takes them off, and `upstream::plain`),
//! an [`Audience`] knows the caller's connection by the [`Asker`] that its request
//! carries, and who writes to the caller puts them before the answer
//! (`server::interim` behind hyper, which cannot send them, and `server::plain`). A
//! request that meets none pays two stores.

use std::fmt;
use std::num::NonZeroU64;

use ::http::StatusCode;
use ::http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRAILER};

use super::head;

/// Most fields of an interim answer, as of any other.
const MOST_FIELDS: usize = 100;

/// Which request of which caller's connection an interim answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) connection: u64,
    /// Counted from 1 on that connection.
    pub(crate) request: NonZeroU64,
}

/// Who takes interim answers to their callers.
pub(crate) trait Audience: fmt::Debug + Send + Sync {
    /// Passes `head` on to the caller, unless it has gone or has its answer.
    fn tell(&self, asker: Asker, head: &[u8]);
}

/// The status of the answer with this `head`, and the head as it is passed on:
/// without what concerns the upstream's connection only, or a body that an interim
/// answer has not. `None` if it is not valid.
pub(crate) fn pass_on(head: &[u8]) -> Option<(StatusCode, Vec<u8>)> {
    let mut room = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut parsed = httparse::Response::new(&mut room);
    let mut config = httparse::ParserConfig::default();
    config.allow_spaces_after_header_name_in_responses(true);
    let whole = config.parse_response(&mut parsed, head).ok()?;
    if whole.is_partial() {
        return None;
    }
    let status = StatusCode::from_u16(parsed.code?).ok()?;
    let mut fields = HeaderMap::with_capacity(parsed.headers.len());
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        fields.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    head::strip_hop_by_hop(&mut fields);
    let reason = parsed.reason.unwrap_or_default();
    let mut written = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        if fields.contains_key(&name) && name != CONTENT_LENGTH && name != TRAILER {
            written.extend_from_slice(field.name.as_bytes());
            written.extend_from_slice(b": ");
            written.extend_from_slice(field.value);
            written.extend_from_slice(b"\r\n");
        }
    }
    written.extend_from_slice(b"\r\n");
    Some((status, written))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(head: &str) -> Option<(u16, String)> {
        let (status, head) = pass_on(head.as_bytes())?;
        Some((status.as_u16(), String::from_utf8(head).unwrap()))
    }

    /// RFC 9110, section 7.6.1, and section 15.2: no body, so no length of one.
    #[test]
    fn what_concerns_one_connection_or_a_body_stays_behind() {
        let came = "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nlink: </b>\r\n\
            Connection: x-hop\r\nx-hop: 1\r\nkeep-alive: 5\r\nContent-Length: 5\r\n\
            transfer-encoding: chunked\r\nTrailer: a\r\nX-Kept : 1\r\n\r\n";
        let goes = "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nlink: </b>\r\n\
            X-Kept: 1\r\n\r\n";
        assert_eq!(passed(came), Some((103, goes.to_owned())));
    }

    #[test]
    fn what_is_not_a_head_is_not_passed_on() {
        for wrong in [
            "HTTP/1.1 103 Early Hints\r\n a: 1\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\na\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\na: 1\r\n",
            "HTTP/1.1 1x3 Early Hints\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\na: 1\r\n b: 2\r\n\r\n",
        ] {
            assert_eq!(passed(wrong), None, "{wrong}");
        }
    }
}
