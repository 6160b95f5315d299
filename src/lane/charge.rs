//! What a request costs, and whom.
//!
//! A [`Tariff`] is made from the settings of a lane once; per request it looks
//! at the head as it is sent upstream and at the caller's address. Where there
//! are no costs and no keys it does nothing at all.
//!
//! A key is a hash of what the request carries, under a seed that callers do not
//! know, so that nobody can choose a value that falls on another's key. Requests
//! that do not carry it have one key together. Path segments, the values of
//! fields and cookies are taken as they are written.

use std::hash::Hasher;
use std::net::IpAddr;
use std::num::NonZeroU32;

use ::http::header::{COOKIE, HeaderName};
use ::http::{HeaderMap, Method, request};
use siphasher::sip::SipHasher13;

use crate::config::{self, CostRule, Per};
use crate::http::head;
use crate::pacing::Charge;

/// What the hashes of keys depend on.
pub(crate) type Seed = [u64; 2];

/// What requests of a lane cost.
#[derive(Debug)]
pub(super) struct Tariff {
    rules: Vec<Rule>,
    /// Fields that say a cost; they are not passed on.
    fields: Vec<HeaderName>,
    kinds: Vec<Kind>,
    most: NonZeroU32,
    seed: Seed,
    /// The number of the kinds, see [`Limits::kinds`](crate::pacing::Limits::kinds).
    number: u32,
}

#[derive(Debug)]
enum Rule {
    Fixed {
        method: Option<Method>,
        path: Option<Pattern>,
        cost: NonZeroU32,
    },
    Field(HeaderName),
}

/// A path by whole segments.
#[derive(Debug)]
struct Pattern {
    /// `None` stands for any one.
    segments: Vec<Option<String>>,
    /// Whether more may follow.
    rest: bool,
}

/// Where the key of a request stands.
#[derive(Debug)]
enum Kind {
    Field(HeaderName),
    Cookie(String),
    Address,
    /// Counted from 0.
    Segment(usize),
}

impl Tariff {
    /// That of other settings, with the same keys; its kinds have this number.
    pub(super) fn renewed(&self, settings: &config::Upstream, number: u32) -> Self {
        Self {
            number,
            ..Self::new(settings, self.seed)
        }
    }

    /// The tariff of `settings`.
    pub(super) fn new(settings: &config::Upstream, seed: Seed) -> Self {
        let rules: Vec<Rule> = settings.costs.iter().filter_map(Rule::new).collect();
        let fields = rules.iter().filter_map(|rule| match rule {
            Rule::Field(name) => Some(name.clone()),
            Rule::Fixed { .. } => None,
        });
        Self {
            fields: fields.collect(),
            kinds: settings.kinds().into_iter().filter_map(Kind::new).collect(),
            most: settings.most_cost(),
            rules,
            seed,
            number: 0,
        }
    }

    /// What the request with `head` costs, from which it takes what is not to be
    /// passed on. `caller` is the address it came from, if it has one.
    pub(super) fn charge(&self, head: &mut request::Parts, caller: Option<IpAddr>) -> Charge {
        let mut costs = self.rules.iter().filter_map(|rule| rule.cost(head));
        let cost = costs.next().unwrap_or(NonZeroU32::MIN).min(self.most);
        let keys = self
            .kinds
            .iter()
            .map(|kind| kind.key(head, caller, self.seed));
        let charge = Charge::new(cost, keys.collect(), self.number);
        if self
            .fields
            .iter()
            .any(|name| head.headers.contains_key(name))
        {
            head::remove(&mut head.headers, |name| self.fields.contains(name));
        }
        charge
    }
}

impl Rule {
    /// `None` for what the settings' checks have refused.
    fn new(rule: &CostRule) -> Option<Self> {
        Some(match rule {
            CostRule::Header(name) => Self::Field(HeaderName::try_from(name).ok()?),
            CostRule::Fixed { method, path, cost } => Self::Fixed {
                method: match method {
                    Some(method) => Some(Method::try_from(method.as_str()).ok()?),
                    None => None,
                },
                path: path.as_deref().map(Pattern::new),
                cost: *cost,
            },
        })
    }

    /// What a request costs; `None` if the rule does not apply to it.
    fn cost(&self, head: &request::Parts) -> Option<NonZeroU32> {
        match self {
            Self::Fixed { method, path, cost } => {
                let method = method.as_ref().is_none_or(|method| *method == head.method);
                let path = path.as_ref();
                let applies = method && path.is_none_or(|path| path.takes(head.uri.path()));
                applies.then_some(*cost)
            }
            Self::Field(name) => said(head.headers.get(name)?.as_bytes()),
        }
    }
}

/// The cost that a field says; `None` if it is no whole number.
fn said(value: &[u8]) -> Option<NonZeroU32> {
    let digits = value.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = str::from_utf8(digits).ok()?.parse::<u32>();
    // What does not fit is more than anything allows; nothing is free.
    Some(NonZeroU32::new(number.unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN))
}

impl Pattern {
    fn new(text: &str) -> Self {
        let (text, rest) = match text.strip_suffix("/**") {
            Some(text) => (text, true),
            None => (text, false),
        };
        // Without the slash there is nothing: only `/**` is cut down to that.
        let segments = text.strip_prefix('/').map(|text| text.split('/'));
        let segments = segments.into_iter().flatten();
        Self {
            segments: segments
                .map(|segment| (segment != "*").then(|| segment.to_owned()))
                .collect(),
            rest,
        }
    }

    fn takes(&self, path: &str) -> bool {
        let mut given = segments(path);
        let matches = |segment: &Option<String>| match (segment, given.next()) {
            (Some(segment), Some(given)) => segment == given,
            (None, Some(given)) => !given.is_empty(),
            (_, None) => false,
        };
        self.segments.iter().all(matches) && (self.rest || given.next().is_none())
    }
}

impl Kind {
    /// `None` for what the settings' checks have refused.
    fn new(per: &Per) -> Option<Self> {
        Some(match per {
            Per::Header(name) => Self::Field(HeaderName::try_from(name).ok()?),
            Per::Cookie(name) => Self::Cookie(name.clone()),
            Per::Address => Self::Address,
            Per::Segment(number) => Self::Segment(number.get() - 1),
        })
    }

    /// The key of a request; never 0, which stands for those beyond the bound.
    fn key(&self, head: &request::Parts, caller: Option<IpAddr>, [k0, k1]: Seed) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(k0, k1);
        let mut add = |value: &[u8]| {
            // With its length, so that two values are not one longer one.
            hasher.write_usize(value.len());
            hasher.write(value);
        };
        match self {
            Self::Field(name) => {
                let values = head.headers.get_all(name).iter();
                values.for_each(|value| add(value.as_bytes()));
            }
            Self::Cookie(name) => cookie(&head.headers, name).into_iter().for_each(add),
            Self::Address => match caller {
                Some(IpAddr::V4(address)) => add(&address.octets()),
                Some(IpAddr::V6(address)) => add(&address.octets()),
                None => {}
            },
            Self::Segment(index) => {
                let segment = segments(head.uri.path()).nth(*index);
                let segment = segment.filter(|segment| !segment.is_empty());
                segment
                    .into_iter()
                    .for_each(|segment| add(segment.as_bytes()));
            }
        }
        hasher.finish().max(1)
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').unwrap_or(path).split('/')
}

/// The value of the first cookie called `name`.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let fields = headers.get_all(COOKIE).iter();
    let mut cookies = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    cookies.find_map(|cookie| {
        let rest = cookie.trim_ascii().strip_prefix(name.as_bytes())?;
        rest.trim_ascii_start().strip_prefix(b"=")
    })
}

#[cfg(test)]
mod tests {
    use ::http::Request;

    use super::*;
    use crate::config::Config;

    fn tariff(settings: &str) -> Tariff {
        let text = format!("listen = \"systemd\"\n[upstream.a]\nurl = \"http://a\"\n{settings}");
        Tariff::new(&Config::parse("test", &text).unwrap().upstreams[0], [1, 2])
    }

    fn head(method: &str, path: &str, fields: &[(&str, &str)]) -> request::Parts {
        let request = Request::builder().method(method).uri(path);
        let add = |request: ::http::request::Builder, (name, value): &(&str, &str)| {
            request.header(*name, *value)
        };
        let request = fields.iter().fold(request, add);
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_first_rule_that_applies_decides() {
        let tariff = tariff(
            r#"limits = ["100/s"]
            costs = [
                { method = "POST", path = "/v1/batch/*", cost = 5 },
                { header = "x-cost" },
                { path = "/v1/**", cost = 2 },
                { path = "/**", method = "PUT", cost = 3 },
            ]"#,
        );
        let cost = |method, path, fields: &[_]| {
            tariff
                .charge(&mut head(method, path, fields), None)
                .cost
                .get()
        };
        assert_eq!(cost("POST", "/v1/batch/7?x=/y", &[]), 5);
        assert_eq!(cost("POST", "/v1/batch/7", &[("x-cost", "9")]), 5);
        assert_eq!(cost("GET", "/v1/batch/7", &[]), 2);
        assert_eq!(cost("POST", "/v1/batch", &[]), 2);
        assert_eq!(cost("POST", "/v1/batch/", &[]), 2);
        assert_eq!(cost("POST", "/v1/batch/7/8", &[]), 2);
        assert_eq!(cost("GET", "/v1", &[]), 2);
        assert_eq!(cost("GET", "/v10", &[]), 1);
        assert_eq!(cost("PUT", "/", &[]), 3);
        assert_eq!(cost("OPTIONS", "*", &[]), 1);
        for (said, counted) in [
            ("7", 7),
            (" 7 ", 7),
            ("0", 1),
            ("101", 100),
            ("99999999999999999999", 100),
            ("-1", 2),
            ("7.5", 2),
            ("", 2),
        ] {
            assert_eq!(cost("GET", "/v1/x", &[("x-cost", said)]), counted, "{said}");
        }
    }

    #[test]
    fn the_field_that_says_the_cost_is_not_passed_on_and_the_others_stay_in_order() {
        let tariff = tariff(
            "limits = [\"9/s\"]\ncosts = [{ path = \"/a\", cost = 2 }, { header = \"x-cost\" }]",
        );
        let fields = [("b", "1"), ("x-cost", "3"), ("c", "2"), ("a", "3")];
        let mut head = head("GET", "/a", &fields);
        assert_eq!(tariff.charge(&mut head, None).cost.get(), 2);
        let left: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["b", "c", "a"]);
    }

    #[test]
    fn who_carries_the_same_has_the_same_key() {
        let key = |per: &str, path: &str, fields: &[_], caller: Option<&str>| {
            let tariff = tariff(&format!("limits = [{{ rate = \"1/s\", per = \"{per}\" }}]"));
            let caller = caller.map(|caller| caller.parse().unwrap());
            tariff.charge(&mut head("GET", path, fields), caller).keys()[0]
        };
        let token = |token| {
            key(
                "header:authorization",
                "/",
                &[("authorization", token)],
                None,
            )
        };
        assert_eq!(token("a"), token("a"));
        assert_ne!(token("a"), token("A"));
        assert_ne!(token("a"), key("header:authorization", "/", &[], None));
        let split = [("authorization", "a"), ("authorization", "b")];
        assert_ne!(token("ab"), key("header:authorization", "/", &split, None));
        let sid = |cookie| key("cookie:sid", "/", &[("cookie", cookie)], None);
        assert_eq!(sid("x=1; sid=7;y"), sid("sid=7"));
        assert_ne!(sid("sid=7"), sid("sid2=7"));
        assert_eq!(sid("xsid=7; sid2=8"), key("cookie:sid", "/", &[], None));
        let address = |caller| key("address", "/", &[], caller);
        assert_ne!(address(Some("10.0.0.1")), address(Some("10.0.0.2")));
        assert_ne!(address(Some("::1")), address(None));
        let segment = |path| key("segment:2", path, &[], None);
        assert_eq!(segment("/a/b/c"), segment("/x/b?y"));
        assert_ne!(segment("/a/b"), segment("/a/c"));
        assert_eq!(segment("/a"), segment("/a/"));
    }

    #[test]
    fn each_kind_has_its_key_in_the_order_of_the_limits_and_without_kinds_there_is_none() {
        let two = tariff(
            r#"limits = ["9/s", { rate = "1/s", per = "segment:1" }, { rate = "1/s", per = "address" },
            { rate = "9/min", per = "segment:1" }]"#,
        );
        let caller = Some("10.0.0.1".parse().unwrap());
        let charge = |path| two.charge(&mut head("GET", path, &[]), caller);
        assert_eq!(charge("/a").keys().len(), 2);
        assert_ne!(charge("/a").keys()[0], charge("/b").keys()[0]);
        assert_eq!(charge("/a").keys()[1], charge("/b").keys()[1]);
        let flat = tariff("limits = [\"9/s\"]").charge(&mut head("GET", "/", &[]), caller);
        assert_eq!(flat, Charge::ONE);
    }
}
