//! Other people's programs: how they are started, and a bound on their time.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;

/// What a developer runs when a program is missing.
const INSTALL: &str = "tests/programs/install";

/// Would send the requests elsewhere than to pacegate.
const PROXIES: [&str; 6] = [
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
];

/// curl without the user's own settings; says what went wrong, and nothing else.
pub(crate) fn curl() -> Command {
    let mut curl = command("curl");
    curl.args(["--disable", "--silent", "--show-error"]);
    curl
}

/// The Python of the environment that has `requirements.txt` installed.
pub(crate) fn python() -> Command {
    command(source("target/programs/venv/bin/python"))
}

pub(crate) fn node() -> Command {
    command("node")
}

/// A command that is killed when its process is dropped.
pub(crate) fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    for name in PROXIES {
        command.env_remove(name);
    }
    command
}

/// A file of this repository.
pub(crate) fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub(crate) fn spawn(command: &mut Command) -> Child {
    command.spawn().unwrap_or_else(|error| {
        let program = command.as_std().get_program().display();
        panic!("`{program}` cannot be run: {error}\nhint: {INSTALL} installs what is missing")
    })
}

/// What `command` printed; it has ended well and within `bound`.
pub(crate) async fn run(command: &mut Command, bound: Duration) -> String {
    let child = spawn(command);
    let command = command.as_std();
    let Ok(ended) = timeout(bound, child.wait_with_output()).await else {
        panic!("{command:?} still ran after {bound:?}");
    };
    let Output {
        status,
        stdout,
        stderr,
    } = ended.unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr),
    );
    assert!(
        status.success(),
        "{command:?}: {status}\n{stderr}{stdout}\nhint: {INSTALL} installs what is missing"
    );
    stdout.into_owned()
}
