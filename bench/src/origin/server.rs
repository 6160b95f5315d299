//! The origin's own process: one thread, one task per connection, answers of 200 bytes, pipelined requests answered in order
//! with one write. Arrivals are stamped when a head has been parsed. It runs until the run that started it ends.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::cli::OriginArgs;
use crate::http::{self, Target};
use crate::origin::arrivals::{Arrival, Arrivals};
use crate::origin::policy::{Enforcer, Policy};
use crate::{Result, clock};

/// More than any table sends; what comes after is not recorded.
const MAX_RECORDED: usize = 10_000_000;
/// What a request takes when concurrency is what is limited.
const WORK: Duration = Duration::from_millis(40);
const BODY_BYTES: usize = 200;

struct State {
    policy: Policy,
    record: bool,
    answer: Vec<u8>,
    refusal: Vec<u8>,
    /// Only ever locked for a few lines, by the one thread there is: spawned tasks want `Send`.
    counts: Mutex<Counts>,
}

struct Counts {
    enforcer: Enforcer,
    arrivals: Arrivals,
}

impl State {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts and records one request; whether it is accepted.
    fn arrive(&self, number: u32) -> bool {
        if !self.record && self.policy == Policy::Open {
            return true;
        }
        let mut counts = self.counts();
        let at = clock::now();
        let accepted = counts.enforcer.accepts(at);
        if self.record && counts.arrivals.0.len() < MAX_RECORDED {
            counts.arrivals.0.push(Arrival {
                number,
                at,
                accepted,
            });
        }
        accepted
    }
}

/// Serves for ever.
pub(crate) async fn run(args: OriginArgs) -> Result<()> {
    let counts = Counts {
        enforcer: Enforcer::new(args.policy),
        arrivals: Arrivals::default(),
    };
    let state = Arc::new(State {
        policy: args.policy,
        record: args.record,
        answer: answer("200 OK", &"x".repeat(BODY_BYTES)),
        refusal: answer("429 Too Many Requests", r#"{"error":"too many requests"}"#),
        counts: Mutex::new(counts),
    });
    let listener = TcpListener::bind(args.listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let state = Arc::clone(&state);
        // A connection that breaks is the load's to notice.
        tokio::spawn(async move { serve(stream, &state).await });
    }
}

async fn serve(mut stream: TcpStream, state: &State) -> io::Result<()> {
    let mut input = BytesMut::with_capacity(4096);
    let mut output = Vec::new();
    while stream.read_buf(&mut input).await? > 0 {
        while let Some((target, size)) = http::request(&input)? {
            input.advance(size);
            respond(state, target, &mut output).await;
        }
        stream.write_all(&output).await?;
        output.clear();
    }
    Ok(())
}

async fn respond(state: &State, target: Target, output: &mut Vec<u8>) {
    let number = match target {
        Target::Number(number) => number,
        Target::Arrivals => {
            let listed = state.counts().arrivals.to_string();
            output.extend(answer("200 OK", &listed));
            return;
        }
    };
    let accepted = state.arrive(number);
    if state.policy == Policy::Silent {
        return;
    }
    if accepted && matches!(state.policy, Policy::Concurrency(_)) {
        tokio::time::sleep(WORK).await;
        state.counts().enforcer.answered();
    }
    output.extend_from_slice(if accepted {
        &state.answer
    } else {
        &state.refusal
    });
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let fields = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
    format!("HTTP/1.1 {status}\r\n{fields}\r\n{body}").into_bytes()
}
