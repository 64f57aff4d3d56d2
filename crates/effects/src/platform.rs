//! What differs between operating systems: process groups and trees, the lease's alarm, locks. Linux today.
//!
//! Everything that names a signal, a process number or `/proc` is in here and in its submodules.

mod alarm;
mod cgroup;
mod launch;
mod lock;
mod tree;

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::signal::unix::{SignalKind, signal};

pub(crate) use alarm::Alarm;
pub(crate) use launch::{LAUNCH_WORD, exec_program, find_program};
pub(crate) use lock::{Lock, try_exclusive};
pub(crate) use tokio::net::unix::pipe;
pub(crate) use tree::{Fate, Tree};

/// This executable, even after its file was replaced by another version.
const THIS_EXECUTABLE: &str = "/proc/self/exe";

/// A guard's process, started with `arguments` in a process group of its own and an empty environment.
pub(crate) fn start_guard(arguments: &[OsString]) -> io::Result<tokio::process::Child> {
    tokio::process::Command::new(THIS_EXECUTABLE)
        .arg0("fleet-guard")
        .args(arguments)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}

/// The two pipes a guard was started with: from its starter, and to it. Neither ever blocks the guard.
pub(crate) fn guard_pipes() -> io::Result<(pipe::Receiver, pipe::Sender)> {
    let from_starter = io::stdin().as_fd().try_clone_to_owned()?;
    let to_starter = io::stdout().as_fd().try_clone_to_owned()?;
    Ok((pipe::Receiver::from_owned_fd(from_starter)?, pipe::Sender::from_owned_fd(to_starter)?))
}

/// Reads what `pipe` holds right now; an error of kind `WouldBlock` if that is nothing.
pub(crate) fn read_now(pipe: &pipe::Receiver, bytes: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::io::read(pipe, bytes)?)
}

/// Asks this process to end in an orderly way, for as long as the stream lives.
pub(crate) fn termination_requests() -> io::Result<tokio::signal::unix::Signal> {
    signal(SignalKind::terminate())
}

/// Kills what is left of the process group of a child whose guard died before it.
pub(crate) fn kill_group(process_id: i32) {
    if let Some(group) = Pid::from_raw(process_id) {
        // It may be gone already.
        let _ = kill_process_group(group, Signal::KILL);
    }
}
