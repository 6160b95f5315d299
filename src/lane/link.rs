//! One core's way to the upstream: what opens connections, and those that are
//! open and not in use.
//!
//! A reload that changes how the upstream is reached gives each core another
//! link. What is in flight keeps the old one, which closes with the last of its
//! connections.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::Mutex;

use crate::config;
use crate::upstream::{Dialer, Pool};

/// What one core's connections to the upstream have in common.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) dialer: Arc<Dialer>,
    pub(super) pool: Pool,
    /// Held while a connection is opened that others may then share.
    pub(super) dialing: Mutex<()>,
    /// Whether the last connection could be shared; true until it is known.
    pub(super) shares: AtomicBool,
}

impl Link {
    pub(super) fn new(dialer: Arc<Dialer>, settings: &config::Connection) -> Self {
        Self {
            pool: Pool::new(settings),
            dialing: Mutex::default(),
            shares: AtomicBool::new(dialer.offers_http2()),
            dialer,
        }
    }
}
