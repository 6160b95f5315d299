//! Connections that are opened before a request needs them, and kept
//! (`connection.warm`), so that after a start or a quiet hour nobody waits for a
//! handshake.
//!
//! One task per lane and core. It looks after the core's share whenever one of
//! the core's connections has closed, and ends with the core. Of an upstream that
//! speaks HTTP/2 one connection per core is enough. Where the upstream cannot be
//! reached, or closes what is opened, the pauses between tries double: nobody
//! waits for these connections, and who does wait has a worker that tries.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::Core;
use crate::upstream::ConnectError;

/// The pause after connections were opened or could not be; it doubles up to the
/// longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// When connections have lasted so long, the pauses are short again.
const STEADY: Duration = Duration::from_secs(10);

/// Keeps the share of `core` warm. `closed` tells of each connection that has
/// closed, and of other settings.
pub(super) async fn keep(core: Weak<Core>, mut closed: watch::Receiver<()>) {
    let mut pause = FIRST_PAUSE;
    let mut since = Instant::now();
    loop {
        closed.mark_unchanged();
        let Some(alive) = core.upgrade() else { return };
        let lacks = alive.link.load().lacks(Instant::now());
        if lacks == 0 {
            drop(alive);
            if closed.changed().await.is_err() {
                return;
            }
            if since.elapsed() >= STEADY {
                pause = FIRST_PAUSE;
            }
            continue;
        }
        if let Err(error) = open(&alive, lacks).await {
            let upstream = &alive.shared.name;
            tracing::debug!(%error, upstream, "cannot open a connection ahead of time");
        }
        drop(alive);
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        since = Instant::now();
    }
}

/// Opens at most so many connections, while they are needed.
async fn open(core: &Arc<Core>, most: usize) -> Result<(), ConnectError> {
    let link = core.link.load_full();
    for _ in 0..most {
        // Who opens one that others may share opens it alone.
        let _alone = match link.may_share() {
            true => Some(link.dialing.lock().await),
            false => None,
        };
        if link.lacks(Instant::now()) == 0 {
            break;
        }
        let from = Instant::now();
        let opened = link.dialer.connect().await?;
        core.shared.connected(from.elapsed());
        let connection = link.opened(core, opened);
        link.pool.put(connection, Instant::now());
    }
    Ok(())
}
