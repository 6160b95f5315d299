//! A caller that sends exact bytes and reads exact responses.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::message::{self, Body, Fields, Framing, Reader};
use super::soon;

/// One connection of a caller. Dropping it hangs up.
#[derive(Debug)]
pub(crate) struct Caller(Reader);

/// A response as it came.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
    /// Whether it came to its proper end.
    pub(crate) whole: bool,
}

impl Caller {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = soon("a connection", TcpStream::connect(address)).await;
        let stream = stream.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(Reader::new(stream))
    }

    /// A connection from an address of this machine.
    pub(crate) async fn connect_from(from: [u8; 4], address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let stream = soon("a connection", socket.connect(address)).await;
        Self(Reader::new(stream.unwrap()))
    }

    /// Sends all of `bytes`.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = self.0.stream.write_all(bytes.as_ref());
        soon("bytes to be taken", sent).await.unwrap();
    }

    /// Sends as much of `bytes` as the other side takes before it closes.
    pub(crate) async fn send_some(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = self.0.stream.write_all(bytes.as_ref());
        // That it closes is what the test is about.
        let _ = soon("bytes to be taken", sent).await;
    }

    /// Ends the half that is written.
    pub(crate) async fn finish(&mut self) {
        let ended = self.0.stream.shutdown();
        soon("the end to be taken", ended).await.unwrap();
    }

    /// Nothing has come for it.
    pub(crate) fn has_nothing(&mut self) {
        let read = self.0.stream.try_read(&mut [0]);
        let nothing = std::io::ErrorKind::WouldBlock;
        assert_eq!(read.map_err(|error| error.kind()), Err(nothing));
    }

    /// The next response, which must be whole.
    pub(crate) async fn response(&mut self) -> Response {
        let response = self.response_to("GET").await;
        assert!(response.whole, "cut off: {response:?}");
        response
    }

    /// The next response that is not an interim one, which must be whole.
    pub(crate) async fn last_response(&mut self) -> Response {
        loop {
            let response = self.response().await;
            if response.status >= 200 {
                return response;
            }
        }
    }

    /// The next response, which must break off before its end.
    pub(crate) async fn broken_response(&mut self) -> Response {
        let response = self.response_to("GET").await;
        assert!(!response.whole, "came to its end: {response:?}");
        response
    }

    /// The next response, to a request of that method.
    pub(crate) async fn response_to(&mut self, method: &str) -> Response {
        soon("a response", self.read(method)).await
    }

    /// Waits until `part` is among the bytes that came and were not yet read.
    pub(crate) async fn sees(&mut self, part: &str) {
        let reader = &mut self.0;
        let seen = async {
            while !reader
                .unread
                .windows(part.len())
                .any(|some| some == part.as_bytes())
            {
                assert!(reader.fill().await, "closed without `{part}`");
            }
        };
        soon(part, seen).await;
    }

    /// Waits until the other side closes; the bytes that came before that.
    pub(crate) async fn closed(&mut self) -> Vec<u8> {
        let reader = &mut self.0;
        soon("the end of the connection", async {
            while reader.fill().await {}
        })
        .await;
        std::mem::take(&mut self.0.unread)
    }

    /// Waits until the other side ends the connection; whether by a reset.
    pub(crate) async fn is_reset(&mut self) -> bool {
        let ended = async {
            loop {
                match self.0.stream.read_buf(&mut self.0.unread).await {
                    Ok(0) => return false,
                    Ok(_) => {}
                    Err(_) => return true,
                }
            }
        };
        soon("the end of the connection", ended).await
    }

    async fn read(&mut self, method: &str) -> Response {
        let length = loop {
            match self.0.head_length() {
                Some(length) => break length,
                None if self.0.fill().await => {}
                None => panic!("closed without a response: {:?}", self.0.unread),
            }
        };
        let head: Vec<u8> = self.0.unread.drain(..length).collect();
        let mut room = message::room();
        let mut parsed = httparse::Response::new(&mut room);
        assert!(parsed.parse(&head).unwrap().is_complete());
        let mut response = Response {
            status: parsed.code.unwrap(),
            fields: Fields::new(parsed.headers),
            body: Vec::new(),
            trailers: Fields::default(),
            whole: true,
        };
        if method != "HEAD" && !matches!(response.status, 100..=199 | 204 | 304) {
            self.read_body(&mut response).await;
        }
        response
    }

    async fn read_body(&mut self, response: &mut Response) {
        let framing = response.fields.framing(Framing::Close);
        let body = loop {
            let body = Body::read(framing, &self.0.unread);
            if body.end.is_some() || !self.0.fill().await {
                break body;
            }
        };
        response.whole = body.end.is_some() || framing == Framing::Close;
        let end = body.end.unwrap_or(self.0.unread.len());
        self.0.unread.drain(..end);
        response.body = body.bytes;
        response.trailers = body.trailers;
    }
}

impl Response {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// What `Retry-After` says, in seconds.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        self.fields
            .get("retry-after")
            .map(|seconds| seconds.parse().unwrap())
    }

    /// The error type in `Proxy-Status`.
    pub(crate) fn proxy_error(&self) -> &str {
        let status = self.fields.get("proxy-status").unwrap_or_default();
        let error = status
            .split("; ")
            .find_map(|one| one.strip_prefix("error="));
        error.unwrap_or_else(|| panic!("no error: {self:?}"))
    }

    /// Fails unless this is pacegate's own answer to a request that ended as
    /// `outcome`.
    #[track_caller]
    pub(crate) fn assert_refusal(&self, status: u16, outcome: &str) {
        assert_eq!(self.status, status, "{self:?}");
        let kind = self.fields.get("content-type");
        assert_eq!(kind, Some("application/problem+json"), "{self:?}");
        let proxy_status = self.fields.get("proxy-status").unwrap_or_default();
        assert!(
            proxy_status.starts_with("pacegate; error="),
            "{proxy_status}"
        );
        let details = format!("details=\"{outcome}\"");
        assert!(proxy_status.ends_with(&details), "{proxy_status}");
        let text = self.text();
        assert!(
            text.contains(&format!("\"urn:pacegate:{outcome}\"")),
            "{text}"
        );
        assert!(text.contains(&format!("\"status\":{status}")), "{text}");
        let come_back = [
            "queue_full",
            "upgrades_full",
            "wait_too_long",
            "expired",
            "draining",
        ];
        let retry_after = self.retry_after();
        assert_eq!(
            retry_after.is_some(),
            come_back.contains(&outcome),
            "{self:?}"
        );
        assert!(retry_after != Some(0), "{self:?}");
    }
}
