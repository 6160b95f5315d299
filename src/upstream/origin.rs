//! Where an upstream is, as it stands in each request.

use ::http::header::{CONTENT_LENGTH, HOST, HeaderValue, TRAILER, TRANSFER_ENCODING};
use ::http::uri::Authority;
use ::http::{Method, Request, Uri, Version};
use hyper::body::Body;

use crate::http::body::Upload;

/// Scheme and authority of an upstream, as they go into each request. One that was
/// not sent comes here again, as it was addressed before.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(super) uri: Uri,
    pub(super) host: HeaderValue,
    /// Whether a request's own `Host` goes before.
    pub(super) keep_host: bool,
}

impl Origin {
    /// `RFC 9112, section 3.2.1`: a path, and the authority in `Host`.
    pub(super) fn address_http1(&self, request: &mut Request<Upload>) {
        *request.version_mut() = Version::HTTP_11;
        if !self.keep_host || !request.headers().contains_key(HOST) {
            // `address_http2` moves a `Host` there.
            let moved = request.uri().authority().filter(|_| self.keep_host);
            let moved = moved.and_then(|host| HeaderValue::from_str(host.as_str()).ok());
            let host = moved.unwrap_or_else(|| self.host.clone());
            request.headers_mut().insert(HOST, host);
        }
        if request.uri().authority().is_some()
            && let Some(target) = request.uri().path_and_query().cloned()
        {
            *request.uri_mut() = Uri::from(target);
        }
        match request.body().size_hint().exact() {
            Some(0) if expects_length(request.method()) => {
                let none = HeaderValue::from_static("0");
                request.headers_mut().insert(CONTENT_LENGTH, none);
            }
            Some(_) => {}
            None => {
                // Without this hyper sends the body of a GET not at all.
                let coding = HeaderValue::from_static("chunked");
                request.headers_mut().insert(TRANSFER_ENCODING, coding);
                request.headers_mut().remove(CONTENT_LENGTH);
                // Without this it leaves out the trailers.
                if let Some(names) = request.body().trailer_names()
                    && !request.headers().contains_key(TRAILER)
                {
                    request.headers_mut().insert(TRAILER, names);
                }
            }
        }
    }

    /// RFC 9113, section 8.3.1: scheme and authority in pseudo-fields.
    pub(super) fn address_http2(&self, request: &mut Request<Upload>) {
        *request.version_mut() = Version::HTTP_2;
        let host = request.headers_mut().remove(HOST);
        let mut parts = self.uri.clone().into_parts();
        if self.keep_host {
            let host = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
            let host = host.or_else(|| request.uri().authority().cloned());
            parts.authority = host.or(parts.authority);
        }
        parts.path_and_query = request.uri().path_and_query().cloned();
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
}

/// RFC 9110, section 8.6: a length is sent also where there is no content, if
/// the method has a meaning for it. Some servers insist.
fn expects_length(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request that an HTTP/2 connection gave back was sent to the API's own name,
    /// and over HTTP/1.1 in absolute form.
    #[test]
    fn a_request_that_was_not_sent_is_addressed_again_as_the_first_time() {
        for (keep_host, name) in [(true, "caller.test"), (false, "api.test")] {
            let origin = Origin {
                uri: Uri::from_static("https://api.test/"),
                host: HeaderValue::from_static("api.test"),
                keep_host,
            };
            let request = Request::get("/a?b").header(HOST, "caller.test");
            let mut request = request.body(Upload::default()).unwrap();
            for version in [2, 2, 1, 1, 2] {
                if version == 2 {
                    origin.address_http2(&mut request);
                    let uri = request.uri().to_string();
                    assert_eq!(uri, format!("https://{name}/a?b"));
                    assert!(!request.headers().contains_key(HOST));
                } else {
                    origin.address_http1(&mut request);
                    assert_eq!(request.uri().to_string(), "/a?b");
                    assert_eq!(request.headers()[HOST], name);
                }
            }
        }
    }
}
