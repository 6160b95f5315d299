//! Socket activation: systemd's own tool binds the socket and starts pacegate
//! when the first caller connects.

use crate::SOON;
use crate::arrivals::HUNDRED_A_SECOND;
use crate::daemon::{self, BINARY, Daemon};
use crate::program::{self, curl};
use crate::upstream::{Offer, Upstream};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_caller_that_starts_the_service_is_answered() {
    let upstream = Upstream::start(HUNDRED_A_SECOND, Offer::Http2).await;
    let address = daemon::own_address();
    let mut activate = program::command("systemd-socket-activate");
    activate.args(["--listen", &address.to_string(), BINARY]);
    let daemon = Daemon::spawn(activate, "systemd", &upstream);

    // Until systemd-socket-activate listens, the connection is refused.
    let mut curl = curl();
    curl.args([
        "--retry",
        "15",
        "--retry-connrefused",
        "--retry-max-time",
        "15",
    ])
    .arg(format!("http://{address}/job/1"));
    assert_eq!(program::run(&mut curl, SOON * 2).await, "/job/1");
    daemon.stop().await;
}
