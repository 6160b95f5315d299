//! Interim answers (1xx) as they come over an HTTP/1.1 connection: seen on their
//! way to hyper, which takes them for nothing, and told to who waits for the
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

/// How each interim answer begins, and some that are none.
const START: &[u8] = b"HTTP/1.1 1";

/// Most interim answers to one request, and most bytes of them.
const MOST: usize = 100;
const MOST_BYTES: usize = 64 << 10;

/// Looks at what one connection brings.
#[derive(Debug)]
pub(super) struct Tap {
    audience: Option<Arc<dyn Audience>>,
    /// The exchange it looks at, see `Traffic`.
    exchange: u64,
    place: Place,
    count: usize,
    bytes: usize,
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

/// The upstream sends interim answers without end.
#[derive(Debug)]
pub(super) struct Flood;

impl Tap {
    pub(super) fn new(audience: Option<Arc<dyn Audience>>) -> Self {
        Self {
            audience,
            exchange: 0,
            place: Place::Past,
            count: 0,
            bytes: 0,
        }
    }

    /// Whether what comes in that `exchange` needs no look.
    pub(super) fn is_past(&self, exchange: u64) -> bool {
        self.exchange == exchange && matches!(self.place, Place::Past)
    }

    /// Looks at what was `read` in that `exchange`, begun for `asker`.
    ///
    /// # Errors
    ///
    /// [`Flood`].
    pub(super) fn see(
        &mut self,
        exchange: u64,
        asker: impl Fn() -> Option<Asker>,
        mut read: &[u8],
    ) -> io::Result<()> {
        if self.exchange != exchange {
            self.exchange = exchange;
            self.place = Place::Start(0);
            (self.count, self.bytes) = (0, 0);
        }
        while let Some((byte, rest)) = read.split_first() {
            match &mut self.place {
                Place::Past => return Ok(()),
                // hyper reads over empty lines.
                Place::Start(0) if matches!(byte, b'\r' | b'\n') => self.bytes += 1,
                Place::Start(matched) if *byte != START[*matched] => self.place = Place::Past,
                Place::Start(matched) => {
                    *matched += 1;
                    if *matched == START.len() {
                        self.bytes += START.len();
                        self.place = Place::Head(START.to_vec());
                    }
                }
                Place::Head(head) => {
                    head.push(*byte);
                    self.bytes += 1;
                    if head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n") {
                        let head = std::mem::take(head);
                        self.place = self.hear(&head, &asker);
                    }
                }
            }
            if self.count > MOST || self.bytes > MOST_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, Flood));
            }
            read = rest;
        }
        Ok(())
    }

    /// Passes a whole head on, if it is that of an interim answer. A 100 is not
    /// for the caller, who has been told so by us; a 101 is the answer.
    fn hear(&mut self, head: &[u8], asker: impl Fn() -> Option<Asker>) -> Place {
        let Some((status, head)) = pass_on(head) else {
            return Place::Past;
        };
        if status == StatusCode::SWITCHING_PROTOCOLS || !status.is_informational() {
            return Place::Past;
        }
        self.count += 1;
        if status != StatusCode::CONTINUE
            && self.count <= MOST
            && let (Some(audience), Some(asker)) = (&self.audience, asker())
        {
            audience.tell(asker, &head);
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

    #[derive(Debug, Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Audience for Heard {
        fn tell(&self, _: Asker, head: &[u8]) {
            let head = String::from_utf8(head.to_vec()).unwrap();
            self.0.lock().unwrap().push(head);
        }
    }

    /// What is told of these exchanges, read in pieces of so many bytes.
    fn told(exchanges: &[&str], piece: usize) -> (Vec<String>, bool) {
        let heard = Arc::<Heard>::default();
        let mut tap = Tap::new(Some(Arc::clone(&heard) as Arc<dyn Audience>));
        let asker = || {
            Some(Asker {
                connection: 1,
                request: NonZeroU64::MIN,
            })
        };
        let mut flood = false;
        for (number, bytes) in (1..).zip(exchanges) {
            for piece in bytes.as_bytes().chunks(piece) {
                flood |= tap.see(number, asker, piece).is_err();
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
}
