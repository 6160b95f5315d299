//! The plain case of HTTP/1.1, as bytes: a request whose body is at hand, and a
//! response that goes on as it came but for the fields that go hop by hop.
//!
//! Most of what programs send is of this kind, and it needs no map of fields. A
//! head that holds anything else is [not read here](request::Head::read), and
//! goes the way of all others, through hyper. Both ways say the same to the
//! upstream and to the caller, which the tests hold them to.

pub(crate) mod request;
pub(crate) mod response;

/// The parts of a field line whose end is cut off: name and value, without the
/// space around it.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    Some((&line[..colon], line[colon + 1..].trim_ascii()))
}

/// The lines of a head, each without its CRLF, up to the empty one.
fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = head.get(at..)?;
        let end = memchr::memchr(b'\n', rest)?;
        at += end + 1;
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        (!line.is_empty()).then_some(line)
    })
}
