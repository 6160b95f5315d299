//! From a caller's bytes to the upstream's, through everything between them, in
//! memory and in virtual time: what the upstream reads is what the caller sent,
//! request by request, and nothing else.
//!
//! Both sides are read by a parser of the tests' own (`message`), which shares
//! nothing with those of the program.

use std::sync::Mutex;

use arc_swap::ArcSwap;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::*;
use crate::config::Config;
use crate::fuzz::{self, Random};
use crate::lane::{Lane, Shared};
use crate::metrics::Cells;
use crate::pacing::alarm::Alarm;
use crate::upstream::{Dialer, fake};
use message::Message;

mod message;

/// The whole requests that came to the upstream.
type Came = Arc<Mutex<Vec<Message>>>;

const SETTINGS: &str = "listen = \"127.0.0.1:0\"\n[client]\nheader_timeout = \"1s\"\n\
    idle_timeout = \"1s\"\nstall_timeout = \"1s\"\n[upstream.a]\nurl = \"http://origin\"\n\
    buffer_body = \"16B\"\n";

/// A server before an upstream that answers every whole request.
fn start() -> (Server, Came, watch::Sender<bool>) {
    let config = Config::parse("proxy.toml", SETTINGS).unwrap();
    let settings = config.upstreams.into_iter().next().unwrap();
    let (connections, mut accepted) = mpsc::channel(16);
    let fake = fake::Upstream {
        connections,
        handshake: Duration::ZERO,
    };
    let dialer = Dialer::new(&settings).unwrap().fake(fake);
    let (stop, stopping) = watch::channel(false);
    let shared = Shared::new(
        settings,
        &config.client,
        dialer,
        1,
        stopping.clone(),
        [1, 2],
    );
    let lane = Lane::new(&Arc::new(shared), 0, Alarm::Tokio);
    let came = Came::default();
    let seen = Arc::clone(&came);
    tokio::spawn(async move {
        while let Some(stream) = accepted.recv().await {
            tokio::spawn(answer(stream, Arc::clone(&seen)));
        }
    });
    let proxy = Proxy::new(vec![lane], Arc::new(Cells::default()), false, 100);
    let server = Server {
        proxy: Arc::new(ArcSwap::from_pointee(proxy)),
        settings: Arc::new(config.client),
        connections: Arc::new(Connections::new(1024)),
        draining: stopping,
    };
    (server, came, stop)
}

/// Writes down and answers each whole request.
async fn answer(mut stream: DuplexStream, came: Came) {
    let mut unread = Vec::new();
    while stream
        .read_buf(&mut unread)
        .await
        .is_ok_and(|read| read > 0)
    {
        while let Some((message, length)) = Message::read(&unread) {
            unread.drain(..length);
            came.lock().unwrap().push(message);
            let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            if stream.write_all(ok).await.is_err() {
                return;
            }
        }
    }
}

/// Sends `input` in pieces; what came back until the server closed.
async fn exchange(server: &Server, input: &[u8], random: &mut Random) -> Vec<u8> {
    let (mut caller, stream) = tokio::io::duplex(64 * 1024);
    let seat = server.connections.seat().await;
    tokio::spawn(server.clone().serve(stream, None, seat));
    let mut rest = input;
    while !rest.is_empty() {
        let length = match random.once_in(2) {
            true => rest.len(),
            false => (1 + random.below(40)).min(rest.len()),
        };
        if caller.write_all(&rest[..length]).await.is_err() {
            break;
        }
        rest = &rest[length..];
        tokio::task::yield_now().await;
    }
    let mut answers = Vec::new();
    // The server closes when nothing comes any more.
    caller.read_to_end(&mut answers).await.unwrap();
    answers
}

/// How many of the responses are the upstream's; all must be well formed.
fn count_answers(mut answers: &[u8]) -> usize {
    let mut count = 0;
    while !answers.is_empty() {
        let end = answers.windows(4).position(|four| four == b"\r\n\r\n");
        let head = std::str::from_utf8(&answers[..end.unwrap() + 4]).unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        answers = &answers[head.len()..];
        match head[8..].starts_with(" 200 ") {
            true => count += 1,
            // Ours is the last, and without its body after a HEAD.
            false => assert!(answers.len() == length || answers.is_empty(), "{head}"),
        }
        answers = &answers[length.min(answers.len())..];
    }
    count
}

/// The requests of `input`, up to the first that is not whole and good, as the
/// upstream should see them.
fn sent(mut input: &[u8]) -> Vec<Message> {
    let mut all = Vec::new();
    while let Some((mut message, length)) = Message::read(input) {
        message.target = origin_form(&message.method, &message.target);
        all.push(message);
        input = &input[length..];
    }
    all
}

/// RFC 9112, sections 3.2.1 and 3.2.4.
fn origin_form(method: &str, target: &str) -> String {
    match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => {
            let path = rest.find(['/', '?']).map_or("", |at| &rest[at..]);
            if path.is_empty() && method == "OPTIONS" {
                return "*".to_owned();
            }
            let slash = if path.starts_with('/') { "" } else { "/" };
            format!("{slash}{path}")
        }
        _ => target.to_owned(),
    }
}

/// A property of RFC 9112 as a whole: nobody can make the upstream read anything
/// but the requests that everybody else on the way has read.
#[test]
fn fuzz_from_the_caller_to_the_upstream() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let (server, came, _stop) = runtime.block_on(async { start() });
    let (mut inputs, mut reached) = (0, 0);
    fuzz::run(400, |random| {
        let input = fuzz::requests(random);
        let answers = runtime.block_on(exchange(&server, &input, random));
        let came = std::mem::take(&mut *came.lock().unwrap());
        let sent = sent(&input);
        let told = input.escape_ascii();
        assert!(
            came.len() <= sent.len(),
            "{} {} {told}",
            came.len(),
            sent.len()
        );
        for (came, sent) in came.iter().zip(&sent) {
            let parts = |one: &Message| (one.method.clone(), one.target.clone(), one.body.clone());
            assert_eq!(parts(came), parts(sent), "{told}");
            assert_eq!(came.all("host"), [b"origin"], "{told}");
            assert_eq!(came.all("x-a"), sent.all("x-a"), "{told}");
        }
        assert_eq!(count_answers(&answers), came.len(), "{told}");
        inputs += 1;
        reached += came.len();
    });
    // Or it would prove nothing.
    assert!(2 * reached > inputs, "{reached} of {inputs}");
}

/// What a caller of HTTP/2 says first: that, and that it has no settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// How long a caller of HTTP/2 is served that sends `more` than its preface and
/// never answers a ping; its place is needed `at` a time, if at all.
async fn served(more: &[u8], at: Option<Duration>) -> Duration {
    let (server, _came, _stop) = start();
    let (mut caller, stream) = tokio::io::duplex(64 * 1024);
    let seat = server.connections.seat().await;
    let activity = Arc::clone(&seat.activity);
    let began = Instant::now();
    tokio::spawn(server.serve(stream, None, seat));
    caller.write_all(&[PREFACE, more].concat()).await.unwrap();
    if let Some(at) = at {
        time::sleep(at).await;
        activity.dismiss();
    }
    caller.read_to_end(&mut Vec::new()).await.unwrap();
    began.elapsed()
}

/// RFC 9113, section 6.8: a shutdown waits for the caller's answer to a ping.
#[tokio::test(start_paused = true)]
async fn a_caller_of_http_2_that_says_no_last_word_is_cut_off() {
    let half_a_head = b"\0\0\x20\x01\x04\0\0\0\x01\x82";
    for more in [&b""[..], half_a_head] {
        // `idle_timeout`, then the farewell or `stall_timeout`, what is shorter.
        let second = Duration::from_secs(1);
        assert_eq!(served(more, None).await.as_secs(), 2);
        assert!(served(more, Some(second / 2)).await < second * 2);
    }
}
