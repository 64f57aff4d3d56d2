//! The two rings of gossip on one socket: the nodes of a site among themselves, and a few nodes of each site with those of
//! the others. A byte of the sealed header tells them apart.
//!
//! The keys of the first follow from the fleet's keys and the site's name, so that no packet of one site is ever opened at
//! another, whatever address it was sent to.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::hkdf;
use fleet_core::{Digest, NodeId, SiteName};

use crate::error::Error;
use crate::keyring::{GossipKey, KEY_BYTES, Keyring};
use crate::profile::Profile;

/// Most nodes of one site that gossip with other sites.
pub const WAN_NODES_MAX: usize = 3;

/// One of the two rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ring {
    /// The nodes of one site.
    Lan,
    /// A few nodes of every site.
    Wan,
}

impl Ring {
    /// The byte in the header.
    pub(crate) const fn byte(self) -> u8 {
        match self {
            Self::Lan => 0,
            Self::Wan => 1,
        }
    }

    /// The ring with this byte.
    pub(crate) const fn of_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Lan),
            1 => Some(Self::Wan),
            _ => None,
        }
    }

    pub(crate) const fn profile(self) -> Profile {
        match self {
            Self::Lan => Profile::Lan,
            Self::Wan => Profile::Wan,
        }
    }
}

/// The length of a derived key, as HKDF wants it told.
struct KeyLength;

impl hkdf::KeyType for KeyLength {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

/// The keys of the ring within `site`, from those of the fleet. The site called `default` uses these themselves, as every
/// site did when a fleet had only one.
pub(crate) fn lan_keyring(keyring: &Keyring, site: &SiteName) -> Result<Keyring, Error> {
    let keys = keyring.keys().map(|(key_id, key)| {
        let key = if *site == SiteName::default() { Ok(key.clone()) } else { key_of_site(key, site) };
        key.map(|key| (key_id, key))
    });
    Keyring::new(Ring::Lan.byte(), keyring.primary(), keys.collect::<Result<BTreeMap<_, _>, _>>()?)
}

/// The keys of the ring between sites.
pub(crate) fn wan_keyring(key: &GossipKey) -> Result<Keyring, Error> {
    Keyring::new(Ring::Wan.byte(), 0, BTreeMap::from([(0, key.clone())]))
}

fn key_of_site(key: &GossipKey, site: &SiteName) -> Result<GossipKey, Error> {
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(key.as_bytes());
    let info: [&[u8]; 2] = [b"fleet gossip of site 1 ", site.as_str().as_bytes()];
    let expanded = extracted.expand(&info, KeyLength).map_err(|_| Error::Crypto)?;
    let mut bytes = [0; KEY_BYTES];
    expanded.fill(&mut bytes).map_err(|_| Error::Crypto)?;
    Ok(GossipKey::new(bytes))
}

/// Which nodes of a site gossip with other sites: its leader, then its living voters in an order of their own that all
/// nodes compute alike, at most [`WAN_NODES_MAX`].
pub fn wan_nodes(leader: Option<NodeId>, voters: &BTreeSet<NodeId>, is_active: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
    let mut living: Vec<_> = voters.iter().copied().filter(|node| is_active(*node) || Some(*node) == leader).collect();
    living.sort_by_key(|node| (Some(*node) != leader, Digest::of(node.as_bytes())));
    living.truncate(WAN_NODES_MAX);
    living
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(numbers: impl IntoIterator<Item = u8>) -> BTreeSet<NodeId> {
        numbers.into_iter().map(|number| NodeId::from_bytes([number; 16])).collect()
    }

    #[test]
    fn at_most_three_voters_gossip_with_other_sites_the_leader_among_them() {
        for count in 0..=5 {
            let voters = nodes(0..count);
            let chosen = wan_nodes(None, &voters, |_| true);
            assert_eq!(chosen.len(), usize::from(count).min(3));
            for leader in &voters {
                assert!(wan_nodes(Some(*leader), &voters, |_| true).contains(leader));
            }
        }
        let voters = nodes(0..3);
        let sorted = |leader| wan_nodes(leader, &voters, |_| true).into_iter().collect::<BTreeSet<_>>();
        assert_eq!(sorted(None), sorted(voters.first().copied()), "with three voters a new leader changes nothing");
    }

    #[test]
    fn a_dead_voter_is_replaced_and_the_others_stay() {
        let voters = nodes(0..5);
        let before = wan_nodes(None, &voters, |_| true);
        let after = wan_nodes(None, &voters, |node| node != before[1]);
        assert_eq!((after.len(), after.contains(&before[1])), (3, false));
        assert!(after.contains(&before[0]) && after.contains(&before[2]));
    }

    #[test]
    fn sites_have_keys_of_their_own_and_the_default_one_those_of_the_fleet() {
        let fleet = Keyring::single(GossipKey::new([5; KEY_BYTES]));
        let key = |site: &str| *lan_keyring(&fleet, &site.parse().unwrap()).unwrap().key(0).unwrap().as_bytes();
        assert_eq!(key("default"), [5; KEY_BYTES]);
        assert_ne!(key("plant"), key("default"));
        assert_ne!(key("plant"), key("plant-2"));
        assert_eq!(key("plant"), key("plant"));
    }
}
