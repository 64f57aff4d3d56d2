//! The lock that says guards are alive: shared by all guards of a directory, exclusive for who wants to know.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// A shared hold of the lock, until dropped. Never inherited: files opened here are closed on exec.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock at `path` together with other guards.
    pub(crate) fn shared(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        flock(&file, FlockOperation::LockShared)?;
        Ok(Self { _file: file })
    }
}

/// Whether nobody holds the lock at `path` right now.
pub(crate) fn try_exclusive(path: &Path) -> io::Result<bool> {
    match flock(open(path)?, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(path)
}
