//! Content-addressed blobs: what is too large for a log entry, under the SHA-256 of its content.
//!
//! A blob is written whole or not at all. Who uses it is counted in the replicated state, not here.

use fleet_core::Digest;
use fleet_core::limits::CHUNK_BYTES;
use redb::ReadableTable;

use crate::database::{self, BLOBS};
use crate::pending::Pending;
use crate::writer::Urgency;
use crate::{Error, Store};

/// Version of the parts' shape: this byte, then content.
const PART_VERSION: u8 = 1;

pub(crate) fn part_key(digest: Digest, part: u32) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(&digest.0);
    key[32..].copy_from_slice(&part.to_be_bytes());
    key
}

impl Store {
    /// Stores `content`; its name comes when it is on the disk.
    pub fn put_blob(&self, content: bytes::Bytes) -> Pending<Digest> {
        let (digest, unused) = (Digest::of(&content), self.unused_blobs().clone());
        self.submit("store a blob", Urgency::Synced, content.len(), move |tables| {
            // Whoever stores it is about to name it.
            unused.lock().remove(&digest);
            let mut rows = tables.other(BLOBS)?;
            let fail = |error| Error::database("store a blob", error);
            if rows.get(part_key(digest, 0).as_slice()).map_err(fail)?.is_some() {
                return Ok(digest);
            }
            // Empty content has one empty part, so that it exists.
            let parts = content.chunks(CHUNK_BYTES).chain(content.is_empty().then_some([].as_slice()));
            for (number, part) in (0..).zip(parts) {
                let mut value = Vec::with_capacity(part.len() + 1);
                value.push(PART_VERSION);
                value.extend_from_slice(part);
                rows.insert(part_key(digest, number).as_slice(), value.as_slice()).map_err(fail)?;
            }
            Ok(digest)
        })
    }

    /// The content named `digest`, if it is here.
    pub fn blob(&self, digest: Digest) -> Result<Option<Vec<u8>>, Error> {
        let fail = |error| Error::database("read a blob", error);
        let rows = database::read_table(&*self.database("read a blob")?, BLOBS)?;
        let (start, end) = (part_key(digest, 0), part_key(digest, u32::MAX));
        let mut content = None;
        for row in rows.range::<&[u8]>(start.as_slice()..=end.as_slice()).map_err(fail)? {
            let part = row.map_err(fail)?.1;
            match part.value().split_first() {
                Some((&PART_VERSION, bytes)) => content.get_or_insert_with(Vec::new).extend_from_slice(bytes),
                _ => return Err(Error::corrupt("blob", "a part has an unknown version")),
            }
        }
        match &content {
            Some(bytes) if Digest::of(bytes) != digest => Err(Error::corrupt("blob", "its content is not its name's")),
            _ => Ok(content),
        }
    }

    /// Whether the content named `digest` is here.
    pub fn has_blob(&self, digest: Digest) -> Result<bool, Error> {
        let rows = database::read_table(&*self.database("look for a blob")?, BLOBS)?;
        let found = rows.get(part_key(digest, 0).as_slice());
        Ok(found.map_err(|error| Error::database("look for a blob", error))?.is_some())
    }

    /// Those of `digests` whose content is not here, seen in one read.
    pub fn missing_blobs(&self, digests: Vec<Digest>) -> Result<Vec<Digest>, Error> {
        let rows = database::read_table(&*self.database("look for blobs")?, BLOBS)?;
        let mut missing = Vec::new();
        for digest in digests {
            let found = rows.get(part_key(digest, 0).as_slice());
            if found.map_err(|error| Error::database("look for blobs", error))?.is_none() {
                missing.push(digest);
            }
        }
        Ok(missing)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn blobs_of_every_size_come_back_whole() {
        let store = Store::in_memory().unwrap();
        for size in [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
            let content = Bytes::from(vec![7; size]);
            let digest = store.put_blob(content.clone()).wait().unwrap();
            assert_eq!(store.blob(digest).unwrap(), Some(content.to_vec()));
            let absent = Digest::of(b"never stored");
            assert_eq!(store.missing_blobs(vec![digest, absent]).unwrap(), [absent]);
            assert!(store.has_blob(digest).unwrap());
        }
        assert_eq!(store.blob(Digest::of(b"never stored")).unwrap(), None);
    }
}
