//! The guard: this binary, executed again to own one child process and everything that comes of it.
//!
//! A guard leads a process group of its own, holds a lock that a later boot of its node can wait for, and two pipes to
//! the process that started it. It ends everything below it when the lease it was told of runs out unrenewed, when its
//! starter asks or is gone, when the child wrote too much, and when the child has ended by itself. So neither SIGKILL
//! nor SIGSTOP of the starter leaves work running past the lease. If the guard itself is killed, the kernel kills the
//! child (its parent-death signal), and the starter the child's group.
//!
//! Invariants: nothing is started before the lock is held; the last frame is sent only when nothing is left; no read or
//! write of a pipe ever blocks the watch on the lease.
//!
//! What it cannot do: end a process of another user (a set-user-id program), or one in uninterruptible sleep. It keeps
//! trying and holds the lock meanwhile.

mod course;
mod link;
pub(crate) mod protocol;
mod watch;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::platform;

/// First argument of a guard.
const GUARD_WORD: &str = "__fleet-guard";
/// Name of the lock in the directory of guards.
const LOCK_NAME: &str = "guards.lock";
/// How often a held lock is tried again.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// Runs this process as a guard if `args` (the program's name first) ask for it, and returns its exit code. To be called
/// first thing in the `main` of every binary that runs effects, before it starts a thread or reads its arguments.
pub fn main(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter().skip(1);
    match args.next()?.to_str()? {
        GUARD_WORD => Some(run_guard(args.next().map(PathBuf::from))),
        platform::LAUNCH_WORD => Some(platform::exec_program(args)),
        _ => None,
    }
}

/// Waits until no guard of an earlier run holds the lock in `guard_dir`.
///
/// # Errors
/// [`Error::GuardsRemain`] if one still does after `bound`, [`Error::GuardLock`] if the lock cannot be tried.
pub async fn wait_until_gone(guard_dir: &Path, bound: Duration) -> Result<(), Error> {
    let path = lock_path(guard_dir);
    let start = Instant::now();
    loop {
        match platform::try_exclusive(&path) {
            Ok(true) => return Ok(()),
            Ok(false) if start.elapsed() >= bound => return Err(Error::GuardsRemain { path }),
            Ok(false) => tokio::time::sleep(LOCK_POLL).await,
            Err(source) => return Err(Error::GuardLock { path, source }),
        }
    }
}

/// The arguments that make this binary a guard.
pub(crate) fn arguments(guard_dir: Option<&Path>) -> Vec<OsString> {
    let mut arguments = vec![OsString::from(GUARD_WORD)];
    arguments.extend(guard_dir.map(|guard_dir| lock_path(guard_dir).into_os_string()));
    arguments
}

fn lock_path(guard_dir: &Path) -> PathBuf {
    guard_dir.join(LOCK_NAME)
}

fn run_guard(lock_path: Option<PathBuf>) -> ExitCode {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    // A guard that fails has nobody to tell but its starter, who sees its pipes close.
    match runtime.block_on(watch::guard(lock_path)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
