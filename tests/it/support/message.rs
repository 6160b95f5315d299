//! Reading HTTP/1.1 messages from a socket, for callers and upstreams alike.
//!
//! Strict and simple on purpose: it must not share a mistake with the parser of
//! the program under test.

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Most fields of a head.
const MAX_FIELDS: usize = 128;

/// Header fields in their order, names in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields(pub(crate) Vec<(String, String)>);

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(usize),
    Chunked,
    Close,
}

/// A body as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    pub(super) trailers: Fields,
    /// How many bytes it took on the wire; `None` while it is not whole.
    pub(super) end: Option<usize>,
}

/// A socket and what was read from it and not yet understood.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) stream: TcpStream,
    pub(super) unread: Vec<u8>,
}

impl Fields {
    pub(super) fn new(headers: &[httparse::Header<'_>]) -> Self {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let field =
            |header: &httparse::Header<'_>| (header.name.to_ascii_lowercase(), text(header.value));
        Self(headers.iter().map(field).collect())
    }

    /// The values of all fields of that name.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.0.iter().filter(|(other, _)| other == name);
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// The value of the only field of that name; fails if there are more.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "`{name}` is there {} times", all.len());
        all.first().copied()
    }

    /// Whether the values of all fields of that name, taken together, have `token`.
    pub(crate) fn has_token(&self, name: &str, token: &str) -> bool {
        let all = self.all(name).join(",");
        all.split(',')
            .any(|one| one.trim().eq_ignore_ascii_case(token))
    }

    pub(super) fn framing(&self, otherwise: Framing) -> Framing {
        match (self.get("transfer-encoding"), self.get("content-length")) {
            (Some("chunked"), None) => Framing::Chunked,
            (None, Some(length)) => Framing::Length(length.parse().unwrap()),
            (None, None) => otherwise,
            both => panic!("framed as {both:?}"),
        }
    }
}

impl Body {
    /// The body at the start of `raw`, as far as it is there.
    pub(super) fn read(framing: Framing, raw: &[u8]) -> Self {
        match framing {
            Framing::Length(length) => Self {
                bytes: raw[..length.min(raw.len())].to_vec(),
                end: (raw.len() >= length).then_some(length),
                ..Self::default()
            },
            Framing::Chunked => Self::read_chunks(raw),
            Framing::Close => Self {
                bytes: raw.to_vec(),
                ..Self::default()
            },
        }
    }

    fn read_chunks(raw: &[u8]) -> Self {
        let mut body = Self::default();
        let mut at = 0;
        loop {
            let size = httparse::parse_chunk_size(&raw[at..]).expect("a chunk size");
            let httparse::Status::Complete((start, size)) = size else {
                return body;
            };
            at += start;
            if size == 0 {
                break;
            }
            let end = at + usize::try_from(size).unwrap();
            body.bytes.extend_from_slice(&raw[at..end.min(raw.len())]);
            if raw.len() < end + 2 {
                return body;
            }
            assert_eq!(&raw[end..end + 2], b"\r\n", "the end of a chunk");
            at = end + 2;
        }
        let mut headers = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let trailers = httparse::parse_headers(&raw[at..], &mut headers).expect("trailers");
        if let httparse::Status::Complete((length, trailers)) = trailers {
            body.trailers = Fields::new(trailers);
            body.end = Some(at + length);
        }
        body
    }
}

impl Reader {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// Reads what is there, or waits for some. False if the other side has
    /// closed or reset the connection.
    pub(super) async fn fill(&mut self) -> bool {
        let read = self.stream.read_buf(&mut self.unread).await;
        read.is_ok_and(|read| read > 0)
    }

    /// The length of the head at the start, when it is whole.
    pub(super) fn head_length(&self) -> Option<usize> {
        let end = b"\r\n\r\n";
        let found = self.unread.windows(end.len()).position(|four| four == end);
        found.map(|at| at + end.len())
    }
}

/// Room for the fields of a head.
pub(super) fn room() -> [httparse::Header<'static>; MAX_FIELDS] {
    [httparse::EMPTY_HEADER; MAX_FIELDS]
}
