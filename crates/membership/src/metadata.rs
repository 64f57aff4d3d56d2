//! What a node tells all others about itself: names, slots, addresses, versions, its group. Spread by custom broadcasts.
//!
//! It is a hint about the recent past, never a fact to decide on. A node's own versions only grow, over restarts too,
//! because the incarnation comes first in them.
//!
//! Wire format of an item: `format u8 | node 16 B | incarnation u64 | counter u64 | body` (big-endian; the body of
//! format 1 is postcard and may grow at its end, readers skip what they do not know: behind [`Metadata`] as it first was
//! come the links to other sites). An item of an unknown format is ignored and counted.

use fleet_core::{Digest, GroupId, NodeId, SiteName};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The format written, and the newest one read.
const FORMAT: u8 = 1;
/// Bytes before the body.
const HEAD_BYTES: usize = 1 + 16 + 8 + 8;
/// Largest encoded item, bytes: fits beside a packet header in the smallest datagram in use.
pub const ITEM_BYTES_MAX: usize = 1_000;

/// Which of two metadata of one node is newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MetadataVersion {
    /// Incarnation under which it was published.
    pub incarnation: u64,
    /// How many times the node had published by then.
    pub counter: u64,
}

/// How far a node has come with starting or stopping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NodeState {
    /// It is up and not yet ready.
    #[default]
    Starting,
    /// It does its work.
    Running,
    /// It was asked to stop and is finishing.
    Stopping,
    /// It said goodbye; what follows is silence.
    Left,
}

/// Versions a node speaks, so that nothing is sent that a member cannot read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Protocols {
    /// The gRPC protocol between nodes.
    pub peer: u16,
    /// The messages between actors.
    pub actors: u16,
    /// The newest kind of log command it can apply.
    pub commands: u16,
}

/// What a node knows of its site's group. A hint for clients and elections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// Its epoch.
    pub epoch: u64,
    /// The node's current term.
    pub term: u64,
    /// Who leads, as far as the node knows.
    pub leader: Option<NodeId>,
    /// Index of the last entry in the node's log.
    pub last_log_index: u64,
    /// Whether the node is a voter.
    pub is_voter: bool,
}

/// What a node publishes about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Name for people, unique among live nodes.
    pub name: String,
    /// Site.
    pub site: SiteName,
    /// Tags of its robot.
    pub tags: Vec<String>,
    /// How many tags did not fit into a packet and are missing from `tags`.
    pub tags_omitted: u16,
    /// Slots of its robot.
    pub slots: u32,
    /// Slots at work.
    pub slots_busy: u32,
    /// Where its TLS listener answers (`host:port`): gRPC and actor links.
    pub grpc_address: String,
    /// Where it serves HTTP (`host:port`).
    pub http_address: String,
    /// Version of the software.
    pub software_version: String,
    /// Versions it speaks.
    pub protocols: Protocols,
    /// Its site's group, once it belongs to one.
    pub group: Option<GroupStatus>,
    /// Whether it takes no new work.
    pub is_draining: bool,
    /// How far it has come.
    pub state: NodeState,
    /// The sites it holds a link to, by [`site_mark`]; at most [`SITE_LINKS_MAX`].
    #[serde(skip)]
    pub site_links: Vec<u32>,
}

/// Most links to other sites that a node tells of.
pub const SITE_LINKS_MAX: usize = 64;

/// How a site is named where its name would take too much room. Two sites may have the same one: it is a hint.
pub fn site_mark(site: &SiteName) -> u32 {
    let digest = Digest::of(site.as_str().as_bytes()).0;
    digest.first_chunk().map(|head| u32::from_be_bytes(*head)).unwrap_or_default()
}

impl Metadata {
    /// What nodes of other sites are told: what hardly ever changes, so that it costs their links hardly anything.
    #[must_use]
    pub fn for_other_sites(&self) -> Self {
        let group = self.group.map(|group| GroupStatus { term: 0, last_log_index: 0, ..group });
        Self {
            name: self.name.clone(),
            site: self.site.clone(),
            grpc_address: self.grpc_address.clone(),
            software_version: self.software_version.clone(),
            protocols: self.protocols,
            group,
            state: self.state,
            ..Self::default()
        }
    }
}

/// One node's metadata as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataItem {
    /// Whose it is.
    pub node: NodeId,
    /// Which version.
    pub version: MetadataVersion,
    /// What it says.
    pub metadata: Metadata,
}

/// Why an item was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemProblem {
    /// Written by a version of the software newer than this one.
    UnknownFormat,
    /// Not an item.
    Malformed,
}

impl MetadataItem {
    /// The item as bytes. Tags that do not fit are left out and counted in it.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut metadata = self.metadata.clone();
        metadata.site_links.truncate(SITE_LINKS_MAX);
        loop {
            let mut bytes = Vec::with_capacity(ITEM_BYTES_MAX);
            bytes.push(FORMAT);
            bytes.extend_from_slice(self.node.as_bytes());
            bytes.extend_from_slice(&self.version.incarnation.to_be_bytes());
            bytes.extend_from_slice(&self.version.counter.to_be_bytes());
            let bytes = postcard::to_extend(&metadata, bytes)
                .and_then(|bytes| postcard::to_extend(&metadata.site_links, bytes))
                .map_err(|_| Error::MetadataTooLarge { bytes: usize::MAX, bytes_max: ITEM_BYTES_MAX })?;
            if bytes.len() <= ITEM_BYTES_MAX {
                return Ok(bytes);
            }
            if metadata.tags.pop().is_none() {
                return Err(Error::MetadataTooLarge { bytes: bytes.len(), bytes_max: ITEM_BYTES_MAX });
            }
            metadata.tags_omitted = metadata.tags_omitted.saturating_add(1);
        }
    }

    /// The item in `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, ItemProblem> {
        match bytes.first() {
            Some(&FORMAT) => {}
            Some(&format) if format > FORMAT => return Err(ItemProblem::UnknownFormat),
            _ => return Err(ItemProblem::Malformed),
        }
        let (head, body) = bytes.split_at_checked(HEAD_BYTES).ok_or(ItemProblem::Malformed)?;
        let number = |from: usize| head.get(from..from + 8)?.try_into().ok().map(u64::from_be_bytes);
        let node = head.get(1..17).and_then(NodeId::from_slice).ok_or(ItemProblem::Malformed)?;
        let incarnation = number(17).ok_or(ItemProblem::Malformed)?;
        let counter = number(25).ok_or(ItemProblem::Malformed)?;
        let (mut metadata, grown) = postcard::take_from_bytes::<Metadata>(body).map_err(|_| ItemProblem::Malformed)?;
        if !grown.is_empty() {
            let (site_links, _) = postcard::take_from_bytes(grown).map_err(|_| ItemProblem::Malformed)?;
            metadata.site_links = site_links;
        }
        Ok(Self { node, version: MetadataVersion { incarnation, counter }, metadata })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item() -> MetadataItem {
        MetadataItem {
            node: NodeId::from_bytes([3; 16]),
            version: MetadataVersion { incarnation: 1 << 32, counter: 9 },
            metadata: Metadata {
                name: "press-4".into(),
                tags: vec!["gpu".into(), "plant-a".into()],
                slots: 8,
                grpc_address: "10.0.0.4:7000".into(),
                group: Some(GroupStatus { term: 4, is_voter: true, ..GroupStatus::default() }),
                site_links: vec![site_mark(&SiteName::default()), 7],
                ..Metadata::default()
            },
        }
    }

    #[test]
    fn an_item_of_before_there_were_links_between_sites_is_read() {
        let mut old = item();
        old.metadata.site_links.clear();
        let mut bytes = old.encode().unwrap();
        assert_eq!(bytes.pop(), Some(0), "the empty list that is new");
        assert_eq!(MetadataItem::decode(&bytes), Ok(old));
    }

    #[test]
    fn load_and_progress_are_not_told_to_other_sites() {
        let mut busy = item().metadata;
        let before = busy.for_other_sites();
        (busy.slots_busy, busy.is_draining, busy.site_links) = (7, true, vec![1]);
        busy.group = Some(GroupStatus { term: 9, last_log_index: 900, is_voter: true, ..GroupStatus::default() });
        assert_eq!(busy.for_other_sites(), before);
        busy.grpc_address = "10.0.0.9:7000".into();
        assert_ne!(busy.for_other_sites(), before);
    }

    #[test]
    fn an_item_survives_the_wire() {
        let bytes = item().encode().unwrap();
        assert_eq!(MetadataItem::decode(&bytes), Ok(item()));
    }

    #[test]
    fn a_body_that_grew_at_its_end_is_still_read() {
        let mut bytes = item().encode().unwrap();
        bytes.extend_from_slice(&[1, 2, 3]);
        assert_eq!(MetadataItem::decode(&bytes), Ok(item()));
    }

    #[test]
    fn formats_to_come_are_told_from_rubbish() {
        let mut bytes = item().encode().unwrap();
        bytes[0] = 2;
        assert_eq!(MetadataItem::decode(&bytes), Err(ItemProblem::UnknownFormat));
        bytes[0] = 0;
        assert_eq!(MetadataItem::decode(&bytes), Err(ItemProblem::Malformed));
        assert_eq!(MetadataItem::decode(&[]), Err(ItemProblem::Malformed));
        assert_eq!(MetadataItem::decode(&[1; 20]), Err(ItemProblem::Malformed));
    }

    #[test]
    fn tags_that_do_not_fit_are_counted_and_nothing_else_is_cut() {
        let mut large = item();
        large.metadata.tags = (0..64).map(|n| format!("{n:063}")).collect();
        let bytes = large.encode().unwrap();
        assert!(bytes.len() <= ITEM_BYTES_MAX);
        let read = MetadataItem::decode(&bytes).unwrap().metadata;
        assert_eq!(read.tags.len() + usize::from(read.tags_omitted), 64);
        assert!(!read.tags.is_empty());
        assert_eq!(read.grpc_address, large.metadata.grpc_address);
        large.metadata.name = "n".repeat(ITEM_BYTES_MAX);
        assert!(matches!(large.encode(), Err(Error::MetadataTooLarge { .. })));
    }

    #[test]
    fn a_later_incarnation_beats_any_counter() {
        let old = MetadataVersion { incarnation: 1 << 32, counter: 900 };
        assert!(MetadataVersion { incarnation: 2 << 32, counter: 1 } > old);
    }
}
