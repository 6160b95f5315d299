//! Serves a caller of HTTP/1.1 as long as its requests are of the plain kind
//! (`http::plain`): whole when they are first seen, and nothing special in them.
//!
//! Such a caller needs no buffers of its own: while its request waits there is
//! the request and the socket. The first bytes that are anything else go to hyper
//! together with the connection, which stays there.

use std::future::{Future, poll_fn};
use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http::Response;
use ::http::header::CONNECTION;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::yield_now;
use tokio::time::Instant;

use super::Server;
use super::activity::Activity;
use super::connections::Seat;
use super::linger::Linger;
use crate::http::interim::Asker;
use crate::proxy::AnswerBody;
use crate::scratch::read;
use crate::stall::Stall;
use crate::timer::Timer;
use answer::Answer;
use next::{Next, take};

mod answer;
mod next;

/// Most bytes that are read of what comes after a request before that is
/// answered.
const MOST_AHEAD: usize = 64 << 10;

/// How long the rest of a request is waited for: many programs send head and body
/// one after the other. What takes longer goes to hyper.
const PART: Duration = Duration::from_millis(250);

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

/// Serves the plain requests of `stream`. Returns what has come when something
/// else has; `None` when the connection is over.
pub(super) async fn serve<T>(server: &Server, stream: &mut T, seat: &Seat) -> Option<Vec<u8>>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let activity = &seat.activity;
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
        let head_only = call.head_only();
        let mut timer = std::mem::take(&mut caller.timer);
        // In boxes, so that a caller who waits or rests keeps no room for both.
        let answered = Box::pin(proxy.handle_plain(call, &mut timer, asker));
        let mut answer = caller.answered(answered, head_only).await?;
        caller.timer = timer;
        activity.inbox.answer(number);
        caller.hear();
        if !caller.interim.is_empty() {
            answer.bytes.splice(..0, caller.interim.drain(..));
        }
        caller.stall.ends(answer.end);
        poll_fn(|cx| caller.poll_respond(cx, &mut answer)).await?;
        if answer.closes {
            break;
        }
        drop(underway);
        caller.patience = server.settings.idle_timeout;
    }
    Box::pin(caller.close()).await;
    None
}

impl<T: AsyncRead + AsyncWrite + Unpin> Caller<'_, T> {
    /// Waits for a request, if its beginning comes for the rest as well.
    async fn next(&mut self) -> Next {
        match self.come().await {
            Next::Part(part) => Box::pin(self.rest_of(part)).await,
            next => next,
        }
    }

    /// Waits for something.
    async fn come(&mut self) -> Next {
        if !self.ahead.is_empty() {
            let ahead = std::mem::take(&mut self.ahead);
            return take(self.server, &ahead, &mut self.ahead);
        }
        let mut looked = false;
        loop {
            match poll_fn(|cx| self.poll_next(cx)).await {
                Next::Over if !looked => looked = true,
                next => return next,
            }
            // What the caller did before shows first.
            yield_now().await;
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
        if self.server.is_leaving(self.activity) {
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
        self.activity.stir(self.activity.ended());
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

    /// The answer that comes of `future`, unless the caller hangs up first.
    async fn answered<F>(&mut self, mut future: F, head_only: bool) -> Option<Box<Answer>>
    where
        F: Future<Output = Response<AnswerBody>> + Unpin,
    {
        let response = poll_fn(|cx| match Pin::new(&mut future).poll(cx) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending if self.has_hung_up(cx) || self.is_deaf(cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        let response = response.await?;
        let leaves = self.server.is_leaving(self.activity);
        let closes = leaves || response.headers().contains_key(CONNECTION);
        Some(Box::new(Answer::new(response, head_only, closes)))
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
