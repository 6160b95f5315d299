//! Bodies that are longer than any buffer: who is slow holds the other side back,
//! and what passes through takes no memory.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{Request, Response, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::support::{Proxy, Step, Upstream, get, soon};
use crate::versions::{self, Call, scripted};

const MIB: usize = 1 << 20;

/// Bodies of that length do not fit into the buffers of all sockets on the way.
const LONG: usize = 1024 * MIB;

/// More memory than all tests of this process take beside.
const CONSTANT: usize = 256 * MIB;

/// More than those buffers.
const SOME: usize = 96 * MIB;

/// For a long body to pass, on a busy machine too.
const LONGEST: Duration = Duration::from_secs(120);

/// The most memory this process has had, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<usize>().unwrap() * 1024
}

/// Writes `length` bytes as far as they are taken; how many were.
async fn pour(stream: &mut TcpStream, length: usize) -> usize {
    let piece = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    while sent < length {
        match stream.write(&piece[..piece.len().min(length - sent)]).await {
            Ok(written) => sent += written,
            Err(_) => break,
        }
    }
    sent
}

/// Reads to the end; how many bytes came.
async fn drain(stream: &mut TcpStream) -> usize {
    let mut piece = vec![0; 64 * 1024];
    let mut all = 0;
    while let Ok(read @ 1..) = stream.read(&mut piece).await {
        all += read;
    }
    all
}

async fn read_head(stream: &mut TcpStream) {
    let mut last = [0; 4];
    while &last != b"\r\n\r\n" {
        last.rotate_left(1);
        stream.read_exact(&mut last[3..]).await.unwrap();
    }
}

/// An upstream that answers each request with a long body, and how much of the
/// last one was taken.
async fn long() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let moved = Arc::clone(&count);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream).await;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let sent = pour(&mut stream, LONG).await;
            moved.store(sent, Ordering::SeqCst);
        }
    });
    (address, count)
}

fn before(address: SocketAddr, more: &str) -> Proxy {
    Proxy::start(&format!(
        "[upstream.api]\nurl = \"http://{address}\"\n{more}"
    ))
}

#[tokio::test]
async fn a_long_answer_takes_no_memory() {
    let (address, _) = long().await;
    let proxy = before(address, "");
    let mut caller = TcpStream::connect(proxy.address).await.unwrap();
    let started = peak();
    caller
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    read_head(&mut caller).await;
    let read = timeout(LONGEST, drain(&mut caller)).await.expect("in time");
    assert_eq!(read, LONG);
    let grown = peak() - started;
    assert!(grown < CONSTANT, "{grown}");
}

#[tokio::test]
async fn a_long_request_takes_no_memory() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = before(listener.local_addr().unwrap(), "max_body = \"1GiB\"");
    let upstream = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        let mut piece = vec![0; 64 * 1024];
        let mut all = 0;
        while all < LONG {
            all += stream.read(&mut piece).await.unwrap();
        }
        stream
            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .await
            .unwrap();
        all
    });
    let mut caller = TcpStream::connect(proxy.address).await.unwrap();
    let started = peak();
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LONG}\r\n\r\n");
    caller.write_all(head.as_bytes()).await.unwrap();
    let sent = timeout(LONGEST, pour(&mut caller, LONG))
        .await
        .expect("in time");
    assert_eq!((sent, upstream.await.unwrap()), (LONG, LONG));
    read_head(&mut caller).await;
    let grown = peak() - started;
    assert!(grown < CONSTANT, "{grown}");
}

/// The caller is given up in the end, and by then the upstream has got rid of no
/// more than the sockets on the way hold.
#[tokio::test]
async fn a_slow_reader_holds_the_upstream_back() {
    let (address, sent) = long().await;
    let settings = "[client]\nstall_timeout = \"500ms\"";
    let proxy = before(address, settings);
    let mut caller = TcpStream::connect(proxy.address).await.unwrap();
    caller
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    proxy.until_first_end("api", "aborted").await;
    let read = timeout(LONGEST, drain(&mut caller)).await.expect("in time");
    assert!(read < SOME, "{read}");
    assert!(sent.load(Ordering::SeqCst) < SOME);
}

#[tokio::test]
async fn a_slow_upstream_holds_the_caller_back() {
    // Accepted by the kernel, and read by nobody.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = "timeouts.response = \"500ms\"\nmax_body = \"1GiB\"";
    let proxy = before(listener.local_addr().unwrap(), settings);
    let mut caller = TcpStream::connect(proxy.address).await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LONG}\r\n\r\n");
    caller.write_all(head.as_bytes()).await.unwrap();
    let sent = timeout(LONGEST, pour(&mut caller, LONG))
        .await
        .expect("in time");
    assert!(sent < SOME, "{sent}");
    proxy.until_first_end("api", "upstream_timeout").await;
    drop(listener);
}

/// A proxy before an HTTP/2 upstream that does as `script` says, and a caller's
/// connection that speaks HTTP/2 as well.
async fn modern<F>(
    settings: &str,
    script: impl Fn(Call) -> F + Send + Sync + 'static,
) -> (Proxy, SendRequest<Bytes>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let address = scripted(100, script).await;
    let proxy = versions::before(address, Version::HTTP_2, settings);
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let shaken = soon("a handshake", h2::client::handshake(stream)).await;
    let (sender, connection) = shaken.unwrap();
    tokio::spawn(connection);
    let sender = soon("the settings", sender.ready()).await.unwrap();
    (proxy, sender)
}

/// Sends `length` bytes as far as there is room for them; how many were.
async fn pour_frames(mut stream: SendStream<Bytes>, length: usize) -> usize {
    let piece = Bytes::from(vec![b'x'; 16 * 1024]);
    let mut sent = 0;
    while sent < length {
        stream.reserve_capacity(piece.len().min(length - sent));
        let Some(Ok(room)) = poll_fn(|cx| stream.poll_capacity(cx)).await else {
            break;
        };
        let piece = piece.slice(..room.min(piece.len()).min(length - sent));
        let all = sent + piece.len() == length;
        sent += piece.len();
        if stream.send_data(piece, all).is_err() {
            break;
        }
    }
    sent
}

/// Reads to the end, and gives room for more; how many bytes came.
async fn drain_frames(mut stream: RecvStream) -> usize {
    let mut all = 0;
    while let Some(Ok(piece)) = stream.data().await {
        all += piece.len();
        stream.flow_control().release_capacity(piece.len()).unwrap();
    }
    all
}

/// RFC 9113, section 5.2, on both sides.
#[tokio::test]
async fn long_bodies_over_http_2_take_no_memory() {
    let script = |(request, mut respond, _): Call| async move {
        let came = drain_frames(request.into_body()).await;
        let answer = respond.send_response(Response::new(()), false);
        pour_frames(answer.unwrap(), came).await;
    };
    let (_proxy, mut sender) = modern("max_body = \"1GiB\"", script).await;
    let started = peak();
    let request = Request::post("http://caller/").body(()).unwrap();
    let (answer, body) = sender.send_request(request, false).unwrap();
    let passed = async {
        let sent = pour_frames(body, LONG).await;
        (sent, drain_frames(answer.await.unwrap().into_body()).await)
    };
    let passed = timeout(LONGEST, passed).await.expect("in time");
    assert_eq!(passed, (LONG, LONG));
    let grown = peak() - started;
    assert!(grown < CONSTANT, "{grown}");
}

/// RFC 9113, section 5.2.
#[tokio::test]
async fn a_slow_reader_over_http_2_holds_the_upstream_back() {
    let (tell, mut told) = mpsc::channel(1);
    let script = move |(_, mut respond, _): Call| {
        let tell = tell.clone();
        async move {
            let answer = respond.send_response(Response::new(()), false);
            let sent = pour_frames(answer.unwrap(), LONG).await;
            tell.send(sent).await.unwrap();
        }
    };
    let settings = "[client]\nstall_timeout = \"500ms\"";
    let (proxy, mut sender) = modern(settings, script).await;
    let request = Request::get("http://caller/").body(()).unwrap();
    let (answer, _) = sender.send_request(request, true).unwrap();
    // Its body is there, and nobody reads it.
    let _answer = soon("an answer", answer).await.unwrap();
    proxy.until_first_end("api", "aborted").await;
    let sent = soon("the end of the stream", told.recv()).await.unwrap();
    assert!(sent < SOME, "{sent}");
}

/// RFC 9113, section 5.2.
#[tokio::test]
async fn a_slow_upstream_over_http_2_holds_the_caller_back() {
    // Its bodies are kept, and nobody reads them.
    let script = |call: Call| async move {
        let _call = call;
        std::future::pending().await
    };
    let settings = "timeouts.response = \"500ms\"\nmax_body = \"1GiB\"";
    let (proxy, mut sender) = modern(settings, script).await;
    let request = Request::post("http://caller/").body(()).unwrap();
    let (_answer, body) = sender.send_request(request, false).unwrap();
    let sent = timeout(LONGEST, pour_frames(body, LONG)).await;
    let sent = sent.expect("in time");
    assert!(sent < SOME, "{sent}");
    proxy.until_first_end("api", "upstream_timeout").await;
}

/// Each byte of an answer, and of what may be server-sent events, must arrive before
/// the next is sent.
#[tokio::test]
async fn each_byte_passes_as_it_comes() {
    let letters = b'a'..=b'z';
    let mut steps = vec![Step::Send(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
    )];
    for letter in letters.clone() {
        steps.push(Step::Send(
            format!("1\r\n{}\r\n", char::from(letter)).into(),
        ));
        steps.push(Step::Hold);
    }
    steps.push(Step::Send(b"0\r\n\r\n".to_vec()));
    let upstream = Upstream::start(move |_| steps.clone()).await;
    let proxy = Proxy::before(&upstream, "");
    let mut caller = proxy.send(get("/")).await;
    for letter in letters {
        caller
            .sees(&format!("1\r\n{}\r\n", char::from(letter)))
            .await;
        upstream.release(1);
    }
    let response = caller.response().await;
    assert_eq!(response.text(), "abcdefghijklmnopqrstuvwxyz");
}

/// Server-sent events: each must arrive before the next is sent.
#[tokio::test]
async fn events_pass_as_they_come() {
    let mut steps = vec![Step::Send(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n".to_vec(),
    )];
    for event in 0..20 {
        for byte in format!("data: {event:02}\n\n").into_bytes() {
            steps.push(Step::Send(vec![byte]));
        }
        steps.push(Step::Hold);
    }
    steps.push(Step::Close);
    let upstream = Upstream::start(move |_| steps.clone()).await;
    let proxy = Proxy::before(&upstream, "");
    // HTTP/1.0, so that no chunk comes between.
    let mut caller = proxy.send("GET / HTTP/1.0\r\n\r\n").await;
    for event in 0..20 {
        caller.sees(&format!("data: {event:02}\n\n")).await;
        upstream.release(1);
    }
    caller.closed().await;
    proxy.until_first_end("api", "completed").await;
}
