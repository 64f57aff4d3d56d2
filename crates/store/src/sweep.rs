//! Sweeping out blobs that nothing names any more.
//!
//! A blob is on the disk before the entry that names it is proposed, so a fresh one is unused for a moment. Hence two looks:
//! what is removed was unused at the sweep before and nobody stored it since.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleet_core::{Digest, GroupId};

use crate::blob::part_key;
use crate::database::{self, BLOBS, Tables};
use crate::state::jobs;
use crate::writer::Urgency;
use crate::{Error, Store};

/// Most blobs removed in one sweep.
const SWEPT_MAX: usize = 256;

/// The blobs that nothing named at the last sweep and that nobody stored since. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct UnusedBlobs(Arc<Mutex<BTreeSet<Digest>>>);

impl UnusedBlobs {
    pub(crate) fn lock(&self) -> MutexGuard<'_, BTreeSet<Digest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Removes blobs that no row of `group` names and none named at the sweep before, and tells how many. To be called
    /// seldom: whoever stores a blob must have had it named by the time of the second sweep after.
    pub async fn sweep_blobs(&self, group: GroupId) -> Result<usize, Error> {
        let unused_now = self.read_unused_blobs(group)?;
        let unused = self.unused_blobs().clone();
        let old: Vec<Digest> = unused.lock().intersection(&unused_now).take(SWEPT_MAX).copied().collect();
        let watched = unused.clone();
        let swept = self.submit("remove blobs", Urgency::Readable, 0, move |tables| {
            let mut removed = BTreeSet::new();
            for digest in old {
                if watched.lock().remove(&digest) && jobs::blob_uses(tables.state(group)?, digest)? == 0 {
                    remove(tables, digest)?;
                    removed.insert(digest);
                }
            }
            Ok(removed)
        });
        let removed = swept.await?;
        *unused.lock() = unused_now.difference(&removed).copied().collect();
        Ok(removed.len())
    }

    /// Every blob here that no row of `group` names.
    fn read_unused_blobs(&self, group: GroupId) -> Result<BTreeSet<Digest>, Error> {
        let fail = |error| Error::database("look for unused blobs", error);
        let rows = database::read_table(&*self.database("look for unused blobs")?, BLOBS)?;
        let state = self.reader(group)?;
        let mut unused = BTreeSet::new();
        for row in rows.range::<&[u8]>(..).map_err(fail)? {
            let (key, _) = row.map_err(fail)?;
            let (digest, part) = key.value().split_at_checked(32).unwrap_or_default();
            if let Ok(digest) = <[u8; 32]>::try_from(digest)
                && part == [0; 4]
                && jobs::blob_uses(&state, Digest(digest))? == 0
            {
                unused.insert(Digest(digest));
            }
        }
        Ok(unused)
    }
}

fn remove(tables: &mut Tables<'_>, digest: Digest) -> Result<(), Error> {
    let (start, end) = (part_key(digest, 0), part_key(digest, u32::MAX));
    tables
        .other(BLOBS)?
        .retain_in::<&[u8], _>(start.as_slice()..=end.as_slice(), |_, _| false)
        .map_err(|error| Error::database("remove a blob", error))
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use bytes::Bytes;

    use super::*;
    use crate::record::BlobUse;
    use crate::state::tables::BLOB_USES;

    /// Runs `work` on this thread: the writer is another one.
    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(value) => return value,
                Poll::Pending => std::thread::yield_now(),
            }
        }
    }

    #[test]
    fn only_what_nobody_named_or_stored_between_two_sweeps_goes() {
        let (store, group) = (Store::in_memory().unwrap(), GroupId::from_bytes([1; 16]));
        let put = |text: &'static str| store.put_blob(Bytes::from(text)).wait().unwrap();
        let [used, again, old] = [put("used"), put("again"), put("old")];
        store.apply(group, move |state| state.put(&BLOB_USES, &used, &BlobUse { rows: 1 })).wait().unwrap();
        assert_eq!(block_on(store.sweep_blobs(group)).unwrap(), 0, "each is seen for the first time");
        put("again");
        let fresh = put("fresh");
        assert_eq!(block_on(store.sweep_blobs(group)).unwrap(), 1);
        let is_here = |digest| store.has_blob(digest).unwrap();
        assert_eq!([used, again, fresh, old].map(is_here), [true, true, true, false]);
        store.apply(group, move |state| state.put(&BLOB_USES, &fresh, &BlobUse { rows: 1 })).wait().unwrap();
        assert_eq!(block_on(store.sweep_blobs(group)).unwrap(), 1, "stored again once, and still not named");
        assert_eq!([used, again, fresh].map(is_here), [true, false, true]);
    }
}
