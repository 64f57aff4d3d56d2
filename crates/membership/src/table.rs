//! The newest metadata heard of each node, and the handler by which foca's custom broadcasts fill it.
//!
//! Only a greater version replaces what is there. The table is bounded; what does not fit or cannot be read is counted.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use fleet_core::NodeId;

use crate::identity::Identity;
use crate::metadata::{ItemProblem, Metadata, MetadataItem, MetadataVersion};

/// Most nodes whose metadata is kept.
const NODES_MAX: usize = 4_096;

/// Names one version of one node's metadata while it spreads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ItemKey {
    node: NodeId,
    version: MetadataVersion,
}

impl foca::Invalidates for ItemKey {
    fn invalidates(&self, other: &Self) -> bool {
        self.node == other.node && self.version >= other.version
    }
}

/// The newest metadata of each node.
#[derive(Debug)]
pub(crate) struct MetadataTable {
    own_node: NodeId,
    entries: BTreeMap<NodeId, (MetadataVersion, Arc<Metadata>)>,
    changed: bool,
    refused: Vec<&'static str>,
}

impl MetadataTable {
    /// An empty table of `own_node`.
    pub(crate) fn new(own_node: NodeId) -> Self {
        Self { own_node, entries: BTreeMap::new(), changed: false, refused: Vec::new() }
    }

    /// The newest metadata of `node`.
    pub(crate) fn get(&self, node: NodeId) -> Option<&(MetadataVersion, Arc<Metadata>)> {
        self.entries.get(&node)
    }

    /// Puts in what this node itself publishes.
    pub(crate) fn set_own(&mut self, version: MetadataVersion, metadata: Metadata) {
        self.entries.insert(self.own_node, (version, Arc::new(metadata)));
        self.changed = true;
    }

    /// Takes an item another node sent; its key if it was news.
    pub(crate) fn offer(&mut self, bytes: &[u8]) -> Option<ItemKey> {
        let item = match MetadataItem::decode(bytes) {
            Ok(item) => item,
            Err(problem) => {
                self.refused.push(match problem {
                    ItemProblem::UnknownFormat => "metadata_unknown_format",
                    ItemProblem::Malformed => "metadata_malformed",
                });
                return None;
            }
        };
        let is_news = match self.entries.get(&item.node) {
            Some((version, _)) => item.version > *version,
            None => self.entries.len() < NODES_MAX,
        };
        if item.node == self.own_node || !is_news {
            return None;
        }
        self.entries.insert(item.node, (item.version, Arc::new(item.metadata)));
        self.changed = true;
        Some(ItemKey { node: item.node, version: item.version })
    }

    /// Forgets every node for which `keep` is false.
    pub(crate) fn retain(&mut self, keep: impl Fn(NodeId) -> bool) {
        let own_node = self.own_node;
        self.entries.retain(|node, _| *node == own_node || keep(*node));
    }

    /// How many nodes it holds.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether anything changed since the last call.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Why items were refused since the last call.
    pub(crate) fn take_refused(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.refused)
    }
}

/// foca's side of the table. foca owns its handler for good, so the table is shared within the gossip thread.
#[derive(Debug)]
pub(crate) struct BroadcastHandler(pub(crate) Rc<RefCell<MetadataTable>>);

impl foca::BroadcastHandler<Identity> for BroadcastHandler {
    type Key = ItemKey;
    type Error = Infallible;

    fn receive_item(&mut self, data: &[u8], sender: Option<&Identity>) -> Result<Option<ItemKey>, Infallible> {
        let mut table = self.0.borrow_mut();
        if sender.is_some() {
            return Ok(table.offer(data));
        }
        // From this node itself: the current version again, which is passed on again.
        let own_node = table.own_node;
        Ok(table.get(own_node).map(|(version, _)| ItemKey { node: own_node, version: *version }))
    }
}

#[cfg(test)]
mod tests {
    use foca::Invalidates as _;

    use super::*;

    fn item(node: u8, counter: u64) -> Vec<u8> {
        let version = MetadataVersion { incarnation: 1 << 32, counter };
        let metadata = Metadata { slots: u32::try_from(counter).unwrap(), ..Metadata::default() };
        MetadataItem { node: NodeId::from_bytes([node; 16]), version, metadata }.encode().unwrap()
    }

    #[test]
    fn only_news_is_taken() {
        let mut table = MetadataTable::new(NodeId::from_bytes([1; 16]));
        assert!(table.offer(&item(2, 5)).is_some());
        assert!(table.take_changed());
        assert!(table.offer(&item(2, 5)).is_none());
        assert!(table.offer(&item(2, 4)).is_none());
        assert!(table.offer(&item(1, 9)).is_none(), "nobody tells a node about itself");
        assert!(!table.take_changed());
        assert!(table.offer(&item(2, 6)).is_some());
        assert_eq!(table.get(NodeId::from_bytes([2; 16])).unwrap().1.slots, 6);
    }

    #[test]
    fn what_cannot_be_read_is_counted() {
        let mut table = MetadataTable::new(NodeId::from_bytes([1; 16]));
        let mut newer = item(2, 1);
        newer[0] = 200;
        assert!(table.offer(&newer).is_none());
        assert!(table.offer(&[0, 1, 2]).is_none());
        assert_eq!(table.take_refused(), ["metadata_unknown_format", "metadata_malformed"]);
    }

    #[test]
    fn a_newer_version_stops_the_older_one_only_of_the_same_node() {
        let key = |node: u8, counter| ItemKey {
            node: NodeId::from_bytes([node; 16]),
            version: MetadataVersion { incarnation: 1, counter },
        };
        assert!(key(1, 2).invalidates(&key(1, 1)));
        assert!(key(1, 2).invalidates(&key(1, 2)));
        assert!(!key(1, 1).invalidates(&key(1, 2)));
        assert!(!key(2, 2).invalidates(&key(1, 1)));
    }
}
