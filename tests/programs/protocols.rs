//! WebSocket and gRPC through pacegate, with the libraries that people use, at
//! both ends.

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::time::timeout;

use crate::daemon::Daemon;
use crate::{SOON, program};

/// A server written in Python that prints its port; killed when dropped.
async fn serve(script: &str) -> (Child, u16) {
    let mut python = program::python();
    python.arg(program::source(script)).arg("serve");
    let mut child = program::spawn(&mut python);
    let mut printed = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    let read = timeout(SOON * 2, printed.read_line(&mut line)).await;
    read.expect("a port").unwrap();
    let port = line.trim().parse();
    (
        child,
        port.unwrap_or_else(|_| panic!("`{script}` printed `{line}`")),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_carries_messages_both_ways_and_closes_properly() {
    let script = "tests/programs/websocket_echo.py";
    let (_server, port) = serve(script).await;
    let api = format!("url = \"http://127.0.0.1:{port}\"\nlimits = [\"10/h\"]\n");
    let (daemon, address) = Daemon::before(&api).await;
    let mut python = program::python();
    let url = format!("ws://{address}/echo");
    python.arg(program::source(script)).args(["call", &url]);
    assert_eq!(program::run(&mut python, SOON * 2).await, "closed 1000\n");
    let ended = "pacegate_requests_total{upstream=\"api\",outcome=\"completed\"} 1";
    daemon.shows(ended).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_calls_pass_with_their_messages_trailers_and_status() {
    let script = "tests/programs/grpc_calls.py";
    let (_server, port) = serve(script).await;
    let api = format!(
        "url = \"http://127.0.0.1:{port}\"\nlimits = [\"10/h\"]\n\
         connection.http2 = \"prior-knowledge\"\n"
    );
    let (daemon, address) = Daemon::before(&api).await;
    let mut python = program::python();
    python.arg(program::source(script)).args(["call", &address]);
    assert_eq!(program::run(&mut python, SOON * 2).await, "all called\n");
    // Three unary calls, two streams and an error.
    let ended = "pacegate_requests_total{upstream=\"api\",outcome=\"completed\"} 6";
    daemon.shows(ended).await;
    daemon.stop().await;
}
