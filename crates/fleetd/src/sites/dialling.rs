//! Carries the dial plan out, tells linked sites what this one has, and asks within the site what other nodes' links know.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleet_core::{Error, SiteName};
use fleet_node::site_link::{Dial, DialPlan, SiteReport, Situation, bounded};
use futures_util::future::join_all;
use rand::RngExt;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::hub::SiteLinks;
use super::stream::dial;
use crate::ports::Peers;

/// How often everything is looked at, whether or not something was announced.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often linked sites are told what this one has, though nothing changed.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// How often other nodes of the site are asked what their links know.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How often it is written down when sites were last heard.
const SAVE_EVERY: Duration = Duration::from_secs(30);

/// How a dial ended.
type Dialled = (SiteName, String, Result<(), Error>);

/// Dials and reports until it is dropped.
pub async fn run(links: SiteLinks, peers: Peers) {
    let asking = ask_within(links.clone());
    let dialling = Dialling {
        plan: DialPlan::new(links.own().clone()),
        began: Instant::now(),
        dials: JoinSet::new(),
        linked: BTreeSet::new(),
        reported: None,
        saved_at: Duration::ZERO,
        links,
        peers,
    };
    tokio::join!(asking, dialling.run());
}

struct Dialling {
    links: SiteLinks,
    peers: Peers,
    plan: DialPlan,
    began: Instant,
    dials: JoinSet<Dialled>,
    linked: BTreeSet<SiteName>,
    reported: Option<(Duration, SiteReport)>,
    saved_at: Duration,
}

impl Dialling {
    async fn run(mut self) {
        loop {
            self.look().await;
            tokio::select! {
                () = self.links.changed() => {}
                Some(dialled) = self.dials.join_next() => self.dialled(dialled),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    async fn look(&mut self) {
        let now = self.began.elapsed();
        self.links.forget_removed().await;
        let linked: BTreeSet<_> = self.links.linked().into_iter().collect();
        for site in self.linked.difference(&linked) {
            self.plan.ended(now, site, jitter());
        }
        self.linked = linked;
        let sites = addresses(&self.links);
        let home = self.links.home();
        let held_elsewhere = sites.keys().filter(|site| !home.holders(site).is_empty()).cloned().collect();
        let situation = Situation {
            is_leading: home.is_leading(),
            sites: &sites,
            links: &self.links.facts(),
            held_elsewhere: &held_elsewhere,
        };
        for action in self.plan.next(now, &situation) {
            match action {
                Dial::Dial { site, address } => self.dial(site, address),
                Dial::End { number, reason } => {
                    if let Some(link) = self.links.link_numbered(number) {
                        link.end(reason).await;
                    }
                }
            }
        }
        self.report(now);
        self.links.tell_known();
        if now.saturating_sub(self.saved_at) >= SAVE_EVERY && !self.linked.is_empty() {
            self.saved_at = now;
            self.links.save();
        }
    }

    fn dial(&mut self, site: SiteName, address: String) {
        let (links, peers) = (self.links.clone(), self.peers.clone());
        self.dials.spawn(async move {
            let issuer = links.home().issuer(&site);
            let channel = peers.dialer().channel_to_site(peers.runtime(), &address, issuer);
            let outcome = match channel {
                Ok(channel) => dial(links, site.clone(), channel).await,
                Err(error) => Err(error),
            };
            (site, address, outcome)
        });
    }

    fn dialled(&mut self, dialled: Result<Dialled, tokio::task::JoinError>) {
        // A dial that panicked is told by the panic hook, and its site is dialled no more until the next start.
        let Ok((site, address, outcome)) = dialled else { return };
        if let Err(error) = &outcome {
            tracing::debug!(%site, address, error = %fleet_core::error::chain(error), "no link to another site");
        }
        self.plan.dialled(self.began.elapsed(), &site, outcome.is_ok(), jitter());
    }

    fn report(&mut self, now: Duration) {
        if self.linked.is_empty() {
            return;
        }
        let report = bounded(self.links.home().report());
        let is_due = self.reported.as_ref().is_none_or(|(at, last)| {
            now.saturating_sub(*at) >= REPORT_EVERY || SiteReport { at: report.at, ..last.clone() } != report
        });
        if is_due {
            self.links.report(&report);
            self.reported = Some((now, report));
        }
    }
}

/// Where each site may answer: what is recorded, then what it said when it was last heard.
fn addresses(links: &SiteLinks) -> BTreeMap<SiteName, Vec<String>> {
    let mut addresses: BTreeMap<_, _> =
        links.home().contacts().into_iter().map(|(site, contact)| (site, contact.addresses)).collect();
    for (site, remembered) in links.remembered_addresses() {
        let known: &mut Vec<String> = addresses.entry(site).or_default();
        for address in remembered {
            if !known.contains(&address) {
                known.push(address);
            }
        }
    }
    addresses
}

/// Asks, for ever, the other nodes of the site that hold links what these know.
async fn ask_within(links: SiteLinks) {
    loop {
        let asked = links.home().all_holders().into_iter().map(|holder| links.within().known(holder));
        for told in join_all(asked).await {
            match told {
                Ok(told) => {
                    for (site, group, heard_at, report) in told {
                        links.note(&site, group, heard_at, Some(report));
                    }
                }
                Err(error) => tracing::debug!(%error, "a node of the site does not say which sites it knows"),
            }
        }
        links.tell_known();
        tokio::time::sleep(ASK_EVERY).await;
    }
}

fn jitter() -> f64 {
    rand::rng().random_range(0.5..1.5)
}
