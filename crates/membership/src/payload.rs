//! What an opened packet holds. The first byte is kind and version in one: a kind that changes gets a new byte, and a
//! byte this version does not know is dropped and counted.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::identity::Identity;
use crate::outlet::Passing;

/// A packet of the failure detector (foca, postcard).
const SWIM: u8 = 0x01;
/// "Who answers at this address?": how an address becomes an identity that can be joined.
const WHO: u8 = 0x02;
/// The answer: an identity.
const IAM: u8 = 0x03;
/// "Send me your metadata": asked of a member whose metadata never came.
const WANT: u8 = 0x04;
/// The answer: one metadata item.
const METADATA: u8 = 0x05;
/// "I suspect you": said to the suspect itself until it contradicts.
const SUSPECT: u8 = 0x06;
/// "Pass this on": a packet between sites, on its way within the site to or from the node that holds the link.
const PASS: u8 = 0x07;

/// One opened packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payload<'a> {
    /// For the failure detector.
    Swim(&'a [u8]),
    /// Asks for this node's identity.
    Who,
    /// The sender's identity.
    Iam(Identity),
    /// Asks for this node's metadata.
    Want,
    /// The sender's metadata item.
    Metadata(&'a [u8]),
    /// The sender suspects this node.
    Suspect(Accusation),
    /// A sealed packet between sites, to be passed on.
    Pass(Passing<'a>),
}

/// Who suspects whom. Gossip spreads a suspicion only for a moment; a suspect that missed it would die of silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Accusation {
    /// Who will declare the suspect down.
    pub(crate) accuser: Identity,
    /// Whom.
    pub(crate) suspect: Identity,
    /// foca's incarnation of the suspect, which it must exceed to contradict.
    pub(crate) refutation: u16,
}

impl<'a> Payload<'a> {
    /// Reads a packet, or says why it is dropped.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, &'static str> {
        match bytes.split_first() {
            Some((&SWIM, body)) => Ok(Self::Swim(body)),
            Some((&WHO, [])) => Ok(Self::Who),
            Some((&IAM, body)) => postcard::from_bytes(body).map(Self::Iam).map_err(|_| "malformed"),
            Some((&WANT, [])) => Ok(Self::Want),
            Some((&METADATA, body)) => Ok(Self::Metadata(body)),
            Some((&SUSPECT, body)) => postcard::from_bytes(body).map(Self::Suspect).map_err(|_| "malformed"),
            Some((&PASS, body)) => match postcard::take_from_bytes::<(SocketAddr, SocketAddr)>(body) {
                Ok(((from, to), sealed)) => Ok(Self::Pass(Passing { from, to, sealed })),
                Err(_) => Err("malformed"),
            },
            Some((&(WHO | WANT), _)) | None => Err("malformed"),
            Some(_) => Err("unknown_kind"),
        }
    }

    /// The packet as bytes; `None` where an identity cannot be written, which postcard does not do to a `Vec`.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let with_body = |kind: u8, body: &[u8]| {
            let mut bytes = Vec::with_capacity(1 + body.len());
            bytes.push(kind);
            bytes.extend_from_slice(body);
            bytes
        };
        match self {
            Self::Swim(body) => Some(with_body(SWIM, body)),
            Self::Who => Some(vec![WHO]),
            Self::Iam(identity) => postcard::to_extend(identity, vec![IAM]).ok(),
            Self::Want => Some(vec![WANT]),
            Self::Metadata(body) => Some(with_body(METADATA, body)),
            Self::Suspect(accusation) => postcard::to_extend(accusation, vec![SUSPECT]).ok(),
            Self::Pass(packet) => {
                let mut bytes = postcard::to_extend(&(packet.from, packet.to), vec![PASS]).ok()?;
                bytes.extend_from_slice(packet.sealed);
                Some(bytes)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_survive_the_wire_and_unknown_kinds_are_told_apart() {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 7000));
        let identity = Identity { node: fleet_core::NodeId::from_bytes([1; 16]), address, incarnation: 1 << 32 };
        let passing = Passing { from: address, to: "[2001:db8::1]:7000".parse().unwrap(), sealed: &[1, 2, 3] };
        for payload in [
            Payload::Swim(&[1, 2, 3]),
            Payload::Who,
            Payload::Iam(identity),
            Payload::Want,
            Payload::Metadata(&[9]),
            Payload::Pass(passing),
        ] {
            assert_eq!(Payload::decode(&payload.encode().unwrap()), Ok(payload));
        }
        assert_eq!(Payload::decode(&[0x77, 1]), Err("unknown_kind"));
        assert_eq!(Payload::decode(&[WHO, 1]), Err("malformed"));
        assert_eq!(Payload::decode(&[IAM, 1]), Err("malformed"));
        assert_eq!(Payload::decode(&[]), Err("malformed"));
        assert_eq!(Payload::decode(&[PASS, 9]), Err("malformed"));
    }

    #[test]
    fn the_largest_packet_between_sites_fits_one_within_a_site() {
        let address = "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap();
        let sealed = vec![0; crate::Profile::Wan.datagram_bytes_max()];
        let payload = Payload::Pass(Passing { from: address, to: address, sealed: &sealed }).encode().unwrap();
        assert!(payload.len() + crate::seal::OVERHEAD_BYTES <= crate::Profile::Lan.datagram_bytes_max());
    }
}
