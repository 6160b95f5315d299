//! The unused connections of one core to one upstream: last in, first out, so
//! that the fewest are kept busy and the rest age and go.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Duration;

use hyper::client::conn::http2;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::load::{Load, Streams};
use super::{Connection, Protocol};
use crate::config;
use crate::http::body::Upload;

/// The unused connections of one core.
#[derive(Debug)]
pub(crate) struct Pool {
    idle_timeout: Duration,
    max_age: Duration,
    /// So many of the unused are kept however long they are.
    warm: usize,
    /// Whom to tell when an unused connection closes.
    sweeper: OnceLock<Waker>,
    /// Tells who waits for a connection that one has come back.
    returned: Notify,
    /// Held for a few lines without an await; in practice only ever taken by
    /// the threads that return a connection and the one that takes it.
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    idle: Vec<Connection>,
    /// Their last body has just ended and hyper has not given them back yet; the
    /// first in will be ready first.
    resting: VecDeque<Connection>,
    /// The HTTP/2 connection that the next call joins.
    shared: Option<Shared>,
}

#[derive(Debug)]
struct Shared {
    sender: http2::SendRequest<Upload>,
    load: Arc<Load>,
    opened: Instant,
}

impl Pool {
    /// Keeps `warm` connections open however long they are unused.
    pub(crate) fn new(settings: &config::Connection, warm: usize) -> Self {
        Self {
            idle_timeout: settings.idle_timeout,
            max_age: settings.max_age,
            warm,
            sweeper: OnceLock::new(),
            returned: Notify::new(),
            kept: Mutex::default(),
        }
    }

    /// A connection that is ready this instant.
    pub(crate) fn take(&self, now: Instant) -> Option<Connection> {
        let mut kept = self.kept();
        if let Some(connection) = kept
            .shared
            .as_ref()
            .and_then(|shared| self.join(shared, now))
        {
            return Some(connection);
        }
        while let Some(mut connection) = kept.resting.pop_front() {
            if !connection.is_ready() && !connection.is_closed(self.sweeper()) {
                // To the back: one that lingers must not hold up the others.
                kept.resting.push_back(connection);
                break;
            }
            kept.idle.push(connection);
        }
        loop {
            let mut connection = kept.idle.pop()?;
            if kept.idle.len() < self.warm && self.is_young(&mut connection, now) {
                // As good as used just now.
                connection.used = Some(now);
            }
            if self.is_fresh(&mut connection, now) {
                return Some(connection);
            }
        }
    }

    /// A connection that will be ready in a moment, or turn out to be closed.
    pub(crate) fn take_resting(&self) -> Option<Connection> {
        self.kept().resting.pop_front()
    }

    /// Keeps `connection` for the next request, unless it is used up.
    pub(crate) fn put(&self, mut connection: Connection, now: Instant) {
        if connection.used.is_some() {
            connection.used = Some(now);
        }
        if !self.is_fresh(&mut connection, now) {
            return;
        }
        match connection.protocol {
            Protocol::Http1(_) => self.kept().idle.push(connection),
            Protocol::Lent(_) => self.kept().resting.push_back(connection),
            Protocol::Away => {}
            Protocol::Http2(sender, streams) => self.share(sender, &streams, connection.opened),
        }
        self.returned.notify_one();
    }

    /// Returns when a connection has come back, to one of those who wait.
    pub(crate) async fn returned(&self) {
        self.returned.notified().await;
    }

    /// Lets the next calls join an HTTP/2 connection that was just opened.
    pub(crate) fn offer(&self, connection: &Connection) {
        if let Protocol::Http2(sender, streams) = &connection.protocol {
            self.share(sender.clone(), streams, connection.opened);
        }
    }

    /// Drops what has been unused for too long or was closed. `sweeper` is told
    /// when there is more to drop.
    pub(crate) fn sweep(&self, now: Instant, sweeper: &Waker) {
        self.sweeper.get_or_init(|| sweeper.clone());
        let mut kept = self.kept();
        let mut left = 0;
        kept.idle.retain_mut(|connection| {
            let stays = self.is_fresh(connection, now)
                || left < self.warm && self.is_young(connection, now);
            left += usize::from(stays);
            stays
        });
        kept.resting
            .retain_mut(|connection| self.is_fresh(connection, now));
        kept.shared.take_if(|shared| !self.stays(shared, now));
    }

    /// Whether a connection is alive, young enough and recently used.
    pub(crate) fn is_fresh(&self, connection: &mut Connection, now: Instant) -> bool {
        self.is_young(connection, now) && now < connection.idle_since() + self.idle_timeout
    }

    /// Whether a connection is alive and young enough.
    fn is_young(&self, connection: &mut Connection, now: Instant) -> bool {
        !connection.is_closed(self.sweeper()) && now < connection.opened + self.max_age
    }

    /// Whether there is a connection that the next calls join.
    pub(crate) fn has_shared(&self, now: Instant) -> bool {
        let kept = self.kept();
        kept.shared
            .as_ref()
            .is_some_and(|shared| self.stays(shared, now))
    }

    /// Whether further calls may join.
    fn stays(&self, shared: &Shared, now: Instant) -> bool {
        let unused = shared.load.unused_since().filter(|_| self.warm == 0);
        !shared.sender.is_closed()
            && !shared.load.is_retired()
            && now < shared.opened + self.max_age
            && unused.is_none_or(|since| now < since + self.idle_timeout)
    }

    fn share(&self, sender: http2::SendRequest<Upload>, streams: &Streams, opened: Instant) {
        let mut kept = self.kept();
        if kept
            .shared
            .as_ref()
            .is_none_or(|known| known.opened < opened)
        {
            kept.shared = Some(Shared {
                sender,
                load: Arc::clone(&streams.0),
                opened,
            });
        }
    }

    fn join(&self, shared: &Shared, now: Instant) -> Option<Connection> {
        let usable = self.stays(shared, now) && shared.sender.is_ready() && shared.load.has_room();
        usable.then(|| Connection {
            protocol: Protocol::Http2(shared.sender.clone(), Streams::another(&shared.load)),
            opened: shared.opened,
            used: Some(now),
        })
    }

    fn sweeper(&self) -> &Waker {
        self.sweeper.get().unwrap_or(Waker::noop())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::net::TcpListener;

    use super::super::{Dialer, fake};
    use super::*;
    use crate::config::Config;

    async fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").await.unwrap()
    }

    /// `connection.max_age` is there so that a change of DNS is followed.
    #[tokio::test]
    async fn what_is_too_old_gives_way_to_one_to_where_the_name_points_by_then() {
        let text = "listen = \"systemd\"\n[upstream.a]\nurl = \"http://api.test\"\n\
            connection = { max_age = \"10min\", idle_timeout = \"1h\" }";
        let settings = &Config::parse("test", text).unwrap().upstreams[0];
        let age = settings.connection.max_age;
        let (before, after) = (listener().await, listener().await);
        let names: fake::Names = Arc::new(Mutex::new(before.local_addr().unwrap()));
        let dialer = Dialer::new(settings).unwrap().asking(&names);
        let pool = Pool::new(&settings.connection, 0);

        let (connection, _) = dialer.connect().await.unwrap();
        let _held = before.accept().await.unwrap();
        *names.lock().unwrap() = after.local_addr().unwrap();
        let opened = connection.opened;
        pool.put(connection, opened);
        let young = pool.take(opened + age - Duration::from_nanos(1)).unwrap();
        pool.put(young, opened);
        assert!(pool.take(opened + age).is_none());
        let _connected = dialer.connect().await.unwrap();
        after.accept().await.unwrap();
    }
}
