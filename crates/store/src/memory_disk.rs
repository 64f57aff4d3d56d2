//! A disk in memory that outlives its store, loses what was not synced, and fails on command. For tests and simulation.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use crate::{Error, Store};

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    /// How to take back what was not synced, oldest first.
    undo: Vec<Undo>,
}

#[derive(Debug)]
enum Undo {
    /// These bytes stood here.
    Write { offset: usize, bytes: Vec<u8> },
    /// The disk was this long, and these bytes stood behind the new end.
    Resize { length: usize, tail: Vec<u8> },
}

#[derive(Debug, Default)]
struct Shared {
    content: Mutex<Content>,
    fails: AtomicBool,
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    shared: Arc<Shared>,
    /// Set when the power went: what an old store still does reaches nothing.
    unplugged: Arc<AtomicBool>,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the store on this disk, creating it on an empty one.
    pub fn open(&self) -> Result<Store, Error> {
        Store::with_backend(Plugged(self.clone()))
    }

    /// From now on every write and sync fails, or works again.
    pub fn set_failing(&self, fails: bool) {
        self.shared.fails.store(fails, Ordering::SeqCst);
    }

    /// Pulls the plug: gives back the disk as it comes up again, with nothing that was not synced. Stores that were open
    /// on this one only fail from now on.
    #[must_use]
    pub fn lose_power(&self) -> Self {
        let mut content = self.content();
        self.unplugged.store(true, Ordering::SeqCst);
        while let Some(undo) = content.undo.pop() {
            match undo {
                Undo::Write { offset, bytes } => content.bytes[offset..offset + bytes.len()].copy_from_slice(&bytes),
                Undo::Resize { length, tail } => {
                    content.bytes.truncate(length);
                    content.bytes.extend_from_slice(&tail);
                    content.bytes.resize(length, 0);
                }
            }
        }
        drop(content);
        Self { shared: Arc::clone(&self.shared), unplugged: Arc::default() }
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.shared.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the disk works. Ask with the content locked, so that nothing comes between.
    fn check(&self) -> io::Result<()> {
        if self.unplugged.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is unplugged"));
        }
        if self.shared.fails.load(Ordering::SeqCst) { Err(io::Error::other("the disk fails")) } else { Ok(()) }
    }
}

/// A disk while a store is open on it.
#[derive(Debug)]
struct Plugged(MemoryDisk);

/// `length` bytes from `offset`, or an error if the disk is shorter.
fn place(offset: u64, length: usize, end: usize) -> io::Result<std::ops::Range<usize>> {
    let start = usize::try_from(offset).map_err(io::Error::other)?;
    let stop = start.checked_add(length).filter(|stop| *stop <= end);
    stop.map(|stop| start..stop).ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "behind the disk's end"))
}

impl StorageBackend for Plugged {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.content().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let content = self.0.content();
        let range = place(offset, out.len(), content.bytes.len())?;
        out.copy_from_slice(&content.bytes[range]);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let mut content = self.0.content();
        self.0.check()?;
        let before = content.bytes.len();
        let tail = content.bytes.get(length..).unwrap_or_default().to_vec();
        content.undo.push(Undo::Resize { length: before, tail });
        content.bytes.resize(length, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut content = self.0.content();
        self.0.check()?;
        content.undo.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut content = self.0.content();
        self.0.check()?;
        let range = place(offset, data.len(), content.bytes.len())?;
        let bytes = content.bytes[range.clone()].to_vec();
        content.undo.push(Undo::Write { offset: range.start, bytes });
        content.bytes[range].copy_from_slice(data);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use fleet_core::ErrorKind;

    use super::*;

    #[test]
    fn what_was_synced_survives_a_power_loss() {
        let disk = MemoryDisk::new();
        let store = disk.open().unwrap();
        let node = store.node_id();
        store.put_meta("kept", vec![1]).wait().unwrap();
        let disk = disk.lose_power();
        drop(store);
        let store = disk.open().unwrap();
        assert_eq!((store.node_id(), store.meta("kept").unwrap()), (node, Some(vec![1])));
    }

    #[test]
    fn a_failing_disk_poisons_the_store_until_it_is_opened_again() {
        let disk = MemoryDisk::new();
        let store = disk.open().unwrap();
        disk.set_failing(true);
        let failed = store.put_meta("lost", vec![1]).wait().unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Internal);
        disk.set_failing(false);
        let refused = store.put_meta("lost", vec![1]).wait().unwrap_err();
        assert_eq!(refused.to_string(), "write a meta row: the store failed earlier and must be reopened");
        assert!(store.is_poisoned());
        assert_eq!(store.meta("lost").unwrap_err().kind(), ErrorKind::Unavailable);
        drop(store);
        let store = disk.open().unwrap();
        assert_eq!(store.meta("lost").unwrap(), None);
        store.put_meta("kept", vec![1]).wait().unwrap();
    }
}
