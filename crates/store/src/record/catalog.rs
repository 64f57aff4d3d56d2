//! What the whole fleet knows, as each node keeps its own copy of it: keys, entries and their order.
//!
//! Not here: what a node does with two entries of one key, and what nodes say to each other (`fleet-node`).

use std::collections::BTreeMap;

use fleet_core::{Digest, NodeId, SiteName, Timestamp};
use serde::{Deserialize, Serialize};

use super::content::Payload;
use super::job::WorkflowName;
use crate::Error;
use crate::codec::Record;
use crate::key::StateKey;

/// What an entry is about. The order of the kinds is stored: never change it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CatalogKey {
    /// A version of a workflow.
    Workflow(WorkflowName),
    /// A node that this site removed: all certificates are void that the site's authority gave it.
    RevokedNode(SiteName, NodeId),
    /// A certificate of this site's authority that is void, by its serial number, lower-case hexadecimal.
    RevokedSerial(SiteName, String),
    /// How much a node has seen.
    Acknowledgement(NodeId),
}

impl CatalogKey {
    const WORKFLOW: u8 = 1;
    const REVOKED_NODE: u8 = 2;
    const REVOKED_SERIAL: u8 = 3;
    const ACKNOWLEDGEMENT: u8 = 4;

    /// The site whose certificates it says are void; none where it is about something else.
    pub fn revoking_site(&self) -> Option<&SiteName> {
        match self {
            Self::RevokedNode(site, _) | Self::RevokedSerial(site, _) => Some(site),
            Self::Workflow(_) | Self::Acknowledgement(_) => None,
        }
    }

    /// The key's bytes, in the store and under a signature.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        match self {
            Self::Workflow(name) => {
                bytes.push(Self::WORKFLOW);
                for part in [&name.namespace, &name.name, &name.version] {
                    part.encode_into(&mut bytes);
                }
            }
            Self::RevokedNode(site, node) => {
                bytes.push(Self::REVOKED_NODE);
                site.as_str().to_owned().encode_into(&mut bytes);
                node.encode_into(&mut bytes);
            }
            Self::RevokedSerial(site, serial) => {
                bytes.push(Self::REVOKED_SERIAL);
                site.as_str().to_owned().encode_into(&mut bytes);
                serial.encode_into(&mut bytes);
            }
            Self::Acknowledgement(node) => {
                bytes.push(Self::ACKNOWLEDGEMENT);
                node.encode_into(&mut bytes);
            }
        }
        bytes
    }

    /// The key with these bytes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let malformed = || Error::corrupt("key of the catalog", "it is malformed");
        let (kind, mut rest) = bytes.split_first().ok_or_else(malformed)?;
        let key = match *kind {
            Self::WORKFLOW => <(String, String, String)>::decode_from(&mut rest)
                .map(|(namespace, name, version)| Self::Workflow(WorkflowName { namespace, name, version })),
            Self::REVOKED_NODE => <(String, NodeId)>::decode_from(&mut rest)
                .and_then(|(site, node)| Some(Self::RevokedNode(site.parse().ok()?, node))),
            Self::REVOKED_SERIAL => <(String, String)>::decode_from(&mut rest)
                .and_then(|(site, serial)| Some(Self::RevokedSerial(site.parse().ok()?, serial))),
            Self::ACKNOWLEDGEMENT => NodeId::decode_from(&mut rest).map(Self::Acknowledgement),
            _ => None,
        };
        key.filter(|_| rest.is_empty()).ok_or_else(malformed)
    }
}

/// A hybrid time: the wall clock of who wrote, or what was there before if that is later, and a count within the
/// millisecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CatalogTime {
    /// Wall time.
    pub at: Timestamp,
    /// Tells apart what has the same wall time.
    pub count: u32,
}

/// The place of a write in the order of all writes to its key: version, then time, then node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CatalogStamp {
    /// One more than what its writer had seen of the key, so that what was written in knowledge of another write comes
    /// after it, whatever the clocks say.
    pub version: u64,
    /// Decides between writes that did not know of each other.
    pub time: CatalogTime,
    /// Who wrote.
    pub node: NodeId,
}

/// How many of each node's writes were seen: a node that is not named counts as none.
pub type CatalogVector = BTreeMap<NodeId, u64>;

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CatalogContent {
    /// A workflow file.
    Workflow {
        /// SHA-256 of the file.
        digest: Digest,
        /// Size of the file, bytes.
        file_bytes: u32,
        /// The file, deflated (RFC 1951).
        deflated: Payload,
    },
    /// What the key says is void, for ever.
    Revocation,
    /// How much the key's node has seen.
    Acknowledgement(CatalogVector),
    /// A workflow that was deleted. Kept until every member knows.
    Deleted {
        /// SHA-256 of the file that it was.
        digest: Digest,
    },
}

/// Who vouches for an entry, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SignedBy {
    /// Nobody: it is as good as the node that passed it on.
    Nobody,
    /// The fleet's root, by its signature.
    Root(Payload),
    /// The authority of a site.
    Site {
        /// Its certificate, DER.
        authority: Payload,
        /// Its signature.
        signature: Payload,
    },
}

/// What a node knows under a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogEntry {
    /// Its place in the order of the key's writes.
    pub stamp: CatalogStamp,
    /// Which of its node's writes it is, from 1; 0 for acknowledgements, which are not counted.
    pub number: u64,
    /// What it says.
    pub content: CatalogContent,
    /// Who vouches for it.
    pub signed_by: SignedBy,
}

/// What a node knows of the catalog beside its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogFacts {
    /// How many of this node's own writes there were, ever.
    pub written: u64,
    /// How many of each node's writes this copy has, or had and outlived.
    pub seen: CatalogVector,
    /// The highest version of a deletion that this copy outlived: what is written where nothing is comes after it.
    pub outlived: u64,
}

impl Record for CatalogEntry {
    const NAME: &'static str = "catalog entry";
}

impl Record for CatalogFacts {
    const NAME: &'static str = "catalog facts";
}
