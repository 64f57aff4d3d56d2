//! The guard: this binary, executed again to own one child process and everything that comes of it.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::error::Error;

/// Runs this process as a guard if `args` (with the program's name) ask for it, and returns its exit code. The first
/// thing every binary does that runs effects, before any thread is started.
pub fn main(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let _ = args;
    None
}

/// Waits until no guard of an earlier run holds the lock in `guard_dir`.
///
/// # Errors
/// [`Error::GuardsRemain`] if one still does after `bound`, [`Error::GuardLock`] if the lock cannot be tried.
pub async fn wait_until_gone(guard_dir: &Path, bound: Duration) -> Result<(), Error> {
    let _ = (guard_dir, bound);
    Ok(())
}
