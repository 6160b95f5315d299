//! Callers that speak HTTP/2 without TLS and without asking first.

use crate::arrivals::HUNDRED_A_SECOND;
use crate::daemon::Daemon;
use crate::upstream::{Offer, Upstream};
use crate::{SOON, answers, program};

/// More than come at once, so that some wait.
const REQUESTS: usize = 150;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_opens_many_connections() {
    let upstream = Upstream::start(HUNDRED_A_SECOND, Offer::Http2).await;
    let (daemon, base) = Daemon::start(&upstream).await;
    let workplace = daemon.workplace();
    let mut curl = program::curl();
    // A connection each: curl 7.88 breaks those that it uses again (curl/curl#10634).
    curl.args([
        "--http2-prior-knowledge",
        "--parallel",
        "--parallel-immediate",
    ])
    .args(["--parallel-max", "150", "--output", "#1"])
    .args([
        "--write-out",
        "%{http_code} %{filename_effective} HTTP/%{http_version}\n",
    ])
    .arg(format!("{base}/job/[1-{REQUESTS}]"));
    let printed = program::run(curl.current_dir(&workplace), SOON).await;
    // A line of another version stays as it is, and is found there.
    answers::check(&printed.replace(" HTTP/2\n", "\n"), &workplace, REQUESTS);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_sends_all_over_one_connection() {
    let upstream = Upstream::start(HUNDRED_A_SECOND, Offer::Http2).await;
    let (daemon, base) = Daemon::start(&upstream).await;
    let workplace = daemon.workplace();
    let mut node = program::node();
    node.arg(program::source("tests/programs/multiplex.mjs"))
        .args([&base, &REQUESTS.to_string()]);
    let printed = program::run(node.current_dir(&workplace), SOON).await;
    answers::check(&printed, &workplace, REQUESTS);
    daemon.stop().await;
}
