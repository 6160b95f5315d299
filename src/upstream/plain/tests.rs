//! Responses as an upstream sends them, read by us and by hyper: what we make of
//! them is what hyper makes of them.

use ::http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::runtime::Handle;

use super::super::{Connection, Dialer, Outgoing, Protocol};
use super::*;
use crate::config::Config;
use crate::fuzz::{self, Random};
use crate::http::plain::request::{self, Rewrite};

/// What came of a request.
#[derive(Debug, PartialEq)]
enum Came {
    Response(StatusCode, HeaderMap, Option<Vec<u8>>),
    Failure(&'static str),
}

fn dialer() -> Dialer {
    let text = "listen = \"systemd\"\n[upstream.a]\nurl = \"http://a\"\n";
    Dialer::new(&Config::parse("test", text).unwrap().upstreams[0]).unwrap()
}

fn plain(method: &str) -> Plain {
    let text = format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n");
    let rewrite = Rewrite::new(0, None, false, false, &[]).unwrap();
    let head = request::Head::read(text.as_bytes()).unwrap();
    head.request(&rewrite, b"")
}

/// Sends `request` to an upstream that answers with `pieces` and closes.
async fn send(dialer: &Dialer, request: Outgoing, pieces: Vec<Vec<u8>>) -> Came {
    let (ours, mut theirs) = duplex(1 << 20);
    let upstream = async move {
        let mut room = [0; 1024];
        while !room.ends_with(b"\r\n\r\n") {
            let length = theirs.read(&mut room).await.unwrap();
            if length == 0 || room[..length].ends_with(b"\r\n\r\n") {
                break;
            }
        }
        for piece in pieces {
            // Who has seen enough does not listen.
            let _ = theirs.write_all(&piece).await;
            tokio::task::yield_now().await;
        }
    };
    let mut connection = Connection::new(Protocol::Http1(Line {
        stream: Box::new(ours),
        encrypted: false,
        guard: None,
    }));
    let exchange = async {
        let sent = connection.send(request, dialer, &Handle::current(), (), None);
        match sent.await {
            Err(failed) => Came::Failure(failed.outcome().text()),
            Ok(response) => {
                let (head, body) = response.into_parts();
                let body = body.collect().await.ok();
                let body = body.map(|body| body.to_bytes().to_vec());
                Came::Response(head.status, head.headers, body)
            }
        }
    };
    tokio::join!(upstream, exchange).1
}

const LINES: &[&str] = &[
    "HTTP/1.1 200 OK",
    "HTTP/1.1 200 ",
    "HTTP/1.1 204 No Content",
    "HTTP/1.1 304 Not Modified",
    "HTTP/1.1 404 Not\tFound",
    "HTTP/1.0 200 OK",
    "HTTP/1.1 103 Early Hints",
    "HTTP/1.1 101 Switching Protocols",
    "HTTP/1.1 999 x",
    "HTTP/1.1 099 x",
    "HTTP/1.2 200 OK",
];

const FIELDS: &[&str] = &[
    "Content-Length: 5",
    "content-length : 5",
    "Content-Length: 5, 5",
    "Content-Length: 18446744073709551616",
    "Content-Length: +5",
    "Content-Length: 0",
    "Transfer-Encoding: chunked",
    "transfer-encoding: Chunked",
    "Transfer-Encoding: gzip",
    "Connection: close",
    "Connection: keep-alive, x-a",
    "X-A:  b \t",
    "X-A: \u{e9}",
    "x-empty:",
    " folded",
    "no colon",
];

const BODIES: &[&str] = &[
    "hello",
    "hello, and more",
    "5\r\nhello\r\n0\r\n\r\n",
    "5;a=\"b\"\r\nhello\r\n1\r\n!\r\n0\r\nX-T: u\r\n\r\n",
    "5\r\nhel",
    "00005\r\nhello\r\n0\r\n\r\n",
    "fffffffffffffffff\r\n",
    "0\r\n\r\n",
    "",
];

fn response(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..=usize::from(random.once_in(4)) {
        bytes.extend_from_slice(random.pick(LINES).as_bytes());
        bytes.extend_from_slice(b"\r\n");
        for _ in 0..random.below(4) {
            bytes.extend_from_slice(random.pick(FIELDS).as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(random.pick(BODIES).as_bytes());
    if random.once_in(3) {
        random.mutate(&mut bytes);
    }
    bytes
}

/// Whatever we can read hyper reads in the same way; what it cannot, we cannot.
/// We are stricter with chunks, and with the framing of a body that is none.
#[test]
fn fuzz_responses_against_hyper() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let dialer = dialer();
    fuzz::run(2_000, |random| {
        let bytes = response(random);
        let method = random.pick(&["GET", "HEAD", "POST"]);
        let mut pieces = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at((1 + random.below(40)).min(rest.len()));
            pieces.push(now.to_vec());
            rest = later;
        }
        let (ours, theirs) = runtime.block_on(async {
            let request = plain(method);
            let parsed = Outgoing::Parsed(Box::new(request.clone().into_request()));
            assert_eq!(parsed.is_repeatable(), method != Method::POST);
            let ours = send(&dialer, Outgoing::Plain(request), pieces.clone()).await;
            (ours, send(&dialer, parsed, pieces).await)
        });
        let text = String::from_utf8_lossy(&bytes);
        match (&ours, &theirs) {
            (Came::Response(.., None), Came::Response(..)) => {}
            // What is wrong with two things is told by which is seen first.
            (Came::Failure(_), Came::Failure(_)) => {}
            (Came::Failure(_), Came::Response(status, ..))
                if method == "HEAD" || [101, 204, 304].contains(&status.as_u16()) => {}
            _ => assert_eq!(ours, theirs, "{method} {text:?}"),
        }
    });
}
