//! The links of this node by site, and everyone who uses them: who asks, who answers, who wants to know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use fleet_core::{Clock, Error, ErrorKind, GroupId, NodeId, SiteName, SystemClock, Timestamp};
use fleet_node::ports::{KnownSites, SiteServer, SiteTopic, Sites};
use fleet_node::site_link::{GossipPacket, LinkFact, LinkRank, SiteLink, SiteReport, bounded};
use fleet_store::Store;
use fleet_store::record::Payload;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, watch};

use super::age::unreachable;
use super::home::Home;
use super::known::{Heard, HeardSite, known};
use super::relay::Within;
use super::standing::{Ended, FailedDial};

/// Most links of one node.
const LINKS_MAX: usize = 1_024;
/// Most links to one site at once: one stays, others end as soon as both sides have seen them.
const LINKS_OF_SITE_MAX: usize = 8;

/// Where packets of gossip go that came over a link.
pub(super) type Inlet = Arc<dyn Fn(GossipPacket) + Send + Sync>;

/// A link that is open.
pub(super) struct Held {
    pub(super) site: SiteName,
    pub(super) group: GroupId,
    pub(super) node: NodeId,
    pub(super) is_dialled: bool,
    pub(super) rank: LinkRank,
    pub(super) link: SiteLink,
    /// The other site's clock less ours as of its last report, milliseconds.
    pub(super) clock_offset_ms: Option<i64>,
}

#[derive(Default)]
pub(super) struct Table {
    pub(super) links: BTreeMap<u64, Held>,
    last_number: u64,
    pub(super) heard: Heard,
    /// What links carried that have ended.
    pub(super) ended: Ended,
    /// The last dial of each site that made no link, if none did since.
    pub(super) failed_dials: BTreeMap<SiteName, FailedDial>,
}

/// The links of this node. A cheap handle.
#[derive(Clone)]
pub struct SiteLinks {
    shared: Arc<Shared>,
}

struct Shared {
    home: Arc<dyn Home>,
    within: Arc<dyn Within>,
    own: SiteName,
    store: Store,
    table: Mutex<Table>,
    known: watch::Sender<Arc<KnownSites>>,
    servers: RwLock<BTreeMap<SiteTopic, Arc<dyn SiteServer>>>,
    inlet: RwLock<Option<Inlet>>,
    changed: Notify,
}

impl SiteLinks {
    /// No links yet. What is remembered of other sites comes from `store`.
    pub fn new(home: Arc<dyn Home>, within: Arc<dyn Within>, store: Store) -> Self {
        let table = Table { heard: Heard::load(&store), ..Table::default() };
        let own = home.hello().site;
        let shared = Shared {
            home,
            within,
            own,
            store,
            table: Mutex::new(table),
            known: watch::channel(Arc::default()).0,
            servers: RwLock::default(),
            inlet: RwLock::default(),
            changed: Notify::new(),
        };
        super::metrics::describe();
        let links = Self { shared: Arc::new(shared) };
        links.tell_known();
        links
    }

    /// Has `server` answer what other sites ask about `topic`.
    pub fn serve(&self, topic: SiteTopic, server: Arc<dyn SiteServer>) {
        self.shared.servers.write().unwrap_or_else(PoisonError::into_inner).insert(topic, server);
    }

    /// Hands packets of gossip that come over links to `inlet`, which must not wait.
    pub fn set_inlet(&self, inlet: impl Fn(GossipPacket) + Send + Sync + 'static) {
        *self.shared.inlet.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(inlet));
    }

    /// This node's own site.
    pub fn own(&self) -> &SiteName {
        &self.shared.own
    }

    /// What the links know of this node's own site.
    pub(super) fn home(&self) -> &Arc<dyn Home> {
        &self.shared.home
    }

    /// How others of the site are asked.
    pub(super) fn within(&self) -> &Arc<dyn Within> {
        &self.shared.within
    }

    /// Resolves when a link was opened or has ended.
    pub(super) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.shared.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a link that has just been opened; its number, by which it is let go.
    ///
    /// # Errors
    /// The reason to end it.
    pub(super) fn hold(&self, held: Held) -> Result<u64, &'static str> {
        held.link.report(bounded(self.shared.home.report()));
        let number = {
            let mut table = self.table();
            if table.links.len() >= LINKS_MAX {
                return Err("this node holds too many links");
            }
            if table.links.values().filter(|other| other.site == held.site).count() >= LINKS_OF_SITE_MAX {
                return Err("this node holds too many links to its site");
            }
            table.last_number += 1;
            let number = table.last_number;
            table.heard.note(&held.site, held.group, SystemClock.now(), None);
            tracing::info!(site = %held.site, node = %held.node, is_dialled = held.is_dialled, "a link to another site is open");
            table.failed_dials.remove(&held.site);
            table.links.insert(number, held);
            number
        };
        self.tell_known();
        self.shared.changed.notify_one();
        Ok(number)
    }

    /// Notes that a link has ended.
    pub(super) fn let_go(&self, number: u64, reason: &'static str) {
        let held = self.table().links.remove(&number);
        if let Some(held) = held {
            self.table().ended.add(&held);
            tracing::info!(site = %held.site, node = %held.node, reason, "a link to another site has ended");
            self.save();
            self.tell_known();
            self.shared.changed.notify_one();
        }
    }

    /// Notes that the other end of a link, or a node of this site that holds one, has heard `site`.
    pub(super) fn note(&self, site: &SiteName, group: GroupId, at: Timestamp, report: Option<SiteReport>) {
        self.table().heard.note(site, group, at, report);
    }

    /// Forgets the sites that were removed from the fleet, and ends what links to them are left.
    pub(super) async fn forget_removed(&self) {
        let removed = self.shared.home.removed();
        if removed.is_empty() {
            return;
        }
        let links: Vec<_> = {
            let mut table = self.table();
            table.heard.0.retain(|_, heard| !removed.contains(&heard.group));
            let of_removed = table.links.values().filter(|held| removed.contains(&held.group));
            of_removed.map(|held| held.link.clone()).collect()
        };
        for link in links {
            link.end("its site was removed from the fleet").await;
        }
    }

    /// Notes what the other site's clock showed beside ours, as the report that came over link `number` said.
    pub(super) fn note_clock(&self, number: u64, theirs: Timestamp, ours: Timestamp) {
        if let Some(held) = self.table().links.get_mut(&number) {
            let signed = |time: Timestamp| i64::try_from(time.0).unwrap_or(i64::MAX);
            held.clock_offset_ms = Some(signed(theirs).saturating_sub(signed(ours)));
        }
    }

    /// Notes how a dial of `site` at `address` ended.
    pub(super) fn dialled(&self, site: &SiteName, address: String, outcome: &Result<(), Error>) {
        super::metrics::dialled(site, outcome);
        if let Err(error) = outcome {
            let mut table = self.table();
            if table.failed_dials.len() < LINKS_MAX || table.failed_dials.contains_key(site) {
                table.failed_dials.insert(site.clone(), FailedDial::new(address, error));
            }
        }
    }

    /// Writes down when sites were last heard.
    pub(super) fn save(&self) {
        if let Err(error) = self.table().heard.save(&self.shared.store) {
            tracing::warn!(error = %fleet_core::error::chain(&error), "other sites are not remembered");
        }
    }

    /// Tells who watches what is known now, if that is news.
    pub(super) fn tell_known(&self) {
        let home = &self.shared.home;
        let registered = home.contacts().into_iter().map(|(site, contact)| (site, contact.group)).collect();
        let now_known = {
            let table = self.table();
            let is_linked =
                |site: &SiteName| table.links.values().any(|held| held.site == *site) || !home.holders(site).is_empty();
            known(&registered, &table.heard, is_linked)
        };
        self.shared.known.send_if_modified(|known| {
            let is_news = **known != now_known;
            if is_news {
                *known = Arc::new(now_known);
            }
            is_news
        });
    }

    /// The facts of every link, for the plan.
    pub(super) fn facts(&self) -> Vec<LinkFact> {
        let fact = |(number, held): (&u64, &Held)| LinkFact {
            number: *number,
            site: held.site.clone(),
            is_dialled: held.is_dialled,
            rank: held.rank.clone(),
        };
        self.table().links.iter().map(fact).collect()
    }

    /// Where each site may answer: what is recorded, then what it said when it was last heard.
    pub(super) fn addresses(&self) -> BTreeMap<SiteName, Vec<String>> {
        let contacts = self.shared.home.contacts().into_iter();
        let mut addresses: BTreeMap<_, _> = contacts.map(|(site, contact)| (site, contact.addresses)).collect();
        for (site, heard) in &self.table().heard.0 {
            let known: &mut Vec<String> = addresses.entry(site.clone()).or_default();
            for address in &heard.addresses {
                if !known.contains(address) {
                    known.push(address.clone());
                }
            }
        }
        addresses
    }

    /// The sites that were heard once.
    pub(super) fn heard(&self) -> BTreeSet<SiteName> {
        self.table().heard.0.keys().cloned().collect()
    }

    /// The sites this node holds links to.
    pub fn linked(&self) -> Vec<SiteName> {
        let mut sites: Vec<_> = self.table().links.values().map(|held| held.site.clone()).collect();
        sites.sort();
        sites.dedup();
        sites
    }

    /// What this node knows of the sites it holds links to: group, when heard, report.
    pub(crate) fn heard_over_links(&self) -> Vec<(SiteName, GroupId, Timestamp, Arc<SiteReport>)> {
        let table = self.table();
        let linked: BTreeSet<_> = table.links.values().map(|held| &held.site).collect();
        let heard = linked.into_iter().filter_map(|site| Some((site.clone(), table.heard.0.get(site)?)));
        heard.map(|(site, heard)| (site, heard.group, heard.heard_at, Arc::clone(&heard.report))).collect()
    }

    /// The site of the node whose gossip goes to `address`, if a site said so.
    pub fn site_at(&self, address: SocketAddr) -> Option<SiteName> {
        let table = self.table();
        let said = |heard: &HeardSite| heard.report.nodes.iter().any(|node| node.gossip == address);
        let mut claims = table.heard.0.iter().filter(|(_, heard)| said(heard)).map(|(site, _)| site);
        let site = claims.next()?;
        // Private addresses may repeat: a packet that could be for either goes its own way.
        claims.next().is_none().then(|| site.clone())
    }

    /// Where the nodes of `site` that gossip between sites said their packets go.
    pub fn gossip_addresses(&self, site: &SiteName) -> Vec<SocketAddr> {
        let table = self.table();
        let nodes = table.heard.0.get(site).map(|heard| heard.report.nodes.iter().map(|node| node.gossip).collect());
        nodes.unwrap_or_default()
    }

    /// Sends a packet of gossip over a link of this node. False if it holds none to `site`, or too much waits there.
    pub fn send_packet(&self, site: &SiteName, packet: GossipPacket) -> bool {
        self.link_to(site).is_some_and(|link| link.packet(packet))
    }

    /// The best link to `site`, if this node holds one.
    pub(super) fn link_to(&self, site: &SiteName) -> Option<SiteLink> {
        let table = self.table();
        let links = table.links.values().filter(|held| held.site == *site);
        links.min_by_key(|held| held.rank.clone()).map(|held| held.link.clone())
    }

    pub(super) fn link_numbered(&self, number: u64) -> Option<SiteLink> {
        self.table().links.get(&number).map(|held| held.link.clone())
    }

    /// Tells every linked site what this one has.
    pub(super) fn report(&self, report: &SiteReport) {
        for held in self.table().links.values() {
            held.link.report(report.clone());
        }
    }

    /// Ends every link, because the node stops.
    pub async fn stop(&self) {
        self.save();
        let links: Vec<_> = self.table().links.values().map(|held| held.link.clone()).collect();
        for link in links {
            link.end("this node is stopping").await;
        }
    }

    /// Asks `site` over a link of this node only.
    ///
    /// # Errors
    /// `Unavailable` if this node holds none, else as [`SiteLink::ask`].
    pub async fn ask_directly(&self, site: &SiteName, topic: SiteTopic, message: Payload) -> Result<Payload, Error> {
        match self.link_to(site) {
            Some(link) => link.ask(topic, message).await,
            None => Err(self.cut_off(site)),
        }
    }

    fn cut_off(&self, site: &SiteName) -> Error {
        let heard_at = self.table().heard.0.get(site).map(|heard| heard.heard_at);
        unreachable(site, heard_at, SystemClock.now())
    }

    async fn ask_somehow(self, site: SiteName, topic: SiteTopic, message: Payload) -> Result<Payload, Error> {
        if site == self.shared.own {
            return Err(Error::new(ErrorKind::InvalidInput, format!("ask site {site}: it is this node's own")));
        }
        if let Some(link) = self.link_to(&site) {
            return link.ask(topic, message).await;
        }
        if let Some(holder) = self.shared.home.holders(&site).first() {
            return self.shared.within.relay(*holder, site, topic, message).await;
        }
        if !self.shared.known.borrow().contains_key(&site) {
            return Err(Error::new(ErrorKind::NotFound, format!("ask site {site}: no such site is known here")));
        }
        Err(self.cut_off(&site))
    }

    /// Answers what `from` asked of this node: here, or where the topic wants it.
    pub(super) async fn answer(self, from: SiteName, topic: SiteTopic, message: Payload) -> Result<Payload, Error> {
        let is_for_the_leader = match topic {
            SiteTopic::Courier | SiteTopic::Client | SiteTopic::Registry => true,
            SiteTopic::Catalog => false,
        };
        if !is_for_the_leader || self.shared.home.is_leading() {
            return self.answer_here(from, topic, message).await;
        }
        match self.shared.home.other_leader() {
            Some(leader) => self.shared.within.deliver(leader, from, topic, message).await,
            None => {
                let message = format!("answer site {from}: site {} has no leader now", self.shared.own);
                Err(Error::new(ErrorKind::Unavailable, message))
            }
        }
    }

    /// Answers what `from` asked, here.
    ///
    /// # Errors
    /// `Unsupported` if nobody answers about the topic, else what the answer is.
    pub async fn answer_here(&self, from: SiteName, topic: SiteTopic, message: Payload) -> Result<Payload, Error> {
        match self.server(topic) {
            Some(server) => server.answer(from, message).await,
            None => Err(Error::new(ErrorKind::Unsupported, format!("answer site {from}: nobody answers about this"))),
        }
    }

    fn server(&self, topic: SiteTopic) -> Option<Arc<dyn SiteServer>> {
        self.shared.servers.read().unwrap_or_else(PoisonError::into_inner).get(&topic).cloned()
    }

    pub(super) fn packet(&self, packet: GossipPacket) {
        let inlet = self.shared.inlet.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(inlet) = inlet {
            inlet(packet);
        }
    }
}

impl Sites for SiteLinks {
    fn ask(&self, site: SiteName, topic: SiteTopic, message: Payload) -> BoxFuture<'static, Result<Payload, Error>> {
        self.clone().ask_somehow(site, topic, message).boxed()
    }

    fn known(&self) -> watch::Receiver<Arc<KnownSites>> {
        self.shared.known.subscribe()
    }
}
