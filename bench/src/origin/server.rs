//! The origin's own process: one thread, one task per connection, answers of 200 bytes unless told otherwise, pipelined requests
//! answered in order with one write, in the clear or over TLS. Arrivals are stamped and judged when a head has been parsed; with a network delay, when that is over. It runs
//! until the run that started it ends.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::certificate;
use crate::cli::OriginArgs;
use crate::clock::Timer;
use crate::http::{self, Target};
use crate::origin::arrivals::{Arrival, Arrivals};
use crate::origin::circumstances::{Circumstances, UpstreamClock};
use crate::origin::policy::{Enforcer, Policy};
use crate::{Result, clock};

/// More than any table sends; what comes after is not recorded.
const MAX_RECORDED: usize = 10_000_000;

struct State {
    policy: Policy,
    record: bool,
    circumstances: Circumstances,
    /// What an accepted request takes, nanoseconds.
    work: u64,
    answer: Vec<u8>,
    refusal: Vec<u8>,
    /// Only ever locked for a few lines, by the one thread there is: spawned tasks want `Send`.
    counts: Mutex<Counts>,
}

struct Counts {
    enforcer: Enforcer,
    clock: UpstreamClock,
    arrivals: Arrivals,
    /// Requests read so far: what the delay of the next is drawn from.
    read: u64,
}

impl State {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the request that has just been read is still on its way, nanoseconds.
    fn delay(&self) -> u64 {
        if self.circumstances.jitter_ms == 0 {
            return 0;
        }
        let mut counts = self.counts();
        counts.read += 1;
        self.circumstances.delay(counts.read)
    }

    /// Counts and records one request; whether it is accepted, and its place in the record.
    fn arrive(&self, number: u32) -> (bool, usize) {
        if !self.record && self.policy == Policy::Open {
            return (true, usize::MAX);
        }
        let mut counts = self.counts();
        let at = clock::now();
        let judged = counts.clock.at(at);
        let accepted = counts.enforcer.accepts(judged);
        let place = counts.arrivals.0.len();
        if self.record && place < MAX_RECORDED {
            counts.arrivals.0.push(Arrival {
                number,
                at,
                accepted,
                took: 0,
            });
        }
        (accepted, place)
    }

    /// The work of the accepted request that was recorded at `place` is done.
    fn answered(&self, place: usize) {
        let mut counts = self.counts();
        counts.enforcer.answered();
        if let Some(arrival) = counts.arrivals.0.get_mut(place) {
            arrival.took = clock::now() - arrival.at;
        }
    }
}

/// Serves for ever.
pub(crate) async fn run(args: OriginArgs) -> Result<()> {
    let counts = Counts {
        enforcer: Enforcer::new(&args.policy),
        clock: UpstreamClock::new(args.circumstances),
        arrivals: Arrivals::default(),
        read: 0,
    };
    let work = u64::from(args.circumstances.work_ms) * clock::NANOS_PER_MILLI;
    let state = Arc::new(State {
        policy: args.policy,
        record: args.record,
        circumstances: args.circumstances,
        work,
        answer: answer("200 OK", &"x".repeat(args.answer_bytes)),
        refusal: answer("429 Too Many Requests", r#"{"error":"too many requests"}"#),
        counts: Mutex::new(counts),
    });
    let tls = args.certificate.as_deref().map(certificate::server);
    let tls = tls.transpose()?.map(TlsAcceptor::from);
    let listener = TcpListener::bind(args.listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (state, tls) = (Arc::clone(&state), tls.clone());
        // A connection that breaks is the load's to notice.
        tokio::spawn(async move { welcome(stream, tls, &state).await });
    }
}

async fn welcome(stream: TcpStream, tls: Option<TlsAcceptor>, state: &State) -> io::Result<()> {
    match tls {
        Some(tls) => serve(tls.accept(stream).await?, state).await,
        None => serve(stream, state).await,
    }
}

async fn serve<S>(mut stream: S, state: &State) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut input = BytesMut::with_capacity(4096);
    let mut output = Vec::new();
    let mut timer = None;
    while stream.read_buf(&mut input).await? > 0 {
        while let Some((target, size)) = http::request(&input)? {
            input.advance(size);
            respond(state, target, &mut timer, &mut output).await?;
        }
        stream.write_all(&output).await?;
        // TLS keeps back what the socket did not take.
        stream.flush().await?;
        output.clear();
    }
    Ok(())
}

async fn respond(
    state: &State,
    target: Target,
    timer: &mut Option<Timer>,
    output: &mut Vec<u8>,
) -> io::Result<()> {
    let number = match target {
        Target::Number(number) => number,
        Target::Arrivals => {
            let listed = state.counts().arrivals.to_string();
            output.extend(answer("200 OK", &listed));
            return Ok(());
        }
    };
    let delay = state.delay();
    if delay > 0 {
        sleep(timer, delay).await?;
    }
    let (accepted, place) = state.arrive(number);
    if state.policy == Policy::Silent {
        return Ok(());
    }
    if accepted && (state.work > 0 || state.policy.limits_concurrency()) {
        let worked = sleep(timer, state.work).await;
        state.answered(place);
        worked?;
    }
    output.extend_from_slice(if accepted {
        &state.answer
    } else {
        &state.refusal
    });
    Ok(())
}

/// A connection gets its timer, one more open file, when it first needs it: the crowds of `memory` never do.
async fn sleep(timer: &mut Option<Timer>, nanos: u64) -> io::Result<()> {
    let until = clock::now() + nanos;
    match timer {
        Some(timer) => timer.sleep_until(until).await,
        None => timer.insert(Timer::new()?).sleep_until(until).await,
    }
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let fields = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
    format!("HTTP/1.1 {status}\r\n{fields}\r\n{body}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{load, process};

    #[tokio::test]
    async fn judges_a_request_when_its_way_is_over_and_records_it() {
        let circumstances = Circumstances {
            jitter_ms: 5,
            ..Circumstances::default()
        };
        let listen = process::free_port().unwrap();
        let origin = tokio::spawn(run(OriginArgs {
            listen,
            policy: "sliding:2/1000s+concurrency:1".parse().unwrap(),
            record: true,
            answer_bytes: 200,
            certificate: None,
            circumstances,
        }));
        while TcpStream::connect(listen).await.is_err() {
            tokio::task::yield_now().await;
        }
        let before = clock::now();
        for expected in [200, 200, 429] {
            let (status, _) = load::fetch(listen, "/n/7").await.unwrap();
            assert_eq!(status, expected);
        }
        let (_, listed) = load::fetch(listen, "/__arrivals").await.unwrap();
        let arrivals = Arrivals::parse(std::str::from_utf8(&listed).unwrap()).unwrap();
        assert_eq!(arrivals.0.len(), 3);
        assert_eq!(arrivals.refused(), 1);
        let delayed = before + circumstances.delay(1);
        assert!(arrivals.0[0].at >= delayed, "the delay comes first");
        origin.abort();
    }
}
