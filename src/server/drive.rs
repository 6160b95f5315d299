//! Drives a connection that hyper serves, and knows when it is to end.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::Server;
use super::activity::Activity;
use crate::stall::Stall;
use crate::timer::Timer;

/// How long an idle HTTP/2 connection that is shut down may take nothing of what is
/// left, and give no last word.
pub(super) const FAREWELL: Duration = Duration::from_secs(5);

impl Server {
    /// Drives `connection`. Once the daemon begins to stop, or the connection's
    /// place is needed, or it has been idle for too long, shuts it down after the
    /// request it is on. Then it waits for the caller's last word, over HTTP/2 for
    /// an answer to a ping, and with `farewell` only as long as something is written
    /// in each such span, at most for `client.stall_timeout`.
    ///
    /// This task is woken when there is reason to look at the flags, which costs a
    /// busy connection next to nothing.
    pub(super) async fn drive<C>(
        &self,
        activity: &Activity,
        mut connection: Pin<Box<C>>,
        shut: impl Fn(Pin<&mut C>),
        farewell: Option<Duration>,
    ) -> hyper::Result<()>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut timer = Timer::default();
        let (mut began, mut told) = (false, false);
        let (mut last_word, mut written) = (None, 0);
        poll_fn(move |cx| {
            if !began {
                began = true;
                if self.is_leaving(activity) {
                    // Accepted just before: a request that has come with it is
                    // taken up first, or it would be thrown away.
                    let polled = connection.as_mut().poll(cx);
                    if polled.is_ready() {
                        return polled;
                    }
                }
            }
            // A head that has begun to come is not thrown away.
            if !told && self.is_leaving(activity) && !activity.is_coming() {
                told = true;
                shut(connection.as_mut());
            }
            let polled = connection.as_mut().poll(cx);
            if polled.is_ready() {
                return polled;
            }
            let Some(since) = activity.idle_since() else {
                last_word = None;
                return Poll::Pending;
            };
            if !told {
                if !self.connections.is_crowded() && !self.is_leaving(activity) {
                    ready!(timer.poll(cx, since + self.settings.idle_timeout));
                }
                told = true;
                shut(connection.as_mut());
                let polled = connection.as_mut().poll(cx);
                if polled.is_ready() {
                    return polled;
                }
            }
            let Some(farewell) = farewell else {
                return Poll::Pending;
            };
            let last_word = last_word.get_or_insert_with(|| {
                let end = Instant::now() + self.settings.stall_timeout;
                Stall::new(farewell).until(Some(end))
            });
            ready!(last_word.poll_unless_moved(cx, activity.written(), &mut written));
            Poll::Ready(Ok(()))
        })
        .await
    }
}
