//! The node's own copy of the catalog: entries by key, outside the state of every group, and what is known beside them.
//!
//! Who decides what changes is `fleet-node`; here a change is written whole or not at all.

use redb::ReadableTable;

use crate::codec::{decode, encode};
use crate::database::{self, CATALOG};
use crate::pending::Pending;
use crate::record::{CatalogContent, CatalogEntry, CatalogFacts, CatalogKey};
use crate::writer::Urgency;
use crate::{Error, Store};

/// Meta row with the facts.
const FACTS_ROW: &str = "catalog";
/// Bytes that an entry takes beside its content, about: for the bound of a commit.
const ENTRY_BYTES: usize = 256;

/// What one step changes of the catalog.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CatalogChange {
    /// Entries that are written, over what is there.
    pub put: Vec<(CatalogKey, CatalogEntry)>,
    /// Keys whose entries go.
    pub remove: Vec<CatalogKey>,
    /// What is known from now on, if that changes.
    pub facts: Option<CatalogFacts>,
}

impl CatalogChange {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.remove.is_empty() && self.facts.is_none()
    }
}

/// Bytes that `entry` takes in the file, about.
fn weight(entry: &CatalogEntry) -> usize {
    match &entry.content {
        CatalogContent::Workflow { deflated, .. } => ENTRY_BYTES + deflated.as_slice().len(),
        _ => ENTRY_BYTES,
    }
}

impl Store {
    /// Writes `change`. Done when it is on the disk.
    pub fn change_catalog(&self, change: CatalogChange) -> Pending<()> {
        let bytes = change.put.iter().map(|(_, entry)| weight(entry)).sum();
        self.submit("write to the catalog", Urgency::Synced, bytes, move |tables| {
            let fail = |error| Error::database("write to the catalog", error);
            let mut rows = tables.other(CATALOG)?;
            for (key, entry) in &change.put {
                rows.insert(key.to_bytes().as_slice(), encode(entry)?.as_slice()).map_err(fail)?;
            }
            for key in &change.remove {
                rows.remove(key.to_bytes().as_slice()).map_err(fail)?;
            }
            if let Some(facts) = &change.facts {
                database::write_meta_row(&mut tables.meta()?, FACTS_ROW, &encode(facts)?)?;
            }
            Ok(())
        })
    }

    /// The entry under `key`.
    pub fn catalog_entry(&self, key: &CatalogKey) -> Result<Option<CatalogEntry>, Error> {
        let rows = database::read_table(&*self.database("read the catalog")?, CATALOG)?;
        let row = rows.get(key.to_bytes().as_slice()).map_err(|error| Error::database("read the catalog", error))?;
        row.map(|value| decode(value.value())).transpose()
    }

    /// Shows every entry to `look`, in the order of the keys.
    pub fn each_catalog_entry(&self, mut look: impl FnMut(CatalogKey, CatalogEntry)) -> Result<(), Error> {
        let fail = |error| Error::database("read the catalog", error);
        let rows = database::read_table(&*self.database("read the catalog")?, CATALOG)?;
        for row in rows.iter().map_err(fail)? {
            let (key, value) = row.map_err(fail)?;
            look(CatalogKey::from_bytes(key.value())?, decode(value.value())?);
        }
        Ok(())
    }

    /// What is known beside the entries.
    pub fn catalog_facts(&self) -> Result<CatalogFacts, Error> {
        let row = self.meta(FACTS_ROW)?;
        Ok(row.map(|bytes| decode(&bytes)).transpose()?.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use fleet_core::{Digest, NodeId, SiteName, Timestamp};

    use super::*;
    use crate::MemoryDisk;
    use crate::record::{CatalogStamp, CatalogTime, SignedBy, WorkflowName};

    fn key(version: &str) -> CatalogKey {
        let part = |text: &str| text.to_owned();
        CatalogKey::Workflow(WorkflowName { namespace: part("a"), name: part("b"), version: part(version) })
    }

    fn entry(number: u64) -> CatalogEntry {
        let time = CatalogTime { at: Timestamp(5), count: 0 };
        CatalogEntry {
            stamp: CatalogStamp { version: number, time, node: NodeId::from_bytes([1; 16]) },
            number,
            content: CatalogContent::Deleted { digest: Digest::of(b"x") },
            signed_by: SignedBy::Nobody,
        }
    }

    fn change(put: Vec<(CatalogKey, CatalogEntry)>, remove: Vec<CatalogKey>, written: u64) -> CatalogChange {
        CatalogChange { put, remove, facts: Some(CatalogFacts { written, ..CatalogFacts::default() }) }
    }

    #[test]
    fn what_was_acknowledged_survives_a_loss_of_power_whole() {
        let disk = MemoryDisk::new();
        let store = disk.open().unwrap();
        let first = vec![
            (key("1.0.0"), entry(1)),
            (key("2.0.0"), entry(2)),
            (CatalogKey::RevokedSerial(SiteName::default(), "0a".into()), entry(3)),
        ];
        store.change_catalog(change(first, Vec::new(), 3)).wait().unwrap();
        store.change_catalog(change(vec![(key("1.0.0"), entry(4))], vec![key("2.0.0")], 4)).wait().unwrap();
        let store = disk.lose_power().open().unwrap();
        let mut found = Vec::new();
        store.each_catalog_entry(|key, entry| found.push((key, entry.number))).unwrap();
        assert_eq!(found, [(key("1.0.0"), 4), (CatalogKey::RevokedSerial(SiteName::default(), "0a".into()), 3)]);
        assert_eq!(store.catalog_facts().unwrap().written, 4);
        assert_eq!(store.catalog_entry(&key("1.0.0")).unwrap(), Some(entry(4)));
        assert_eq!(store.catalog_entry(&key("2.0.0")).unwrap(), None);
    }

    #[test]
    fn keys_survive_the_round_trip_and_rubbish_is_no_key() {
        let node = NodeId::from_bytes([7; 16]);
        let serial = CatalogKey::RevokedSerial(SiteName::default(), "ff".to_owned());
        for key in [
            key("1.0.0-a\u{0}"),
            CatalogKey::RevokedNode("plant".parse().unwrap(), node),
            serial,
            CatalogKey::Acknowledgement(node),
        ] {
            assert_eq!(CatalogKey::from_bytes(&key.to_bytes()).unwrap(), key);
            assert!(CatalogKey::from_bytes(&[key.to_bytes(), vec![0]].concat()).is_err());
        }
        assert!(CatalogKey::from_bytes(&[]).is_err() && CatalogKey::from_bytes(&[9, 1]).is_err());
        let no_site = [vec![3], b"NO\0\0ff\0\0".to_vec()].concat();
        assert!(CatalogKey::from_bytes(&no_site).is_err(), "it names no site");
    }
}
