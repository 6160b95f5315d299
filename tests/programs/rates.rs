//! The main job: a program sends all it has, 50 requests at a time, to an API
//! with a limit. Every request is answered, the API refuses none, and no window
//! of the limit ever holds too many. How long it took stands beside the ideal
//! and is judged by the reader: it depends on the machine.

use std::io::{self, Write};
use std::time::Duration;

use tokio::process::Command;

use crate::arrivals::Limit;
use crate::daemon::Daemon;
use crate::upstream::{Offer, Upstream};
use crate::{answers, program};

/// So long a program may run beyond three times the ideal.
const SLACK: Duration = Duration::from_secs(30);

/// A limit and the requests that are sent under it.
#[derive(Debug, Clone, Copy)]
struct Load {
    limit: Limit,
    requests: usize,
}

const TEN_A_SECOND: Load = load(10, 1, 100);
const HUNDRED_A_SECOND: Load = load(100, 1, 1000);
const THIRTY_IN_TWO_SECONDS: Load = load(30, 2, 150);

const fn load(count: usize, seconds: u64, requests: usize) -> Load {
    let period = Duration::from_secs(seconds);
    let limit = Limit { count, period };
    Load { limit, requests }
}

#[derive(Debug, Clone, Copy)]
enum Program {
    Curl,
    Python,
    Node,
}

impl Program {
    /// Fetches `/job/1` to `/job/COUNT` of `base`, puts each body
    /// into a file named by its number, and prints status and number of each.
    fn fetch(self, base: &str, count: usize) -> Command {
        let (script, mut command) = match self {
            Self::Curl => {
                let mut curl = program::curl();
                curl.args(["--parallel", "--parallel-max", "50", "--output", "#1"])
                    .args(["--write-out", "%{http_code} %{filename_effective}\n"])
                    .arg(format!("{base}/job/[1-{count}]"));
                return curl;
            }
            Self::Python => ("tests/programs/fetch.py", program::python()),
            Self::Node => ("tests/programs/fetch.mjs", program::node()),
        };
        command
            .arg(program::source(script))
            .arg(base)
            .arg(count.to_string());
        command
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_at_ten_a_second() {
    all_are_answered(Program::Curl, TEN_A_SECOND, Offer::Http2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_at_a_hundred_a_second() {
    all_are_answered(Program::Curl, HUNDRED_A_SECOND, Offer::Http1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_at_thirty_in_two_seconds() {
    all_are_answered(Program::Curl, THIRTY_IN_TWO_SECONDS, Offer::Http2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_at_ten_a_second() {
    all_are_answered(Program::Python, TEN_A_SECOND, Offer::Http1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_at_a_hundred_a_second() {
    all_are_answered(Program::Python, HUNDRED_A_SECOND, Offer::Http2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_at_thirty_in_two_seconds() {
    all_are_answered(Program::Python, THIRTY_IN_TWO_SECONDS, Offer::Http1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_at_ten_a_second() {
    all_are_answered(Program::Node, TEN_A_SECOND, Offer::Http2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_at_a_hundred_a_second() {
    all_are_answered(Program::Node, HUNDRED_A_SECOND, Offer::Http1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_at_thirty_in_two_seconds() {
    all_are_answered(Program::Node, THIRTY_IN_TWO_SECONDS, Offer::Http2).await;
}

async fn all_are_answered(program: Program, load: Load, offer: Offer) {
    let Load { limit, requests } = load;
    let ideal = limit.ideal(requests);
    let upstream = Upstream::start(limit, offer).await;
    let (daemon, base) = Daemon::start(&upstream).await;
    let workplace = daemon.workplace();
    let mut fetch = program.fetch(&base, requests);
    let printed = program::run(fetch.current_dir(&workplace), ideal * 3 + SLACK).await;

    let arrivals = upstream.arrivals();
    assert_eq!(arrivals.refused(), 0, "the upstream had to refuse");
    assert_eq!(arrivals.total(), requests, "requests that arrived");
    let (span, fullest) = (arrivals.span(), arrivals.fullest_window());
    assert!(
        fullest <= limit.count,
        "{fullest} within {:?}",
        limit.period
    );
    assert!(span >= ideal, "took {span:?}, the limit asks for {ideal:?}");
    answers::check(&printed, &workplace, requests);
    let completed = r#"pacegate_requests_total{upstream="api",outcome="completed"}"#;
    daemon.shows(&format!("{completed} {requests}")).await;
    daemon.stop().await;
    report(program, load, offer, span);
}

/// Past libtest's capture, so that the figures of a good run are seen as well.
fn report(program: Program, load: Load, offer: Offer, span: Duration) {
    let Load { limit, requests } = load;
    let line = format!(
        "{:<6} {:>7} {:>5} requests over {:<5} {:8.4} s, ideal {:6.3} s\n",
        format!("{program:?}"),
        limit.to_string(),
        requests,
        format!("{offer:?}"),
        span.as_secs_f64(),
        limit.ideal(requests).as_secs_f64(),
    );
    io::stdout().write_all(line.as_bytes()).unwrap();
}
