//! What a node knows of itself and of others, outside every group: meta rows and remembered members.

use fleet_core::{NodeId, SiteName};
use redb::ReadableTable;
use serde::{Deserialize, Serialize};

use crate::codec::{self, Record};
use crate::database::{self, MEMBERS};
use crate::pending::Pending;
use crate::writer::Urgency;
use crate::{Error, Store};

/// A member as it was last heard of: enough to find the fleet again after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its site.
    pub site: SiteName,
    /// Where it answers, `host:port`.
    pub address: String,
    /// Its gossip incarnation.
    pub incarnation: u64,
}

impl Record for Member {
    const NAME: &'static str = "member";
}

impl Store {
    /// A fact about this node.
    pub fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        database::read_meta(&*self.database("read a meta row")?, name)
    }

    /// Stores a fact about this node. Done when it is on the disk.
    pub fn put_meta(&self, name: impl Into<String>, value: Vec<u8>) -> Pending<()> {
        let name = name.into();
        self.submit("write a meta row", Urgency::Synced, 0, move |tables| {
            database::write_meta_row(&mut tables.meta()?, &name, &value)
        })
    }

    /// Raises the counter `name` by one, from 0, and returns its new value when that is on the disk.
    pub fn raise_counter(&self, name: impl Into<String>) -> Pending<u64> {
        let name = name.into();
        self.submit("raise a counter", Urgency::Synced, 0, move |tables| {
            let mut meta = tables.meta()?;
            let current = match database::read_meta_row(&meta, &name)? {
                Some(bytes) => {
                    bytes.try_into().map(u64::from_be_bytes).map_err(|_| Error::corrupt("counter", "not 8 bytes"))?
                }
                None => 0,
            };
            let next = current + 1;
            database::write_meta_row(&mut meta, &name, &next.to_be_bytes())?;
            Ok(next)
        })
    }

    /// Remembers `members`, over what was known of them, and forgets `gone`.
    pub fn update_members(&self, members: Vec<Member>, gone: Vec<NodeId>) -> Pending<()> {
        self.submit("remember members", Urgency::Synced, 0, move |tables| {
            let mut rows = tables.other(MEMBERS)?;
            let fail = |error| Error::database("remember members", error);
            for member in &members {
                let record = codec::encode(member)?;
                rows.insert(member.node.as_bytes().as_slice(), record.as_slice()).map_err(fail)?;
            }
            for node in &gone {
                rows.remove(node.as_bytes().as_slice()).map_err(fail)?;
            }
            Ok(())
        })
    }

    /// All remembered members.
    pub fn members(&self) -> Result<Vec<Member>, Error> {
        let fail = |error| Error::database("read the remembered members", error);
        let rows = database::read_table(&*self.database("read the remembered members")?, MEMBERS)?;
        rows.iter().map_err(fail)?.map(|row| codec::decode(row.map_err(fail)?.1.value())).collect()
    }

    /// Free bytes on the file system of the store's file; `None` in memory.
    pub fn free_bytes(&self) -> Result<Option<u64>, Error> {
        let Some(path) = self.path() else { return Ok(None) };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let free = crate::platform::free_bytes(folder.unwrap_or(std::path::Path::new(".")));
        free.map(Some).map_err(|error| Error::io("measure the free space of the store", error))
    }

    /// Whether admissions must be refused because fewer than `reserve_bytes` are free.
    pub fn is_below_reserve(&self, reserve_bytes: u64) -> Result<bool, Error> {
        Ok(self.free_bytes()?.is_some_and(|free| free < reserve_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_members_are_remembered() {
        let store = Store::in_memory().unwrap();
        assert_eq!(store.raise_counter("boot").wait().unwrap(), 1);
        assert_eq!(store.raise_counter("boot").wait().unwrap(), 2);
        let member = |byte: u8| Member {
            node: NodeId::from_bytes([byte; 16]),
            name: format!("n{byte}"),
            site: SiteName::default(),
            address: "127.0.0.1:7000".to_owned(),
            incarnation: 1,
        };
        store.update_members(vec![member(1), member(2)], Vec::new()).wait().unwrap();
        store.update_members(Vec::new(), vec![member(1).node]).wait().unwrap();
        assert_eq!(store.members().unwrap(), vec![member(2)]);
    }

    #[test]
    fn the_reserve_is_measured_where_the_file_lies() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("fleet.redb")).unwrap();
        assert!(!store.is_below_reserve(1).unwrap());
        assert!(store.is_below_reserve(u64::MAX).unwrap());
    }
}
