//! A child and everything that comes of it, whatever session or group it moves to.
//!
//! How nothing gets away: this process is a subreaper, so an orphan below it becomes its own child (`prctl(2)`), never
//! init's. What stands below it in `/proc` is therefore all there is. To end it, everything is stopped first, again and
//! again until nothing new shows (a stopped process cannot fork), and killed then.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, set_child_subreaper, wait};
use tokio::signal::unix::{SignalKind, signal};

use super::cgroup::Cgroup;
use super::{LAUNCH_WORD, THIS_EXECUTABLE};

/// Rounds of stopping before a kill follows anyhow.
const STOP_ROUNDS_MAX: usize = 64;
/// First and longest pause between two attempts to end what is left.
const KILL_PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));

/// How the child itself ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
}

/// The child's three streams, this end of them.
#[derive(Debug)]
pub(crate) struct Streams {
    /// Writes to its standard input.
    pub(crate) stdin: Option<OwnedFd>,
    /// Reads its standard output.
    pub(crate) stdout: Option<OwnedFd>,
    /// Reads its standard error.
    pub(crate) stderr: Option<OwnedFd>,
}

/// The child's tree.
#[derive(Debug)]
pub(crate) struct Tree {
    child: Pid,
    /// Set once the child was waited for; its number means nothing from then on.
    fate: Option<Fate>,
    deaths: tokio::signal::unix::Signal,
    cgroup: Option<Cgroup>,
}

impl Tree {
    /// Starts `program` in a process group of its own, as the first child of this process.
    pub(crate) fn start(
        program: &Path,
        arguments: &[OsString],
        environment: &[(String, String)],
        work_dir: Option<&Path>,
        captures: bool,
    ) -> io::Result<(Self, Streams)> {
        set_child_subreaper(Some(getpid()))?;
        let deaths = signal(SignalKind::child())?;
        let cgroup = Cgroup::create();
        let output = || if captures { Stdio::piped() } else { Stdio::null() };
        let mut command = Command::new(THIS_EXECUTABLE);
        command
            .arg(LAUNCH_WORD)
            .arg(getpid().to_string())
            .arg(cgroup.as_ref().map(Cgroup::join_file).unwrap_or_default())
            .arg(program)
            .args(arguments)
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(output())
            .stderr(output())
            .process_group(0);
        if let Some(work_dir) = work_dir {
            command.current_dir(work_dir);
        }
        let mut child = command.spawn()?;
        let streams = Streams {
            stdin: child.stdin.take().map(OwnedFd::from),
            stdout: child.stdout.take().map(OwnedFd::from),
            stderr: child.stderr.take().map(OwnedFd::from),
        };
        Ok((Self { child: Pid::from_child(&child), fate: None, deaths, cgroup }, streams))
    }

    /// The child's process number, and that of its group.
    pub(crate) fn process_id(&self) -> i32 {
        self.child.as_raw_nonzero().get()
    }

    /// Completes when the child itself has ended. Orphans that ended meanwhile are laid to rest.
    pub(crate) async fn ended(&mut self) -> io::Result<Fate> {
        loop {
            self.reap()?;
            if let Some(fate) = self.fate {
                return Ok(fate);
            }
            self.deaths.recv().await;
        }
    }

    /// Ends everything that is left, and completes when it is gone.
    pub(crate) async fn end(&mut self) -> io::Result<()> {
        let (mut pause, pause_max) = KILL_PAUSE;
        loop {
            self.kill();
            if !self.reap()? {
                self.cgroup = None;
                return Ok(());
            }
            // Death is not immediate; and what this process may not kill (another user's) is tried ever more slowly.
            tokio::select! {
                _ = self.deaths.recv() => {}
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(pause_max),
            }
        }
    }

    /// Waits for every child that has ended; whether any is left.
    fn reap(&mut self) -> io::Result<bool> {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(None) => return Ok(true),
                Ok(Some((process, status))) if process == self.child => {
                    self.fate = Some(match (status.exit_status(), status.terminating_signal()) {
                        (Some(code), _) => Fate::Exited(code),
                        (None, number) => Fate::Signalled(number.unwrap_or_default()),
                    });
                }
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Err(Errno::CHILD) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn kill(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        if self.fate.is_none() {
            let _ = kill_process_group(self.child, Signal::KILL);
        }
        let mut stopped = BTreeSet::new();
        for _ in 0..STOP_ROUNDS_MAX {
            let known = stopped.len();
            for process in descendants(getpid()) {
                if stopped.insert(process) {
                    send(process, Signal::STOP);
                }
            }
            if stopped.len() == known {
                break;
            }
        }
        for process in stopped {
            send(process, Signal::KILL);
        }
    }
}

/// Sends `signal`; the process may be gone already, or another user's.
fn send(process: i32, signal: Signal) {
    if let Some(process) = Pid::from_raw(process) {
        let _ = kill_process(process, signal);
    }
}

/// Every process below `root`, zombies left out.
fn descendants(root: Pid) -> Vec<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some((state, parent)) = state_and_parent(&stat)
            && state != 'Z'
        {
            children.entry(parent).or_default().push(process);
        }
    }
    let (mut found, mut next) = (Vec::new(), vec![root.as_raw_nonzero().get()]);
    while let Some(process) = next.pop() {
        for child in children.remove(&process).unwrap_or_default() {
            found.push(child);
            next.push(child);
        }
    }
    found
}

/// State and parent in the text of `/proc/PID/stat`, where the name in parentheses may hold anything (`proc(5)`).
fn state_and_parent(stat: &str) -> Option<(char, i32)> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_confuse() {
        assert_eq!(state_and_parent("12 (a) R 1) S 7 12 12"), Some(('S', 7)));
        assert_eq!(state_and_parent("12 (a"), None);
    }
}
