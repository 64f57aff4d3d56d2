//! What this node knows of other sites: put together from contacts, links and what it remembers, and kept over restarts.
//!
//! It is a hint: a report is as old as the time beside it.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet_core::{Error, ErrorKind, GroupId, SiteName, Timestamp};
use fleet_node::ports::{KnownSite, KnownSites};
use fleet_node::site_link::SiteReport;
use fleet_store::Store;
use serde::{Deserialize, Serialize};

/// Version of the row's format.
const FORMAT: u8 = 1;
/// Name of the row.
const ROW: &str = "sites";
/// Most sites remembered.
const SITES_MAX: usize = 1_000;
/// Most addresses remembered of one site.
const ADDRESSES_MAX: usize = 8;

/// A site that was heard once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HeardSite {
    /// The group that agrees on its log.
    pub(super) group: GroupId,
    /// When it was last heard.
    pub(super) heard_at: Timestamp,
    /// `host:port` of its nodes, as it last said.
    pub(super) addresses: Vec<String>,
    /// What it last said; not kept over restarts.
    #[serde(skip)]
    pub(super) report: Arc<SiteReport>,
}

/// The sites that were heard, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard(pub(super) BTreeMap<SiteName, HeardSite>);

impl Heard {
    /// What the store remembers. A row that cannot be read is as good as none: it tells only of the past.
    pub(super) fn load(store: &Store) -> Self {
        let row = store.meta(ROW);
        match row.map_err(|error| error.to_string()).and_then(|row| decode(row.as_deref())) {
            Ok(heard) => heard,
            Err(error) => {
                tracing::warn!(error, "when other sites were last heard is not remembered");
                Self::default()
            }
        }
    }

    /// Keeps it in the store, some time soon.
    pub(super) fn save(&self, store: &Store) -> Result<(), Error> {
        let failed = || Error::new(ErrorKind::Internal, "remember when other sites were last heard");
        let row = postcard::to_extend(&self.0, vec![FORMAT]).map_err(|source| failed().with_source(source))?;
        // Nobody waits for it: what is lost with a crash is at most the last half minute.
        drop(store.put_meta(ROW, row));
        Ok(())
    }

    /// Notes that `site` was heard at `at`; with its report, if it sent one.
    pub(super) fn note(&mut self, site: &SiteName, group: GroupId, at: Timestamp, report: Option<SiteReport>) {
        if !self.0.contains_key(site) && self.0.len() >= SITES_MAX {
            return;
        }
        let heard = self.0.entry(site.clone()).or_insert_with(|| HeardSite {
            group,
            heard_at: at,
            addresses: Vec::new(),
            report: Arc::default(),
        });
        (heard.group, heard.heard_at) = (group, heard.heard_at.max(at));
        if let Some(report) = report {
            let said: Vec<_> = report.nodes.iter().map(|node| node.address.clone()).collect();
            if !said.is_empty() {
                heard.addresses = said;
                heard.addresses.truncate(ADDRESSES_MAX);
            }
            heard.report = Arc::new(report);
        }
    }
}

fn decode(row: Option<&[u8]>) -> Result<Heard, String> {
    match row.and_then(<[u8]>::split_first) {
        None => Ok(Heard::default()),
        Some((&FORMAT, body)) => postcard::from_bytes(body).map(Heard).map_err(|error| error.to_string()),
        Some((format, _)) => Err(format!("format {format} is not known")),
    }
}

/// What is known of each site: of those that are registered, and of those that were heard.
pub(super) fn known(
    registered: &BTreeMap<SiteName, GroupId>,
    heard: &Heard,
    is_linked: impl Fn(&SiteName) -> bool,
) -> KnownSites {
    let mut known: KnownSites =
        heard.0.iter().map(|(site, heard)| (site.clone(), told(heard, is_linked(site)))).collect();
    for (site, group) in registered {
        let unheard = || KnownSite { group: *group, is_linked: is_linked(site), heard_at: None, robots: Vec::new() };
        known.entry(site.clone()).or_insert_with(unheard);
    }
    known
}

fn told(heard: &HeardSite, is_linked: bool) -> KnownSite {
    let robots = heard.report.robots.clone();
    KnownSite { group: heard.group, is_linked, heard_at: Some(heard.heard_at), robots }
}

#[cfg(test)]
mod tests {
    use fleet_core::NodeId;
    use fleet_node::ports::RobotOffer;
    use fleet_node::site_link::WanNode;

    use super::*;

    fn report() -> SiteReport {
        let node = NodeId::from_bytes([1; 16]);
        let gossip = "10.0.0.1:7000".parse().unwrap();
        SiteReport {
            nodes: vec![WanNode { node, gossip, address: "a:7000".to_owned() }],
            robots: vec![RobotOffer { node: "r".to_owned(), tags: vec![], capabilities: vec![], slots: 3 }],
            ..SiteReport::default()
        }
    }

    #[test]
    fn when_a_site_was_heard_and_where_it_answers_survive_a_restart() {
        let store = Store::in_memory().unwrap();
        assert_eq!(Heard::load(&store), Heard::default());
        let (south, group) = ("south".parse::<SiteName>().unwrap(), GroupId::from_bytes([3; 16]));
        let mut heard = Heard::default();
        heard.note(&south, group, Timestamp(5_000), Some(report()));
        heard.note(&south, group, Timestamp(4_000), None);
        heard.save(&store).unwrap();
        store.put_meta("after", Vec::new()).wait().unwrap();
        let remembered = Heard::load(&store);
        let south_heard = &remembered.0[&south];
        assert_eq!(
            (south_heard.heard_at, south_heard.addresses.as_slice()),
            (Timestamp(5_000), &["a:7000".to_owned()][..])
        );

        let registered = BTreeMap::from([(south.clone(), group), ("west".parse().unwrap(), group)]);
        let known = known(&registered, &heard, |site| *site == south);
        let facts: Vec<_> = known.values().map(|site| (site.is_linked, site.heard_at, site.robots.len())).collect();
        assert_eq!(facts, [(true, Some(Timestamp(5_000)), 1), (false, None, 0)]);
    }

    #[test]
    fn a_row_of_a_version_to_come_is_left_alone() {
        assert!(decode(Some(&[9, 1])).is_err());
        assert!(decode(Some(&[FORMAT, 200])).is_err());
        assert_eq!(decode(Some(&[])), Ok(Heard::default()));
    }
}
