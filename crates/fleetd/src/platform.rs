//! What differs between operating systems. Unix today.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

/// Makes `path` and its parents, readable by this user only.
pub(crate) fn create_private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens `path` for writing, creating it readable by this user only.
pub(crate) fn create_secret(path: &Path, truncate: bool) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(truncate).write(true).mode(0o600).open(path)
}

/// Takes the lock of `file`, or fails at once if another process has it.
pub(crate) fn lock(file: &File) -> io::Result<()> {
    rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from)
}

/// A clock that nothing slews, to measure the others by.
pub(crate) fn raw_time() -> Duration {
    let reading = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicRaw);
    Duration::new(u64::try_from(reading.tv_sec).unwrap_or_default(), u32::try_from(reading.tv_nsec).unwrap_or_default())
}

/// The host's name; empty if it has none.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
