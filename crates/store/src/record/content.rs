//! Content of jobs: bytes that lie in the row itself, or the name of a blob that holds them.

use std::fmt;

use bytes::Bytes;
use fleet_core::Digest;
use serde::de::{Error as DecodeError, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes that this crate does not look into. A clone shares them.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Payload(pub Bytes);

impl Payload {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Bytes::from(bytes))
    }
}

impl From<&'static str> for Payload {
    fn from(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(PayloadVisitor)
    }
}

struct PayloadVisitor;

impl Visitor<'_> for PayloadVisitor {
    type Value = Payload;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: DecodeError>(self, bytes: &[u8]) -> Result<Payload, E> {
        Ok(Payload(Bytes::copy_from_slice(bytes)))
    }

    fn visit_byte_buf<E: DecodeError>(self, bytes: Vec<u8>) -> Result<Payload, E> {
        Ok(Payload::from(bytes))
    }
}

/// Content of any size. Above `limits::INLINE_BYTES_MAX` it is a blob, on a majority's disks before an entry names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// The bytes themselves.
    Inline(Payload),
    /// A blob, by the digest of its bytes.
    Blob {
        /// SHA-256 of the bytes.
        digest: Digest,
        /// How many bytes it has.
        length: u64,
    },
}

impl Content {
    /// These bytes, in the row.
    pub fn inline(bytes: impl Into<Payload>) -> Self {
        Self::Inline(bytes.into())
    }

    /// How many bytes the content has, wherever they lie.
    pub fn length(&self) -> u64 {
        match self {
            Self::Inline(payload) => payload.0.len() as u64,
            Self::Blob { length, .. } => *length,
        }
    }

    /// The digest of the blob, if it is one.
    pub fn blob(&self) -> Option<Digest> {
        match self {
            Self::Inline(_) => None,
            Self::Blob { digest, .. } => Some(*digest),
        }
    }
}

/// How many rows of kept jobs name a blob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobUse {
    /// The rows.
    pub rows: u64,
}
