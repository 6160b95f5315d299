//! A child process as a guard value: dropping it kills it and its descendants. It also answers what the kernel knows about the
//! process tree: CPU seconds, proportional memory, threads, all from /proc.
//!
//! The tool's own children (origin, `until_ready`) die with it whatever happens; foreign programs are ended by the guard, which
//! also runs on errors, SIGINT and SIGTERM.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal};
use tokio::net::TcpStream;

use crate::clock::{self, Timer};
use crate::{Result, load};

const STARTUP_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_micros(200);

/// A running child, killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `command` on the core of the calling thread.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        let child = command.spawn()?;
        Ok(Self { child })
    }

    /// Waits until something accepts connections at `addr`.
    ///
    /// # Errors
    /// When the process ends first, or takes longer than thirty seconds.
    pub(crate) async fn listens(&mut self, addr: SocketAddr) -> Result<()> {
        self.until(async || TcpStream::connect(addr).await.is_ok())
            .await
    }

    /// Waits until a GET of `path` at `addr` is answered 200; the errors are those of `listens`.
    pub(crate) async fn answers(&mut self, addr: SocketAddr, path: &str) -> Result<()> {
        self.until(async || matches!(load::fetch(addr, path).await, Ok((200, _))))
            .await
    }

    /// The exit status, none while it runs.
    pub(crate) fn exited(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Asks the child to stop and waits until it has.
    ///
    /// # Errors
    /// When it takes longer than ten seconds, or ends otherwise than with success.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            rustix::process::kill_process(pid, Signal::TERM)?;
        }
        let mut timer = Timer::new()?;
        let deadline = clock::now() + clock::nanos(STOP_LIMIT);
        while clock::now() < deadline {
            match self.exited()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("did not stop as it should: {status}").into()),
                None => timer.sleep_until(clock::now() + clock::nanos(POLL)).await?,
            }
        }
        Err("has not stopped after 10 s".into())
    }

    /// Takes what the child writes to its piped stdout.
    pub(crate) fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// User and system seconds of the process tree so far, ended children included.
    pub(crate) fn cpu_seconds(&self) -> io::Result<f64> {
        let mut ticks = 0;
        for pid in self.tree() {
            ticks += cpu_ticks(&fs::read_to_string(format!("/proc/{pid}/stat"))?).unwrap_or(0);
        }
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Seconds so far in which the process tree could have run but had no core to run on: somebody else had it.
    pub(crate) fn starved_seconds(&self) -> f64 {
        let tasks = self.tree().into_iter().flat_map(tasks);
        let waits = tasks.filter_map(|task| {
            let text = fs::read_to_string(task.join("schedstat")).ok()?;
            text.split(' ').nth(1)?.parse::<u64>().ok()
        });
        clock::seconds(waits.sum())
    }

    /// Proportional set size of the process tree in bytes.
    pub(crate) fn pss_bytes(&self) -> io::Result<u64> {
        self.sum("smaps_rollup", "Pss:").map(|kib| kib * 1024)
    }

    /// Threads of the process tree.
    pub(crate) fn threads(&self) -> io::Result<u64> {
        self.sum("status", "Threads:")
    }

    async fn until(&mut self, ready: impl AsyncFn() -> bool) -> Result<()> {
        let mut timer = Timer::new()?;
        let deadline = clock::now() + clock::nanos(STARTUP_LIMIT);
        while clock::now() < deadline {
            // A probe that hangs must not hide that the process has ended.
            if tokio::time::timeout(Duration::from_secs(1), ready()).await == Ok(true) {
                return Ok(());
            }
            if let Some(status) = self.exited()? {
                return Err(format!("ended before it was ready: {status}").into());
            }
            timer.sleep_until(clock::now() + clock::nanos(POLL)).await?;
        }
        Err("not ready after 30 s".into())
    }

    fn sum(&self, file: &str, field: &str) -> io::Result<u64> {
        let mut total = 0;
        for pid in self.tree() {
            total += value(&fs::read_to_string(format!("/proc/{pid}/{file}"))?, field).unwrap_or(0);
        }
        Ok(total)
    }

    /// The process and its live descendants.
    fn tree(&self) -> Vec<u32> {
        let mut pids = vec![self.child.id()];
        let mut next = 0;
        while let Some(&pid) = pids.get(next) {
            pids.extend(children(pid));
            next += 1;
        }
        pids
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Once reaped the id may belong to somebody else.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        for pid in self
            .tree()
            .into_iter()
            .filter_map(|pid| Pid::from_raw(pid.cast_signed()))
        {
            let _gone_already = rustix::process::kill_process(pid, Signal::KILL);
        }
        let _reaped = self.child.wait();
    }
}

/// Asks the kernel to kill this process when the run that spawned it ends, however it ends.
pub(crate) fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(
        Signal::KILL,
    ))?)
}

/// Raises the soft limit on open files to the hard one, for this process and its children; returns the new limit.
pub(crate) fn raise_open_files() -> io::Result<u64> {
    let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
    rustix::process::setrlimit(
        Resource::Nofile,
        Rlimit {
            current: hard,
            maximum: hard,
        },
    )?;
    Ok(hard.unwrap_or(u64::MAX))
}

/// A port of the loopback that was free a moment ago.
pub(crate) fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// The directories of a process's threads.
fn tasks(pid: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"));
    entries.map_or_else(
        |_| Vec::new(),
        |entries| entries.flatten().map(|task| task.path()).collect(),
    )
}

fn children(pid: u32) -> Vec<u32> {
    let lists = tasks(pid)
        .into_iter()
        .filter_map(|task| fs::read_to_string(task.join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// utime + stime + cutime + cstime of a /proc/PID/stat line. The name in parentheses may hold spaces: count from its end.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields
        .split_whitespace()
        .skip(11)
        .take(4)
        .map(|field| field.parse::<u64>().ok())
        .sum()
}

/// The number after `field` at the start of a line, whatever unit follows.
fn value(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_files_of_proc() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194304 100 0 0 0 7 5 2 1 20 0 1 0";
        assert_eq!(cpu_ticks(stat), Some(15));
        assert_eq!(
            value("Rss:  9 kB\nPss:     1234 kB\nPss_Dirty: 5 kB\n", "Pss:"),
            Some(1234)
        );
    }

    #[test]
    fn a_dropped_process_is_gone_with_its_children() {
        let process = Process::spawn(Command::new("sh").args(["-c", "sleep 60; true"])).unwrap();
        let mut tree = process.tree();
        while tree.len() < 2 {
            tree = process.tree();
        }
        drop(process);
        assert!(!fs::exists(format!("/proc/{}", tree[0])).unwrap());
        // The orphan is not ours to wait for: it dies when it is next scheduled, and may stay a zombie.
        let deadline = clock::now() + 5_000_000_000;
        loop {
            let stat = fs::read_to_string(format!("/proc/{}/stat", tree[1])).unwrap_or_default();
            if stat.is_empty() || stat.contains(") Z") || stat.contains(") X") {
                break;
            }
            assert!(clock::now() < deadline, "still there: {stat}");
            std::thread::yield_now();
        }
    }
}
