//! The daemon under test: the real binary, its settings, its admin socket.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixDatagram, UnixStream};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::program;
use crate::upstream::Upstream;
use crate::{SOON, until};

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_pacegate");

/// Below the ports that the system gives to others.
const PORT: u16 = 8737;

/// A running pacegate in a directory of its own: killed and removed when
/// dropped. Dropped by a failing test, it prints its log.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    directory: TempDir,
    /// Where it tells its service manager what it does.
    notices: UnixDatagram,
}

/// An address on this machine that no one else has: loopback is a whole network,
/// so the host tells tests and processes apart and no port needs to be guessed.
pub(crate) fn own_address() -> SocketAddr {
    static LAST: AtomicU8 = AtomicU8::new(0);
    let test = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    let [.., high, low] = process::id().to_be_bytes();
    SocketAddrV4::new(Ipv4Addr::new(127, high, low, test), PORT).into()
}

impl Daemon {
    /// A daemon that serves on an address of its own, with `upstream` and its
    /// limit behind it; and the base URL to call.
    pub(crate) async fn start(upstream: &Upstream) -> (Self, String) {
        let address = own_address();
        let daemon = Self::start_on(&address.to_string(), upstream).await;
        (daemon, format!("http://{address}"))
    }

    /// The same, with these settings for the upstream `api`; and the address.
    pub(crate) async fn before(api: &str) -> (Self, String) {
        let directory = tempfile::tempdir().unwrap();
        let address = own_address().to_string();
        let daemon = Self::launch(program::command(BINARY), directory, &address, api);
        daemon.ready().await;
        (daemon, address)
    }

    /// The same as [`Daemon::start`], on `listen`.
    pub(crate) async fn start_on(listen: &str, upstream: &Upstream) -> Self {
        let daemon = Self::spawn(program::command(BINARY), listen, upstream);
        daemon.ready().await;
        daemon
    }

    /// Runs `command` with the arguments of a daemon appended. It need not be
    /// ready yet.
    pub(crate) fn spawn(command: Command, listen: &str, upstream: &Upstream) -> Self {
        let directory = tempfile::tempdir().unwrap();
        upstream.write_authority(&directory.path().join("ca.pem"));
        let (port, limit) = (upstream.address.port(), upstream.limit);
        let api = format!(
            "url = \"https://127.0.0.1:{port}\"\n\
             limits = [\"{limit}\"]\n\
             [upstream.api.tls]\n\
             ca = \"ca.pem\"\n"
        );
        Self::launch(command, directory, listen, &api)
    }

    /// Runs `command` in `directory`, with the settings `api` for the upstream.
    fn launch(mut command: Command, directory: TempDir, listen: &str, api: &str) -> Self {
        let path = directory.path();
        let settings = format!(
            "listen = \"{listen}\"\n\
             admin = \"unix:{admin}\"\n\
             threads = 2\n\
             [log]\n\
             requests = true\n\
             filter = \"info,pacegate=debug\"\n\
             [upstream.api]\n\
             {api}",
            admin = path.join("admin.sock").display(),
        );
        fs::write(path.join("proxy.toml"), settings).unwrap();
        command
            .args(["run", "--config"])
            .arg(path.join("proxy.toml"))
            .env_remove("PACEGATE_LOG")
            .env("NOTIFY_SOCKET", path.join("notify.sock"))
            .stderr(File::create(path.join("log")).unwrap());
        Self {
            notices: UnixDatagram::bind(path.join("notify.sock")).unwrap(),
            child: program::spawn(&mut command),
            directory,
        }
    }

    /// Where it keeps its files; programs may put theirs below.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A directory for the files of a program.
    pub(crate) fn workplace(&self) -> PathBuf {
        let path = self.directory().join("work");
        fs::create_dir(&path).unwrap();
        path
    }

    /// Waits until it says that requests are taken.
    async fn ready(&self) {
        until("READY=1", async || {
            let mut notice = [0; 1024];
            let length = self.notices.recv(&mut notice).await.ok()?;
            let text = str::from_utf8(&notice[..length]).ok()?;
            text.lines().find(|line| *line == "READY=1").map(drop)
        })
        .await;
    }

    /// Waits until the metrics hold `line`.
    pub(crate) async fn shows(&self, line: &str) {
        until(line, async || {
            let (_, metrics) = self.ask("/metrics").await?;
            metrics.lines().find(|found| *found == line).map(drop)
        })
        .await;
    }

    /// Stops it as a service manager does; it ends well.
    pub(crate) async fn stop(mut self) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
        let ended = timeout(SOON, self.child.wait()).await;
        let status = ended.expect("pacegate does not stop").unwrap();
        assert_eq!(status.code(), Some(0), "pacegate: {status}");
    }

    /// The status and the body of an answer of the admin socket, if it answers.
    async fn ask(&self, path: &str) -> Option<(u16, String)> {
        let socket = self.directory().join("admin.sock");
        let mut stream = UnixStream::connect(socket).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        let read = timeout(SOON, stream.read_to_string(&mut answer)).await;
        read.ok()?.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = fs::read_to_string(self.directory().join("log")).unwrap_or_default();
            eprintln!("--- pacegate's log\n{log}");
        }
    }
}
