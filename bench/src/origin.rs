//! The upstream of all measurements: the handle of a child process that answers 200 bytes or more, enforces a limit or stays silent,
//! and records when which request arrived.

pub(crate) mod arrivals;
pub(crate) mod circumstances;
mod meter;
pub(crate) mod policy;
pub(crate) mod server;

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::bench::Bench;
use crate::origin::arrivals::Arrivals;
use crate::origin::circumstances::Circumstances;
use crate::origin::policy::Policy;
use crate::process::{self, Process};
use crate::{Result, load};

/// A running origin on the load's core, ended when dropped.
#[derive(Debug)]
pub(crate) struct Origin {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    process: Process,
}

impl Origin {
    /// An origin that only answers, as fast as it can.
    pub(crate) async fn fast(bench: &Bench) -> Result<Self> {
        Self::start(bench, &Policy::Open, &[]).await
    }

    /// The same with answers of so many bytes.
    pub(crate) async fn answering(bench: &Bench, bytes: usize) -> Result<Self> {
        let bytes = ["--answer-bytes".to_owned(), bytes.to_string()];
        Self::start(bench, &Policy::Open, &bytes).await
    }

    /// A fast origin that speaks TLS with the run's certificate.
    pub(crate) async fn tls(bench: &Bench) -> Result<Self> {
        let dir = bench.certificate()?.dir().display().to_string();
        Self::start(bench, &Policy::Open, &["--certificate".to_owned(), dir]).await
    }

    /// An origin that also records each arrival. Where it matters a request takes 40 ms.
    pub(crate) async fn recording(bench: &Bench, policy: &Policy) -> Result<Self> {
        let circumstances = Circumstances {
            work_ms: if policy.limits_concurrency() { 40 } else { 0 },
            ..Circumstances::default()
        };
        Self::under(bench, policy, circumstances).await
    }

    /// One that records, behind such a network, with such a clock.
    pub(crate) async fn under(
        bench: &Bench,
        policy: &Policy,
        circumstances: Circumstances,
    ) -> Result<Self> {
        let mut options = vec!["--record".to_owned()];
        options.extend(circumstances.arguments());
        Self::start(bench, policy, &options).await
    }

    /// An origin that reads requests and never answers.
    pub(crate) async fn silent(bench: &Bench) -> Result<Self> {
        Self::start(bench, &Policy::Silent, &[]).await
    }

    /// Seconds so far in which the origin had to wait for a core.
    pub(crate) fn starved_seconds(&self) -> f64 {
        self.process.starved_seconds()
    }

    /// All that arrived so far.
    pub(crate) async fn arrivals(&self) -> Result<Arrivals> {
        let (status, body) = load::fetch(self.addr, "/__arrivals").await?;
        if status != 200 {
            return Err(format!("the origin answered {status} instead of its arrivals").into());
        }
        Arrivals::parse(std::str::from_utf8(&body)?)
    }

    async fn start(bench: &Bench, policy: &Policy, options: &[String]) -> Result<Self> {
        let addr = process::free_port()?;
        let mut command = Command::new(&bench.own_binary);
        command.args([
            "origin",
            "--listen",
            &addr.to_string(),
            "--policy",
            &policy.to_string(),
        ]);
        command.args(options);
        let mut process = Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))?;
        process
            .listens(addr)
            .await
            .map_err(|error| format!("origin: {error}"))?;
        Ok(Self { addr, process })
    }
}
