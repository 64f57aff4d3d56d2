//! What was made of workflow definitions, kept for the next time: bounded by count and by the memory that
//! what was made of them takes, as far as the caller can tell.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleet_core::Digest;
use fleet_core::limits::DEFINITIONS_KEPT_MAX;

/// Values by digest; the one used longest ago makes room. Cheap to clone; clones share it.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    entries: Arc<Mutex<VecDeque<Entry<T>>>>,
    bytes_max: usize,
}

#[derive(Debug)]
struct Entry<T> {
    digest: Digest,
    bytes: usize,
    value: Arc<T>,
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self { entries: Arc::clone(&self.entries), bytes_max: self.bytes_max }
    }
}

impl<T> Kept<T> {
    /// Keeps nothing yet, and at most `bytes_max` bytes later.
    pub(crate) fn bounded(bytes_max: usize) -> Self {
        Self { entries: Arc::default(), bytes_max }
    }

    /// The value of `digest`, if it is kept.
    pub(crate) fn get(&self, digest: Digest) -> Option<Arc<T>> {
        let mut entries = self.entries();
        let position = entries.iter().rposition(|entry| entry.digest == digest)?;
        let entry = entries.remove(position)?;
        let value = Arc::clone(&entry.value);
        entries.push_back(entry);
        Some(value)
    }

    /// Keeps a value that takes about `bytes` bytes of memory.
    pub(crate) fn keep(&self, digest: Digest, bytes: usize, value: Arc<T>) {
        let mut entries = self.entries();
        entries.retain(|entry| entry.digest != digest);
        entries.push_back(Entry { digest, bytes, value });
        let mut total: usize = entries.iter().map(|entry| entry.bytes).sum();
        while entries.len() > DEFINITIONS_KEPT_MAX || total > self.bytes_max {
            let Some(oldest) = entries.pop_front() else { return };
            total -= oldest.bytes;
        }
    }

    fn entries(&self) -> MutexGuard<'_, VecDeque<Entry<T>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: usize) -> Digest {
        Digest::of(&number.to_be_bytes())
    }

    #[test]
    fn the_one_used_longest_ago_makes_room_by_count_and_by_bytes() {
        let kept = Kept::bounded(1_000);
        for number in 0..DEFINITIONS_KEPT_MAX {
            kept.keep(digest(number), 1, Arc::new(number));
        }
        assert_eq!(kept.get(digest(0)).as_deref(), Some(&0));
        kept.keep(digest(1_000), 1, Arc::new(1_000));
        assert_eq!((kept.get(digest(0)).is_some(), kept.get(digest(1))), (true, None));

        // Two large ones and all the small ones do not fit; the large ones, used last, do.
        let large = 500;
        kept.keep(digest(2_000), large, Arc::new(2_000));
        kept.keep(digest(2_001), large, Arc::new(2_001));
        assert_eq!(kept.get(digest(1_000)), None);
        assert!(kept.get(digest(2_000)).is_some() && kept.get(digest(2_001)).is_some());
        kept.keep(digest(3_000), 1, Arc::new(3_000));
        assert_eq!(kept.get(digest(2_000)), None);
    }
}
