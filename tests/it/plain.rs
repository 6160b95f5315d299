//! Plain requests and all others: two ways through the program that must say the
//! same to both sides.
//!
//! An empty line before a request (RFC 9112, section 2.2) makes it one of the
//! others, so each case is sent once without and once with it.

use crate::support::{Fields, Proxy, Response, Seen, Step, Upstream, ok};

/// Settings under which every request may go either way.
const SETTINGS: &[&str] = &[
    "",
    "via = false\nkeep_host = true\nforwarded = \"keep\"",
    "server_timing = false\nheaders = { x-more = \"more\", x-set = \"ours\" }",
    "forwarded = \"keep\"\nheaders = { x-forwarded-set = \"ours\" }",
];

const REQUESTS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: caller\r\n\r\n",
    "GET //a%2fb;c?x=/?&& HTTP/1.1\r\nhost:caller:80\r\n\r\n",
    "GET /? HTTP/1.1\r\nHost: \t caller \t\r\nX-A:  b \r\nx-a:\r\nX-a: \té\r\n\r\n",
    "HEAD /x HTTP/1.1\r\nHost: [::1]:8080\r\nAccept: */*\r\nConnection: keep-alive\r\nKeep-Alive: 5\r\n\r\n",
    "DELETE /x HTTP/1.1\r\nHost: caller\r\nContent-Length: 0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: caller\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: caller\r\nContent-Type: a/b\r\nContent-Length: 5\r\n\r\nhello",
    "PUT / HTTP/1.1\r\nContent-Length: 2\r\nHost: caller\r\n\r\n\r\n",
    "QUERY /q HTTP/1.1\r\nHost: caller\r\nContent-Length: 1\r\n\r\n?",
    "GET / HTTP/1.1\r\nHost: caller\r\nCookie: a=b\r\nCookie: c=d\r\nCache-Control: no-cache\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: caller\r\nForwarded: for=a\r\nX-Forwarded-For: b\r\nX-Forwarded-Set: c\r\nX-Real-IP: d\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: caller\r\nAuthorization: Bearer theirs\r\nX-Set: theirs\r\nX-SET: twice\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: caller\r\nMax-Forwards: 3\r\nTrailer: x\r\nDate: now\r\nRange: bytes=0-1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: caller\r\nTE: trailers\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: caller\r\nConnection: x-hop, keep-alive\r\nX-Hop: a\r\nX-End: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: caller\r\nVia: 1.0 elsewhere\r\nProxy-Authorization: a\r\n\r\n",
];

const ANSWERS: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 Fine by me\r\nContent-Length: 0\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n",
    "HTTP/1.1 200 \r\nContent-Length: 2, 2\r\nSet-Cookie: a\r\nset-cookie: b\r\n\r\nab",
    "HTTP/1.1 299 \r\nContent-Length : 1\r\nX-A:\t b \r\nX-B: é\r\n\r\nx",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n1\r\n!\r\n0\r\nX-T: u\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4 \r\nabcd\r\n1;\r\ne\r\n1 ; a=b c \r\nf\r\n0\r\nContent-Length: 4\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\nX-A: b\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\nETag: \"a\"\r\n\r\n",
    "HTTP/1.1 404 Not Found\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 1\r\n\r\nx",
    "HTTP/1.1 500 Oh\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
    "HTTP/1.1 200 OK\r\nConnection: x-hop\r\nX-Hop: a\r\nX-End: b\r\nContent-Length: 1\r\n\r\nx",
    "HTTP/1.1 200 OK\r\nProxy-Authenticate: a\r\nUpgrade: b\r\nTE: c\r\nVia: 1.1 e\r\nServer-Timing: f\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
    "HTTP/1.1 429 Slow\r\nRetry-After: 0\r\nContent-Length: 1\r\n\r\nx",
    "HTTP/1.1 503 Busy\r\nContent-Length: 1\r\n\r\nx",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
    "nothing of HTTP\r\n\r\n",
];

/// The fields without those that tell the time, sorted by name; the order of
/// equal names stays.
fn sorted(fields: &Fields) -> Vec<(String, String)> {
    let timeless = |(name, value): &(String, String)| {
        name != "server-timing" && (name != "date" || value.contains("1970"))
    };
    let mut fields: Vec<_> = fields
        .0
        .iter()
        .filter(|one| timeless(one))
        .cloned()
        .collect();
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    fields
}

/// What the upstream understood.
fn meaning(seen: &Seen) -> (String, String, Vec<(String, String)>, Vec<u8>) {
    let fields = sorted(&seen.fields);
    (
        seen.method.clone(),
        seen.target.clone(),
        fields,
        seen.body.clone(),
    )
}

/// The names in a head as they are written, without those that are ours.
fn names(seen: &Seen) -> Vec<&str> {
    let names = seen
        .head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'));
    let mut names: Vec<_> = names.map(|(name, _)| name).collect();
    let ours = [
        "host",
        "via",
        "content-length",
        "x-set",
        "x-more",
        "x-forwarded-set",
    ];
    names.retain(|name| !ours.contains(&name.to_ascii_lowercase().as_str()));
    names
}

async fn answer(proxy: &Proxy, request: &str) -> Response {
    let mut caller = proxy.send(request).await;
    let method = request.trim_start().split(' ').next().unwrap();
    caller.response_to(method).await
}

#[tokio::test]
async fn the_upstream_gets_the_same_of_plain_requests_and_all_others() {
    for settings in SETTINGS {
        for request in REQUESTS {
            let upstream = Upstream::answering(ok("")).await;
            let proxy = Proxy::before(&upstream, settings);
            assert_eq!(answer(&proxy, request).await.status, 200, "{request:?}");
            let other = format!("\r\n{request}");
            assert_eq!(answer(&proxy, &other).await.status, 200, "{request:?}");
            let seen = upstream.requests();
            assert_eq!(meaning(&seen[0]), meaning(&seen[1]), "{request:?}");
            assert_eq!(names(&seen[0]), names(&seen[1]), "{request:?}");
        }
    }
}

#[tokio::test]
async fn the_caller_gets_the_same_answer_to_plain_requests_and_all_others() {
    for text in ANSWERS {
        for method in ["GET", "HEAD", "POST"] {
            let bytes = text.as_bytes().to_vec();
            let upstream =
                Upstream::start(move |_| vec![Step::Send(bytes.clone()), Step::Close]).await;
            let settings = "retry.attempts = 1\nretry.hold = \"0s\"\ncooldown.first = \"1ms\"";
            let proxy = Proxy::before(&upstream, settings);
            let request = format!("{method} / HTTP/1.1\r\nHost: caller\r\n\r\n");
            let plain = answer(&proxy, &request).await;
            let other = answer(&proxy, &format!("\r\n{request}")).await;
            assert_eq!(plain.status, other.status, "{method} {text:?}");
            assert_eq!(plain.body, other.body, "{method} {text:?}");
            assert_eq!(
                sorted(&plain.fields),
                sorted(&other.fields),
                "{method} {text:?}"
            );
        }
    }
}

/// Many programs send head and body one after the other.
#[tokio::test]
async fn a_body_that_comes_after_its_head_is_waited_for() {
    let upstream = Upstream::answering(ok("ok")).await;
    let proxy = Proxy::before(&upstream, "");
    let head = "POST / HTTP/1.1\r\nHost: caller\r\nContent-Length: 10\r\n\r\n";
    let mut caller = proxy.send(head).await;
    proxy.until_connections(1).await;
    caller.send("hello").await;
    caller.send("world").await;
    assert_eq!(caller.response().await.text(), "ok");
    // And when it does not come soon.
    caller.send(head).await;
    proxy
        .until("it is taken charge of", |metrics| {
            metrics.admitted("api") == 2.0
        })
        .await;
    caller
        .send("helloworldGET /next HTTP/1.1\r\nHost: caller\r\n\r\n")
        .await;
    assert_eq!(caller.response().await.text(), "ok");
    assert_eq!(caller.response().await.text(), "ok");
    let bodies: Vec<_> = upstream
        .requests()
        .into_iter()
        .map(|seen| seen.body)
        .collect();
    assert_eq!(bodies, [&b"helloworld"[..], b"helloworld", b""]);
}
