//! The little HTTP/1.1 that origin and load need of each other: GETs without a body, POSTs with a Content-Length, answers with
//! a Content-Length (or none, then they end with the connection). Parsing is httparse's; anything else is an error, so that no figure rests on a
//! misread answer.

use std::io;

const MAX_FIELDS: usize = 64;
const FIELDS: &str = "Host: bench.test\r\n\
    User-Agent: pacegate-bench/0.1\r\n\
    Accept: application/json, */*\r\n";

/// An answer as far as the load cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// The status code.
    pub(crate) status: u16,
    /// Bytes of the head, the empty line included.
    pub(crate) size: usize,
    /// Bytes of the body; none means that it ends with the connection.
    pub(crate) length: Option<usize>,
    /// Whether the other side will close the connection.
    pub(crate) close: bool,
}

/// What a request asks of the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// `/n/NUMBER`: a numbered request, or `/` and anything else: number 0.
    Number(u32),
    /// `/__arrivals`: what has been recorded so far.
    Arrivals,
}

/// A numbered GET of about 110 bytes.
pub(crate) fn get(number: u32) -> Vec<u8> {
    get_path(&format!("/n/{number}"))
}

/// A GET of `path`.
pub(crate) fn get_path(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\n{FIELDS}\r\n").into_bytes()
}

/// A GET whose field `x-key` says whose it is.
pub(crate) fn keyed(key: u32) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\n{FIELDS}X-Key: {key}\r\n\r\n").into_bytes()
}

/// A POST of a body.
pub(crate) fn post(body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("POST / HTTP/1.1\r\n{FIELDS}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// The head of an answer, none while it is incomplete.
pub(crate) fn response(input: &[u8]) -> io::Result<Option<Head>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(size) = response.parse(input).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let status = response.code.unwrap_or(0);
    let mut head = Head {
        status,
        size,
        length: None,
        close: response.version == Some(0),
    };
    for field in response.headers.iter() {
        if field.name.eq_ignore_ascii_case("content-length") {
            head.length = Some(length(field.value)?);
        } else if field.name.eq_ignore_ascii_case("connection") {
            head.close = field.value.eq_ignore_ascii_case(b"close");
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(io::Error::other("answer with a transfer-encoding"));
        }
    }
    Ok(Some(head))
}

/// The first request in `input` and its size in bytes, its body included; none while it is incomplete.
pub(crate) fn request(input: &[u8]) -> io::Result<Option<(Target, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(size) = request.parse(input).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let size = match request.method {
        Some("GET") => size,
        Some("POST") => size + body_length(request.headers)?,
        _ => return Err(io::Error::other("the origin knows only GET and POST")),
    };
    let complete = input.len() >= size;
    Ok(complete.then(|| (target(request.path.unwrap_or("/")), size)))
}

fn body_length(fields: &[httparse::Header<'_>]) -> io::Result<usize> {
    let field = fields
        .iter()
        .find(|field| field.name.eq_ignore_ascii_case("content-length"))
        .ok_or_else(|| io::Error::other("the origin knows only bodies with a content-length"))?;
    length(field.value)
}

fn length(value: &[u8]) -> io::Result<usize> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| io::Error::other("an unreadable content-length"))
}

fn target(path: &str) -> Target {
    match path.strip_prefix("/n/") {
        Some(number) => Target::Number(number.parse().unwrap_or(0)),
        None if path == "/__arrivals" => Target::Arrivals,
        None => Target::Number(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_one_of_two_pipelined_requests() {
        let mut input = get(7);
        let first = input.len();
        assert!((100..=120).contains(&first), "{first} bytes");
        input.extend(get_path("/__arrivals"));
        assert_eq!(request(&input).unwrap(), Some((Target::Number(7), first)));
        assert_eq!(
            request(&input[first..]).unwrap().unwrap().0,
            Target::Arrivals
        );
        assert_eq!(request(&input[..first - 1]).unwrap(), None);
    }

    #[test]
    fn a_request_is_complete_with_its_body() {
        let mut input = post(b"0123456789");
        let first = input.len();
        assert_eq!(request(&input[..first - 1]).unwrap(), None);
        input.extend(get(7));
        assert_eq!(request(&input).unwrap(), Some((Target::Number(0), first)));
        assert!(request(b"POST / HTTP/1.1\r\n\r\n").is_err());
    }

    #[test]
    fn knows_where_an_answer_ends() {
        let text = b"HTTP/1.1 429 Too Many\r\nContent-Length: 12\r\nConnection: close\r\n\r\n";
        let head = Head {
            status: 429,
            size: text.len(),
            length: Some(12),
            close: true,
        };
        assert_eq!(response(text).unwrap(), Some(head));
        assert_eq!(response(&text[..20]).unwrap(), None);
        assert!(response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }
}
