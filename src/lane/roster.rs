//! The lanes that there are: those of the settings, and those that a reload has
//! taken out and that have not ended yet.

use std::sync::{Arc, Weak};

use super::Shared;

/// All lanes at one time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roster {
    /// Those of the settings, in their order.
    pub(crate) lanes: Vec<Arc<Shared>>,
    /// They take no more requests, and live as long as one of theirs.
    leaving: Vec<Weak<Shared>>,
    /// Whether each request writes one line when it ends.
    pub(crate) log_requests: bool,
}

impl Roster {
    /// The first of all.
    pub(crate) fn new(lanes: Vec<Arc<Shared>>, log_requests: bool) -> Self {
        Self {
            lanes,
            leaving: Vec::new(),
            log_requests,
        }
    }

    /// The one that follows it.
    pub(crate) fn next(&self, lanes: Vec<Arc<Shared>>, log_requests: bool) -> Self {
        let all = self.all();
        let gone = |lane: &&Arc<Shared>| !lanes.iter().any(|other| Arc::ptr_eq(other, lane));
        Self {
            leaving: all.iter().filter(gone).map(Arc::downgrade).collect(),
            lanes,
            log_requests,
        }
    }

    /// Every lane that still has a request, those that leave included.
    pub(crate) fn all(&self) -> Vec<Arc<Shared>> {
        let leaving = self.leaving.iter().filter_map(Weak::upgrade);
        self.lanes.iter().cloned().chain(leaving).collect()
    }
}
