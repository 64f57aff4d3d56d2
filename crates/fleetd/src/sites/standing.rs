//! How this node stands with each other site, put together for people and metrics when they ask.

use std::collections::BTreeMap;

use fleet_core::{Error, NodeId, SiteName, Timestamp};
use fleet_node::site_link::{LinkFigures, Traffic};

use super::hub::{Held, SiteLinks};

/// How this node stands with another site.
#[derive(Clone, Debug)]
pub struct SiteStanding {
    /// The site.
    pub site: SiteName,
    /// This node's link to it.
    pub link: Option<LinkStanding>,
    /// Whether another node of this site says that it holds one.
    pub is_held_elsewhere: bool,
    /// When the site was last heard, here or by whoever told this node.
    pub heard_at: Option<Timestamp>,
    /// Where its nodes may answer, the likeliest first.
    pub addresses: Vec<String>,
    /// The last dial of it by this node that made no link, if none did since.
    pub failed_dial: Option<FailedDial>,
    /// Bytes sent and received over this node's links since it started, in the order of [`Traffic::ALL`].
    pub bytes: [(u64, u64); Traffic::ALL.len()],
}

/// A link as it stands.
#[derive(Clone, Debug)]
pub struct LinkStanding {
    /// The node at the other end.
    pub node: NodeId,
    /// Whether this side dialled it.
    pub is_dialled: bool,
    /// What it carries.
    pub figures: LinkFigures,
    /// The other site's clock less ours as of its last report, milliseconds, without the time that took.
    pub clock_offset_ms: Option<i64>,
}

/// A dial that made no link.
#[derive(Clone, Debug)]
pub struct FailedDial {
    /// Where.
    pub address: String,
    /// Why, with its causes.
    pub problem: String,
}

impl FailedDial {
    pub(super) fn new(address: String, error: &Error) -> Self {
        Self { address, problem: fleet_core::error::chain(error) }
    }
}

/// Bytes sent and received over links that have ended, by site.
#[derive(Debug, Default)]
pub(super) struct Ended(BTreeMap<SiteName, [(u64, u64); Traffic::ALL.len()]>);

impl Ended {
    /// Counts what `held` carried.
    pub(super) fn add(&mut self, held: &Held) {
        add(self.0.entry(held.site.clone()).or_default(), &held.link.figures());
    }
}

fn add(bytes: &mut [(u64, u64); Traffic::ALL.len()], figures: &LinkFigures) {
    for ((sent, received), flow) in bytes.iter_mut().zip(&figures.flows) {
        *sent += flow.sent_bytes;
        *received += flow.received_bytes;
    }
}

impl SiteLinks {
    /// How this node stands with every other site it knows, by name.
    pub fn standings(&self) -> Vec<SiteStanding> {
        let mut addresses = self.addresses();
        let home = self.home();
        let table = self.table();
        for site in table.heard.0.keys() {
            addresses.entry(site.clone()).or_default();
        }
        let standing = |(site, addresses): (SiteName, Vec<String>)| {
            let held = || table.links.values().filter(|held| held.site == site);
            let mut bytes = table.ended.0.get(&site).copied().unwrap_or_default();
            held().for_each(|held| add(&mut bytes, &held.link.figures()));
            let best = held().min_by_key(|held| held.rank.clone());
            SiteStanding {
                link: best.map(|held| LinkStanding {
                    node: held.node,
                    is_dialled: held.is_dialled,
                    figures: held.link.figures(),
                    clock_offset_ms: held.clock_offset_ms,
                }),
                is_held_elsewhere: !home.holders(&site).is_empty(),
                heard_at: table.heard.0.get(&site).map(|heard| heard.heard_at),
                addresses,
                failed_dial: table.failed_dials.get(&site).cloned(),
                bytes,
                site,
            }
        };
        addresses.into_iter().map(standing).collect()
    }
}
