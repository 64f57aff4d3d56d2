//! Keys of state rows: bytes whose order is the order of the keys, so that ranges and prefixes work.

use fleet_core::{BootInstant, Digest, GroupId, JobId, NodeId, SessionId, Timestamp};

use crate::record::Serial;

/// A part of a key. Encodings keep the order of values, and none is a prefix of another one of the same type, so that
/// tuples keep it too.
pub trait StateKey: Sized {
    /// Appends the key's bytes.
    fn encode_into(&self, bytes: &mut Vec<u8>);
    /// Takes one key from the front of `bytes`; `None` if they do not hold one.
    fn decode_from(bytes: &mut &[u8]) -> Option<Self>;
}

/// Takes the first `N` bytes.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

impl StateKey for () {
    fn encode_into(&self, _bytes: &mut Vec<u8>) {}
    fn decode_from(_bytes: &mut &[u8]) -> Option<Self> {
        Some(())
    }
}

impl StateKey for u8 {
    fn encode_into(&self, bytes: &mut Vec<u8>) {
        bytes.push(*self);
    }
    fn decode_from(bytes: &mut &[u8]) -> Option<Self> {
        take::<1>(bytes).map(|[byte]| byte)
    }
}

impl StateKey for u32 {
    fn encode_into(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.to_be_bytes());
    }
    fn decode_from(bytes: &mut &[u8]) -> Option<Self> {
        take(bytes).map(Self::from_be_bytes)
    }
}

impl StateKey for u64 {
    fn encode_into(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.to_be_bytes());
    }
    fn decode_from(bytes: &mut &[u8]) -> Option<Self> {
        take(bytes).map(Self::from_be_bytes)
    }
}

impl StateKey for Timestamp {
    fn encode_into(&self, bytes: &mut Vec<u8>) {
        self.0.encode_into(bytes);
    }
    fn decode_from(bytes: &mut &[u8]) -> Option<Self> {
        u64::decode_from(bytes).map(Self)
    }
}

impl StateKey for BootInstant {
    fn encode_into(&self, bytes: &mut Vec<u8>) {
        self.0.as_secs().encode_into(bytes);
        self.0.subsec_nanos().encode_into(bytes);
    }
    fn decode_from(bytes: &mut &[u8]) -> Option<Self> {
        let (seconds, nanos) = <(u64, u32)>::decode_from(bytes)?;
        Some(Self(std::time::Duration::new(seconds, nanos)))
    }
}

impl StateKey for JobId {
    fn encode_into(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.as_bytes());
    }
    fn decode_from(bytes: &mut &[u8]) -> Option<Self> {
        take(bytes).map(Self::from_bytes)
    }
}

impl StateKey for NodeId {
    fn encode_into(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.as_bytes());
    }
    fn decode_from(bytes: &mut &[u8]) -> Option<Self> {
        take(bytes).map(Self::from_bytes)
    }
}

impl StateKey for GroupId {
    fn encode_into(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.as_bytes());
    }
    fn decode_from(bytes: &mut &[u8]) -> Option<Self> {
        take(bytes).map(Self::from_bytes)
    }
}

impl StateKey for Digest {
    fn encode_into(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.0);
    }
    fn decode_from(bytes: &mut &[u8]) -> Option<Self> {
        take(bytes).map(Self)
    }
}

impl StateKey for SessionId {
    fn encode_into(&self, bytes: &mut Vec<u8>) {
        self.node.encode_into(bytes);
        self.boot.encode_into(bytes);
        self.number.encode_into(bytes);
    }
    fn decode_from(bytes: &mut &[u8]) -> Option<Self> {
        let (node, boot, number) = <(NodeId, u64, u64)>::decode_from(bytes)?;
        Some(Self { node, boot, number })
    }
}

impl StateKey for Serial {
    fn encode_into(&self, bytes: &mut Vec<u8>) {
        self.epoch.encode_into(bytes);
        self.number.encode_into(bytes);
    }
    fn decode_from(bytes: &mut &[u8]) -> Option<Self> {
        let (epoch, number) = <(u64, u64)>::decode_from(bytes)?;
        Some(Self { epoch, number })
    }
}

/// Text keeps its byte order: a zero byte is written as `00 ff`, the end as `00 00`.
impl StateKey for String {
    fn encode_into(&self, bytes: &mut Vec<u8>) {
        for byte in self.bytes() {
            bytes.push(byte);
            if byte == 0 {
                bytes.push(0xff);
            }
        }
        bytes.extend_from_slice(&[0, 0]);
    }

    fn decode_from(bytes: &mut &[u8]) -> Option<Self> {
        let mut text = Vec::new();
        loop {
            match *take::<1>(bytes)?.first()? {
                0 => match take::<1>(bytes)? {
                    [0] => return Self::from_utf8(text).ok(),
                    [0xff] => text.push(0),
                    _ => return None,
                },
                byte => text.push(byte),
            }
        }
    }
}

impl<A: StateKey, B: StateKey> StateKey for (A, B) {
    fn encode_into(&self, bytes: &mut Vec<u8>) {
        self.0.encode_into(bytes);
        self.1.encode_into(bytes);
    }
    fn decode_from(bytes: &mut &[u8]) -> Option<Self> {
        Some((A::decode_from(bytes)?, B::decode_from(bytes)?))
    }
}

impl<A: StateKey, B: StateKey, C: StateKey> StateKey for (A, B, C) {
    fn encode_into(&self, bytes: &mut Vec<u8>) {
        self.0.encode_into(bytes);
        self.1.encode_into(bytes);
        self.2.encode_into(bytes);
    }
    fn decode_from(bytes: &mut &[u8]) -> Option<Self> {
        Some((A::decode_from(bytes)?, B::decode_from(bytes)?, C::decode_from(bytes)?))
    }
}

impl<A: StateKey, B: StateKey, C: StateKey, D: StateKey> StateKey for (A, B, C, D) {
    fn encode_into(&self, bytes: &mut Vec<u8>) {
        self.0.encode_into(bytes);
        self.1.encode_into(bytes);
        self.2.encode_into(bytes);
        self.3.encode_into(bytes);
    }
    fn decode_from(bytes: &mut &[u8]) -> Option<Self> {
        Some((A::decode_from(bytes)?, B::decode_from(bytes)?, C::decode_from(bytes)?, D::decode_from(bytes)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn bytes_of(key: &impl StateKey) -> Vec<u8> {
        let mut bytes = Vec::new();
        key.encode_into(&mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn byte_order_is_key_order(a in any::<(String, u64, u8)>(), b in any::<(String, u64, u8)>()) {
            assert_eq!(a.cmp(&b), bytes_of(&a).cmp(&bytes_of(&b)));
        }

        #[test]
        fn keys_survive_the_round_trip(key in any::<(String, u32, String)>()) {
            let bytes = bytes_of(&key);
            let mut rest = bytes.as_slice();
            assert_eq!(<(String, u32, String)>::decode_from(&mut rest), Some(key));
            assert!(rest.is_empty());
        }
    }
}
