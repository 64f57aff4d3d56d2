//! Who a member is to the failure detector: node, address, incarnation. Repeated in every update, so it stays small
//! (46 bytes at most); everything that changes while a node runs is metadata instead.
//!
//! The incarnation is `boot number << 32 | renewals within the boot`. The boot number is durable before the first packet,
//! so every boot beats every earlier one however often that one had to renew itself, and a renewal needs no disk.

use std::net::SocketAddr;

use fleet_core::NodeId;
use serde::{Deserialize, Serialize};

/// Bits of an incarnation that count renewals within a boot.
const RENEWAL_BITS: u32 = 32;

/// One life of one node at one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The node; the same over restarts and new addresses.
    pub node: NodeId,
    /// Where its gossip packets go.
    pub address: SocketAddr,
    /// Which life: the greatest wins.
    pub incarnation: u64,
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        self.incarnation.checked_add(1).map(|incarnation| Self { incarnation, ..*self })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        // Two addresses under one incarnation happen only when a data directory was copied: any total order will do.
        (self.incarnation, self.address) > (adversary.incarnation, adversary.address)
    }
}

/// The first incarnation of the boot after the one that `last` belongs to.
pub const fn next_boot(last: u64) -> u64 {
    (last >> RENEWAL_BITS).saturating_add(1) << RENEWAL_BITS
}

/// The boot number within `incarnation`.
pub const fn boot_number(incarnation: u64) -> u32 {
    (incarnation >> RENEWAL_BITS) as u32
}

#[cfg(test)]
mod tests {
    use foca::Identity as _;

    use super::*;

    fn identity(incarnation: u64) -> Identity {
        Identity { node: NodeId::from_bytes([7; 16]), address: SocketAddr::from(([127, 0, 0, 1], 7000)), incarnation }
    }

    #[test]
    fn a_renewed_identity_wins_and_a_new_boot_beats_every_renewal() {
        let first = identity(next_boot(0));
        let renewed = first.renew().unwrap();
        assert!(renewed.win_addr_conflict(&first));
        assert!(!first.win_addr_conflict(&renewed));
        let much_renewed = identity(first.incarnation + u64::from(u32::MAX));
        let rebooted = identity(next_boot(first.incarnation));
        assert!(rebooted.win_addr_conflict(&much_renewed));
        assert_eq!((boot_number(first.incarnation), boot_number(rebooted.incarnation)), (1, 2));
    }

    #[test]
    fn an_identity_stays_small() {
        let address = "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap();
        let largest = Identity { node: NodeId::from_bytes([255; 16]), address, incarnation: u64::MAX };
        assert!(postcard::to_allocvec(&largest).unwrap().len() <= 47);
    }
}
