//! The daemon, in this process, on a thread and ports of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;

use pacegate::config::Config;
use pacegate::daemon::{Daemon, DaemonError, Reload, Stopped};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::{BOUND, Caller, Response, Upstream, get, soon};

/// Stands before the settings of each test.
const BEFORE: &str = r#"
listen = "127.0.0.1:0"
admin = "127.0.0.1:0"
threads = 2
"#;

/// A daemon that runs. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    stop: mpsc::Sender<()>,
    reload: mpsc::Sender<()>,
    /// What the next reload reads.
    settings: Arc<Mutex<String>>,
    ran: oneshot::Receiver<Result<Stopped, DaemonError>>,
}

/// What `/metrics` said, by full sample name.
pub(crate) struct Metrics(BTreeMap<String, f64>);

impl Proxy {
    /// Starts the daemon with these settings, which leave out where to listen.
    #[track_caller]
    pub(crate) fn start(toml: &str) -> Self {
        let config = Config::parse("proxy.toml", &format!("{BEFORE}{toml}"));
        let daemon = Daemon::bind(config.unwrap_or_else(|problems| panic!("{problems}"))).unwrap();
        let address = daemon.addresses()[0];
        let admin = daemon.admin_address().unwrap();
        let (stop, stopping) = mpsc::channel(2);
        let (reload, reloading) = mpsc::channel(1);
        let settings = Arc::<Mutex<String>>::default();
        let read = Arc::clone(&settings);
        let daemon = daemon.reloaded_by(Reload::new(reloading, move || {
            let toml = format!("{BEFORE}{}", read.lock().unwrap());
            Config::parse("proxy.toml", &toml).map_err(|problems| problems.to_string())
        }));
        let (ended, ran) = oneshot::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            // Nobody waits for it where the test does not stop the daemon.
            let _ = ended.send(runtime.block_on(daemon.run(stopping)));
        });
        Self {
            address,
            admin,
            stop,
            reload,
            settings,
            ran,
        }
    }

    /// Starts the daemon before one upstream, `api`; `toml` goes on in its table.
    #[track_caller]
    pub(crate) fn before(upstream: &Upstream, toml: &str) -> Self {
        let url = upstream.url();
        Self::start(&format!("[upstream.api]\nurl = \"{url}\"\n{toml}"))
    }

    /// Reloads these settings; whether they were applied.
    pub(crate) async fn reload(&self, toml: &str) -> bool {
        toml.clone_into(&mut self.settings.lock().unwrap());
        let count = |metrics: &Metrics, result: &str| {
            metrics.value(&format!(
                "pacegate_config_reloads_total{{result=\"{result}\"}}"
            ))
        };
        let before = self.metrics().await;
        let [applied, refused] = ["applied", "refused"].map(|result| count(&before, result));
        self.reload.send(()).await.unwrap();
        let after = self
            .until("a reload", |now| {
                count(now, "applied") + count(now, "refused") > applied + refused
            })
            .await;
        count(&after, "applied") > applied
    }

    /// A new connection.
    pub(crate) async fn caller(&self) -> Caller {
        Caller::connect(self.address).await
    }

    /// A new connection on which `request` was sent.
    pub(crate) async fn send(&self, request: impl AsRef<[u8]>) -> Caller {
        let mut caller = self.caller().await;
        caller.send(request).await;
        caller
    }

    /// The answer to a GET on a connection of its own.
    pub(crate) async fn get(&self, path: &str) -> Response {
        self.send(get(path)).await.response().await
    }

    /// The admin listener's answer to a GET.
    pub(crate) async fn admin(&self, path: &str) -> Response {
        let mut caller = Caller::connect(self.admin).await;
        caller.send(get(path)).await;
        caller.response().await
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        let response = self.admin("/metrics").await;
        assert_eq!(response.status, 200);
        Metrics::parse(response.text())
    }

    /// Looks at the metrics until they are as `wanted`.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&Metrics) -> bool) -> Metrics {
        self.until_shown(what, "/metrics", |response| {
            let metrics = Metrics::parse(response.text());
            match wanted(&metrics) {
                true => Ok(metrics),
                false => Err(format!("{metrics:#?}")),
            }
        })
        .await
    }

    /// Asks the admin listener again and again, until there is what is looked for;
    /// what stands there instead is printed when that takes too long.
    async fn until_shown<T>(
        &self,
        what: &str,
        path: &str,
        found: impl Fn(&Response) -> Result<T, String>,
    ) -> T {
        let mut seen = String::new();
        let looking = async {
            let mut caller = Caller::connect(self.admin).await;
            loop {
                caller.send(get(path)).await;
                let response = caller.response().await;
                match found(&response) {
                    Ok(found) => return found,
                    Err(other) => seen = other,
                }
                if response.fields.has_token("connection", "close") {
                    caller = Caller::connect(self.admin).await;
                }
            }
        };
        let found = timeout(BOUND, looking).await;
        found.unwrap_or_else(|_elapsed| panic!("not within {BOUND:?}: {what}\n{seen}"))
    }

    /// Waits until so many requests wait in the queue of `api`.
    pub(crate) async fn until_waiting(&self, count: u32) {
        let what = format!("{count} requests waiting");
        self.until(&what, |metrics| metrics.waiting("api") == f64::from(count))
            .await;
    }

    /// Waits until so many connections of callers are open.
    pub(crate) async fn until_connections(&self, count: u32) {
        let name = "pacegate_client_connections";
        let what = format!("{count} connections");
        self.until(&what, |metrics| metrics.value(name) == f64::from(count))
            .await;
    }

    /// Waits until one request has ended at `upstream`, and fails unless it did
    /// so as `outcome`.
    pub(crate) async fn until_first_end(&self, upstream: &str, outcome: &str) {
        let metrics = self.until("the end of a request", |metrics| {
            metrics.sum(&format!("pacegate_requests_total{{upstream=\"{upstream}\"")) > 0.0
        });
        let metrics = metrics.await;
        assert_eq!(
            metrics.ended(upstream, outcome),
            1.0,
            "not {outcome}: {metrics:#?}"
        );
    }

    /// Tells the daemon to stop, once.
    pub(crate) async fn tell_to_stop(&self) {
        soon("the daemon to be told", self.stop.send(()))
            .await
            .unwrap();
    }

    /// Waits until the stop has begun.
    pub(crate) async fn until_draining(&self) {
        self.until_shown("the stop to begin", "/readyz", |ready| match ready.status {
            503 => Ok(()),
            _ => Err(format!("{ready:?}")),
        })
        .await;
    }

    /// Waits until the daemon has stopped.
    pub(crate) async fn stopped(self) -> Stopped {
        soon("the daemon's end", self.ran).await.unwrap().unwrap()
    }

    /// Stops the daemon.
    pub(crate) async fn stop(self) -> Stopped {
        self.tell_to_stop().await;
        self.stopped().await
    }
}

impl Metrics {
    fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        });
        Self(samples.collect())
    }

    /// The sample of that full name; 0 if there is none.
    pub(crate) fn value(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Whether a sample's name starts so.
    pub(crate) fn has(&self, start: &str) -> bool {
        self.0.keys().any(|name| name.starts_with(start))
    }

    /// The sum of the samples whose names start so.
    pub(crate) fn sum(&self, start: &str) -> f64 {
        let samples = self.0.iter().filter(|(name, _)| name.starts_with(start));
        samples.map(|(_, value)| value).sum()
    }

    /// The sample of a metric that has no label but its upstream.
    pub(crate) fn of(&self, upstream: &str, metric: &str) -> f64 {
        self.value(&format!("{metric}{{upstream=\"{upstream}\"}}"))
    }

    pub(crate) fn waiting(&self, upstream: &str) -> f64 {
        self.of(upstream, "pacegate_queue_requests")
    }

    pub(crate) fn in_flight(&self, upstream: &str) -> f64 {
        self.of(upstream, "pacegate_in_flight_requests")
    }

    pub(crate) fn admitted(&self, upstream: &str) -> f64 {
        self.of(upstream, "pacegate_requests_admitted_total")
    }

    /// Requests that ended so.
    pub(crate) fn ended(&self, upstream: &str, outcome: &str) -> f64 {
        let labels = format!("upstream=\"{upstream}\",outcome=\"{outcome}\"");
        self.value(&format!("pacegate_requests_total{{{labels}}}"))
    }

    /// What the only limit of `api` would let start now, but for `max_in_flight`.
    pub(crate) fn available(&self) -> f64 {
        let of = |label: &str| format!("pacegate_limit_available{{upstream=\"api\"{label}");
        self.sum(&of("")) - self.sum(&of(",limit=\"max_in_flight\""))
    }
}

/// What is not zero, without the buckets of histograms.
impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = self.0.iter();
        let said = said.filter(|(name, value)| **value != 0.0 && !name.contains("_bucket{"));
        f.debug_map().entries(said).finish()
    }
}
