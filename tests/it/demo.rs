//! `pacegate demo` from outside: the real program, and what it says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// The demo takes about 11 s.
const LONGEST: Duration = Duration::from_secs(60);

/// A demo that runs, killed when dropped.
struct Demo {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: String,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pacegate"))
            .arg("demo")
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("pacegate starts");
        let out = BufReader::new(child.stdout.take().expect("its output is piped"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self {
            child,
            lines,
            seen: String::new(),
        }
    }

    /// Reads up to a line that contains `text`, or to the end.
    fn read_until(&mut self, text: &str) -> Option<String> {
        loop {
            match self.lines.recv_timeout(LONGEST) {
                Ok(line) => {
                    self.seen.push_str(&line);
                    self.seen.push('\n');
                    if line.contains(text) {
                        return Some(line);
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return None,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs after:\n{}", self.seen),
            }
        }
    }

    fn read_to_end(mut self) -> (ExitStatus, String) {
        while self.read_until("\0").is_some() {}
        let status = self.child.wait().expect("it has ended");
        (status, std::mem::take(&mut self.seen))
    }

    fn tell(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The two figures of a line of the verdict.
fn figures<'a>(seen: &'a str, what: &str) -> Vec<&'a str> {
    let start = format!("  {what}  ");
    let line = seen.lines().find_map(|line| line.strip_prefix(&start));
    let line = line.unwrap_or_else(|| panic!("no `{what}` in:\n{seen}"));
    line.split_whitespace().collect()
}

#[test]
fn every_request_is_answered_through_pacegate_and_most_are_refused_without() {
    let (status, seen) = Demo::start(&[]).read_to_end();
    assert_eq!(status.code(), Some(0), "{seen}");
    assert_eq!(figures(&seen, "sent"), ["100", "100"], "{seen}");
    assert_eq!(figures(&seen, "answered 200"), ["10", "100"], "{seen}");
    assert_eq!(
        figures(&seen, "refused by the API (429)"),
        ["90", "0"],
        "{seen}"
    );
    assert_eq!(figures(&seen, "lost"), ["0", "0"], "{seen}");
    assert!(!seen.contains('\x1b'), "a pipe gets no color:\n{seen}");
    assert!(
        seen.lines()
            .filter(|line| line.contains(" queued "))
            .count()
            >= 9,
        "{seen}"
    );
}

#[test]
fn with_serve_it_can_be_tried_until_it_is_told_to_stop() {
    let mut demo = Demo::start(&["--serve"]);
    let line = demo.read_until("  pacegate  http://").expect("it ended");
    let address = line.rsplit('/').next().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONGEST)).unwrap();
    let request = format!("GET /hello HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("in this second\n"), "{answer}");

    demo.read_until("curl -s http://").expect("it ended");
    demo.tell(Signal::INT);
    let (status, seen) = demo.read_to_end();
    assert_eq!(status.code(), Some(0), "{seen}");
    assert!(
        seen.ends_with("Stopped: 0 requests were finished first, 0 cut off.\n"),
        "{seen}"
    );
}

#[test]
fn told_to_stop_before_its_end_it_fails_and_says_so() {
    let mut demo = Demo::start(&[]);
    demo.read_until(" queued ").expect("it ended");
    demo.tell(Signal::TERM);
    let (status, seen) = demo.read_to_end();
    assert_eq!(status.code(), Some(1), "{seen}");
    assert!(!seen.contains("Verdict"), "{seen}");
}
