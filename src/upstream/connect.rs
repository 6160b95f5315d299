//! Opening a connection: name, TCP, TLS, HTTP, each within its own time.

use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
#[cfg(test)]
use std::sync::PoisonError;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use std::vec;

use ::http::Uri;
use ::http::header::HeaderValue;
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tower_service::Service;

use super::interim::Tap;
use super::load::{Load, Streams};
use super::plain::{Duplex, LONGEST_HEAD, Line};
use super::{Connection, Origin, Protocol, tls};
use crate::config::{self, Http2};
use crate::http::LATE_FRAMES;
use crate::http::body::Upload;
use crate::http::interim::{Asker, Audience};

/// A connection on which nothing has come for so long is probed by TCP, so that a
/// dead one is noticed. Not with HTTP/2's pings: an upstream may take those for
/// abuse, as gRPC servers do with one in less than five minutes.
const PROBE_AFTER: Duration = Duration::from_secs(20);
/// Between two probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// So many without an answer, and the connection is closed.
const PROBES: u32 = 4;

/// Most bytes of one answer over HTTP/2 that wait for a slow caller.
const STREAM_WINDOW: u32 = 512 << 10;

/// Most bytes that wait on one HTTP/2 connection: as many as can be said, far more
/// than its streams can hold, so that a slow caller never keeps another's answer
/// from coming. The library also closes a connection when what small frames lack of
/// 256 bytes adds up to half of it; if each stream is full of frames of 16 bytes, it
/// does not.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// Calls that were given up and are remembered for [`REMEMBERED`], so that what
/// still comes for them is passed over.
const MOST_REMEMBERED: usize = 1 << 10;
const REMEMBERED: Duration = Duration::from_secs(10);

/// Between two looks at whether an HTTP/2 upstream has sent its settings, which
/// hyper does not tell.
const SETTINGS_PAUSE: Duration = Duration::from_millis(1);

/// Drives an HTTP/2 connection until it closes; whoever opens it spawns this.
pub(crate) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Opens connections to one upstream.
#[derive(Debug, Clone)]
pub(crate) struct Dialer {
    connector: HttpConnector<Resolver>,
    tls: Option<tls::Client>,
    origin: Origin,
    http2: Http2,
    timeouts: config::Timeouts,
    audience: Option<Arc<dyn Audience>>,
    #[cfg(test)]
    fake: Option<fake::Upstream>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// A step took longer than its time allows.
    TimedOut(&'static str),
    /// The name could not be resolved or no address answered.
    Tcp(Box<dyn Error + Send + Sync>),
    /// The TLS handshake failed.
    Tls(io::Error),
    /// The HTTP preface failed.
    Http(hyper::Error),
    /// The upstream closed it at once.
    Closed,
}

impl Dialer {
    /// Everything that can be prepared before the first connection.
    ///
    /// # Errors
    ///
    /// A certificate or key cannot be used, in words for the operator.
    pub(crate) fn new(settings: &config::Upstream) -> Result<Self, tls::TlsError> {
        let url = &settings.url;
        let mut connector = HttpConnector::new_with_resolver(Resolver {
            gai: GaiResolver::new(),
            bound: settings.timeouts.dns,
            #[cfg(test)]
            fake: None,
        });
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_keepalive(Some(PROBE_AFTER));
        connector.set_keepalive_interval(Some(PROBE_INTERVAL));
        connector.set_keepalive_retries(Some(PROBES));
        connector.set_connect_timeout(Some(settings.timeouts.connect));
        let scheme = if url.https { "https" } else { "http" };
        let uri = Uri::builder()
            .scheme(scheme)
            .authority(url.authority.as_str())
            .path_and_query("/")
            .build();
        let tls = url.https.then(|| tls::Client::new(settings)).transpose()?;
        Ok(Self {
            connector,
            tls,
            origin: Origin {
                uri: uri.expect("the URL was checked"),
                host: HeaderValue::try_from(url.authority.as_str()).expect("the URL was checked"),
                keep_host: settings.keep_host,
            },
            http2: settings.connection.http2,
            timeouts: settings.timeouts.clone(),
            audience: None,
            #[cfg(test)]
            fake: None,
        })
    }

    /// Interim answers go to `audience`.
    pub(crate) fn heard_by(self, audience: Arc<dyn Audience>) -> Self {
        Self {
            audience: Some(audience),
            ..self
        }
    }

    /// Passes the `head` of an interim answer on to `asker`.
    pub(crate) fn tell(&self, asker: Asker, head: &[u8]) {
        if let Some(audience) = &self.audience {
            audience.tell(asker, head);
        }
    }

    /// What sees the interim answers to a request of `asker`.
    pub(super) fn tap(&self, asker: Option<Asker>) -> Tap {
        Tap::new(asker.zip(self.audience.clone()))
    }

    /// Whether connections may turn out to be HTTP/2.
    pub(crate) fn offers_http2(&self) -> bool {
        match self.http2 {
            Http2::Off => false,
            Http2::Offered => self.tls.is_some(),
            Http2::PriorKnowledge => true,
        }
    }

    /// Scheme and authority of the upstream.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// How long opening a connection takes at most.
    pub(crate) fn longest(&self) -> Duration {
        self.timeouts.dns + self.timeouts.connect + self.timeouts.tls
    }

    /// Opens one connection, ready to send on.
    ///
    /// # Errors
    ///
    /// The step that failed or took too long.
    pub(crate) async fn connect(&self) -> Result<(Connection, Option<Driver>), ConnectError> {
        self.open(self.http2).await
    }

    /// Opens one connection that speaks HTTP/1.1, for what HTTP/2 has not.
    ///
    /// # Errors
    ///
    /// The step that failed or took too long.
    pub(crate) async fn connect_http1(&self) -> Result<(Connection, Option<Driver>), ConnectError> {
        self.open(Http2::Off).await
    }

    async fn open(&self, version: Http2) -> Result<(Connection, Option<Driver>), ConnectError> {
        #[cfg(test)]
        if let Some(fake) = &self.fake {
            let accepted = fake.accept().await;
            let stream = accepted.map_err(|error| ConnectError::Tcp(error.into()))?;
            return match version {
                Http2::Off | Http2::Offered => Ok(http1(stream, false)),
                Http2::PriorKnowledge => http2(stream, self.timeouts.tls).await,
            };
        }
        let mut connector = self.connector.clone();
        let tcp = timeout(
            self.timeouts.dns + self.timeouts.connect,
            connector.call(self.origin.uri.clone()),
        );
        let tcp = tcp
            .await
            .map_err(|_elapsed| ConnectError::TimedOut("TCP connection"))?;
        let tcp: TokioIo<TcpStream> = tcp.map_err(|error| ConnectError::Tcp(error.into()))?;
        let tcp = tcp.into_inner();
        let Some(tls) = &self.tls else {
            return match version {
                Http2::Off | Http2::Offered => Ok(http1(tcp, false)),
                Http2::PriorKnowledge => http2(tcp, self.timeouts.tls).await,
            };
        };
        let handshake = timeout(self.timeouts.tls, tls.handshake(tcp, version));
        let handshake = handshake
            .await
            .map_err(|_elapsed| ConnectError::TimedOut("TLS handshake"))?;
        let (stream, is_http2) = handshake.map_err(ConnectError::Tls)?;
        match is_http2 {
            true => http2(stream, self.timeouts.tls).await,
            false => Ok(http1(stream, true)),
        }
    }
}

fn http1(stream: impl Duplex + 'static, encrypted: bool) -> (Connection, Option<Driver>) {
    let stream = Box::new(stream);
    (
        Connection::new(Protocol::Http1(Line {
            stream,
            encrypted,
            guard: None,
        })),
        None,
    )
}

/// Ready when the upstream has sent its settings, at most after `bound`.
async fn http2<T>(stream: T, bound: Duration) -> Result<(Connection, Option<Driver>), ConnectError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let tasks = Tasks::default();
    let (sender, mut connection) = http2::Builder::new(tasks.clone())
        // None until it has said how many it allows.
        .initial_max_send_streams(0)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(LONGEST_HEAD as u32)
        .max_concurrent_reset_streams(MOST_REMEMBERED)
        .reset_stream_duration(REMEMBERED)
        .max_local_error_reset_streams(LATE_FRAMES)
        .handshake::<_, Upload>(TokioIo::new(stream))
        .await
        .map_err(ConnectError::Http)?;
    let settings = async {
        while connection.current_max_send_streams() == 0 {
            if let Ok(ended) = timeout(SETTINGS_PAUSE, &mut connection).await {
                ended.map_err(ConnectError::Http)?;
                return Err(ConnectError::Closed);
            }
        }
        Ok(())
    };
    let settings = timeout(bound, settings).await;
    settings.map_err(|_elapsed| ConnectError::TimedOut("HTTP/2 handshake"))??;
    let load = Arc::new(Load::new(connection.current_max_send_streams()));
    let streams = Streams::another(&load);
    let driver: Driver = Box::pin(async move {
        let driven = poll_fn(|cx| {
            load.driven_by(cx.waker());
            let polled = pin!(&mut connection).poll(cx);
            load.allow(connection.current_max_send_streams());
            if load.is_retired() && load.unused_since().is_some() {
                tasks.abort_connection();
                return Poll::Ready(Ok(()));
            }
            polled
        });
        if let Err(error) = driven.await {
            tracing::debug!(?error, "an upstream connection ended");
        }
    });
    let connection = Connection::new(Protocol::Http2(sender, streams));
    Ok((connection, Some(driver)))
}

impl Connection {
    pub(super) fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            opened: Instant::now(),
            used: None,
        }
    }
}

/// Runs hyper's tasks for one HTTP/2 connection. The first is the connection itself,
/// which hyper lets go on as long as anything is left to send on it.
#[derive(Debug, Clone, Default)]
struct Tasks(Arc<OnceLock<AbortHandle>>);

impl Tasks {
    fn abort_connection(&self) {
        if let Some(connection) = self.0.get() {
            connection.abort();
        }
    }
}

impl<F> Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        let task = tokio::spawn(future);
        self.0.get_or_init(|| task.abort_handle());
    }
}

/// The system's resolver with a bound on its time, which it lacks.
#[derive(Debug, Clone)]
struct Resolver {
    gai: GaiResolver,
    bound: Duration,
    #[cfg(test)]
    fake: Option<fake::Names>,
}

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.gai.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        #[cfg(test)]
        if let Some(fake) = &self.fake {
            let found = *fake.lock().unwrap_or_else(PoisonError::into_inner);
            return Box::pin(async move { Ok(vec![found].into_iter()) });
        }
        let found = timeout(self.bound, self.gai.call(name));
        Box::pin(async move {
            let found = found.await.unwrap_or_else(|_| {
                let text = "the name was not resolved in time";
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            });
            Ok(found?.collect::<Vec<_>>().into_iter())
        })
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(step) => write!(f, "{step} took too long"),
            // The library has one type for both steps, and only its text tells.
            Self::Tcp(error) if error.to_string() == "dns error" => {
                f.write_str("DNS lookup failed")
            }
            Self::Tcp(_) => f.write_str("TCP connection failed"),
            Self::Tls(_) => f.write_str("TLS handshake failed"),
            Self::Http(_) => f.write_str("HTTP handshake failed"),
            Self::Closed => f.write_str("the upstream closed the connection at once"),
        }
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::TimedOut(_) | Self::Closed => None,
            Self::Tcp(error) => Some(error.as_ref()),
            Self::Tls(error) => Some(error),
            Self::Http(error) => Some(error),
        }
    }
}

/// An upstream in memory, for tests in virtual time, and a resolver for others.
#[cfg(test)]
pub(crate) mod fake {
    use std::sync::Mutex;

    use tokio::io::DuplexStream;
    use tokio::sync::mpsc;
    use tokio::time::sleep;

    use super::*;

    /// Where connections arrive, and how long each takes to open.
    #[derive(Debug, Clone)]
    pub(crate) struct Upstream {
        pub(crate) connections: mpsc::Sender<DuplexStream>,
        pub(crate) handshake: Duration,
    }

    /// To where every name points.
    pub(crate) type Names = Arc<Mutex<SocketAddr>>;

    impl Upstream {
        pub(super) async fn accept(&self) -> io::Result<DuplexStream> {
            sleep(self.handshake).await;
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            match self.connections.send(theirs).await {
                Ok(()) => Ok(ours),
                Err(_) => Err(io::ErrorKind::ConnectionRefused.into()),
            }
        }
    }

    impl Dialer {
        /// Connects to `fake` instead of the network.
        pub(crate) fn fake(mut self, fake: Upstream) -> Self {
            self.fake = Some(fake);
            self
        }

        /// Looks names up in `names` instead of asking the system.
        pub(crate) fn asking(mut self, names: &Names) -> Self {
            let fake = Some(Arc::clone(names));
            self.connector = HttpConnector::new_with_resolver(Resolver {
                gai: GaiResolver::new(),
                bound: Duration::MAX,
                fake,
            });
            self
        }
    }
}
