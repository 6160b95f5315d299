//! The API behind pacegate: HTTPS with an authority of its own, and a limit.
//!
//! `GET /blob` and `GET /stream` answer [`blob`], with and without its length;
//! a body that is sent is kept; everything else is answered with its own path,
//! so that an answer given to the wrong caller shows. A request over the limit is
//! answered 429, one that does not come in the best version on offer 505. Ends
//! with the runtime that it was started on.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::{fs, thread};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::arrivals::{Arrivals, Limit};

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// What the upstream offers when TLS is negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// HTTP/2 first, then HTTP/1.1.
    Http2,
    /// HTTP/1.1 alone.
    Http1,
}

/// An upstream that serves. Dropped by a failing test, it prints what it saw.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) limit: Limit,
    authority: String,
    record: Arc<Record>,
}

#[derive(Debug)]
struct Record {
    /// The best on offer.
    version: Version,
    arrivals: Mutex<Arrivals>,
    /// The last body that was sent here.
    upload: Mutex<Bytes>,
    /// How often what went wrong.
    failures: Mutex<BTreeMap<String, usize>>,
}

/// 10 MiB that do not repeat, so that a piece lost, doubled or moved shows.
pub(crate) fn blob() -> Bytes {
    let words = 10 * 1024 * 1024 / 4;
    // Knuth's multiplier is odd, so no two words are equal.
    let word = |index: u32| index.wrapping_mul(2_654_435_761).to_be_bytes();
    (0..words).flat_map(word).collect()
}

impl Upstream {
    pub(crate) async fn start(limit: Limit, offer: Offer) -> Self {
        let (authority, acceptor) = identity(offer);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            limit,
            authority,
            record: Arc::new(Record {
                version: match offer {
                    Offer::Http2 => Version::HTTP_2,
                    Offer::Http1 => Version::HTTP_11,
                },
                arrivals: Mutex::new(Arrivals::new(limit)),
                upload: Mutex::default(),
                failures: Mutex::default(),
            }),
        };
        let record = Arc::clone(&upstream.record);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (record, acceptor) = (Arc::clone(&record), acceptor.clone());
                tokio::spawn(async move {
                    if let Err(error) = record.serve(stream, acceptor).await {
                        record.failed(format!("a connection: {error:?}"));
                    }
                });
            }
        });
        upstream
    }

    /// Writes the certificate of its authority, PEM.
    pub(crate) fn write_authority(&self, file: &Path) {
        fs::write(file, &self.authority).unwrap();
    }

    /// What was seen so far.
    pub(crate) fn arrivals(&self) -> Arrivals {
        // A copy: an assertion that fails must not poison the lock.
        self.record.arrivals.lock().unwrap().clone()
    }

    /// The last body that was sent here.
    pub(crate) fn upload(&self) -> Bytes {
        self.record.upload.lock().unwrap().clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the upstream saw {}", self.arrivals());
            for (failure, times) in self.record.failures.lock().unwrap().iter() {
                eprintln!("failed, {times} times: {failure}");
            }
        }
    }
}

impl Record {
    async fn serve(
        self: &Arc<Self>,
        stream: TcpStream,
        acceptor: TlsAcceptor,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        stream.set_nodelay(true)?;
        let stream = acceptor.accept(stream).await?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
        let stream = TokioIo::new(stream);
        let service = service_fn(move |request| {
            let record = Arc::clone(self);
            async move { Ok::<_, Infallible>(record.answer(request).await) }
        });
        if is_http2 {
            let builder = http2::Builder::new(TokioExecutor::new());
            builder.serve_connection(stream, service).await?;
        } else {
            let builder = http1::Builder::new();
            builder.serve_connection(stream, service).await?;
        }
        Ok(())
    }

    fn failed(&self, what: String) {
        *self.failures.lock().unwrap().entry(what).or_default() += 1;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
        let path = request.uri().path().to_owned();
        let allowed = {
            let mut arrivals = self.arrivals.lock().unwrap();
            // Under the lock, so that the record is in order.
            arrivals.arrive(Instant::now(), &path)
        };
        if request.version() != self.version {
            return refusal(StatusCode::HTTP_VERSION_NOT_SUPPORTED);
        }
        if !allowed {
            return refusal(StatusCode::TOO_MANY_REQUESTS);
        }
        let body = match (request.method(), path.as_str()) {
            (&Method::GET, "/blob") => Full::new(blob()).boxed(),
            // A mapped body does not know its length.
            (&Method::GET, "/stream") => Full::new(blob()).map_frame(|frame| frame).boxed(),
            (&Method::PUT, _) => match request.into_body().collect().await {
                Ok(body) => {
                    *self.upload.lock().unwrap() = body.to_bytes();
                    Full::new(Bytes::from(path)).boxed()
                }
                Err(error) => {
                    self.failed(format!("a body: {error:?}"));
                    Full::default().boxed()
                }
            },
            _ => Full::new(Bytes::from(path)).boxed(),
        };
        Response::new(body)
    }
}

fn refusal(status: StatusCode) -> Response<BoxBody<Bytes, Infallible>> {
    let text = Bytes::from(status.to_string());
    let mut response = Response::new(Full::new(text).boxed());
    *response.status_mut() = status;
    response
}

/// An authority of our own, PEM, and the TLS of a server that it vouches for.
fn identity(offer: Offer) -> (String, TlsAcceptor) {
    let mut authority = CertificateParams::default();
    let name = "authority of the tests";
    authority.distinguished_name.push(DnType::CommonName, name);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = [Ipv4Addr::LOCALHOST.to_string()];
    let certificate = CertificateParams::new(names).unwrap();
    let certificate = certificate.signed_by(&key, &authority).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    config.alpn_protocols = match offer {
        Offer::Http2 => vec![HTTP2.to_vec(), HTTP1.to_vec()],
        Offer::Http1 => vec![HTTP1.to_vec()],
    };
    (authority.pem(), TlsAcceptor::from(Arc::new(config)))
}
