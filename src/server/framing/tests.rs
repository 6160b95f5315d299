//! The reader by itself: the same verdict in any pieces, nothing accepted that
//! others would read differently. The rules one by one are in `tests/it`.

use super::*;
use crate::fuzz::{self, Random};

const BOUNDS: Bounds = Bounds {
    bytes: 512,
    fields: 8,
};

/// What became of an input.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    passed: Vec<u8>,
    /// The heads in it, each with where it begins and ends.
    heads: u64,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    More,
    Refused(Fault),
    Broken(Fault),
    Keep,
    Waste,
}

/// Shows `input` in pieces of the lengths that `piece` says, as the stream does.
fn read(input: &[u8], mut piece: impl FnMut() -> usize) -> Verdict {
    let mut framing = Framing::new(BOUNDS, 0);
    let (mut passed, mut held) = (Vec::new(), Vec::new());
    let mut rest = input;
    let mut end = End::More;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(piece().clamp(1, rest.len()));
        rest = later;
        held.extend_from_slice(now);
        let mut scan = framing.scan(&held);
        passed.extend(held.drain(..scan.pass));
        // Each is answered as soon as it can be.
        while framing.waits() && !framing.asks_to_upgrade() {
            framing.go_on(false);
            scan = framing.scan(&held);
            passed.extend(held.drain(..scan.pass));
        }
        end = match scan.rest {
            Rest::More => End::More,
            Rest::Refused(fault) => End::Refused(fault),
            Rest::Broken(fault) => End::Broken(fault),
            Rest::Keep => End::Keep,
            Rest::Waste => End::Waste,
        };
        assert!(
            end != End::More || held.len() <= BOUNDS.bytes,
            "holds too much"
        );
        if end != End::More {
            break;
        }
    }
    let heads = framing.heads();
    Verdict { passed, heads, end }
}

/// A line with several faults is refused for the one that shows first.
fn is_same(one: End, other: End) -> bool {
    let refused = |end| matches!(end, End::Refused(_));
    one == other || (refused(one) && refused(other))
}

fn check(input: &[u8], random: &mut Random) {
    let whole = read(input, || usize::MAX);
    let pieces = read(input, || 1 + random.below(12));
    let bytes = read(input, || 1);
    for other in [&pieces, &bytes] {
        assert_eq!(whole.passed, other.passed, "{}", input.escape_ascii());
        assert_eq!(whole.heads, other.heads, "{}", input.escape_ascii());
        let (one, other) = (whole.end, other.end);
        assert!(
            is_same(one, other),
            "{one:?} {other:?} {}",
            input.escape_ascii()
        );
    }
    assert!(input.starts_with(&whole.passed));
    others_agree(&whole);
}

/// What passed is read by another parser as the same requests.
fn others_agree(verdict: &Verdict) {
    let mut left = &verdict.passed[..];
    for _ in 0..verdict.heads {
        let mut fields = [httparse::EMPTY_HEADER; BOUNDS.fields];
        let mut request = httparse::Request::new(&mut fields);
        let httparse::Status::Complete(length) = request.parse(left).unwrap() else {
            panic!("not whole: {}", left.escape_ascii());
        };
        let target = request.path.unwrap();
        let uri: ::http::Uri = target.parse().unwrap();
        let written = uri.path_and_query().map_or("", |whole| whole.as_str());
        assert!(target.ends_with(written) || written == "/", "{target}");
        ::http::Method::from_bytes(request.method.unwrap().as_bytes()).unwrap();
        left = &left[length..];
        let all = |name| {
            let named = request.headers.iter();
            let named = named.filter(move |field| field.name.eq_ignore_ascii_case(name));
            named.map(|field| field.value).collect::<Vec<_>>()
        };
        match (&all("content-length")[..], &all("transfer-encoding")[..]) {
            ([], []) => {}
            ([length], []) => {
                let length: usize = std::str::from_utf8(length).unwrap().parse().unwrap();
                left = &left[length.min(left.len())..];
            }
            ([], [coding]) => {
                assert!(coding.eq_ignore_ascii_case(b"chunked"));
                match past_chunks(left) {
                    Some(after) => left = after,
                    None => return,
                }
            }
            both => panic!("framed as {both:?}"),
        }
    }
    assert_eq!(left, b"", "passed without a head");
}

/// What follows a body in chunks; `None` if it is not whole.
fn past_chunks(mut left: &[u8]) -> Option<&[u8]> {
    loop {
        let httparse::Status::Complete((start, size)) = httparse::parse_chunk_size(left).unwrap()
        else {
            return None;
        };
        left = &left[start..];
        if size == 0 {
            break;
        }
        left = left.get(usize::try_from(size).unwrap().checked_add(2)?..)?;
    }
    let mut fields = [httparse::EMPTY_HEADER; BOUNDS.fields];
    match httparse::parse_headers(left, &mut fields).unwrap() {
        httparse::Status::Complete((length, _)) => Some(&left[length..]),
        httparse::Status::Partial => None,
    }
}

#[test]
fn fuzz_framing() {
    fuzz::run(4_000, |random| {
        let input = fuzz::requests(random);
        check(&input, random);
    });
}

#[test]
fn fuzz_framing_of_noise() {
    fuzz::run(4_000, |random| {
        let length = random.below(600);
        let sparse = random.once_in(2);
        let byte = |random: &mut Random| match sparse {
            true => random.pick(b"GET / HTTP/1.1\r\n\r\na: \t0;\"\\"),
            false => random.byte(),
        };
        let mut input: Vec<u8> = (0..length).map(|_| byte(random)).collect();
        if random.once_in(2) {
            let start = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
            input.splice(0..0, start.iter().copied());
        }
        check(&input, random);
    });
}

#[test]
fn a_head_is_bounded_in_bytes_and_fields() {
    let head = |length: usize| format!("GET /{} HTTP/1.1\r\n", "x".repeat(length));
    let end = |input: &str| read(input.as_bytes(), || usize::MAX).end;
    assert_eq!(end(&head(600)), End::Refused(Fault::TargetTooLong));
    // Before its line ends, too.
    assert_eq!(end(&head(600)[..540]), End::Refused(Fault::TargetTooLong));
    let field = format!("{}X: {}", head(1), "x".repeat(600));
    assert_eq!(end(&field), End::Refused(Fault::HeadTooLarge));
    let fields = |count| head(1) + &"X: 1\r\n".repeat(count) + "\r\n";
    assert_eq!(end(&fields(8)), End::More);
    assert_eq!(end(&fields(9)), End::Refused(Fault::HeadTooLarge));
}

#[test]
fn what_is_wrong_is_known_before_the_head_is_whole() {
    for (part, fault) in [
        ("\x16", Fault::RequestLine),
        ("GET / HTTP/1.1\n", Fault::RequestLine),
        ("GET /\r\n", Fault::RequestLine),
        ("GET / HTTP/2.0\r\n", Fault::Version),
        ("GET / HTTP/1.1\r\n ", Fault::Field),
        ("GET / HTTP/1.1\r\nA: 1\r\n\t", Fault::Field),
        ("GET / HTTP/1.1\r\nA: \0", Fault::Field),
        ("GET / HTTP/1.1\r\nA : 1\r\n", Fault::Field),
        ("CONNECT a:1 HTTP/1.1\r\n", Fault::Connect),
    ] {
        let end = read(part.as_bytes(), || usize::MAX).end;
        assert_eq!(end, End::Refused(fault), "{part:?}");
    }
}

#[test]
fn extensions_and_trailers_are_bounded() {
    let start = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let broken = |body: &str| {
        let input = format!("{start}{body}");
        read(input.as_bytes(), || 100).end
    };
    let extensions = format!("1;{}\r\nx\r\n", "a".repeat(900)).repeat(10);
    assert_eq!(broken(&extensions), End::Broken(Fault::Chunk));
    let long = format!("0\r\nX: {}", "x".repeat(600));
    assert_eq!(broken(&long), End::Broken(Fault::HeadTooLarge));
    let many = format!("0\r\n{}", "X: 1\r\n".repeat(9));
    assert_eq!(broken(&many), End::Broken(Fault::HeadTooLarge));
}

#[test]
fn what_follows_a_request_waits_for_its_answer() {
    let mut framing = Framing::new(BOUNDS, 0);
    let request = b"GET / HTTP/1.1\r\n\r\n";
    let whole = Scan {
        pass: request.len(),
        rest: Rest::More,
    };
    assert_eq!(framing.scan(request), whole);
    let kept = Scan {
        pass: 0,
        rest: Rest::Keep,
    };
    assert_eq!(framing.scan(b"\r\n"), kept);
    framing.go_on(false);
    assert_eq!(framing.scan(request), whole);
}

#[test]
fn after_an_upgrade_the_answer_decides() {
    let request = b"GET / HTTP/1.1\r\nupgrade: websocket\r\n\r\n\x81\0";
    for granted in [true, false] {
        let mut framing = Framing::new(BOUNDS, 0);
        let asked = framing.scan(request);
        assert_eq!(asked.pass, request.len() - 2);
        assert_eq!((asked.rest, framing.asks_to_upgrade()), (Rest::Keep, true));
        framing.go_on(granted);
        let scan = framing.scan(&request[asked.pass..]);
        let expected = match granted {
            true => Scan {
                pass: 2,
                rest: Rest::More,
            },
            false => Scan {
                pass: 0,
                rest: Rest::Refused(Fault::RequestLine),
            },
        };
        assert_eq!(scan, expected);
    }
}
