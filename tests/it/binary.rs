//! The program: arguments, exit codes, signals.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use crate::support::{Caller, Upstream, get, ok, soon};

/// What the service manager is told.
mod notify;

/// The system chooses the port.
const FREE: &str = "127.0.0.1:0";

/// What the program said and how it ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    said: String,
    complained: String,
}

/// A program that is killed if the test fails.
#[derive(Debug)]
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pacegate"));
    command
        .args(arguments)
        .env_remove("PACEGATE_LOG")
        .stdin(Stdio::null());
    command
}

/// Runs the program to its end.
async fn run(arguments: &[&str]) -> Ended {
    let mut command = program(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = soon("the program's end", output).await.unwrap();
    Ended {
        code: output.status.code(),
        said: String::from_utf8(output.stdout).unwrap(),
        complained: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A file with these settings.
fn settings(toml: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("proxy.toml");
    fs::write(&file, toml).unwrap();
    let path = file.to_str().unwrap().to_owned();
    (folder, path)
}

#[tokio::test]
async fn check_accepts_the_sample() {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/proxy.toml");
    let ended = run(&["check", "--config", sample]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let told = "proxy.toml: ok\nupstream.example: api.example.com, 10/s\n";
    assert!(ended.said.ends_with(told), "{ended:?}");
    assert_eq!(ended.complained, "");
    let (_folder, file) =
        settings("listen = \"127.0.0.1:8080\"\n[upstream.a]\nurl = \"http://a\"\n");
    let ended = run(&["check", "--config", &file]).await;
    let told = "upstream.a: a, no limits but `max_in_flight`\n";
    assert!(ended.said.ends_with(told), "{ended:?}");
}

#[tokio::test]
async fn check_and_run_refuse_a_wrong_file_and_say_why() {
    let (_folder, file) =
        settings("listen = 8080\n[upstream.a]\nurl = \"http://a\"\nlimits = [\"10/sek\"]\n");
    for command in ["check", "run"] {
        let ended = run(&[command, "--config", &file]).await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.complained.contains("proxy.toml:1:"), "{ended:?}");
        assert!(
            ended.complained.contains("`10/sek` is not a rate"),
            "{ended:?}"
        );
        assert!(
            ended.complained.contains("did you mean `10/sec`?"),
            "{ended:?}"
        );
    }
}

#[tokio::test]
async fn a_file_that_is_not_there_is_a_mistake_of_the_operator() {
    let (folder, _) = settings("");
    let absent = folder.path().join("absent.toml");
    for command in ["check", "run"] {
        let ended = run(&[command, "--config", absent.to_str().unwrap()]).await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.complained.contains("absent.toml"), "{ended:?}");
    }
}

#[tokio::test]
async fn an_unknown_argument_is_a_mistake_of_the_operator() {
    let ended = run(&["--unheard-of"]).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.complained.contains("--unheard-of"), "{ended:?}");
}

/// Each was taken for the name of a part of the program, and no line appeared.
#[tokio::test]
async fn a_log_filter_that_would_silence_everything_is_a_mistake() {
    let (_folder, file) = settings("listen = \"127.0.0.1:0\"\n[upstream.a]\nurl = \"http://a\"\n");
    for (filter, part) in [
        ("inof", "did you mean `info`?"),
        ("blah", "did you mean `debug`?"),
        ("foo=info,,=", "has an empty entry"),
    ] {
        for command in ["check", "run"] {
            let ended = run(&[command, "--config", &file, "--log", filter]).await;
            assert_eq!(ended.code, Some(2), "{ended:?}");
            assert!(ended.complained.contains(part), "{ended:?}");
            assert!(ended.complained.contains("--log"), "{ended:?}");
        }
    }
}

#[tokio::test]
async fn presets_lists_them_with_their_sources() {
    let ended = run(&["presets"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for part in ["github: 5000/h", "https://docs.github.com/", "(2026-"] {
        assert!(ended.said.contains(part), "{part}: {ended:?}");
    }
    assert_eq!(ended.complained, "");
}

#[tokio::test]
async fn a_preset_can_be_pasted_into_the_settings() {
    let ended = run(&["presets", "github"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let (_folder, file) = settings(&format!("listen = \"{FREE}\"\n{}", ended.said));
    let checked = run(&["check", "--config", &file]).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
}

/// Some APIs have an address for each account, which a preset cannot know.
#[tokio::test]
async fn a_preset_without_an_address_leaves_a_line_for_it() {
    for name in ["shopify", "atlassian"] {
        let ended = run(&["presets", name]).await;
        assert!(
            ended.said.contains("\n# url = \"https://...\"\n"),
            "{ended:?}"
        );
    }
}

#[tokio::test]
async fn an_unknown_preset_is_a_mistake_of_the_operator() {
    let ended = run(&["presets", "gihtub"]).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended.complained.contains("did you mean `github`?"),
        "{ended:?}"
    );
    assert_eq!(ended.said, "");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (listen, admin, key) in [
        (address.as_str(), FREE, "`listen`"),
        (FREE, address.as_str(), "`admin`"),
    ] {
        let toml = format!("listen = \"{listen}\"\nadmin = \"{admin}\"\n");
        let (_folder, file) = settings(&format!("{toml}[upstream.a]\nurl = \"http://a\"\n"));
        let ended = run(&["run", "--config", &file]).await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(
            ended.complained.contains(&format!("`{address}`")),
            "{ended:?}"
        );
        assert!(ended.complained.contains("in use"), "{ended:?}");
        assert!(ended.complained.contains(key), "{ended:?}");
    }
}

#[tokio::test]
async fn a_certificate_file_that_cannot_be_used_is_named() {
    let toml = "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n[upstream.a]\n\
        url = \"https://a\"\ntls.ca = \"ca.pem\"\n";
    let (folder, file) = settings(toml);
    let write = |content: &str| fs::write(folder.path().join("ca.pem"), content).unwrap();
    for content in [
        "",
        "garbage",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        write(content);
        let ended = run(&["run", "--config", &file]).await;
        assert_eq!(ended.code, Some(2), "{content}: {ended:?}");
        assert!(ended.complained.contains("ca.pem"), "{content}: {ended:?}");
    }
    fs::remove_file(folder.path().join("ca.pem")).unwrap();
    let ended = run(&["run", "--config", &file]).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.complained.contains("ca.pem"), "{ended:?}");
}

/// Starts the program and waits until it is ready; where its callers connect.
async fn start(file: &str) -> (Running, SocketAddr) {
    until_ready(program(&["run", "--config", file])).await
}

async fn until_ready(mut command: Command) -> (Running, SocketAddr) {
    let mut running = Running(command.stderr(Stdio::piped()).spawn().unwrap());
    let complains = running.0.stderr.take().unwrap();
    let ready = tokio::task::spawn_blocking(move || {
        let mut lines = BufReader::new(complains).lines();
        let ready = lines
            .by_ref()
            .map(Result::unwrap)
            .find(|line| line.contains("ready"));
        // Read on, so that it can write on.
        std::thread::spawn(move || lines.for_each(drop));
        ready
    });
    let line = soon("the program to be ready", ready)
        .await
        .unwrap()
        .unwrap();
    let (_, rest) = line.split_once("addresses=[").unwrap();
    let (address, _) = rest.split_once(']').unwrap();
    (running, address.parse().unwrap())
}

/// The first line of the log of `file`'s settings that holds `part`; a caller asks
/// for something as soon as it is ready.
async fn line_of_log(file: &str, part: &'static str) -> String {
    let mut command = program(&["run", "--config", file]);
    let mut running = Running(command.stderr(Stdio::piped()).spawn().unwrap());
    let complains = running.0.stderr.take().unwrap();
    let found = tokio::task::spawn_blocking(move || {
        let mut asks = None;
        BufReader::new(complains)
            .lines()
            .map(Result::unwrap)
            .find(|line| {
                if let Some((_, rest)) = line.split_once("addresses=[") {
                    let (address, _) = rest.split_once(']').unwrap();
                    let mut caller = std::net::TcpStream::connect(address).unwrap();
                    caller
                        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                        .unwrap();
                    asks = Some(caller);
                }
                line.contains(part)
            })
    });
    soon("the line", found).await.unwrap().unwrap()
}

#[tokio::test]
async fn it_says_where_its_admin_is_and_which_upstreams_it_has() {
    let (_folder, file) = settings(&format!(
        "listen = \"{FREE}\"\nadmin = \"{FREE}\"\n[upstream.github]\nurl = \"http://a\"\n"
    ));
    let line = line_of_log(&file, "ready").await;
    assert!(line.contains("admin=[127.0.0.1:"), "{line}");
    assert!(!line.contains("127.0.0.1:0"), "{line}");
    assert!(line.contains("upstreams=[\"github\"]"), "{line}");
}

#[tokio::test]
async fn an_outage_names_the_address_the_step_and_the_time_of_the_hold() {
    let free = TcpListener::bind(FREE).unwrap().local_addr().unwrap();
    for (address, step) in [
        (free.to_string(), "TCP connection failed"),
        ("nowhere.invalid:81".to_owned(), "DNS lookup failed"),
    ] {
        let (_folder, file) = settings(&format!(
            "listen = \"{FREE}\"\nadmin = \"{FREE}\"\n[upstream.a]\nurl = \"http://{address}\"\n\
             retry.hold = \"7s\"\ntimeouts.dns = \"100ms\"\nconnection.attempts = 1\n"
        ));
        let line = line_of_log(&file, "no connection").await;
        for part in [
            &format!("address=\"{address}\""),
            step,
            "hold=7s",
            "are held",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
    }
}

#[tokio::test]
async fn a_command_offers_no_option_that_it_ignores() {
    for (command, offered) in [
        ("run", true),
        ("check", true),
        ("demo", false),
        ("presets", false),
    ] {
        let ended = run(&[command, "--help"]).await;
        for option in ["--config", "--log"] {
            assert_eq!(ended.said.contains(option), offered, "{ended:?}");
        }
    }
    let ended = run(&["--help"]).await;
    assert!(
        ended
            .said
            .contains("Without a command, pacegate starts the daemon")
    );
}

#[tokio::test]
async fn an_option_behind_the_command_wins_over_one_before() {
    let (_folder, file) = settings("");
    for arguments in [
        ["--config", "absent.toml", "check", "--config", &file],
        ["--config", &file, "check", "--log", "info"],
    ] {
        let ended = run(&arguments).await;
        assert!(ended.complained.contains("listen: is missing"), "{ended:?}");
    }
}

fn signal(running: &Running, name: &str) {
    let mut kill = Command::new("kill");
    kill.args([&format!("-{name}"), &running.0.id().to_string()]);
    assert!(kill.status().unwrap().success());
}

async fn end(mut running: Running) -> ExitStatus {
    let waited = tokio::task::spawn_blocking(move || running.0.wait().unwrap());
    soon("the program's end", waited).await.unwrap()
}

/// The program before an upstream that holds its answers, and a caller in wait.
async fn start_before(upstream: &Upstream) -> (Running, Caller, Caller) {
    let toml = format!("listen = \"{FREE}\"\nadmin = \"{FREE}\"\nshutdown.drain = \"1h\"\n");
    let url = upstream.url();
    let (_folder, file) = settings(&format!("{toml}[upstream.a]\nurl = \"{url}\"\n"));
    let (running, address) = start(&file).await;
    let idle = Caller::connect(address).await;
    let mut caller = Caller::connect(address).await;
    caller.send(get("/")).await;
    upstream.until_requests(1).await;
    (running, idle, caller)
}

#[tokio::test]
async fn a_signal_stops_it_after_the_drain() {
    for name in ["TERM", "INT"] {
        let upstream = Upstream::holding().await;
        let (running, mut idle, mut caller) = start_before(&upstream).await;
        signal(&running, name);
        assert_eq!(idle.closed().await, b"");
        upstream.release(1);
        assert_eq!(caller.response().await.status, 200);
        assert_eq!(end(running).await.code(), Some(0));
    }
}

#[tokio::test]
async fn a_second_signal_ends_the_drain() {
    let upstream = Upstream::holding().await;
    let (running, mut idle, mut caller) = start_before(&upstream).await;
    signal(&running, "TERM");
    // The first was heard: two that come together are one.
    assert_eq!(idle.closed().await, b"");
    signal(&running, "TERM");
    caller.response().await.assert_refusal(503, "draining");
    assert_eq!(end(running).await.code(), Some(0));
}

/// The program is killed at any time, again and again, while callers press it:
/// what it spent before counts for the one that is started next.
#[tokio::test]
async fn killed_again_and_again_it_never_exceeds_the_limit() {
    const COUNT: usize = 5;
    const PERIOD: Duration = Duration::from_millis(500);
    let upstream = Upstream::answering(ok("ok")).await;
    let folder = tempfile::tempdir().unwrap();
    let url = upstream.url();
    let (_folder, file) = settings(&format!(
        "listen = \"{FREE}\"\nadmin = \"{FREE}\"\nstate.dir = \"{}\"\n\
         [upstream.a]\nurl = \"{url}\"\nlimits = [\"{COUNT}/500ms\"]\n\
         guard = \"400ms\"\n",
        folder.path().join("state").display()
    ));
    for round in 0..5 {
        let (running, address) = start(&file).await;
        let before = upstream.requests().len();
        let mut callers = Vec::new();
        for _ in 0..2 * COUNT {
            let mut caller = Caller::connect(address).await;
            caller.send(get("/")).await;
            callers.push(caller);
        }
        upstream.until_requests(before + 1 + round % COUNT).await;
        // Dropping it kills it.
        drop(running);
    }
    let arrivals: Vec<Instant> = upstream.requests().iter().map(|seen| seen.at).collect();
    for (nth, first) in arrivals.iter().enumerate() {
        let next = arrivals.get(nth + COUNT);
        let apart = next.map(|next| *next - *first);
        assert!(
            apart.is_none_or(|apart| apart >= PERIOD),
            "{nth}: {arrivals:?}"
        );
    }
}

/// An API that has said when to come back is not asked before that.
#[tokio::test]
async fn a_pause_that_the_api_asked_for_outlives_a_kill() {
    let refusal = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 300\r\nContent-Length: 0\r\n\r\n";
    let last = "HTTP/1.1 200 OK\r\nX-Left: 0\r\nX-Reset: 300\r\nContent-Length: 0\r\n\r\n";
    for (answer, first) in [(refusal, 429), (last, 200)] {
        let upstream = Upstream::answering(answer).await;
        let (state, url) = (tempfile::tempdir().unwrap(), upstream.url());
        let dir = state.path().join("state");
        let (_folder, file) = settings(&format!(
            "listen = \"{FREE}\"\nadmin = \"{FREE}\"\nstate.dir = \"{}\"\n\
             [upstream.a]\nurl = \"{url}\"\n\
             dialect = {{ remaining = \"x-left\", reset = \"x-reset\", unit = \"seconds\" }}\n",
            dir.display()
        ));
        for status in [first, 503, 503] {
            let (running, address) = start(&file).await;
            let mut caller = Caller::connect(address).await;
            caller.send(get("/")).await;
            assert_eq!(caller.response().await.status, status);
            // Dropping it kills it.
            drop(running);
        }
        assert_eq!(upstream.requests().len(), 1);
    }
}

/// Every first start under a service manager: everything counted as spent, and a
/// request of an upstream with "5000/h" was refused for an hour.
#[tokio::test]
async fn the_first_start_in_a_new_folder_waits_for_nothing() {
    let upstream = Upstream::answering(ok("ok")).await;
    let (folder, url) = (tempfile::tempdir().unwrap(), upstream.url());
    let (_settings, file) = settings(&format!(
        "listen = \"{FREE}\"\nadmin = \"{FREE}\"\n[upstream.a]\nurl = \"{url}\"\nlimits = [\"1/h\"]\n"
    ));
    for status in [200, 503] {
        let mut command = program(&["run", "--config", &file]);
        command.env("STATE_DIRECTORY", folder.path());
        let (running, address) = until_ready(command).await;
        let mut caller = Caller::connect(address).await;
        caller.send(get("/")).await;
        assert_eq!(caller.response().await.status, status);
        drop(running);
    }
}

#[tokio::test]
async fn two_programs_cannot_share_a_state() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().display();
    let (_folder, file) = settings(&format!(
        "listen = \"{FREE}\"\nadmin = \"{FREE}\"\nstate.dir = \"{dir}\"\n\
         [upstream.a]\nurl = \"http://a\"\n"
    ));
    let (running, _) = start(&file).await;
    let ended = run(&["run", "--config", &file]).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended.complained.contains("in use by another pacegate"),
        "{ended:?}"
    );
    drop(running);
}

#[tokio::test]
async fn a_hangup_reloads_the_file() {
    let upstream = Upstream::answering(ok("ok")).await;
    let url = upstream.url();
    let toml = |limit: &str| {
        format!(
            "listen = \"{FREE}\"\nadmin = \"{FREE}\"\n[upstream.a]\nurl = \"{url}\"\n\
             limits = [\"{limit}\"]\nqueue.max_wait = \"2h\"\n"
        )
    };
    let (_folder, file) = settings(&toml("1/h"));
    let (running, address) = start(&file).await;
    let mut callers = Vec::new();
    for _ in 0..2 {
        let mut caller = Caller::connect(address).await;
        caller.send(get("/")).await;
        callers.push(caller);
    }
    upstream.until_requests(1).await;
    fs::write(&file, toml("2/h")).unwrap();
    signal(&running, "HUP");
    for mut caller in callers {
        assert_eq!(caller.response().await.status, 200);
    }
    signal(&running, "TERM");
    assert_eq!(end(running).await.code(), Some(0));
}
