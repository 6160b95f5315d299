//! WebSocket and gRPC through pacegate, with the libraries that people use, at
//! both ends.

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use crate::daemon::Daemon;
use crate::{SOON, program};

/// A program written in Python that is killed when dropped, and what it prints.
struct Running {
    printed: BufReader<ChildStdout>,
    _child: Child,
}

impl Running {
    fn start(script: &str, arguments: &[&str]) -> Self {
        let mut python = program::python();
        python.arg(program::source(script)).args(arguments);
        let mut child = program::spawn(&mut python);
        Self {
            printed: BufReader::new(child.stdout.take().unwrap()),
            _child: child,
        }
    }

    /// The next line that it prints.
    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = timeout(SOON * 2, self.printed.read_line(&mut line)).await;
        read.expect("a line").unwrap();
        line.trim().to_owned()
    }
}

/// A server that prints its port.
async fn serve(script: &str) -> (Running, u16) {
    let mut server = Running::start(script, &["serve"]);
    let line = server.line().await;
    let port = line.parse();
    (
        server,
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

/// RFC 6455, section 7.4.1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_tells_both_ends_of_a_websocket_that_it_goes_away() {
    let script = "tests/programs/websocket_echo.py";
    let (mut server, port) = serve(script).await;
    let api = format!("url = \"http://127.0.0.1:{port}\"\n[shutdown]\ndrain = \"100ms\"\n");
    let (daemon, address) = Daemon::before(&api).await;
    let mut client = Running::start(script, &["wait", &format!("ws://{address}/echo")]);
    assert_eq!(client.line().await, "open");
    daemon.stop().await;
    assert_eq!(client.line().await, "closed 1001");
    assert_eq!(server.line().await, "closed 1001");
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
