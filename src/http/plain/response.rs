//! Response heads of an HTTP/1.1 upstream, read for a request of the plain kind.

use std::fmt;
use std::io::Write;
use std::mem::MaybeUninit;

use ::http::header::{HeaderMap, HeaderName, HeaderValue};
use ::http::{Response, StatusCode, response};
use httparse::{Error, Header, ParserConfig, Status};
use hyper::ext::ReasonPhrase;

use crate::http::grammar::members;
use crate::http::response::Length;
use crate::http::{date, response as checks};
use crate::outcome::Break;

/// Most fields of a head.
const MOST_FIELDS: usize = 100;

/// The end of a body in chunks (RFC 9112, section 7.1), without trailer fields.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Writes `content` as one chunk; nothing if there is none, since that would be
/// the last.
pub(crate) fn write_chunk(into: &mut Vec<u8>, content: &[u8]) {
    if content.is_empty() {
        return;
    }
    // To a vector nothing fails.
    let _ = write!(into, "{:x}\r\n", content.len());
    into.extend_from_slice(content);
    into.extend_from_slice(b"\r\n");
}

/// How a response's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// After so many bytes.
    Length(u64),
    Chunked,
    /// With the connection.
    Close,
}

/// What the beginning of a response holds.
#[derive(Debug)]
pub(crate) enum Read {
    /// Not a whole head.
    Part,
    /// An interim response (RFC 9110, section 15.2), so many bytes long.
    Interim(usize),
    /// A head, so many bytes long.
    Whole(usize, Head),
}

/// The head of a final response.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) end: End,
    /// Whether the connection stays open afterwards.
    pub(crate) keeps: bool,
    pub(crate) fields: Fields,
}

/// What somebody has to look at before the caller gets a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    Nothing,
    Fields,
    /// Its body too, perhaps.
    Everything,
}

/// The fields of a response.
#[derive(Debug)]
pub(crate) enum Fields {
    /// The head as the caller gets it, and the fields for who looks at them.
    Ready(Ready, Option<Box<HeaderMap>>),
    /// As they came.
    Parsed(Box<response::Parts>),
}

/// A head in the form in which an HTTP/1.1 caller gets it, perhaps with the
/// beginning of the body.
pub(crate) struct Ready {
    bytes: Vec<u8>,
    head: usize,
}

/// Reads the head at the start of `bytes`; the response is to a HEAD if
/// `head_only`. It becomes [`Fields::Ready`] where nothing in it is special, unless
/// that has to be looked at which one with its status may be asked for by `look`.
///
/// # Errors
///
/// It cannot be read, or has more than one meaning.
pub(crate) fn read(
    bytes: &[u8],
    head_only: bool,
    look: impl FnOnce(StatusCode) -> Look,
) -> Result<Read, Break> {
    // Not set to anything: that would take longer than to read a head.
    let mut room = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut head = httparse::Response::new(&mut []);
    let mut parser = ParserConfig::default();
    // RFC 9112, section 5.1: a gateway takes the space away.
    parser.allow_spaces_after_header_name_in_responses(true);
    let read = parser.parse_response_with_uninit_headers(&mut head, bytes, &mut room);
    let length = match read {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(Read::Part),
        Err(Error::TooManyHeaders) => return Err(Break::HeadTooLong),
        Err(_) => return Err(Break::Malformed),
    };
    let status = head.code.map(StatusCode::from_u16);
    let status = status.and_then(Result::ok).ok_or(Break::Malformed)?;
    let switching = status == StatusCode::SWITCHING_PROTOCOLS;
    if status.is_informational() && !switching {
        return Ok(Read::Interim(length));
    }
    let framing = Framing::of(head.headers, head.version == Some(0))?;
    let bare = head_only
        || switching
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let end = match framing.length {
        _ if bare => End::Length(0),
        _ if framing.chunked => End::Chunked,
        Some(length) => End::Length(length),
        None => End::Close,
    };
    let keeps = framing.keeps && !switching && end != End::Close;
    let look = match framing.special || switching {
        true => Look::Everything,
        false => look(status),
    };
    let ready = || Ready::new(bytes.len(), status, &head, &framing, end, bare);
    let fields = match look {
        Look::Nothing => Fields::Ready(ready(), None),
        Look::Fields => Fields::Ready(ready(), Some(Box::new(map(head.headers)?))),
        Look::Everything => Fields::Parsed(Box::new(parsed(status, &head)?)),
    };
    let head = Head {
        status,
        end,
        keeps,
        fields,
    };
    Ok(Read::Whole(length, head))
}

/// What the fields say of the body and of the connection.
struct Framing {
    length: Option<u64>,
    chunked: bool,
    keeps: bool,
    /// Whether `Connection` names other fields.
    special: bool,
    dated: bool,
}

impl Framing {
    fn of(fields: &[Header<'_>], old: bool) -> Result<Self, Break> {
        let mut framing = Self {
            length: None,
            chunked: false,
            keeps: !old,
            special: false,
            dated: false,
        };
        let mut length = Length::default();
        let mut codings = 0;
        for Header { name, value } in fields {
            match name.len() {
                4 if name.eq_ignore_ascii_case("date") => framing.dated = true,
                10 if name.eq_ignore_ascii_case("connection") => framing.connection(value),
                14 if name.eq_ignore_ascii_case("content-length") => length.add(value)?,
                17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                    codings += 1;
                    framing.chunked = value.trim_ascii().eq_ignore_ascii_case(b"chunked");
                }
                _ => {}
            }
        }
        framing.length = length.get()?;
        match codings {
            0 => Ok(framing),
            1 if framing.length.is_some() || old => Err(Break::Malformed),
            1 if framing.chunked => Ok(framing),
            _ => Err(Break::TransferCoding),
        }
    }

    fn connection(&mut self, value: &[u8]) {
        for option in members(value) {
            match option {
                option if option.eq_ignore_ascii_case(b"close") => self.keeps = false,
                option if option.eq_ignore_ascii_case(b"keep-alive") => {}
                _ => self.special = true,
            }
        }
    }
}

fn map(fields: &[Header<'_>]) -> Result<HeaderMap, Break> {
    let mut map = HeaderMap::with_capacity(fields.len());
    for Header { name, value } in fields {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_bytes(value);
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(Break::Malformed);
        };
        map.append(name, value);
    }
    Ok(map)
}

/// The head as a map of fields.
fn parsed(status: StatusCode, head: &httparse::Response<'_, '_>) -> Result<response::Parts, Break> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = map(head.headers)?;
    if let Some(Ok(reason)) = head
        .reason
        .map(|text| ReasonPhrase::try_from(text.as_bytes()))
    {
        response.extensions_mut().insert(reason);
    }
    checks::check(&mut response)?;
    Ok(response.into_parts().0)
}

/// Whether a field of a response ends here: it goes hop by hop (RFC 9110,
/// section 7.6.1), or is written anew.
fn is_dropped(name: &str) -> bool {
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    match name.len() {
        2 => is("te"),
        6 => is("expect"),
        7 => is("upgrade"),
        10 => is("connection") || is("keep-alive"),
        14 => is("content-length") || is("http2-settings"),
        16 => is("proxy-connection"),
        17 => is("transfer-encoding"),
        18 => is("proxy-authenticate"),
        19 => is("proxy-authorization"),
        _ => false,
    }
}

impl Ready {
    fn new(
        room: usize,
        status: StatusCode,
        head: &httparse::Response<'_, '_>,
        framing: &Framing,
        end: End,
        bare: bool,
    ) -> Self {
        let mut bytes = Vec::with_capacity(room + 128);
        let mut add = |parts: &[&[u8]]| {
            parts.iter().for_each(|part| bytes.extend_from_slice(part));
        };
        let reason = head.reason.unwrap_or_default().as_bytes();
        add(&[
            b"HTTP/1.1 ",
            status.as_str().as_bytes(),
            b" ",
            reason,
            b"\r\n",
        ]);
        for Header { name, value } in &*head.headers {
            if !is_dropped(name) {
                add(&[name.as_bytes(), b": ", value.trim_ascii(), b"\r\n"]);
            }
        }
        let none = status == StatusCode::NO_CONTENT;
        match framing.length {
            // RFC 9110, section 8.6: there must be none.
            Some(length) if !none => {
                let mut digits = itoa::Buffer::new();
                let digits = digits.format(length).as_bytes();
                add(&[b"content-length: ", digits, b"\r\n"]);
            }
            _ if !bare && end != End::Length(0) => add(&[b"transfer-encoding: chunked\r\n"]),
            _ => {}
        }
        if !framing.dated {
            date::now(|now| add(&[b"date: ", now, b"\r\n"]));
        }
        add(&[b"\r\n"]);
        let head = bytes.len();
        Self { bytes, head }
    }

    /// Adds what has come of a body of known length.
    pub(crate) fn push(&mut self, body: &[u8]) {
        self.bytes.extend_from_slice(body);
    }

    /// Adds what has come of a body that goes on in chunks.
    pub(crate) fn push_chunk(&mut self, content: &[u8]) {
        write_chunk(&mut self.bytes, content);
    }

    /// Adds the end of a body in chunks.
    pub(crate) fn push_last_chunk(&mut self) {
        self.bytes.extend_from_slice(LAST_CHUNK);
    }

    /// Adds a field to the head, its value in pieces.
    pub(crate) fn add(&mut self, name: &HeaderName, value: &[&[u8]]) {
        let name: &[u8] = name.as_ref();
        let end = self.head - 2;
        let start = self.bytes.len();
        for part in [name, b": "].iter().chain(value).chain([&&b"\r\n"[..]]) {
            self.bytes.extend_from_slice(part);
        }
        let length = self.bytes.len() - start;
        self.bytes[end..].rotate_right(length);
        self.head += length;
    }

    /// All of it.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// What it holds may be secret.
impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ready = f.debug_struct("Ready");
        ready.field("head", &self.head).finish_non_exhaustive()
    }
}
