//! What a lane puts on every request: the fields of its settings, and its host.
//!
//! A request is written when it comes, and may wait for long. So its account keeps
//! the dress that it was written by, and where the core that sends it has another
//! by then, the request changes just before that: what is set may be a secret that
//! was replaced, or that the new address must not see.

use ::http::Method;
use ::http::header::{HOST, HeaderMap, HeaderName, HeaderValue};

use crate::config;
use crate::http::head;
use crate::upstream::Outgoing;

/// What requests wear. It never changes: other settings make another.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dress {
    host: HeaderValue,
    /// Whether a request's own `Host` goes before.
    keep_host: bool,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Dress {
    pub(super) fn new(settings: &config::Upstream) -> Self {
        let headers = settings.headers.iter().filter_map(|(name, value)| {
            let mut value = HeaderValue::from_str(value.reveal()).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::try_from(name).ok()?, value))
        });
        let host = HeaderValue::try_from(settings.url.authority.as_str());
        Self {
            host: host.expect("the URL was checked"),
            keep_host: settings.keep_host,
            headers: headers.collect(),
        }
    }

    /// What stands for the caller's `Host`; `None` where that is kept.
    pub(crate) fn host(&self) -> Option<&HeaderValue> {
        (!self.keep_host).then_some(&self.host)
    }

    /// The fields that are set on every request.
    pub(crate) fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// Sets the fields that are set on every request but TRACE, whose answer shows them
    /// to the caller (RFC 9110, section 9.3.8).
    pub(crate) fn put_on(&self, method: &Method, headers: &mut HeaderMap) {
        if *method == Method::TRACE {
            return;
        }
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
    }

    /// The `request`, which was written by `old`, as this has it.
    pub(super) fn replace(&self, old: &Self, request: Outgoing) -> Outgoing {
        let mut request = match request {
            Outgoing::Parsed(request) => request,
            Outgoing::Plain(plain) => Box::new(plain.into_request()),
        };
        let method = request.method().clone();
        let headers = request.headers_mut();
        let set = |name: &HeaderName| old.headers.iter().any(|(set, _)| set == name);
        head::remove(headers, set);
        // Where the old one's stands, the caller's own is not known any more.
        let own = headers.get(HOST).is_some_and(|host| *host != old.host);
        let replaced = !old.keep_host && !own;
        if !self.keep_host || replaced {
            headers.insert(HOST, self.host.clone());
        }
        self.put_on(&method, headers);
        Outgoing::Parsed(request)
    }
}

#[cfg(test)]
mod tests {
    use ::http::Request;

    use super::*;
    use crate::config::Config;
    use crate::http::body::Upload;
    use crate::http::plain::request::{Head, Rewrite};

    fn dress(host: &str, toml: &str) -> Dress {
        let listen = "listen = \"127.0.0.1:1\"";
        let text = format!("{listen}\n[upstream.a]\nurl = \"http://{host}\"\n{toml}");
        Dress::new(&Config::parse("test", &text).unwrap().upstreams[0])
    }

    /// A plain request as it is written by `dress`.
    fn plain(dress: &Dress) -> Outgoing {
        let head = b"GET / HTTP/1.1\r\nhost: caller\r\nx-own: 1\r\nx-key: own\r\n\r\n";
        let rewrite = Rewrite::new(0, dress.host(), false, false, dress.headers());
        let head = Head::read(head).unwrap();
        Outgoing::Plain(head.request(&rewrite.unwrap(), b""))
    }

    fn parsed(request: Outgoing) -> Box<Request<Upload>> {
        match request {
            Outgoing::Parsed(request) => request,
            Outgoing::Plain(plain) => Box::new(plain.into_request()),
        }
    }

    #[test]
    fn what_the_old_one_set_goes_and_the_rest_stays() {
        let old = dress("old", "headers = { x-key = \"old\", x-old = \"1\" }");
        let new = dress("new", "headers = { x-key = \"new\", x-new = \"1\" }");
        let request = parsed(new.replace(&old, plain(&old)));
        let fields = request.headers().iter();
        let fields: Vec<_> = fields
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        let expected = [
            ("host", "new"),
            ("x-own", "1"),
            ("x-key", "new"),
            ("x-new", "1"),
        ];
        assert_eq!(fields, expected);
        assert!(request.headers()["x-key"].is_sensitive());
    }

    #[test]
    fn the_callers_host_is_kept_where_it_is_known_and_wanted() {
        let keeping = |keeps: bool| format!("keep_host = {keeps}");
        for (kept, keeps, expected) in [
            (true, true, "caller"),
            (true, false, "new"),
            (false, true, "new"),
            (false, false, "new"),
        ] {
            let old = dress("old", &keeping(kept));
            let new = dress("new", &keeping(keeps));
            let request = parsed(new.replace(&old, plain(&old)));
            assert_eq!(request.headers()[HOST], expected, "{kept} {keeps}");
        }
        // In a map it is replaced only when it is sent.
        let old = dress("old", "");
        let new = dress("new", &keeping(true));
        let kept = dress("old", &keeping(true));
        let request = Outgoing::Parsed(parsed(plain(&kept)));
        let request = parsed(new.replace(&old, request));
        assert_eq!(request.headers()[HOST], "caller");
    }
}
