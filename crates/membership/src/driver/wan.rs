//! The ring between sites as the loop drives it: taking part or not, and the ways its packets go.

use std::net::SocketAddr;
use std::sync::Arc;

use fleet_core::NodeId;
use metrics::counter;

use super::{Driver, RingEnd};
use crate::identity::Identity;
use crate::metadata::Metadata;
use crate::metrics as names;
use crate::outlet::{Arrived, Passing, Way};
use crate::payload::Payload;
use crate::ring::Ring;
use crate::swim::{Input, Swim, SwimConfig};
use crate::view::View;

/// This node in the ring between sites: who it will be when it next takes part.
#[derive(Clone, Debug)]
pub(crate) struct WanSelf {
    pub(crate) node: NodeId,
    pub(crate) address: SocketAddr,
    /// Grows with every time it takes part.
    pub(crate) incarnation: u64,
}

impl Driver {
    /// Begins to gossip with other sites, or says goodbye to them.
    pub(super) fn take_part(&mut self, takes_part: bool) {
        let is_part = self.wan.as_ref().is_some_and(|wan| wan.swim.is_some());
        if !takes_part && is_part {
            self.step(Ring::Wan, Input::Leave);
        } else if takes_part && !is_part && self.wan.is_some() {
            let config = SwimConfig {
                identity: Identity {
                    node: self.wan_self.node,
                    address: self.wan_self.address,
                    incarnation: self.wan_self.incarnation,
                },
                profile: Ring::Wan.profile(),
                seeds: self.wan_seeds.clone(),
                remembered: Vec::new(),
                metadata: self.ends.published.borrow().for_other_sites(),
                random_seed: rand::random(),
            };
            let (swim, first) = Swim::new(config, self.now());
            if let Some(wan) = &mut self.wan {
                wan.swim = Some(swim);
            }
            self.carry_out(Ring::Wan, first);
        }
    }

    /// The ring between sites has heard this node's goodbye.
    pub(super) fn wan_is_left(&mut self) {
        let last = self.wan.as_mut().and_then(|wan| wan.swim.take());
        if let Some(last) = last {
            self.wan_self.incarnation = last.identity().incarnation + 1;
        }
        self.ends.wan_view.send_replace(Arc::new(View::default()));
    }

    /// Calls nodes of other sites: those that seem down, and whoever is at `addresses`.
    pub(super) fn heal(&mut self, addresses: Vec<SocketAddr>) {
        let own = self.wan_self.address;
        for address in addresses.into_iter().filter(|address| *address != own) {
            if !self.wan_seeds.contains(&address) && self.wan_seeds.len() < super::WAN_SEEDS_MAX {
                self.wan_seeds.push(address);
            }
            self.step(Ring::Wan, Input::Announce(address));
        }
        self.step(Ring::Wan, Input::CallDown);
    }

    pub(super) fn publish_to_other_sites(&mut self, metadata: &Metadata) {
        self.step(Ring::Wan, Input::Publish(metadata.for_other_sites()));
    }

    /// Sends a packet between sites the way it goes now.
    pub(super) fn send_between_sites(&mut self, to: SocketAddr, sealed: &[u8]) {
        let packet = Passing { from: self.wan_self.address, to, sealed };
        let outlet = self.ends.outlet.borrow().clone();
        match outlet.map_or(Way::Direct, |outlet| outlet.take(packet)) {
            Way::Taken => self.meters.sent.increment(1),
            Way::By(holder) => self.pass(holder, packet),
            Way::Direct => self.send_sealed(to, sealed),
        }
    }

    /// Takes a packet that came over a link, of this node or of another of its site.
    pub(super) fn arrived(&mut self, arrived: &Arrived) {
        if arrived.to == self.wan_self.address {
            self.packet_of(Ring::Wan, arrived.from, &arrived.sealed);
        } else if self.is_neighbour(arrived.to) {
            let packet = Passing { from: arrived.from, to: arrived.to, sealed: &arrived.sealed };
            self.pass(arrived.to, packet);
        } else {
            counter!(names::DROPPED, names::REASON => "not_of_this_site").increment(1);
        }
    }

    /// Takes a packet that another node of the site passed on: for this node, or for the link that it holds.
    pub(super) fn passed(&mut self, packet: Passing<'_>) {
        if packet.to == self.wan_self.address {
            return self.packet_of(Ring::Wan, packet.from, packet.sealed);
        }
        let outlet = self.ends.outlet.borrow().clone();
        // What this node has no link for either goes no further: nothing is passed on twice.
        if outlet.is_none_or(|outlet| outlet.take(packet) != Way::Taken) {
            counter!(names::DROPPED, names::REASON => "no_link").increment(1);
        }
    }

    fn is_neighbour(&self, address: SocketAddr) -> bool {
        let swim = self.lan.swim.as_ref();
        swim.is_some_and(|swim| swim.view().active_peers().any(|member| member.address == address))
    }

    /// Has the node of this site at `by` pass `packet` on, within the site's own ring.
    fn pass(&mut self, by: SocketAddr, packet: Passing<'_>) {
        match Payload::Pass(packet).encode() {
            Some(payload) => self.send(Ring::Lan, by, &payload),
            None => counter!(names::DROPPED, names::REASON => "pass").increment(1),
        }
    }
}

/// An end of the ring between sites that takes no part yet.
pub(crate) fn resting(seals: (crate::seal::Sealer, crate::seal::Opener)) -> RingEnd {
    RingEnd {
        swim: None,
        sealer: seals.0,
        opener: seals.1,
        datagram_bytes_max: Ring::Wan.profile().datagram_bytes_max(),
    }
}
