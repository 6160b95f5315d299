//! Serves a caller of HTTP/1.1 as long as its requests are of the plain kind
//! (`http::plain`): whole when they are first seen, and nothing special in them.
//!
//! Such a caller needs no buffers of its own: while its request waits there is
//! the request and the socket. The first bytes that are anything else go to hyper
//! together with the connection, which stays there.

use std::future::{Future, poll_fn};
use std::num::NonZeroU64;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderValue, TRANSFER_ENCODING};
use ::http::{Response, StatusCode, response};
use http_body_util::Either;
use hyper::body::Body;
use hyper::ext::ReasonPhrase;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::yield_now;
use tokio::time::Instant;

use super::Server;
use super::activity::Activity;
use super::connections::Seat;
use super::framing::head::{Body as BodyEnd, Head as StrictHead};
use super::linger::Linger;
use crate::http::body::Stall;
use crate::http::chunked::Bounds;
use crate::http::date;
use crate::http::interim::Asker;
use crate::http::plain::request::Head;
use crate::http::plain::response::{LAST_CHUNK, write_chunk};
use crate::proxy::{AnswerBody, PlainCall, Proxy};
use crate::timer::{Timer, woken_by};
use crate::upstream::read;

/// Most bytes that are read of what comes after a request before that is
/// answered.
const MOST_AHEAD: usize = 64 << 10;

/// Most bytes of a request that are kept while the rest is on its way, and how long:
/// many programs send head and body one after the other. What is longer or takes
/// longer goes to hyper.
const LONGEST_PART: usize = 8 << 10;
const PART: Duration = Duration::from_millis(250);

/// Most bytes of a response that are put together before they are written.
const MOST_GATHERED: usize = 64 << 10;

/// A caller that has sent nothing but plain requests.
struct Caller<'a, T> {
    server: &'a Server,
    activity: &'a Activity,
    stream: &'a mut T,
    /// What has come after the last request.
    ahead: Vec<u8>,
    /// Interim answers that are not written yet.
    interim: Vec<u8>,
    stall: Stall,
    /// How long it may be idle.
    patience: Duration,
    timer: Timer,
}

/// What comes next on a connection.
enum Next {
    Call(Arc<Proxy>, PlainCall),
    /// The beginning of a plain request, of which the rest may come in a moment.
    Part(Vec<u8>),
    /// Something that is not plain.
    Other(Vec<u8>),
    /// It has been idle for too long, or its place is needed.
    Over,
    /// The caller has closed it.
    Gone,
}

/// A response on its way to the caller.
struct Answer {
    /// Bytes to write, of which so many are written.
    bytes: Vec<u8>,
    written: usize,
    body: AnswerBody,
    chunked: bool,
    /// Whether all of it is in `bytes` or written.
    whole: bool,
    /// Whether the connection closes afterwards.
    closes: bool,
}

/// Serves the plain requests of `stream`. Returns what has come when something
/// else has; `None` when the connection is over.
pub(super) async fn serve<T>(server: &Server, stream: &mut T, seat: &Seat) -> Option<Vec<u8>>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let activity = &seat.activity;
    let mut draining = server.draining.clone();
    let mut draining = pin!(draining.wait_for(|draining| *draining));
    let mut cut = server.cut.clone();
    let mut cut = pin!(cut.wait_for(|cut| *cut));
    let mut dismissed = pin!(activity.dismissed());
    // What they say is read from the flags, here and in the lane.
    woken_by(draining.as_mut()).await;
    woken_by(cut.as_mut()).await;
    woken_by(dismissed.as_mut()).await;
    poll_fn(|cx| {
        activity.inbox.belongs_to(cx.waker());
        Poll::Ready(())
    })
    .await;
    let mut caller = Caller {
        server,
        activity,
        stream,
        ahead: Vec::new(),
        interim: Vec::new(),
        stall: Stall::new(server.settings.stall_timeout),
        patience: server.settings.header_timeout,
        timer: Timer::default(),
    };
    loop {
        let (proxy, call) = match caller.next().await {
            Next::Call(proxy, call) => (proxy, call),
            Next::Part(bytes) | Next::Other(bytes) => return Some(bytes),
            Next::Over => break,
            Next::Gone => return None,
        };
        let (number, underway) = activity.begin();
        let asker = NonZeroU64::new(number + 1).map(|request| Asker {
            connection: seat.number,
            request,
        });
        let mut timer = std::mem::take(&mut caller.timer);
        // In boxes, so that a caller who waits or rests keeps no room for both.
        let request = (call, asker);
        let answered = Box::pin(answer(server, activity, &proxy, request, &mut timer));
        let mut answer = caller.while_there(answered).await?;
        caller.timer = timer;
        activity.inbox.answer(number);
        caller.hear();
        if !caller.interim.is_empty() {
            answer.bytes.splice(..0, caller.interim.drain(..));
        }
        poll_fn(|cx| caller.poll_respond(cx, &mut answer)).await?;
        if answer.closes {
            break;
        }
        drop(underway);
        caller.patience = server.settings.idle_timeout;
    }
    caller.close().await;
    None
}

impl<T: AsyncRead + AsyncWrite + Unpin> Caller<'_, T> {
    /// Waits for a request.
    async fn next(&mut self) -> Next {
        if !self.ahead.is_empty() {
            let ahead = std::mem::take(&mut self.ahead);
            let next = take(self.server, &ahead, &mut self.ahead);
            return self.whole(next).await;
        }
        let mut next = poll_fn(|cx| self.poll_next(cx)).await;
        if matches!(next, Next::Over) {
            // What the caller did before shows first.
            yield_now().await;
            next = poll_fn(|cx| self.poll_next(cx)).await;
        }
        self.whole(next).await
    }

    /// The same with the rest of its request, if that has not come.
    async fn whole(&mut self, next: Next) -> Next {
        match next {
            Next::Part(part) => Box::pin(self.rest_of(part)).await,
            next => next,
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let (server, ahead) = (self.server, &mut self.ahead);
        let next = read(self.stream, cx, |bytes| match bytes {
            [] => Next::Gone,
            bytes => take(server, bytes, ahead),
        });
        if let Poll::Ready(next) = next {
            return Poll::Ready(next.unwrap_or(Next::Gone));
        }
        if is_leaving(self.server, self.activity) {
            return Poll::Ready(Next::Over);
        }
        let Some(since) = self.activity.idle_since() else {
            return Poll::Pending;
        };
        if !server.connections.is_crowded() {
            ready!(self.timer.poll(cx, since + self.patience));
        }
        Poll::Ready(Next::Over)
    }

    /// Waits for the rest of a request of which `part` has come.
    async fn rest_of(&mut self, mut part: Vec<u8>) -> Next {
        self.activity.stir();
        let end = Instant::now() + PART;
        poll_fn(|cx| {
            loop {
                let come = read(self.stream, cx, |bytes| {
                    part.extend_from_slice(bytes);
                    !bytes.is_empty()
                });
                match come {
                    Poll::Ready(Ok(true)) => {}
                    Poll::Pending if self.timer.poll(cx, end).is_pending() => {
                        return Poll::Pending;
                    }
                    // Too slow, or gone: hyper knows what that means.
                    _ => return Poll::Ready(Next::Other(std::mem::take(&mut part))),
                }
                match take(self.server, &part, &mut self.ahead) {
                    Next::Part(_) => {}
                    next => return Poll::Ready(next),
                }
            }
        })
        .await
    }

    /// What comes of `future`, unless the caller hangs up first.
    async fn while_there<F: Future + Unpin>(&mut self, mut future: F) -> Option<F::Output> {
        poll_fn(|cx| match Pin::new(&mut future).poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.has_hung_up(cx) || self.is_deaf(cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Takes the interim answers that have come.
    fn hear(&mut self) {
        if let Some(heads) = self.activity.inbox.take() {
            self.interim.extend_from_slice(&heads);
        }
    }

    /// Writes interim answers. Whether the caller cannot be told any more.
    fn is_deaf(&mut self, cx: &mut Context<'_>) -> bool {
        self.hear();
        while !self.interim.is_empty() {
            match Pin::new(&mut *self.stream).poll_write(cx, &self.interim) {
                Poll::Ready(Ok(length @ 1..)) => drop(self.interim.drain(..length)),
                Poll::Ready(_) => return true,
                Poll::Pending => return false,
            }
        }
        false
    }

    /// Whether the caller has closed the connection. What it sends meanwhile is
    /// kept.
    fn has_hung_up(&mut self, cx: &mut Context<'_>) -> bool {
        while self.ahead.len() < MOST_AHEAD {
            let ahead = &mut self.ahead;
            let come = read(self.stream, cx, |bytes| {
                ahead.extend_from_slice(bytes);
                !bytes.is_empty()
            });
            match come {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false) | Err(_)) => return true,
                Poll::Pending => return false,
            }
        }
        false
    }

    /// Ready when all is written; with `None` if that cannot be.
    fn poll_respond(&mut self, cx: &mut Context<'_>, answer: &mut Answer) -> Poll<Option<()>> {
        loop {
            let gathered = answer.gather(cx);
            let left = &answer.bytes[answer.written..];
            if left.is_empty() {
                return match gathered {
                    Poll::Ready(Ok(())) => Poll::Ready(Some(())),
                    // Its end tells the caller that it is not whole.
                    Poll::Ready(Err(())) => Poll::Ready(None),
                    Poll::Pending if self.has_hung_up(cx) => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                };
            }
            match Pin::new(&mut *self.stream).poll_write(cx, left) {
                Poll::Ready(Ok(length @ 1..)) => {
                    self.stall.moved();
                    answer.wrote(length);
                }
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending => {
                    ready!(self.stall.poll(cx));
                    return Poll::Ready(None);
                }
            }
        }
    }

    /// Closes the connection so that the caller sees all that was written.
    async fn close(self) {
        let mut linger = Linger::new();
        let expected = !self.ahead.is_empty();
        let mut shut = false;
        poll_fn(|cx| {
            if !shut {
                shut = true;
                // A caller that has gone needs no word.
                let _: Result<(), _> = ready!(Pin::new(&mut *self.stream).poll_shutdown(cx));
            }
            linger.poll(cx, self.stream, expected)
        })
        .await;
    }
}

/// Whether a connection closes as soon as it is idle.
fn is_leaving(server: &Server, activity: &Activity) -> bool {
    activity.is_unwanted() || *server.draining.borrow()
}

/// Has `call` answered.
async fn answer(
    server: &Server,
    activity: &Activity,
    proxy: &Proxy,
    (call, asker): (PlainCall, Option<Asker>),
    timer: &mut Timer,
) -> Box<Answer> {
    let head_only = call.head_only();
    let response = proxy.handle_plain(call, timer, asker).await;
    let closes = is_leaving(server, activity) || response.headers().contains_key(CONNECTION);
    Box::new(Answer::new(response, head_only, closes))
}

/// Takes the first of what has come: `bytes`. What follows it goes to `ahead`.
fn take(server: &Server, bytes: &[u8], ahead: &mut Vec<u8>) -> Next {
    let proxy = server.proxy.load_full();
    let Some((head, [end_of_head, end])) = plain(server, bytes) else {
        return Next::Other(bytes.to_vec());
    };
    if end > bytes.len() && end <= LONGEST_PART {
        return Next::Part(bytes.to_vec());
    }
    let body = bytes.get(end_of_head..end);
    match body.and_then(|body| proxy.plain(&head, body)) {
        Some(call) => {
            ahead.extend_from_slice(&bytes[end..]);
            Next::Call(proxy, call)
        }
        None => Next::Other(bytes.to_vec()),
    }
}

/// The plain head at the start of `bytes`, where it ends, and where its request
/// does.
fn plain<'a>(server: &Server, bytes: &'a [u8]) -> Option<(Head<'a>, [usize; 2])> {
    let bounds = Bounds {
        bytes: server.settings.max_header_bytes,
        fields: server.settings.max_headers,
    };
    let (length, heading) = StrictHead::default().read(bytes, &bounds).ok()??;
    let BodyEnd::Length(body) = heading.body else {
        return None;
    };
    let end = length.checked_add(usize::try_from(body).ok()?)?;
    Some((Head::read(&bytes[..length])?, [length, end]))
}

impl Answer {
    fn new(response: Response<AnswerBody>, head_only: bool, closes: bool) -> Self {
        let (mut parts, mut body) = response.into_parts();
        let ready = match &mut body {
            Either::Left(passage) => passage.take_ready(),
            Either::Right(_) => None,
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
        Self {
            bytes,
            written: 0,
            whole: bare || body.is_end_stream(),
            chunked: exact.is_none(),
            closes,
            body,
        }
    }

    /// Puts together what has come of the body; ready when that is all, or an
    /// error.
    fn gather(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ()>> {
        while !self.whole && self.bytes.len() < MOST_GATHERED {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    // Trailers were not asked for: such a request is not plain.
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    match self.chunked {
                        true => write_chunk(&mut self.bytes, &data),
                        false => self.bytes.extend_from_slice(&data),
                    }
                }
                Some(Err(_)) => return Poll::Ready(Err(())),
                None => {
                    self.whole = true;
                    if self.chunked {
                        self.bytes.extend_from_slice(LAST_CHUNK);
                    }
                }
            }
        }
        match self.whole {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }

    fn wrote(&mut self, length: usize) {
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
