//! What the fuzz tests share: random input that repeats, and how much of it.
//!
//! Each piece of ours that parses bytes has a test named `fuzz_...` beside it.
//! `FUZZ_INPUTS=10000000 cargo test --lib fuzz_` runs them at length; without the
//! variable they take a second. A failure prints the seed of its input, and
//! `FUZZ_SEED=n` starts there.

/// Runs `test` on as many inputs as the environment says, or `default`.
pub(crate) fn run(default: u64, mut test: impl FnMut(&mut Random)) {
    let number = |name| std::env::var(name).ok()?.parse().ok();
    let inputs: u64 = number("FUZZ_INPUTS").unwrap_or(default);
    let first: u64 = number("FUZZ_SEED").unwrap_or(0);
    for seed in first..first + inputs {
        let on_failure = Seed(seed);
        test(&mut Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        drop(on_failure);
    }
    println!("{inputs} inputs from seed {first}");
}

/// Says which input a failed test was at.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("FUZZ_SEED={}", self.0);
        }
    }
}

/// A sequence of numbers (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Less than `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A text of some of `pieces`, of numbers and, seldom, of anything else.
    pub(crate) fn text(&mut self, pieces: &[&str]) -> String {
        const ODD: [char; 12] = [
            ' ', '\t', '\n', '\0', '-', '+', '.', '%', '\u{7f}', 'é', 'µ', '😀',
        ];
        let mut text = String::new();
        for _ in 0..self.below(7) {
            match self.below(12) {
                0 => text.push(self.pick(&ODD)),
                1 => text.push(char::from_u32(self.next() as u32 % 0x250).unwrap_or('x')),
                2 | 3 => {
                    let bits = self.below(64);
                    text.push_str(&(self.next() >> bits).to_string());
                }
                _ => text.push_str(self.pick(pieces)),
            }
        }
        text
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    /// Changes `bytes` in a few places, most of all by what matters in HTTP.
    pub(crate) fn mutate(&mut self, bytes: &mut Vec<u8>) {
        const ODD: &[&[u8]] = &[
            b"\r",
            b"\n",
            b"\r\n",
            b"\r\n\r\n",
            b"\0",
            b" ",
            b"\t",
            b":",
            b",",
            b";",
            b"=",
            b"\"",
            b"0",
            b"0\r\n\r\n",
            b"\x7f",
            b"\xe9",
            b"#",
            b"+",
            b"-",
            b"0x",
            b"HTTP/1.1",
            b"chunked",
            b"Content-Length: 5\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Host: evil\r\n",
            b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        ];
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len() + 1);
            match self.below(4) {
                0 if at < bytes.len() => bytes[at] = self.byte(),
                1 if at < bytes.len() => {
                    let end = (at + 1 + self.below(4)).min(bytes.len());
                    bytes.drain(at..end);
                }
                2 => {
                    let from = self.below(bytes.len() + 1);
                    let end = (from + self.below(24)).min(bytes.len());
                    let copy = bytes[from..end].to_vec();
                    bytes.splice(at..at, copy);
                }
                _ => {
                    let odd = self.pick(ODD);
                    bytes.splice(at..at, odd.iter().copied());
                }
            }
        }
    }
}

/// One to three requests on one connection, most of them in order.
pub(crate) fn requests(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..=random.below(3) {
        request(random, &mut bytes);
    }
    if !random.once_in(4) {
        random.mutate(&mut bytes);
    }
    bytes
}

fn request(random: &mut Random, bytes: &mut Vec<u8>) {
    let method = random.pick(&["GET", "POST", "PUT", "HEAD", "OPTIONS", "BREW", "M-X"]);
    let target = random.pick(&[
        "/",
        "//a%2f;b?c=/?",
        "/p?",
        "http://a/x",
        "/a/../b",
        "*",
        "/%",
    ]);
    let version = match random.below(20) {
        0 => "HTTP/1.0",
        _ => "HTTP/1.1",
    };
    bytes.extend_from_slice(format!("{method} {target} {version}\r\n").as_bytes());
    let fields = [
        "Host: a\r\n",
        "X-A: b\r\n",
        "x-empty:\r\n",
        "Connection: keep-alive\r\n",
        "Connection: close\r\n",
        "Cookie: a=b; c=d\r\n",
        "Upgrade: websocket\r\n",
        "TE: trailers\r\n",
        "X-Long: 0123456789 0123456789 0123456789 \t\r\n",
    ];
    if !random.once_in(30) {
        bytes.extend_from_slice(fields[0].as_bytes());
    }
    for _ in 0..random.below(5) {
        let field = fields[1 + random.below(fields.len() - 1)];
        // These end the sequence, so not often.
        if !field.starts_with("Connection: c") && !field.starts_with('U') || random.once_in(8) {
            bytes.extend_from_slice(field.as_bytes());
        }
    }
    let length = random.below(40);
    match random.below(4) {
        0 => {
            bytes.extend_from_slice(format!("content-length: {length}\r\n\r\n").as_bytes());
            data(random, bytes, length);
        }
        1 => {
            bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for _ in 0..random.below(4) {
                let length = 1 + random.below(20);
                let extension = random.pick(&["", "", ";a", ";a=b", ";a=\"b;\\\" c\""]);
                bytes.extend_from_slice(format!("{length:x}{extension}\r\n").as_bytes());
                data(random, bytes, length);
                bytes.extend_from_slice(b"\r\n");
            }
            let trailers = random.pick(&["", "", "X-T: 1\r\n"]);
            bytes.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
        }
        _ => bytes.extend_from_slice(b"\r\n"),
    }
}

fn data(random: &mut Random, bytes: &mut Vec<u8>, length: usize) {
    for _ in 0..length {
        let byte = random.pick(b"abc\r\n0:GET /");
        bytes.push(byte);
    }
}
