//! What the service manager is told, as it hears it: on a datagram socket.

use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;
use tokio::net::UnixDatagram;

use super::*;

/// The service manager's side of `NOTIFY_SOCKET`.
#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    folder: TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        Self { socket, folder }
    }

    /// The program as the manager starts it, with these settings and variables.
    async fn start(&self, toml: &str, variables: &[(&str, &str)]) -> (Running, SocketAddr) {
        fs::write(self.file(), toml).unwrap();
        let mut command = program(&["run", "--config", self.file().to_str().unwrap()]);
        command.env("NOTIFY_SOCKET", self.folder.path().join("notify"));
        command.envs(variables.iter().copied());
        until_ready(command).await
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("proxy.toml")
    }

    /// The assignments of the next datagram.
    async fn told(&self) -> Vec<(String, String)> {
        let mut datagram = vec![0; 4096];
        let length = soon("a notification", self.socket.recv(&mut datagram)).await;
        let text = std::str::from_utf8(&datagram[..length.unwrap()]).unwrap();
        let assignments = text.lines().map(|line| line.split_once('=').unwrap());
        assignments
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// The next datagram; it says `first`, and `status` to people.
    async fn tells(&self, first: &str, status: &str) -> Vec<(String, String)> {
        let told = self.told().await;
        assert_eq!(told[0], (first.to_owned(), "1".to_owned()), "{told:?}");
        assert_eq!(told[1].0, "STATUS", "{told:?}");
        assert!(told[1].1.contains(status), "{told:?}");
        told
    }

    /// A reload begins: in one datagram, with the time, or `systemctl reload`
    /// of a `Type=notify-reload` unit waits for a ready that came before.
    async fn reloads(&self, running: &Running) {
        let before = monotonic_micros();
        signal(running, "HUP");
        let told = self.told().await;
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(told[0], ("RELOADING".to_owned(), "1".to_owned()));
        assert_eq!(told[1].0, "MONOTONIC_USEC");
        let at: u64 = told[1].1.parse().unwrap();
        assert!((before..=monotonic_micros()).contains(&at), "{told:?}");
    }
}

fn monotonic_micros() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000 + now.tv_nsec / 1000).unwrap()
}

fn toml(more: &str) -> String {
    format!("listen = \"{FREE}\"\nadmin = \"{FREE}\"\n[upstream.a]\nurl = \"http://a\"\n{more}")
}

#[tokio::test]
async fn the_manager_hears_of_the_start_of_reloads_and_of_the_stop() {
    let manager = Manager::new();
    let drain = "shutdown.drain = \"20s\"\n";
    let (running, _) = manager.start(&format!("{drain}{}", toml("")), &[]).await;
    assert_eq!(manager.tells("READY", "serving").await.len(), 2);

    manager.reloads(&running).await;
    let good = manager.tells("READY", "the settings were reloaded").await;
    assert_eq!(good.len(), 2);

    fs::write(manager.file(), toml("limits = [\"10/sek\"]\n")).unwrap();
    manager.reloads(&running).await;
    let bad = manager.tells("READY", "the settings stay as they were");
    assert_eq!(bad.await.len(), 2);

    signal(&running, "TERM");
    let told = manager.tells("STOPPING", "finishing").await;
    // As long as the drain may take, and some for the end itself.
    assert_eq!(told[2].0, "EXTEND_TIMEOUT_USEC");
    let micros: u64 = told[2].1.parse().unwrap();
    assert!((20_000_000..60_000_000).contains(&micros), "{told:?}");
    assert_eq!(end(running).await.code(), Some(0));
}

#[tokio::test]
async fn a_manager_that_watches_hears_that_it_lives() {
    let manager = Manager::new();
    let watched = [("WATCHDOG_USEC", "100000")];
    let (running, _) = manager.start(&toml(""), &watched).await;
    let mut heard = 0;
    while heard < 3 {
        let told = manager.told().await;
        heard += usize::from(told == [("WATCHDOG".to_owned(), "1".to_owned())]);
    }
    drop(running);
}
