//! One request: find its lane, make its head ready for the upstream, let the
//! lane take charge of it, and answer.
//!
//! Runs in the task of the caller's connection. If the caller goes away the
//! future of [`Proxy::handle`] is dropped wherever it stands, and everything the
//! request held comes back by itself.

use std::net::IpAddr;
use std::sync::Arc;

use ::http::header::{CONNECTION, HeaderName, HeaderValue};
use ::http::{Request, Response, Uri, Version, request};
use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body, Incoming};

use crate::config;
use crate::http::{answer, head};
use crate::lane::{Lane, Passage};
use crate::metrics::Cells;
use crate::outcome::Outcome;

/// The body of any response: the upstream's, or one of our own.
pub(crate) type AnswerBody = Either<Passage, Full<Bytes>>;

/// The lanes of one core and the way to them.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// The most specific first.
    routes: Vec<Route>,
    /// For requests that reach no lane.
    unrouted: Arc<Cells>,
    log_requests: bool,
}

#[derive(Debug)]
struct Route {
    rule: config::Route,
    lane: Lane,
    /// Set on every request.
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Proxy {
    pub(crate) fn new(lanes: Vec<Lane>, unrouted: Arc<Cells>, log_requests: bool) -> Self {
        let mut routes: Vec<Route> = lanes.into_iter().map(Route::new).collect();
        routes.sort_by_key(|route| {
            let rule = &route.rule;
            let prefix = rule.prefix.as_ref().map_or(0, String::len);
            std::cmp::Reverse((rule.host.is_some(), prefix))
        });
        Self {
            routes,
            unrouted,
            log_requests,
        }
    }

    /// Answers one request. `caller` is the address it came from, if it has one.
    pub(crate) async fn handle(
        &self,
        request: Request<Incoming>,
        caller: Option<IpAddr>,
    ) -> Response<AnswerBody> {
        let (mut head, body) = request.into_parts();
        if let Err(fault) = head::check(&head) {
            return self.refuse(&head, Outcome::BadRequest(fault));
        }
        let Some(route) = self.routes.iter().find(|route| route.takes(&head)) else {
            return self.refuse(&head, Outcome::NoRoute);
        };
        let note = self.log_requests.then(|| note(&head));
        let has_body = !body.is_end_stream();
        route.rewrite(&mut head);
        let charge = route.lane.charge(&mut head, caller);
        match route.lane.call(head, body, charge.clone(), note).await {
            Ok(mut response) => {
                *response.version_mut() = Version::HTTP_11;
                response.map(Either::Left)
            }
            Err(outcome) => {
                let mut response =
                    answer::answer(outcome, route.lane.retry_after(&charge, outcome));
                if has_body {
                    // What is left of the body would be read as a request.
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(CONNECTION, close);
                }
                response.map(Either::Right)
            }
        }
    }

    /// Answers a request that reaches no lane.
    fn refuse(&self, head: &request::Parts, outcome: Outcome) -> Response<AnswerBody> {
        self.unrouted.refuse(outcome);
        if self.log_requests {
            let (request, outcome) = (note(head), outcome.label());
            tracing::info!(target: "pacegate::request", request, outcome, "request");
        }
        answer::answer(outcome, std::time::Duration::ZERO).map(Either::Right)
    }
}

impl Route {
    fn new(lane: Lane) -> Self {
        let settings = lane.settings();
        let headers = settings.headers.iter().filter_map(|(name, value)| {
            let mut value = HeaderValue::from_str(value.reveal()).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::try_from(name).ok()?, value))
        });
        Self {
            rule: settings.route.clone(),
            headers: headers.collect(),
            lane,
        }
    }

    fn takes(&self, request: &request::Parts) -> bool {
        let host = self.rule.host.as_ref().is_none_or(|host| {
            head::host(request).is_some_and(|given| given.eq_ignore_ascii_case(host))
        });
        host && self.rule.prefix.as_ref().is_none_or(|prefix| {
            let rest = request.uri.path().strip_prefix(prefix.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// Makes the head what the upstream gets, but for what depends on the
    /// connection it goes over.
    fn rewrite(&self, request: &mut request::Parts) {
        let prefix = match self.rule.keep_prefix {
            true => 0,
            false => self.rule.prefix.as_ref().map_or(0, String::len),
        };
        if prefix > 0 || request.uri.authority().is_some() {
            request.uri = Uri::from(head::target(&request.uri, prefix));
        }
        head::strip_hop_by_hop(&mut request.headers);
        if request.version == Version::HTTP_2 {
            head::join_cookies(&mut request.headers);
        }
        for (name, value) in &self.headers {
            request.headers.insert(name.clone(), value.clone());
        }
    }
}

/// How the log names a request: never with its query, which may hold secrets.
fn note(head: &request::Parts) -> String {
    format!("{} {}", head.method, head.uri.path())
}
