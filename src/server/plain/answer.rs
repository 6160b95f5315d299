//! A response on its way to a plain caller.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::http::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderValue, TRANSFER_ENCODING};
use ::http::{Response, StatusCode, response};
use http_body_util::Either;
use hyper::body::Body;
use hyper::ext::ReasonPhrase;
use tokio::time::Instant;

use crate::http::date;
use crate::http::plain::response::{LAST_CHUNK, write_chunk};
use crate::proxy::AnswerBody;

/// Most bytes of a response that are put together before they are written.
const MOST_GATHERED: usize = 64 << 10;

/// A response on its way to the caller.
pub(super) struct Answer {
    /// Bytes to write, of which so many are written.
    pub(super) bytes: Vec<u8>,
    pub(super) written: usize,
    body: AnswerBody,
    /// Bytes of the body that are to come, if the head says so; otherwise it goes in
    /// chunks.
    left: Option<u64>,
    state: State,
    /// Whether the connection closes afterwards.
    pub(super) closes: bool,
    /// When it is cut off, whatever moves.
    pub(super) end: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// There may be more of the body.
    More,
    /// All of it is in `bytes` or written.
    Whole,
    /// It broke.
    Broken,
}

impl Answer {
    pub(super) fn new(response: Response<AnswerBody>, head_only: bool, closes: bool) -> Self {
        let (mut parts, mut body) = response.into_parts();
        let (ready, end) = match &mut body {
            Either::Left(passage) => (passage.take_ready(), passage.end()),
            Either::Right(_) => (None, None),
        };
        let exact = body.size_hint().exact();
        let status = parts.status;
        let bare = head_only
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let bytes = match ready {
            Some(mut ready) => {
                if closes {
                    ready.add(&CONNECTION, &[b"close"]);
                }
                ready.into_bytes()
            }
            None => {
                if closes {
                    let close = HeaderValue::from_static("close");
                    parts.headers.insert(CONNECTION, close);
                }
                encode(&mut parts, exact, bare)
            }
        };
        if bare && let Either::Left(passage) = &mut body {
            passage.end_with_head();
        }
        let announced = parts.headers.get(CONTENT_LENGTH);
        let announced = announced.and_then(|length| length.to_str().ok()?.parse().ok());
        let left = announced.or(exact);
        Self {
            bytes,
            written: 0,
            state: match bare || body.is_end_stream() || left == Some(0) {
                true => State::Whole,
                false => State::More,
            },
            left,
            closes,
            end,
            body,
        }
    }

    /// Puts together what has come of the body; ready when that is all, or an error,
    /// after which there is no more.
    pub(super) fn gather(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ()>> {
        while self.state == State::More && self.bytes.len() < MOST_GATHERED {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    // Trailers were not asked for: such a request is not plain.
                    if let Ok(data) = frame.into_data() {
                        self.add(&data);
                    }
                    // An HTTP/2 upstream may end its stream after the last byte.
                    if self.body.is_end_stream() || self.left == Some(0) {
                        self.end();
                    }
                }
                Some(Err(_)) => self.state = State::Broken,
                None => self.end(),
            }
        }
        match self.state {
            State::More => Poll::Pending,
            State::Whole => Poll::Ready(Ok(())),
            State::Broken => Poll::Ready(Err(())),
        }
    }

    fn add(&mut self, data: &[u8]) {
        let Some(left) = &mut self.left else {
            return write_chunk(&mut self.bytes, data);
        };
        match left.checked_sub(data.len() as u64) {
            Some(less) => {
                *left = less;
                self.bytes.extend_from_slice(data);
            }
            None => self.state = State::Broken,
        }
    }

    /// The body has no more.
    fn end(&mut self) {
        self.state = match (self.state, self.left) {
            (State::Broken, _) | (_, Some(1..)) => State::Broken,
            (_, Some(0)) => State::Whole,
            (_, None) => {
                self.bytes.extend_from_slice(LAST_CHUNK);
                State::Whole
            }
        };
    }

    pub(super) fn wrote(&mut self, length: usize) {
        self.written += length;
        if self.written == self.bytes.len() {
            self.bytes.clear();
            self.written = 0;
        }
    }
}

/// The head of a response whose fields are in a map, and whose body is `exact`
/// bytes long, if that is known; there is none if it is `bare`.
fn encode(parts: &mut response::Parts, exact: Option<u64>, bare: bool) -> Vec<u8> {
    let headers = &mut parts.headers;
    match exact {
        _ if headers.contains_key(CONTENT_LENGTH) => {}
        // What a HEAD is not told the length of.
        Some(0) | None if bare => {}
        Some(exact) => {
            headers.insert(CONTENT_LENGTH, exact.into());
        }
        None => {
            let chunked = HeaderValue::from_static("chunked");
            headers.insert(TRANSFER_ENCODING, chunked);
        }
    }
    let canonical = parts.status.canonical_reason().unwrap_or_default();
    let reason = parts.extensions.get::<ReasonPhrase>();
    let reason = reason.map_or(canonical.as_bytes(), ReasonPhrase::as_bytes);
    let mut bytes = Vec::with_capacity(512);
    for part in [
        b"HTTP/1.1 ",
        parts.status.as_str().as_bytes(),
        b" ",
        reason,
        b"\r\n",
    ] {
        bytes.extend_from_slice(part);
    }
    for (name, value) in &*headers {
        let name: &[u8] = name.as_ref();
        for part in [name, b": ", value.as_bytes(), b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    }
    if !headers.contains_key(DATE) {
        bytes.extend_from_slice(b"date: ");
        date::now(|now| bytes.extend_from_slice(now));
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}
