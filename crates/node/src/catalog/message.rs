//! What nodes say to each other about the catalog: a version byte, then postcard. New kinds are added at the end.

use fleet_core::{Error, ErrorKind};
use fleet_store::record::{CatalogVector, Payload};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::row::Row;

/// Version of the messages.
const VERSION: u8 = 1;
/// Bytes of an entry's name between copies: hash of its key, and short digest.
const BRIEF_BYTES: usize = 16;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Request {
    /// Whether two copies have the same entries.
    Compare {
        /// Sum of all entries of who asks.
        root: u128,
        /// By how many bits to compare if they do not.
        bits: u8,
        /// What the asker has seen.
        seen: CatalogVector,
        /// The highest version of a deletion that the asker outlived.
        outlived: u64,
    },
    /// For rows, and for what the asked lacks.
    Exchange(Exchange),
    /// New rows, told without being asked.
    Offer(Vec<Row>),
}

/// One step of bringing two copies together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Exchange {
    /// Out of how many parts, `2^bits`.
    pub(super) bits: u8,
    /// Parts that differ, with the names of all entries that the asker has in them.
    pub(super) parts: Vec<(u16, Payload)>,
    /// Rows that the asked said it lacks, or has an earlier entry of.
    pub(super) rows: Vec<Row>,
    /// Entries that the asker knows were outlived: names as in `parts`.
    pub(super) gone: Payload,
    /// About how many bytes of rows the answer may have.
    pub(super) room_bytes: u32,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The copies have the same entries.
    Same {
        /// What the asked has seen.
        seen: CatalogVector,
        /// The highest version of a deletion that it outlived.
        outlived: u64,
    },
    /// They have not.
    Differ {
        /// By how many bits the asked compared: as many as the larger of the copies needs.
        bits: u8,
        /// The sums of all parts, eight bytes each.
        sums: Payload,
    },
    /// The answer to [`Request::Exchange`].
    Rows {
        /// Rows that the asker lacks or has another entry of.
        rows: Vec<Row>,
        /// How many of the parts, from the first, are answered whole.
        done: u16,
        /// Hashes of keys that the asked lacks, of those parts.
        wanted: Vec<u64>,
        /// Entries of the asker that were outlived: names as in `parts`.
        gone: Payload,
    },
    /// The offer was looked at.
    Taken,
}

/// `message` as bytes.
pub(super) fn encode(message: &impl Serialize) -> Result<Payload, Error> {
    let bytes = postcard::to_extend(message, vec![VERSION]);
    bytes
        .map(Payload::from)
        .map_err(|source| Error::new(ErrorKind::Internal, "encode a message about the catalog").with_source(source))
}

/// The message in `bytes`.
///
/// # Errors
/// `Unsupported` for another version, `InvalidInput` for what is malformed.
pub(super) fn decode<M: DeserializeOwned>(bytes: &Payload) -> Result<M, Error> {
    let invalid = || Error::new(ErrorKind::InvalidInput, "decode a message about the catalog");
    match bytes.as_slice().split_first() {
        Some((&VERSION, body)) => match postcard::take_from_bytes(body) {
            Ok((message, [])) => Ok(message),
            Ok(_) => Err(invalid()),
            Err(source) => Err(invalid().with_source(source)),
        },
        Some((version, _)) => {
            let message = format!("decode a message about the catalog of version {version}");
            Err(Error::new(ErrorKind::Unsupported, message))
        }
        None => Err(invalid()),
    }
}

/// Names of entries as they travel.
pub(super) fn pack(briefs: impl Iterator<Item = (u64, u64)>) -> Payload {
    let bytes = briefs.flat_map(|(hash, digest)| [hash.to_be_bytes(), digest.to_be_bytes()].concat());
    Payload::from(bytes.collect::<Vec<u8>>())
}

/// The names in `packed`; what is left over at the end is none.
pub(super) fn unpack(packed: &Payload) -> impl Iterator<Item = (u64, u64)> {
    packed.as_slice().chunks_exact(BRIEF_BYTES).filter_map(|chunk| {
        let (hash, digest) = chunk.split_first_chunk::<8>()?;
        Some((u64::from_be_bytes(*hash), u64::from_be_bytes(digest.try_into().ok()?)))
    })
}

/// Sums of parts as they travel.
pub(super) fn pack_sums(sums: &[u64]) -> Payload {
    Payload::from(sums.iter().flat_map(|sum| sum.to_be_bytes()).collect::<Vec<u8>>())
}

/// The sums in `packed`.
pub(super) fn unpack_sums(packed: &Payload) -> Vec<u64> {
    packed.as_slice().chunks_exact(8).filter_map(|chunk| chunk.try_into().ok()).map(u64::from_be_bytes).collect()
}
