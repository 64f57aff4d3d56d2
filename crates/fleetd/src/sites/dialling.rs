//! Carries the dial plan out, tells linked sites what this one has, and asks within the site what other nodes' links know.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use fleet_core::{Error, ErrorKind, SiteName};
use fleet_node::site_link::{Dial, DialPlan, SiteReport, Situation, bounded};
use futures_util::future::join_all;
use futures_util::stream::{BoxStream, StreamExt};
use rand::RngExt;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::hub::SiteLinks;
use super::stream::dial;
use crate::ports::Peers;

/// How soon after a look the next one follows what has changed at home: while jobs run, much is applied.
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// How often linked sites are told what this one has, though nothing changed.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// How often other nodes of the site are asked what their links know.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How often it is written down when sites were last heard.
const SAVE_EVERY: Duration = Duration::from_secs(30);

/// How a dial ended, with its task, or that it panicked.
type Dialled = Result<(task::Id, Result<(), Error>), JoinError>;

/// Dials and reports until it is dropped.
pub async fn run(links: SiteLinks, peers: Peers) {
    let asking = ask_within(links.clone(), links.home().changes());
    let dialling = Dialling {
        plan: DialPlan::new(links.own().clone()),
        began: Instant::now(),
        dials: JoinSet::new(),
        dialled: HashMap::new(),
        linked: BTreeSet::new(),
        reported: None,
        saved_at: Duration::ZERO,
        changes: links.home().changes(),
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
    dials: JoinSet<Result<(), Error>>,
    /// The site and the address that each of these tasks dials.
    dialled: HashMap<task::Id, (SiteName, String)>,
    linked: BTreeSet<SiteName>,
    reported: Option<(Duration, SiteReport)>,
    saved_at: Duration,
    changes: BoxStream<'static, ()>,
}

impl Dialling {
    async fn run(mut self) {
        loop {
            let looked_at = self.began.elapsed();
            let mut due = self.look().await;
            loop {
                let at = due.map(|due| self.began + due);
                tokio::select! {
                    () = self.links.changed() => break,
                    Some(dialled) = self.dials.join_next_with_id() => {
                        self.dialled(dialled);
                        break;
                    }
                    Some(()) = self.changes.next() => {
                        let soon = looked_at + LOOK_PAUSE;
                        due = Some(due.map_or(soon, |due| due.min(soon)));
                    }
                    () = sleep_until(at.unwrap_or(self.began)), if at.is_some() => break,
                }
            }
        }
    }

    /// Does what is to be done now; when to look again though nothing happens.
    async fn look(&mut self) -> Option<Duration> {
        let now = self.began.elapsed();
        self.links.forget_removed().await;
        let linked: BTreeSet<_> = self.links.linked().into_iter().collect();
        for site in self.linked.difference(&linked) {
            self.plan.ended(now, site, jitter());
        }
        self.linked = linked;
        let (sites, heard) = (self.links.addresses(), self.links.heard());
        let home = self.links.home();
        let held_elsewhere = sites.keys().filter(|site| !home.holders(site).is_empty()).cloned().collect();
        let situation = Situation {
            is_leading: home.is_leading(),
            sites: &sites,
            heard: &heard,
            links: &self.links.facts(),
            held_elsewhere: &held_elsewhere,
        };
        let actions = self.plan.next(now, &situation);
        let dials_at = self.plan.due(&situation);
        for action in actions {
            match action {
                Dial::Dial { site, address } => self.dial(site, address),
                Dial::End { number, reason } => {
                    if let Some(link) = self.links.link_numbered(number) {
                        link.end(reason).await;
                    }
                }
            }
        }
        let reports_at = self.report(now);
        self.links.tell_known();
        if now.saturating_sub(self.saved_at) >= SAVE_EVERY && !self.linked.is_empty() {
            self.saved_at = now;
            self.links.save();
        }
        dials_at.into_iter().chain(reports_at).min()
    }

    fn dial(&mut self, site: SiteName, address: String) {
        let (links, peers) = (self.links.clone(), self.peers.clone());
        let target = (site.clone(), address.clone());
        let task = self.dials.spawn(async move {
            let issuer = links.home().issuer(&site);
            let channel = peers.dialer().channel_to_site(peers.runtime(), &address, issuer)?;
            dial(links, site, channel).await
        });
        self.dialled.insert(task.id(), target);
    }

    fn dialled(&mut self, dialled: Dialled) {
        let (task, outcome) = match dialled {
            Ok(ended) => ended,
            Err(panicked) => {
                let error = Error::new(ErrorKind::Internal, "dial another site: the dial ended in the middle");
                (panicked.id(), Err(error.with_source(panicked)))
            }
        };
        let Some((site, address)) = self.dialled.remove(&task) else { return };
        if let Err(error) = &outcome {
            tracing::debug!(%site, address, error = %fleet_core::error::chain(error), "no link to another site");
        }
        self.links.dialled(&site, address, &outcome);
        self.plan.dialled(self.began.elapsed(), &site, outcome.is_ok(), jitter());
    }

    /// Tells linked sites what this one has, if that is news or long ago; when to tell it again.
    fn report(&mut self, now: Duration) -> Option<Duration> {
        if self.linked.is_empty() {
            return None;
        }
        let report = bounded(self.links.home().report());
        let is_due = self.reported.as_ref().is_none_or(|(at, last)| {
            now.saturating_sub(*at) >= REPORT_EVERY || SiteReport { at: report.at, ..last.clone() } != report
        });
        if is_due {
            self.links.report(&report);
            self.reported = Some((now, report));
        }
        self.reported.as_ref().map(|(at, _)| *at + REPORT_EVERY)
    }
}

/// Asks, for ever, the other nodes of the site that hold links what these know. Where nobody holds any, it sleeps until
/// `changes` says that somebody may.
async fn ask_within(links: SiteLinks, mut changes: BoxStream<'static, ()>) {
    loop {
        let holders = links.home().all_holders();
        if holders.is_empty() {
            match changes.next().await {
                Some(()) => continue,
                None => return,
            }
        }
        let asked = holders.into_iter().map(|holder| links.within().known(holder));
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
