//! Request heads: the request line (RFC 9112, section 3) and the fields
//! (section 5), and what they say of the body (section 6).
//!
//! A head is read line by line, as it comes, so that what is wrong is known as
//! early as can be: a caller that ends its lines in another way than CRLF, or
//! speaks something else, is not waited for.

use ::http::Uri;
use memchr::memchr;

use crate::http::chunked::{Bounds, LONGEST_BODY};
use crate::http::grammar::{all_text, is_token, members};
use crate::outcome::Fault;

/// Empty lines that may come before a request line (RFC 9112, section 2.2, asks
/// for one): some callers send one too many after a body.
const EMPTY_LINES: u8 = 4;

/// The longest target that `http::Uri` holds, in bytes.
const LONGEST_TARGET: usize = 65_534;

/// The longest name that `http::HeaderName` holds, in bytes.
const LONGEST_NAME: usize = 65_535;

/// A head under way.
#[derive(Debug, Default)]
pub(in crate::server) struct Head {
    /// Where the line begins that is not whole yet.
    line: usize,
    /// Up to where there is no more line end.
    seen: usize,
    empty_lines: u8,
    /// `None` before the request line.
    request: Option<Request>,
}

/// What has been read since the request line.
#[derive(Debug)]
struct Request {
    /// Whether it is HTTP/1.0.
    old: bool,
    head_only: bool,
    fields: usize,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    whole_server: bool,
}

/// How the body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Body {
    /// After so many bytes.
    Length(u64),
    Chunked,
}

/// What a whole head says of what follows it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::server) struct Heading {
    pub(in crate::server) body: Body,
    /// Whether the caller sends nothing after this request.
    pub(super) last: bool,
    /// Whether the caller would like to speak something else afterwards.
    pub(super) upgrade: bool,
    pub(super) head_only: bool,
    /// Whether it is OPTIONS of a URI without path and query, by which the server
    /// as a whole is meant (RFC 9112, section 3.2.4); `http::Uri` forgets that.
    pub(super) whole_server: bool,
}

impl Head {
    /// Whether more has come than empty lines.
    pub(super) fn has_begun(&self) -> bool {
        self.request.is_some() || self.seen > self.line
    }

    /// Whether the method is HEAD, as far as is known.
    pub(super) fn is_head_only(&self) -> bool {
        self.request
            .as_ref()
            .is_some_and(|request| request.head_only)
    }

    /// Reads on in `head`, which is all of it that has come. When it is whole:
    /// its length and what it says.
    pub(in crate::server) fn read(
        &mut self,
        head: &[u8],
        bounds: &Bounds,
    ) -> Result<Option<(usize, Heading)>, Fault> {
        loop {
            let Some(at) = memchr(b'\n', &head[self.seen..]) else {
                self.check_part(&head[self.line..])?;
                self.seen = head.len();
                self.check_length(head.len(), bounds)?;
                return Ok(None);
            };
            let end = self.seen + at;
            self.check_length(end + 1, bounds)?;
            let line = &head[self.line..end];
            // RFC 9112, section 2.2, lets a bare LF end a line; we do not, since
            // others see the end elsewhere.
            let Some((b'\r', line)) = line.split_last() else {
                return Err(self.malformed());
            };
            self.line = end + 1;
            self.seen = end + 1;
            match &mut self.request {
                None if line.is_empty() => {
                    self.empty_lines += 1;
                    if self.empty_lines > EMPTY_LINES {
                        return Err(Fault::RequestLine);
                    }
                }
                None => self.request = Some(Request::read(line)?),
                Some(request) if line.is_empty() => {
                    return Ok(Some((end + 1, request.heading()?)));
                }
                Some(request) => request.field(line, bounds)?,
            }
        }
    }

    /// The fault of a line that cannot be read.
    fn malformed(&self) -> Fault {
        match self.request {
            None => Fault::RequestLine,
            Some(_) => Fault::Field,
        }
    }

    /// Whether a line may begin like that. A CR at the end may be half its end.
    fn check_part(&self, line: &[u8]) -> Result<(), Fault> {
        // What was there before is known to be good, but for a CR at its end.
        let known = (self.seen - self.line).saturating_sub(1);
        let part = &line[known..];
        let part = part.strip_suffix(b"\r").unwrap_or(part);
        let good = match self.request {
            None => part.iter().all(|byte| matches!(byte, b' '..=b'~')),
            Some(_) => all_text(part),
        };
        // No line begins with a space: obsolete folding is not read.
        let folded = line.first().is_some_and(|byte| b" \t".contains(byte));
        match good && !folded {
            true => Ok(()),
            false => Err(self.malformed()),
        }
    }

    fn check_length(&self, length: usize, bounds: &Bounds) -> Result<(), Fault> {
        match self.request {
            _ if length <= bounds.bytes => Ok(()),
            None => Err(Fault::TargetTooLong),
            Some(_) => Err(Fault::HeadTooLarge),
        }
    }
}

impl Request {
    /// Reads a request line: three parts and two spaces, not one more.
    fn read(line: &[u8]) -> Result<Self, Fault> {
        let method = line.iter().position(|byte| !is_token(*byte));
        let method = method.filter(|length| *length > 0 && line[*length] == b' ');
        let method = method.ok_or(Fault::RequestLine)?;
        let (method, rest) = (&line[..method], &line[method + 1..]);
        let target = memchr(b' ', rest).ok_or(Fault::RequestLine)?;
        let (target, version) = (&rest[..target], &rest[target + 1..]);
        if target.is_empty() {
            return Err(Fault::RequestLine);
        }
        let old = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                return Err(Fault::Version);
            }
            _ => return Err(Fault::RequestLine),
        };
        if method == b"CONNECT" {
            return Err(Fault::Connect);
        }
        check_target(method, target)?;
        Ok(Self {
            old,
            head_only: method == b"HEAD",
            fields: 0,
            length: None,
            chunked: false,
            close: false,
            keep_alive: false,
            upgrade: false,
            whole_server: method == b"OPTIONS" && is_bare(target),
        })
    }

    /// Reads a field line (RFC 9112, section 5): no space before the colon, no
    /// folding, no control characters.
    fn field(&mut self, line: &[u8], bounds: &Bounds) -> Result<(), Fault> {
        let colon = line.iter().position(|byte| !is_token(*byte));
        let colon = colon.filter(|length| *length > 0 && line[*length] == b':');
        let colon = colon.ok_or(Fault::Field)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if !all_text(value) {
            return Err(Fault::Field);
        }
        self.fields += 1;
        if self.fields > bounds.fields || colon > LONGEST_NAME {
            return Err(Fault::HeadTooLarge);
        }
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match colon {
            7 if is(b"upgrade") => self.upgrade = !self.old,
            10 if is(b"connection") => {
                for option in members(value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if is(b"content-length") => {
                // RFC 9112, section 6.3, lets equal ones stand for one; they come
                // from something broken on the way, or from an attack.
                if self.length.is_some() {
                    return Err(Fault::Length);
                }
                self.length = Some(length(value).ok_or(Fault::Length)?);
            }
            17 if is(b"transfer-encoding") => {
                if self.chunked {
                    return Err(Fault::Framing);
                }
                if !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err(Fault::TransferCoding);
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn heading(&self) -> Result<Heading, Fault> {
        if self.chunked && (self.length.is_some() || self.old) {
            return Err(Fault::Framing);
        }
        Ok(Heading {
            body: match self.chunked {
                true => Body::Chunked,
                false => Body::Length(self.length.unwrap_or(0)),
            },
            last: self.close || (self.old && !self.keep_alive),
            upgrade: self.upgrade,
            head_only: self.head_only,
            whole_server: self.whole_server,
        })
    }
}

/// A number without sign, space or list.
fn length(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    if digits.is_empty() {
        return None;
    }
    let length = digits.iter().try_fold(0u64, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    });
    length.filter(|length| *length <= LONGEST_BODY)
}

/// RFC 9112, section 3.2: origin-form, absolute-form, and asterisk-form for
/// OPTIONS. Nothing but what a URI may hold in ASCII, and no fragment.
fn check_target(method: &[u8], target: &[u8]) -> Result<(), Fault> {
    if target.len() > LONGEST_TARGET {
        return Err(Fault::TargetTooLong);
    }
    let good = match target {
        [b'/', ..] => is_path_and_query(target),
        b"*" => method == b"OPTIONS",
        _ => target.iter().all(|byte| is_query(*byte)) && is_absolute(target),
    };
    match good {
        true => Ok(()),
        false => Err(Fault::Target),
    }
}

fn is_path_and_query(target: &[u8]) -> bool {
    let mut query = false;
    target.iter().all(|byte| {
        query |= *byte == b'?';
        match query {
            true => is_query(*byte),
            false => TARGET[*byte as usize] & PATH != 0,
        }
    })
}

fn is_absolute(target: &[u8]) -> bool {
    let Ok(uri) = Uri::try_from(target) else {
        return false;
    };
    matches!(uri.scheme_str(), Some("http" | "https"))
        && uri.authority().is_some()
        && uri.path().starts_with('/')
}

/// Whether a target in absolute-form ends with its authority.
fn is_bare(target: &[u8]) -> bool {
    // In a path `://` may stand as well.
    let absolute = !target.starts_with(b"/");
    let colon = target.iter().position(|byte| *byte == b':');
    let rest = colon.and_then(|colon| target[colon..].strip_prefix(b"://"));
    absolute && rest.is_some_and(|rest| !rest.iter().any(|byte| b"/?".contains(byte)))
}

fn is_query(byte: u8) -> bool {
    TARGET[byte as usize] & QUERY != 0
}

const PATH: u8 = 1;
const QUERY: u8 = 2;

/// What may stand in a path and in a query: what RFC 3986 allows, and what
/// callers send although it does not and `http::Uri` passes on as it is.
const TARGET: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        if !matches!(byte, b'#' | b'<' | b'>' | b'"') {
            table[byte as usize] |= QUERY;
        }
        if !matches!(byte, b'#' | b'<' | b'>' | b'`') {
            table[byte as usize] |= PATH;
        }
        byte += 1;
    }
    table
};
