//! The upstream of all measurements: the handle of a child process that answers 200 bytes, enforces a limit or stays silent,
//! and records when which request arrived.

pub(crate) mod arrivals;
pub(crate) mod policy;
pub(crate) mod server;

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::bench::Bench;
use crate::origin::arrivals::Arrivals;
use crate::origin::policy::Policy;
use crate::process::{self, Process};
use crate::{Result, load};

/// A running origin on the load's core, ended when dropped.
#[derive(Debug)]
pub(crate) struct Origin {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    _process: Process,
}

impl Origin {
    /// An origin that only answers, as fast as it can.
    pub(crate) async fn fast(bench: &Bench) -> Result<Self> {
        Self::start(bench, Policy::Open, false).await
    }

    /// An origin that also records each arrival.
    pub(crate) async fn recording(bench: &Bench, policy: Policy) -> Result<Self> {
        Self::start(bench, policy, true).await
    }

    /// An origin that reads requests and never answers.
    pub(crate) async fn silent(bench: &Bench) -> Result<Self> {
        Self::start(bench, Policy::Silent, false).await
    }

    /// All that arrived so far.
    pub(crate) async fn arrivals(&self) -> Result<Arrivals> {
        let (status, body) = load::fetch(self.addr, "/__arrivals").await?;
        if status != 200 {
            return Err(format!("the origin answered {status} instead of its arrivals").into());
        }
        Arrivals::parse(std::str::from_utf8(&body)?)
    }

    async fn start(bench: &Bench, policy: Policy, record: bool) -> Result<Self> {
        let addr = process::free_port()?;
        let mut command = Command::new(&bench.own_binary);
        command.args([
            "origin",
            "--listen",
            &addr.to_string(),
            "--policy",
            &policy.to_string(),
        ]);
        if record {
            command.arg("--record");
        }
        let mut process = Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))?;
        process
            .listens(addr)
            .await
            .map_err(|error| format!("origin: {error}"))?;
        Ok(Self {
            addr,
            _process: process,
        })
    }
}
