//! What differs between operating systems. Unix today.

use std::io;
use std::path::Path;

/// Free bytes for an unprivileged process on the file system of `path` (`statvfs(3)`: `f_bavail × f_frsize`).
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let status = rustix::fs::statvfs(path)?;
    Ok(status.f_bavail.saturating_mul(status.f_frsize))
}
