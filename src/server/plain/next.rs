//! What a plain caller has sent next.

use std::sync::Arc;

use crate::http::chunked::Bounds;
use crate::http::plain::request::Head;
use crate::proxy::{PlainCall, Proxy};
use crate::server::Server;
use crate::server::framing::head::{Body, Head as StrictHead};

/// Most bytes of a request that are kept while the rest is on its way. What is
/// longer goes to hyper.
const LONGEST_PART: usize = 8 << 10;

/// What comes next on a connection.
pub(super) enum Next {
    Call(Arc<Proxy>, PlainCall),
    /// The beginning of a plain request, of which the rest may come in a moment.
    Part(Vec<u8>),
    /// Something that is not plain.
    Other(Vec<u8>),
    /// It has been idle for too long, or its place is needed.
    Over,
    /// The caller has closed it.
    Gone,
}

/// Takes the first of what has come: `bytes`. What follows it goes to `ahead`.
pub(super) fn take(server: &Server, bytes: &[u8], ahead: &mut Vec<u8>) -> Next {
    let proxy = server.proxy.load_full();
    let Some((head, [end_of_head, end])) = plain(server, bytes) else {
        return Next::Other(bytes.to_vec());
    };
    if end > bytes.len() && end <= LONGEST_PART {
        return Next::Part(bytes.to_vec());
    }
    let body = bytes.get(end_of_head..end);
    match body.and_then(|body| proxy.plain(&head, body)) {
        Some(call) => {
            ahead.extend_from_slice(&bytes[end..]);
            Next::Call(proxy, call)
        }
        None => Next::Other(bytes.to_vec()),
    }
}

/// The plain head at the start of `bytes`, where it ends, and where its request
/// does.
fn plain<'a>(server: &Server, bytes: &'a [u8]) -> Option<(Head<'a>, [usize; 2])> {
    let bounds = Bounds {
        bytes: server.settings.max_header_bytes,
        fields: server.settings.max_headers,
    };
    let (length, heading) = StrictHead::default().read(bytes, &bounds).ok()??;
    let Body::Length(body) = heading.body else {
        return None;
    };
    let end = length.checked_add(usize::try_from(body).ok()?)?;
    Some((Head::read(&bytes[..length])?, [length, end]))
}
