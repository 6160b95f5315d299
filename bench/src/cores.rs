//! Which core runs what: the proxy alone on the first core, origin and load together on the second, so that the proxy's figures
//! are its own. With a single core nothing is pinned.
//!
//! A child inherits the affinity of the thread that spawns it, so the tool (one thread) moves to the proxy's core for the moment
//! of a spawn and back.

use std::fmt;
use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The layout of one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cores {
    /// The proxy's core and the load's, if there are two.
    pair: Option<(usize, usize)>,
}

impl Cores {
    /// Takes the first two cores this process may use and pins the calling thread to the load's.
    pub(crate) fn claim() -> io::Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        let pair = cores.next().zip(cores.next());
        if let Some((_, load)) = pair {
            pin(load)?;
        }
        Ok(Self { pair })
    }

    /// Runs `spawn` on the proxy's core, so that the process it starts stays there.
    pub(crate) fn on_proxy_core<T>(&self, spawn: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let Some((proxy, load)) = self.pair else {
            return spawn();
        };
        pin(proxy)?;
        let spawned = spawn();
        pin(load)?;
        spawned
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pair {
            Some((proxy, load)) => write!(
                f,
                "proxy alone on CPU {proxy}, origin and load on CPU {load}"
            ),
            None => write!(f, "one core, nothing pinned"),
        }
    }
}

fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}
