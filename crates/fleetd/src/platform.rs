//! What differs between operating systems. Unix today.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

/// Makes `path` and its parents, readable by this user only.
pub(crate) fn create_private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Takes the rights of all others on the directory `path`, whoever made it. One that all users share is refused: it is
/// nobody's to close.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o1000 != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "all users of this machine share the directory"));
    }
    if mode & 0o777 == 0o700 { Ok(()) } else { fs::set_permissions(path, fs::Permissions::from_mode(0o700)) }
}

/// Makes the file `path`, empty, unless it is there; in both cases only this user can read it.
pub(crate) fn make_secret(path: &Path) -> io::Result<()> {
    create_secret(path, false)?.set_permissions(fs::Permissions::from_mode(0o600))
}

/// Opens `path` for writing, creating it readable by this user only.
pub(crate) fn create_secret(path: &Path, truncate: bool) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(truncate).write(true).mode(0o600).open(path)
}

/// Takes the lock of `file`, or fails at once if another process has it.
pub(crate) fn lock(file: &File) -> io::Result<()> {
    rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from)
}

/// Resolves at the first signal that asks this process to end. The signals are watched from the call on.
pub(crate) fn termination() -> io::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
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
