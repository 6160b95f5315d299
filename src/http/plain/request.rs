//! Requests of the plain kind.

use std::fmt;

use ::http::header::{HeaderName, HeaderValue};
use ::http::{Method, Request, Uri, Version};
use bytes::Bytes;

use super::{field, lines};
use crate::http::body::Upload;
use crate::http::head::is_host;

/// What there is to a field of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It goes on as it is.
    Kept,
    Host,
    Length,
    /// It tells where a request came from.
    Forwarded,
    Connection,
    /// It ends here.
    Dropped,
    /// Not plain.
    Special,
}

/// A request head of the plain kind.
pub(crate) struct Head<'a> {
    method: &'a [u8],
    target: &'a str,
    host: &'a [u8],
    /// All field lines.
    fields: &'a [u8],
    has_length: bool,
}

/// What a route changes in heads.
pub(crate) struct Rewrite {
    /// Bytes at the start of each path that are not sent.
    prefix: usize,
    /// Instead of the caller's `Host`.
    host: Option<Vec<u8>>,
    keeps_forwarded: bool,
    /// Names of the caller's fields that are replaced.
    replaced: Vec<HeaderName>,
    /// Field lines at the end.
    added: Vec<u8>,
}

/// A request of the plain kind, in the form in which an HTTP/1.1 upstream gets
/// it. Cloning it is cheap.
#[derive(Clone)]
pub(crate) struct Plain {
    bytes: Bytes,
    /// The length of its head.
    head: usize,
    /// Whether it is a HEAD.
    head_only: bool,
    /// Whether it may be repeated although it may have been acted upon.
    repeatable: bool,
}

/// Whether a request may be repeated although it may have been acted upon (RFC
/// 9110, section 9.2.2).
pub(crate) fn is_repeatable(method: &[u8]) -> bool {
    const ALL: [&[u8]; 6] = [b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"];
    ALL.contains(&method)
}

fn kind(name: &[u8]) -> Kind {
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    match name.len() {
        2 if is("te") => Kind::Special,
        // To be counted (`http::head`).
        3 if is("via") => Kind::Special,
        4 if is("host") => Kind::Host,
        6 if is("expect") => Kind::Special,
        7 if is("upgrade") => Kind::Special,
        9 if is("forwarded") || is("x-real-ip") => Kind::Forwarded,
        10 if is("connection") => Kind::Connection,
        10 if is("keep-alive") => Kind::Dropped,
        14 if is("content-length") => Kind::Length,
        14 if is("http2-settings") => Kind::Special,
        16 if is("proxy-connection") => Kind::Special,
        17 if is("transfer-encoding") => Kind::Special,
        18 if is("proxy-authenticate") => Kind::Special,
        19 if is("proxy-authorization") => Kind::Special,
        12.. if name[..12].eq_ignore_ascii_case(b"x-forwarded-") => Kind::Forwarded,
        _ => Kind::Kept,
    }
}

impl<'a> Head<'a> {
    /// Reads a whole `head` that the framing reader has found in order. `None`
    /// if it is not plain.
    pub(crate) fn read(head: &'a [u8]) -> Option<Self> {
        let line = lines(head).next()?;
        let mut words = line.split(|byte| *byte == b' ');
        let (method, target) = (words.next()?, words.next()?);
        let special = matches!(method, b"CONNECT" | b"OPTIONS" | b"TRACE");
        if special || target.first() != Some(&b'/') || words.next() != Some(b"HTTP/1.1") {
            return None;
        }
        let fields = &head[line.len() + 2..];
        let (mut host, mut has_length) = (None, false);
        for line in lines(fields) {
            let (name, value) = field(line)?;
            match kind(name) {
                Kind::Host if host.is_some() || !is_host(value) => return None,
                Kind::Host => host = Some(value),
                Kind::Length => has_length = true,
                Kind::Connection if !value.eq_ignore_ascii_case(b"keep-alive") => return None,
                Kind::Special => return None,
                Kind::Kept | Kind::Forwarded | Kind::Connection | Kind::Dropped => {}
            }
        }
        Some(Self {
            method,
            target: str::from_utf8(target).ok()?,
            host: host?,
            fields,
            has_length,
        })
    }

    /// The host it is meant for, with its port.
    pub(crate) fn host(&self) -> &'a [u8] {
        self.host
    }

    /// Its path, without the query.
    pub(crate) fn path(&self) -> &'a str {
        self.target
            .split_once('?')
            .map_or(self.target, |(path, _)| path)
    }

    /// How the log names it: without the query, which may hold secrets.
    pub(crate) fn note(&self) -> String {
        format!("{} {}", String::from_utf8_lossy(self.method), self.path())
    }

    /// The request as the upstream gets it.
    pub(crate) fn request(&self, rewrite: &Rewrite, body: &[u8]) -> Plain {
        let length = self.method.len() + self.target.len() + self.fields.len() + body.len();
        let host = rewrite.host.as_deref().unwrap_or(self.host);
        // It may wait for long, so the room is what it takes, or little more.
        let mut bytes = Vec::with_capacity(length + host.len() + rewrite.added.len() + 16);
        let mut add = |parts: &[&[u8]]| {
            parts.iter().for_each(|part| bytes.extend_from_slice(part));
        };
        let target = &self.target.as_bytes()[rewrite.prefix..];
        let root: &[u8] = match target.first() {
            Some(b'/') => b"",
            _ => b"/",
        };
        add(&[self.method, b" ", root, target, b" HTTP/1.1\r\n"]);
        for line in lines(self.fields) {
            let Some((name, value)) = field(line) else {
                continue;
            };
            let value = match kind(name) {
                Kind::Host => host,
                Kind::Kept | Kind::Forwarded if rewrite.replaces(name) => continue,
                Kind::Kept | Kind::Length => value,
                Kind::Forwarded if rewrite.keeps_forwarded => value,
                Kind::Forwarded | Kind::Connection | Kind::Dropped | Kind::Special => continue,
            };
            add(&[name, b": ", value, b"\r\n"]);
        }
        // RFC 9110, section 8.6: some servers insist.
        if !self.has_length && matches!(self.method, b"POST" | b"PUT" | b"PATCH") {
            add(&[b"content-length: 0\r\n"]);
        }
        add(&[&rewrite.added, b"\r\n"]);
        let head = bytes.len();
        bytes.extend_from_slice(body);
        Plain {
            bytes: bytes.into(),
            head,
            head_only: self.method == b"HEAD",
            repeatable: is_repeatable(self.method),
        }
    }
}

impl Rewrite {
    /// What a route changes: so many bytes at the start of a path are not sent,
    /// `host` stands for the caller's own, `headers` are set. `None` if a field
    /// is set that plain requests have no place for.
    pub(crate) fn new(
        prefix: usize,
        host: Option<&HeaderValue>,
        keeps_forwarded: bool,
        via: bool,
        headers: &[(HeaderName, HeaderValue)],
    ) -> Option<Self> {
        let mut added = Vec::new();
        if via {
            added.extend_from_slice(b"via: 1.1 pacegate\r\n");
        }
        for (name, value) in headers {
            let kept = matches!(kind(name.as_str().as_bytes()), Kind::Kept | Kind::Forwarded);
            if !kept {
                return None;
            }
            let name: &[u8] = name.as_ref();
            for part in [name, b": ", value.as_bytes(), b"\r\n"] {
                added.extend_from_slice(part);
            }
        }
        Some(Self {
            prefix,
            host: host.map(|host| host.as_bytes().to_vec()),
            keeps_forwarded,
            replaced: headers.iter().map(|(name, _)| name.clone()).collect(),
            added,
        })
    }

    fn replaces(&self, name: &[u8]) -> bool {
        let mut replaced = self.replaced.iter();
        replaced.any(|known| name.eq_ignore_ascii_case(known.as_ref()))
    }
}

impl Plain {
    /// Head and body.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whether it is a HEAD.
    pub(crate) fn head_only(&self) -> bool {
        self.head_only
    }

    /// Whether it may be repeated although it may have been acted upon.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.repeatable
    }

    /// The same with its fields in a map, for an upstream of another version, or to
    /// change them.
    pub(crate) fn into_request(self) -> Request<Upload> {
        let mut request = Request::new(Upload::from(self.bytes.slice(self.head..)));
        let mut lines = lines(&self.bytes[..self.head]);
        let line = lines.next().unwrap_or_default();
        let mut words = line.split(|byte| *byte == b' ');
        // All of these were read before.
        if let Some(Ok(method)) = words.next().map(Method::from_bytes) {
            *request.method_mut() = method;
        }
        if let Some(Ok(uri)) = words.next().map(Uri::try_from) {
            *request.uri_mut() = uri;
        }
        *request.version_mut() = Version::HTTP_11;
        for (name, value) in lines.filter_map(field) {
            let name = HeaderName::from_bytes(name);
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
                request.headers_mut().append(name, value);
            }
        }
        request
    }
}

/// What it holds may be secret.
impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut plain = f.debug_struct("Plain");
        plain
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// What it holds may be secret.
impl fmt::Debug for Rewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rewrite").finish_non_exhaustive()
    }
}
