//! The change to another protocol on an HTTP/1.1 connection (RFC 9110, section
//! 7.8): what a caller offers, what the upstream takes of it, and the fields of
//! both, which go hop by hop and so are written anew.

use ::http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use ::http::request::Parts;
use ::http::{Method, Version};

use crate::http::grammar::members;

/// The protocols that `head` asks to change to. HTTP/2 is not among them: it is
/// no business of the upstream which HTTP a caller speaks with us.
pub(crate) fn offered(head: &Parts) -> Option<HeaderValue> {
    if !head.headers.contains_key(UPGRADE) {
        return None;
    }
    let asked = has_token(&head.headers, &CONNECTION, b"upgrade");
    if !asked || head.version != Version::HTTP_11 || head.method == Method::CONNECT {
        return None;
    }
    let protocols: Vec<&[u8]> = tokens(&head.headers, &UPGRADE)
        .filter(|protocol| !protocol.eq_ignore_ascii_case(b"h2c"))
        .collect();
    if protocols.is_empty() {
        return None;
    }
    HeaderValue::from_bytes(&protocols.join(&b", "[..])).ok()
}

/// What the upstream changes to, if it is one protocol or several of those that
/// were `offered`.
pub(crate) fn accepted(headers: &HeaderMap, offered: &HeaderValue) -> Option<HeaderValue> {
    let protocols: Vec<&[u8]> = tokens(headers, &UPGRADE).collect();
    let known = |protocol: &&[u8]| {
        let mut offers = split(offered);
        offers.any(|offer| offer.eq_ignore_ascii_case(protocol))
    };
    if protocols.is_empty() || !protocols.iter().all(known) {
        return None;
    }
    HeaderValue::from_bytes(&protocols.join(&b", "[..])).ok()
}

/// Writes the fields of a change to `protocols`.
pub(crate) fn write(headers: &mut HeaderMap, protocols: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocols);
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &[u8]) -> bool {
    tokens(headers, name).any(|one| one.eq_ignore_ascii_case(token))
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).into_iter().flat_map(split)
}

fn split(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    members(value.as_bytes()).filter(|one| !one.is_empty())
}

#[cfg(test)]
mod tests {
    use ::http::Request;

    use super::*;

    fn offer(fields: &[(&'static str, &'static str)]) -> Option<String> {
        let mut request = Request::get("/");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        offered(&head).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn an_upgrade_is_offered_where_connection_names_it() {
        let websocket = ("upgrade", "websocket");
        let both = [("connection", "keep-alive, Upgrade"), websocket];
        assert_eq!(offer(&both).as_deref(), Some("websocket"));
        assert_eq!(offer(&[websocket]), None);
        let several = [("connection", "upgrade"), ("upgrade", "h2c, foo/2 ,,bar")];
        assert_eq!(offer(&several).as_deref(), Some("foo/2, bar"));
        assert_eq!(
            offer(&[("connection", "upgrade"), ("upgrade", "h2c")]),
            None
        );
    }

    /// RFC 9110, section 15.2.2: the answer names what it changes to.
    #[test]
    fn only_what_was_offered_can_be_accepted() {
        let offered = HeaderValue::from_static("foo/2, WebSocket");
        let accept = |value: Option<&'static str>| {
            let value = value.map(|value| (UPGRADE, HeaderValue::from_static(value)));
            accepted(&value.into_iter().collect(), &offered)
        };
        assert_eq!(accept(Some("websocket")).unwrap(), "websocket");
        assert_eq!(accept(Some("websocket, other")), None);
        assert_eq!(accept(Some("other")), None);
        assert_eq!(accept(None), None);
    }
}
