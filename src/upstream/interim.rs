//! Interim answers (1xx) as they come over an HTTP/1.1 connection that was lent to
//! hyper: seen on their way there, which takes them for nothing, and told to who waits for the
//! answer.
//!
//! Between a request and the status line of its answer the bytes are looked at;
//! of an answer without interim ones that is the first few. hyper reads the same
//! bytes and judges them; here only what it lets pass is passed on, and counted:
//! an upstream that sends no end of them is cut off.

use std::fmt;
use std::io;
use std::sync::Arc;

use ::http::StatusCode;

use crate::http::interim::{Asker, Audience, pass_on};
use crate::outcome::Break;

/// How each interim answer begins, and some that are none.
const START: &[u8] = b"HTTP/1.1 1";

/// Most interim answers to one request, and most bytes of them.
const MOST: usize = 100;
const MOST_BYTES: usize = 64 << 10;

/// Looks at what one exchange brings.
#[derive(Debug)]
pub(super) struct Tap {
    /// Who asked, and who knows the way there.
    asker: Option<(Asker, Arc<dyn Audience>)>,
    place: Place,
    count: Count,
}

#[derive(Debug)]
enum Place {
    /// At the start of an answer, of which so many bytes are those of [`START`].
    Start(usize),
    /// Inside what may be an interim answer; the head so far.
    Head(Vec<u8>),
    /// Behind the interim answers.
    Past,
}

/// The interim answers to one request so far.
#[derive(Debug, Default)]
pub(super) struct Count {
    heads: usize,
    bytes: usize,
}

/// The upstream sends interim answers without end.
#[derive(Debug)]
pub(super) struct Flood;

impl Count {
    /// One more.
    pub(super) fn add(&mut self, length: usize) -> Result<(), Break> {
        self.heads += 1;
        self.add_bytes(length)
    }

    /// So many bytes between them.
    pub(super) fn add_bytes(&mut self, length: usize) -> Result<(), Break> {
        self.bytes += length;
        match self.is_flood() {
            true => Err(Break::Interim),
            false => Ok(()),
        }
    }

    fn is_flood(&self) -> bool {
        self.heads > MOST || self.bytes > MOST_BYTES
    }
}

impl Tap {
    pub(super) fn new(asker: Option<(Asker, Arc<dyn Audience>)>) -> Self {
        Self {
            asker,
            place: Place::Start(0),
            count: Count::default(),
        }
    }

    /// Looks at what was `read`.
    ///
    /// # Errors
    ///
    /// [`Flood`].
    pub(super) fn see(&mut self, mut read: &[u8]) -> io::Result<()> {
        while let Some((byte, rest)) = read.split_first() {
            match &mut self.place {
                Place::Past => return Ok(()),
                // hyper reads over empty lines.
                Place::Start(0) if matches!(byte, b'\r' | b'\n') => self.count.bytes += 1,
                Place::Start(matched) if *byte != START[*matched] => self.place = Place::Past,
                Place::Start(matched) => {
                    *matched += 1;
                    if *matched == START.len() {
                        self.count.bytes += START.len();
                        self.place = Place::Head(START.to_vec());
                    }
                }
                Place::Head(head) => {
                    head.push(*byte);
                    self.count.bytes += 1;
                    if head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n") {
                        let head = std::mem::take(head);
                        self.place = self.hear(&head);
                    }
                }
            }
            if self.count.is_flood() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, Flood));
            }
            read = rest;
        }
        Ok(())
    }

    /// Passes a whole head on, if it is that of an interim answer. A 100 is not
    /// for the caller, who has been told so by us; a 101 is the answer.
    fn hear(&mut self, head: &[u8]) -> Place {
        let Some((status, head)) = pass_on(head) else {
            return Place::Past;
        };
        if status == StatusCode::SWITCHING_PROTOCOLS || !status.is_informational() {
            return Place::Past;
        }
        self.count.heads += 1;
        if status != StatusCode::CONTINUE
            && self.count.heads <= MOST
            && let Some((asker, audience)) = &self.asker
        {
            audience.tell(*asker, &head);
        }
        Place::Start(0)
    }
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the upstream sends interim answers without end")
    }
}

impl std::error::Error for Flood {}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::sync::Mutex;

    use super::*;
    use crate::fuzz;

    #[derive(Debug, Default)]
    struct Heard(Mutex<Vec<String>>);

    #[derive(Debug, Default)]
    struct Bytes(Mutex<Vec<Vec<u8>>>);

    impl Audience for Bytes {
        fn tell(&self, _: Asker, head: &[u8]) {
            self.0.lock().unwrap().push(head.to_vec());
        }
    }

    fn tap(audience: Arc<dyn Audience>) -> Tap {
        let asker = Asker {
            connection: 1,
            request: NonZeroU64::MIN,
        };
        Tap::new(Some((asker, audience)))
    }

    impl Audience for Heard {
        fn tell(&self, _: Asker, head: &[u8]) {
            let head = String::from_utf8(head.to_vec()).unwrap();
            self.0.lock().unwrap().push(head);
        }
    }

    /// What is told of these exchanges, read in pieces of so many bytes.
    fn told(exchanges: &[&str], piece: usize) -> (Vec<String>, bool) {
        let heard = Arc::<Heard>::default();
        let mut flood = false;
        for bytes in exchanges {
            let mut tap = tap(Arc::clone(&heard) as _);
            for piece in bytes.as_bytes().chunks(piece) {
                flood |= tap.see(piece).is_err();
            }
        }
        let told = heard.0.lock().unwrap().clone();
        (told, flood)
    }

    const HINT: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 45\r\n\r\n";

    #[test]
    fn interim_answers_are_heard_in_any_pieces_and_nothing_else_is() {
        let first = format!("HTTP/1.1 100 Continue\r\n\r\n\r\n{HINT}{HINT}{OK}{HINT}");
        let second = format!("{OK}{HINT}");
        let upgrade = format!("HTTP/1.1 101 Switching Protocols\r\n\r\n{HINT}");
        for piece in [1, 2, 3, 7, 50, 1000] {
            let (told, flood) = told(&[&first, &second, &upgrade, HINT], piece);
            assert_eq!(told, [HINT; 3], "{piece}");
            assert!(!flood);
        }
    }

    #[test]
    fn no_end_of_them_is_an_error() {
        assert!(!told(&[&HINT.repeat(MOST)], 10).1);
        assert!(told(&[&HINT.repeat(MOST + 1)], 10).1);
        assert!(told(&[&"\r\n".repeat(MOST_BYTES)], 1000).1);
        let endless = format!("HTTP/1.1 103 x\r\na: {}", "a".repeat(MOST_BYTES));
        assert!(told(&[&endless], 1000).1);
        // Each answer has its own.
        let half = HINT.repeat(MOST / 2) + OK;
        assert!(!told(&[&half, &half, &half], 10).1);
    }

    /// In any pieces the same is told, all of it heads of interim answers without
    /// a framing, and no more than may be.
    #[test]
    fn fuzz_interim_answers() {
        fuzz::run(10_000, |random| {
            let mut bytes = Vec::new();
            for _ in 0..random.below(6) {
                let status = random.pick(&["100", "101", "102", "103", "199", "200", "1x3", "99"]);
                let head = format!("HTTP/1.1 {status} Some Reason\r\n");
                bytes.extend_from_slice(head.as_bytes());
                for _ in 0..random.below(4) {
                    bytes.extend_from_slice(random.pick(&[
                        &b"Link: </a>; rel=preload\r\n"[..],
                        b"content-length: 5\r\n",
                        b"Transfer-Encoding: chunked\r\n",
                        b"Connection: x-a, close\r\n",
                        b"X-A : \xe9\r\n",
                        b" folded\r\n",
                        b"x-b:\n",
                    ]));
                }
                bytes.extend_from_slice(random.pick(&[&b"\r\n"[..], b"\n", b"\r\n\r\n", b""]));
            }
            if random.once_in(2) {
                random.mutate(&mut bytes);
            }
            let heard = |pieces: &mut dyn FnMut() -> usize| {
                let heard = Arc::<Bytes>::default();
                let mut tap = tap(Arc::clone(&heard) as _);
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let (now, later) = rest.split_at(pieces().clamp(1, rest.len()));
                    tap.see(now).unwrap();
                    rest = later;
                }
                drop(tap);
                Arc::into_inner(heard).unwrap().0.into_inner().unwrap()
            };
            let whole = heard(&mut || usize::MAX);
            assert_eq!(heard(&mut || 1 + random.below(20)), whole);
            for head in &whole {
                let mut room = [httparse::EMPTY_HEADER; MOST];
                let mut parsed = httparse::Response::new(&mut room);
                let length = parsed.parse(head).unwrap().unwrap();
                assert_eq!(length, head.len());
                let status = parsed.code.unwrap();
                assert!((102..200).contains(&status), "{status}");
                for field in parsed.headers.iter() {
                    let name = field.name.to_ascii_lowercase();
                    let hop = ["content-length", "transfer-encoding", "connection"];
                    assert!(!hop.contains(&&*name), "{name}");
                }
            }
        });
    }
}
