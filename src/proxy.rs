//! One request: find its lane, make its head ready for the upstream, let the
//! lane take charge of it, and answer.
//!
//! Runs in the task of the caller's connection, over HTTP/2 in one of its own. If
//! the caller goes away the future of [`Proxy::handle`] is dropped wherever it
//! stands, and everything the request held comes back by itself.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{CONNECTION, HOST, HeaderValue};
use ::http::{Method, Request, Response, StatusCode, Uri, Version, request};
use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body, Incoming};

use crate::config::{self, Forwarded};
use crate::http::interim::Asker;
use crate::http::plain::request::{self as plain, Plain, Rewrite};
use crate::http::{answer, head, upgrade};
use crate::lane::{Dress, Lane, Passage};
use crate::metrics::Cells;
use crate::outcome::{Fault, Outcome};
use crate::pacing::Charge;
use crate::timer::Timer;

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
    /// Most fields of a request head.
    max_headers: usize,
}

#[derive(Debug)]
struct Route {
    rule: config::Route,
    lane: Lane,
    /// What its requests are written by.
    dress: Arc<Dress>,
    /// How plain requests change, and their longest body, in bytes; `None` where
    /// what is to be done needs a map of the fields.
    plain: Option<(Rewrite, usize)>,
}

/// A request of the plain kind that is ready to be answered.
#[derive(Debug)]
pub(crate) struct PlainCall {
    route: usize,
    request: Plain,
    note: Option<String>,
}

impl PlainCall {
    /// Whether it is a HEAD.
    pub(crate) fn head_only(&self) -> bool {
        self.request.head_only()
    }
}

impl Proxy {
    pub(crate) fn new(
        lanes: Vec<Lane>,
        unrouted: Arc<Cells>,
        log_requests: bool,
        max_headers: usize,
    ) -> Self {
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
            max_headers,
        }
    }

    /// Answers one request. `caller` is the address it came from, if it has one;
    /// interim answers go to `asker`.
    pub(crate) async fn handle(
        &self,
        request: Request<Incoming>,
        caller: Option<IpAddr>,
        asker: Option<Asker>,
    ) -> Response<AnswerBody> {
        let (mut head, body) = request.into_parts();
        let (version, has_body) = (head.version, !body.is_end_stream());
        if let Err(fault) = head::check(&head, self.max_headers) {
            return self.refuse(&head, Outcome::BadRequest(fault), has_body);
        }
        if !head::take_hop(&mut head) {
            return self.answer_last_hop(&head, has_body);
        }
        let Some(route) = self.routes.iter().find(|route| route.takes(&head)) else {
            return self.refuse(&head, Outcome::NoRoute, has_body);
        };
        let note = self.log_requests.then(|| note(&head));
        let protocols = upgrade::offered(&head);
        let head_only = head.method == Method::HEAD;
        route.rewrite(&mut head, caller);
        let charge = route.lane.charge(&mut head, caller);
        let offered = protocols.map(|protocols| route.lane.offer_upgrade(&mut head, protocols));
        let reply = match offered {
            Some(Err(outcome)) => Err(route.lane.refuse(charge.clone(), outcome, note)),
            Some(Ok(())) | None => {
                let (dress, charge) = (Arc::clone(&route.dress), charge.clone());
                let call = route.lane.call((head, body), dress, charge, note, asker);
                call.await
            }
        };
        match reply {
            Ok(mut response) => {
                if version <= Version::HTTP_11 {
                    let status = response.status();
                    if status == StatusCode::NOT_MODIFIED {
                        response.body_mut().keep_length();
                    } else if head_only || status == StatusCode::NO_CONTENT {
                        // hyper asks for no body then.
                        response.body_mut().end_with_head();
                    }
                    if response.body().is_early() {
                        close(&mut response);
                    }
                }
                *response.version_mut() = Version::HTTP_11;
                response.map(Either::Left)
            }
            Err(outcome) => {
                let wait = route.lane.retry_after(&charge, outcome);
                refusal(outcome, wait, has_body)
            }
        }
    }

    /// A request of the plain kind, ready to be answered; `None` where it needs
    /// more than that.
    pub(crate) fn plain(&self, head: &plain::Head<'_>, body: &[u8]) -> Option<PlainCall> {
        let host = head::host_and_port(head.host()).0;
        let takes = |route: &Route| route.rule_takes(Some(host), head.path());
        let route = self.routes.iter().position(takes)?;
        let (rewrite, longest_body) = self.routes[route].plain.as_ref()?;
        if body.len() > *longest_body {
            return None;
        }
        Some(PlainCall {
            route,
            request: head.request(rewrite, body),
            note: self.log_requests.then(|| head.note()),
        })
    }

    /// Answers a request of the plain kind, see [`Lane::call_plain`].
    pub(crate) async fn handle_plain(
        &self,
        call: PlainCall,
        timer: &mut Timer,
        asker: Option<Asker>,
    ) -> Response<AnswerBody> {
        let Route { lane, dress, .. } = &self.routes[call.route];
        let (request, dress) = (call.request, Arc::clone(dress));
        match lane
            .call_plain(request, dress, call.note, timer, asker)
            .await
        {
            Ok(response) => response.map(Either::Left),
            Err(outcome) => refusal(outcome, lane.retry_after(&Charge::ONE, outcome), false),
        }
    }

    /// Answers a request of OPTIONS or TRACE that goes no further: we support the
    /// former (RFC 9110, section 7.6.2), and reflect nothing.
    fn answer_last_hop(&self, head: &request::Parts, has_body: bool) -> Response<AnswerBody> {
        if head.method == Method::TRACE {
            return self.refuse(head, Outcome::BadRequest(Fault::Trace), has_body);
        }
        self.unrouted.refuse(Outcome::Completed);
        Response::new(Either::Right(Full::default()))
    }

    /// Answers a request that was refused before it could be read.
    pub(crate) fn refuse_unread(&self, fault: Fault) -> Response<AnswerBody> {
        let outcome = Outcome::BadRequest(fault);
        self.unrouted.refuse(outcome);
        if self.log_requests {
            let outcome = outcome.label();
            tracing::info!(target: "pacegate::request", outcome, reason = %fault, "request");
        }
        answer::answer(outcome, Duration::ZERO).map(Either::Right)
    }

    /// Answers a request that reaches no lane.
    fn refuse(
        &self,
        head: &request::Parts,
        outcome: Outcome,
        has_body: bool,
    ) -> Response<AnswerBody> {
        self.unrouted.refuse(outcome);
        if self.log_requests {
            let (request, outcome) = (note(head), outcome.label());
            tracing::info!(target: "pacegate::request", request, outcome, "request");
        }
        refusal(outcome, Duration::ZERO, has_body)
    }
}

impl Route {
    fn new(lane: Lane) -> Self {
        let (settings, dress) = (lane.settings(), lane.dress());
        Self {
            rule: settings.route.clone(),
            plain: plain_rules(&settings, &dress),
            dress,
            lane,
        }
    }

    fn takes(&self, request: &request::Parts) -> bool {
        self.rule_takes(head::host(request), request.uri.path())
    }

    fn rule_takes(&self, host: Option<&[u8]>, path: &str) -> bool {
        let hosts = self.rule.host.as_ref().is_none_or(|known| {
            host.is_some_and(|host| host.eq_ignore_ascii_case(known.as_bytes()))
        });
        hosts
            && self.rule.prefix.as_ref().is_none_or(|prefix| {
                let rest = path.strip_prefix(prefix.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
    }

    /// Makes the head what the upstream gets, but for what depends on the
    /// connection it goes over.
    fn rewrite(&self, request: &mut request::Parts, peer: Option<IpAddr>) {
        let settings = self.lane.settings();
        let prefix = cut(&self.rule);
        let sets = settings.forwarded == Forwarded::Set;
        let keeps_host = self.dress.host().is_none();
        let authority = (sets || keeps_host).then(|| head::authority(request));
        let authority = authority.flatten();
        if prefix > 0 || request.uri.authority().is_some() {
            request.uri = Uri::from(head::target(&request.uri, prefix));
        }
        let headers = &mut request.headers;
        head::strip_request(headers, settings.forwarded != Forwarded::Keep);
        if request.version == Version::HTTP_2 {
            head::join_cookies(headers);
        }
        if settings.via {
            head::add_via(headers, request.version);
        }
        if sets {
            head::add_forwarded(headers, peer, authority.as_ref());
        }
        if let Some(authority) = authority.filter(|_| keeps_host) {
            headers.insert(HOST, authority);
        }
        self.dress.put_on(&request.method, headers);
    }
}

/// Bytes at the start of a path that are not sent.
fn cut(rule: &config::Route) -> usize {
    match rule.keep_prefix {
        true => 0,
        false => rule.prefix.as_ref().map_or(0, String::len),
    }
}

/// How plain requests of a lane change and their longest body.
fn plain_rules(settings: &config::Upstream, dress: &Dress) -> Option<(Rewrite, usize)> {
    if !settings.costs.is_empty()
        || !settings.kinds().is_empty()
        || settings.forwarded == Forwarded::Set
    {
        return None;
    }
    let rewrite = Rewrite::new(
        cut(&settings.route),
        dress.host(),
        settings.forwarded == Forwarded::Keep,
        settings.via,
        dress.headers(),
    )?;
    let longest = usize::try_from(settings.max_body).unwrap_or(usize::MAX);
    Some((rewrite, longest.min(settings.buffer_body)))
}

/// Our own answer. What is left of a body that was not read would be taken for a
/// request, so the connection closes then.
fn refusal(outcome: Outcome, wait: Duration, has_body: bool) -> Response<AnswerBody> {
    let mut response = answer::answer(outcome, wait);
    if has_body {
        close(&mut response);
    }
    response.map(Either::Right)
}

fn close<B>(response: &mut Response<B>) {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
}

/// How the log names a request: never with its query, which may hold secrets.
fn note(head: &request::Parts) -> String {
    format!("{} {}", head.method, head.uri.path())
}
