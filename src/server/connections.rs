//! The callers' connections of all cores: how many there are, and which one
//! goes when there is no room for another.
//!
//! Each connection holds a [`Seat`]. When none is free, those that have been
//! idle for longest are dismissed, as nginx does; so callers that rest cannot lock
//! others out. Where all are busy, the new connection waits for one to become
//! idle, and further ones wait in the kernel's backlog.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use super::activity::Activity;
use crate::http::interim::{Asker, Audience};

/// Most connections that are dismissed at once, so that the search for the
/// oldest is not done anew for each.
const MOST_DISMISSED: usize = 32;

/// Until idle connections are looked for once more.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The callers' connections, all cores together.
#[derive(Debug)]
pub(crate) struct Connections {
    permits: Arc<Semaphore>,
    /// Accept loops that hold a connection and found no idle one to dismiss.
    crowd: AtomicUsize,
    count: watch::Sender<Count>,
    /// Held for a few lines when a connection opens or closes, or looks for room.
    seats: Mutex<Seats>,
}

#[derive(Debug, Default)]
struct Count {
    /// Connections that are open.
    open: u64,
    /// Accept loops, which may open more.
    loops: u64,
}

#[derive(Debug, Default)]
struct Seats {
    next: u64,
    taken: HashMap<u64, Arc<Activity>>,
}

/// Counts an accept loop as long as it lives.
#[derive(Debug)]
pub(super) struct Loop(Arc<Connections>);

/// One connection's place, as long as it lives.
#[derive(Debug)]
pub(super) struct Seat {
    connections: Arc<Connections>,
    pub(super) number: u64,
    pub(super) activity: Arc<Activity>,
    _permit: OwnedSemaphorePermit,
}

/// Counts a waiting accept loop as long as it lives.
struct Crowd<'a>(&'a AtomicUsize);

impl Connections {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))),
            crowd: AtomicUsize::new(0),
            count: watch::Sender::default(),
            seats: Mutex::default(),
        }
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> u64 {
        self.count.borrow().open
    }

    /// Returns when none is open and no more will be.
    pub(crate) async fn all_closed(&self) {
        let mut count = self.count.subscribe();
        // The sender is in `self`.
        let _ = count.wait_for(|count| count.open + count.loops == 0).await;
    }

    /// Has each look at which stage of a stop the daemon is.
    pub(crate) fn wake_all(&self) {
        self.seats()
            .taken
            .values()
            .for_each(|activity| activity.wake());
    }

    /// Whether somebody waits for a place and found nobody idle.
    pub(super) fn is_crowded(&self) -> bool {
        self.crowd.load(Ordering::Relaxed) > 0
    }

    /// A place for a connection, as soon as there is one.
    pub(super) async fn seat(self: &Arc<Self>) -> Seat {
        let permit = loop {
            if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
                break permit;
            }
            // Where none is idle, the next one to become so goes.
            let _crowd = (!self.make_room()).then(|| Crowd::new(&self.crowd));
            let permit = Arc::clone(&self.permits).acquire_owned();
            // One that was dismissed may have a request just then.
            if let Ok(permit) = timeout(LOOK_AGAIN, permit).await {
                break permit.expect("the permits are never closed");
            }
        };
        let activity = Arc::new(Activity::new());
        let mut seats = self.seats();
        let number = seats.next;
        seats.next += 1;
        seats.taken.insert(number, Arc::clone(&activity));
        drop(seats);
        self.count.send_modify(|count| count.open += 1);
        Seat {
            connections: Arc::clone(self),
            number,
            activity,
            _permit: permit,
        }
    }

    /// Dismisses the connections that have been idle for longest: an eighth of
    /// the idle ones, at least one. False if there is none.
    fn make_room(&self) -> bool {
        let seats = self.seats();
        let idle = seats.taken.values().filter_map(|activity| {
            let since = activity.idle_since()?;
            (!activity.is_unwanted()).then_some((since, activity))
        });
        let mut idle: Vec<_> = idle.collect();
        let count = (idle.len() / 8).clamp(1, MOST_DISMISSED).min(idle.len());
        if count == 0 {
            return false;
        }
        idle.select_nth_unstable_by_key(count - 1, |(since, _)| *since);
        for (_, activity) in &idle[..count] {
            activity.dismiss();
        }
        true
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Audience for Connections {
    fn tell(&self, asker: Asker, head: &[u8]) {
        let seats = self.seats();
        let activity = seats.taken.get(&asker.connection).cloned();
        drop(seats);
        if let Some(activity) = activity {
            activity.hear(asker.request.get() - 1, head);
        }
    }
}

impl Loop {
    pub(super) fn new(connections: &Arc<Connections>) -> Self {
        connections.count.send_modify(|count| count.loops += 1);
        Self(Arc::clone(connections))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.0.count.send_modify(|count| count.loops -= 1);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connections.seats().taken.remove(&self.number);
        self.connections.count.send_modify(|count| count.open -= 1);
    }
}

impl<'a> Crowd<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Crowd<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
