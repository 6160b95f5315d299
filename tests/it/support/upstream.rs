//! An upstream that does as it is told, byte by byte, and remembers everything.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::message::{self, Body, Fields, Framing, Reader};
use super::soon;

/// What the upstream does after it has read a request.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Waits until the test calls [`Upstream::release`].
    Hold,
    /// Sends back what comes, until the other side has ended its half.
    Echo,
    /// Closes the connection.
    Close,
    /// Resets the connection.
    Reset,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// The connection it came on, counted from 0.
    pub(crate) connection: usize,
    /// How many came before it on that connection.
    pub(crate) nth: usize,
    /// When its head was whole.
    pub(crate) at: Instant,
    /// The head as it came.
    pub(crate) head: String,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
    /// Whether it came to its proper end.
    pub(crate) whole: bool,
}

/// Everything that came.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Requests in the order of their heads.
    pub(crate) requests: Vec<Seen>,
    /// Connections that were opened.
    pub(crate) opened: usize,
    /// Connections that have ended, by whichever side.
    pub(crate) ended: usize,
    /// Requests that wait for the first byte of their answer.
    pub(crate) unanswered: usize,
    /// The most of those at once.
    pub(crate) most_unanswered: usize,
}

/// The upstream's handle.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    log: watch::Receiver<Log>,
    held: Arc<Semaphore>,
    began: Instant,
}

type Script = dyn Fn(&Seen) -> Vec<Step> + Send + Sync;

/// One connection's side.
#[derive(Clone)]
struct Host {
    /// Sent as soon as the head of a request is there.
    early: Option<Vec<u8>>,
    script: Arc<Script>,
    log: Arc<watch::Sender<Log>>,
    held: Arc<Semaphore>,
}

impl Upstream {
    /// An upstream that does after each request what `script` says.
    pub(crate) async fn start(script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::host(Arc::new(script), None).await
    }

    /// An upstream that sends `answer` as soon as it has the head of a request.
    pub(crate) async fn early(answer: impl Into<Vec<u8>>) -> Self {
        Self::host(Arc::new(|_: &Seen| Vec::new()), Some(answer.into())).await
    }

    /// One that accepts on `listener`.
    pub(crate) fn on(
        listener: TcpListener,
        script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        Self::host_on(listener, Arc::new(script), None)
    }

    async fn host(script: Arc<Script>, early: Option<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::host_on(listener, script, early)
    }

    fn host_on(listener: TcpListener, script: Arc<Script>, early: Option<Vec<u8>>) -> Self {
        let address = listener.local_addr().unwrap();
        let (sender, log) = watch::channel(Log::default());
        let held = Arc::new(Semaphore::new(0));
        let host = Host {
            early,
            script,
            log: Arc::new(sender),
            held: Arc::clone(&held),
        };
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                host.log.send_modify(|log| log.opened += 1);
                tokio::spawn(host.clone().serve(stream, connection));
            }
        });
        let began = Instant::now();
        Self {
            address,
            log,
            held,
            began,
        }
    }

    /// An upstream that sends `answer` to every request.
    pub(crate) async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |_| vec![Step::Send(answer.clone())]).await
    }

    /// An upstream that says `ok` to each request when it is released.
    pub(crate) async fn holding() -> Self {
        Self::start(|_| vec![Step::Hold, Step::Send(super::ok("ok"))]).await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn authority(&self) -> String {
        self.address.to_string()
    }

    /// Lets `count` steps that hold, or will hold, go on.
    pub(crate) fn release(&self, count: usize) {
        self.held.add_permits(count);
    }

    /// Waits until what came is as `wanted`.
    pub(crate) async fn until(&self, what: &str, wanted: impl FnMut(&Log) -> bool) {
        let mut log = self.log.clone();
        soon(what, log.wait_for(wanted)).await.unwrap();
    }

    /// Waits until `count` whole requests came.
    pub(crate) async fn until_requests(&self, count: usize) {
        let whole = |log: &Log| log.requests.iter().filter(|seen| seen.whole).count();
        let what = format!("{count} requests at the upstream");
        self.until(&what, |log| whole(log) >= count).await;
    }

    pub(crate) fn log(&self) -> watch::Ref<'_, Log> {
        self.log.borrow()
    }

    /// The requests that came.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.log().requests.clone()
    }

    /// The targets of the requests that came.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.log()
            .requests
            .iter()
            .map(|seen| seen.target.clone())
            .collect()
    }

    /// The only request that came.
    #[track_caller]
    pub(crate) fn only_request(&self) -> Seen {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.into_iter().next().unwrap()
    }
}

/// A failed test tells what came.
impl Drop for Upstream {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the upstream at {} saw:\n{}", self.address, self);
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log = self.log();
        writeln!(f, "{} connections opened, {} ended", log.opened, log.ended)?;
        for seen in &log.requests {
            let at = seen.at.duration_since(self.began);
            let end = if seen.whole { "whole" } else { "not whole" };
            let mut fields = String::new();
            for (name, value) in &seen.fields.0 {
                write!(fields, " {name}: {value};")?;
            }
            let (connection, length) = (seen.connection, seen.body.len());
            let line = format!(
                "{} {} {end}, body {length},{fields}",
                seen.method, seen.target
            );
            writeln!(f, "{at:>9.1?} connection {connection}: {line}")?;
        }
        Ok(())
    }
}

impl Host {
    async fn serve(self, stream: TcpStream, connection: usize) {
        stream.set_nodelay(true).unwrap();
        let mut reader = Reader::new(stream);
        for nth in 0.. {
            let Some(seen) = self.read(&mut reader, connection, nth).await else {
                break;
            };
            if !self.act((self.script)(&seen), &mut reader).await {
                break;
            }
        }
        // Closed before it is counted, so that who waits for it finds it so.
        drop(reader);
        self.log.send_modify(|log| log.ended += 1);
    }

    /// The next request; `None` if the connection ends first.
    async fn read(&self, reader: &mut Reader, connection: usize, nth: usize) -> Option<Seen> {
        let length = loop {
            match reader.head_length() {
                Some(length) => break length,
                None if reader.fill().await => {}
                None => return None,
            }
        };
        let at = Instant::now();
        let head: Vec<u8> = reader.unread.drain(..length).collect();
        let mut room = message::room();
        let mut parsed = httparse::Request::new(&mut room);
        assert!(parsed.parse(&head).unwrap().is_complete());
        let mut seen = Seen {
            connection,
            nth,
            at,
            head: String::from_utf8_lossy(&head).into_owned(),
            method: parsed.method.unwrap().to_owned(),
            target: parsed.path.unwrap().to_owned(),
            fields: Fields::new(parsed.headers),
            body: Vec::new(),
            trailers: Fields::default(),
            whole: false,
        };
        let framing = seen.fields.framing(Framing::Length(0));
        let mut index = 0;
        self.log.send_modify(|log| {
            index = log.requests.len();
            log.requests.push(seen.clone());
        });
        if let Some(early) = &self.early {
            reader.stream.write_all(early).await.ok()?;
        }
        loop {
            let body = Body::read(framing, &reader.unread);
            seen.body = body.bytes;
            seen.trailers = body.trailers;
            seen.whole = body.end.is_some();
            self.log.send_modify(|log| {
                log.requests[index] = seen.clone();
                log.unanswered += usize::from(seen.whole);
                log.most_unanswered = log.most_unanswered.max(log.unanswered);
            });
            if let Some(end) = body.end {
                reader.unread.drain(..end);
                return Some(seen);
            }
            if !reader.fill().await {
                return None;
            }
        }
    }

    /// Does what the script says. False if the connection has ended.
    async fn act(&self, steps: Vec<Step>, reader: &mut Reader) -> bool {
        let mut unanswered = true;
        let mut answer = || {
            if std::mem::take(&mut unanswered) {
                self.log.send_modify(|log| log.unanswered -= 1);
            }
        };
        for step in steps {
            let goes_on = match step {
                Step::Hold => tokio::select! {
                    permit = self.held.acquire() => {
                        permit.unwrap().forget();
                        true
                    }
                    more = reader.fill() => more,
                },
                Step::Send(bytes) => {
                    answer();
                    reader.stream.write_all(&bytes).await.is_ok()
                }
                Step::Echo => {
                    answer();
                    echo(reader).await.is_ok()
                }
                Step::Close => false,
                Step::Reset => {
                    reader.stream.set_zero_linger().unwrap();
                    false
                }
            };
            if !goes_on {
                answer();
                return false;
            }
        }
        true
    }
}

async fn echo(reader: &mut Reader) -> std::io::Result<()> {
    loop {
        let bytes = std::mem::take(&mut reader.unread);
        reader.stream.write_all(&bytes).await?;
        if !reader.fill().await {
            return Ok(());
        }
    }
}
