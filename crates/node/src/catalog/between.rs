//! The catalogs of two sites: brought together by their leaders, over whatever link there is between them, one question at
//! a time and with rests, so that jobs have the link first.
//!
//! Both leaders may begin. Who hears the other one at work leaves it to that one; where both begin at once, the site whose
//! name comes first goes on. That saves double work and is not needed for anything else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleet_core::limits::CATALOG_FRAME_BYTES;
use fleet_core::{Error, ErrorKind, SiteName};
use fleet_store::record::Payload;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use metrics::counter;
use tokio::time::{Instant, MissedTickBehavior};

use super::driver::{Pace, sync};
use super::handle::Catalog;
use crate::ports::{KnownSites, SiteServer, SiteTopic, Sites};

/// How often to look whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Most sites that are compared with at once.
const AT_ONCE: usize = 4;

/// What two sites do at rest, and how they share their link with what is more urgent.
const PACE: Pace = Pace {
    every: Duration::from_secs(10),
    rest: Duration::from_secs(10),
    question_timeout: Duration::from_secs(60),
    room_bytes: CATALOG_FRAME_BYTES,
    rest_percent: 12,
};
/// How long after the other side was heard it counts as at work, and how soon after a contact news are told.
const NEWS_AFTER: Duration = Duration::from_secs(2);

/// How things stand with another site.
#[derive(Clone, Copy, Debug, Default)]
struct Contact {
    /// When it last asked here.
    heard_at: Option<Instant>,
    /// When this side last began or ended a run.
    ran_at: Option<Instant>,
    /// What this copy's revision was when the two were last brought together.
    revision: Option<u64>,
    /// When they last were.
    together_at: Option<Instant>,
}

impl Contact {
    /// Whether to begin a run at `now`, where this copy is at `revision`.
    fn is_due(&self, now: Instant, revision: u64) -> bool {
        let pause = if self.revision == Some(revision) { PACE.every } else { NEWS_AFTER };
        self.heard_at.max(self.ran_at).is_none_or(|last| now.saturating_duration_since(last) >= pause)
    }

    /// Whether the other side is at work at `now`.
    fn is_at_work(&self, now: Instant) -> bool {
        self.heard_at.is_some_and(|heard| now.saturating_duration_since(heard) < NEWS_AFTER)
    }
}

/// Keeps this site's catalog together with those of others. A cheap handle.
#[derive(Clone)]
pub struct Between {
    shared: Arc<Shared>,
}

struct Shared {
    catalog: Catalog,
    own: SiteName,
    contacts: Mutex<BTreeMap<SiteName, Contact>>,
}

impl Between {
    /// Between the catalog of `own` and those of other sites.
    pub fn new(catalog: Catalog, own: SiteName) -> Self {
        Self { shared: Arc::new(Shared { catalog, own, contacts: Mutex::default() }) }
    }

    /// Compares with every linked site of `sites` while `leads` says that this node leads its own, until it is dropped.
    pub async fn run(self, sites: Arc<dyn Sites>, leads: impl Fn() -> bool + Send) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut running = FuturesUnordered::new();
        let mut busy: Vec<SiteName> = Vec::new();
        let mut known = sites.known();
        loop {
            let is_alone = known.borrow_and_update().is_empty();
            tokio::select! {
                Some(site) = running.next() => busy.retain(|other| *other != site),
                changed = known.changed(), if is_alone => if changed.is_err() { return },
                _ = ticks.tick(), if !is_alone => {
                    if !leads() {
                        // Whoever leads now takes it up where it is.
                        running.clear();
                        busy.clear();
                        continue;
                    }
                    let now_known = known.borrow().clone();
                    for site in self.due(&now_known, &busy) {
                        busy.push(site.clone());
                        running.push(self.clone().bring_together(Arc::clone(&sites), site));
                    }
                }
            }
        }
    }

    /// How long ago the catalogs of this site and of `site` were last compared, as far as this node knows.
    pub fn compared(&self, site: &SiteName) -> Option<Duration> {
        let contacts = self.shared.contacts.lock().unwrap_or_else(PoisonError::into_inner);
        let contact = contacts.get(site)?;
        contact.together_at.max(contact.heard_at).map(|at| Instant::now().saturating_duration_since(at))
    }

    fn due(&self, known: &KnownSites, busy: &[SiteName]) -> Vec<SiteName> {
        let (now, revision) = (Instant::now(), *self.shared.catalog.changes().borrow());
        let is_due = |site: &SiteName| self.contact(site, |contact| contact.is_due(now, revision));
        let linked = known.iter().filter(|(_, known)| known.is_linked).map(|(site, _)| site);
        let idle = linked.filter(|site| !busy.contains(site) && is_due(site));
        idle.take(AT_ONCE.saturating_sub(busy.len())).cloned().collect()
    }

    /// One run with `site`, whose name it gives back.
    async fn bring_together(self, sites: Arc<dyn Sites>, site: SiteName) -> SiteName {
        // Taken first: what changes meanwhile is told next time.
        let revision = *self.shared.catalog.changes().borrow();
        let began = Instant::now();
        self.contact(&site, |contact| contact.ran_at = Some(began));
        let ask = |message| self.ask(&sites, &site, message);
        let outcome = sync(&self.shared.catalog, PACE, ask).await;
        let result = if outcome.is_ok() { "done" } else { "failed" };
        counter!("fleet_catalog_site_syncs_total", "result" => result).increment(1);
        self.contact(&site, |contact| {
            contact.ran_at = Some(Instant::now());
            if outcome.is_ok() {
                contact.revision = Some(revision);
                contact.together_at = contact.ran_at;
            }
        });
        if let Err(error) = outcome {
            tracing::debug!(%site, error = fleet_core::error::chain(&error), "catalogs of two sites not brought together");
        }
        site
    }

    fn ask(
        &self,
        sites: &Arc<dyn Sites>,
        site: &SiteName,
        message: Payload,
    ) -> BoxFuture<'static, Result<Payload, Error>> {
        let leaves_it = *site < self.shared.own && self.contact(site, |contact| contact.is_at_work(Instant::now()));
        if leaves_it {
            let message = format!("bring catalogs together: site {site} is at it already");
            return Box::pin(std::future::ready(Err(Error::new(ErrorKind::Conflict, message))));
        }
        counter!("fleet_catalog_site_bytes_sent_total").increment(message.as_slice().len() as u64);
        sites.ask(site.clone(), SiteTopic::Catalog, message)
    }

    /// Looks at, or changes, how things stand with `site`.
    fn contact<T>(&self, site: &SiteName, look: impl FnOnce(&mut Contact) -> T) -> T {
        let mut contacts = self.shared.contacts.lock().unwrap_or_else(PoisonError::into_inner);
        look(contacts.entry(site.clone()).or_default())
    }
}

impl SiteServer for Between {
    fn answer(&self, from: SiteName, message: Payload) -> BoxFuture<'static, Result<Payload, Error>> {
        self.contact(&from, |contact| contact.heard_at = Some(Instant::now()));
        let catalog = self.shared.catalog.clone();
        Box::pin(async move { catalog.answer(&message).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_site_at_rest_is_asked_now_and_then_and_news_are_told_soon() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut contact = Contact::default();
        assert!(contact.is_due(begin, 0), "never met");
        contact.ran_at = Some(begin);
        assert!(contact.is_due(at(2), 0) && !contact.is_due(at(1), 0), "a run that failed");
        contact.revision = Some(7);
        assert!(!contact.is_due(at(9), 7) && contact.is_due(at(10), 7), "nothing is new");
        assert!(contact.is_due(at(2), 8), "something is");
        contact.heard_at = Some(at(100));
        assert!(contact.is_at_work(at(101)) && !contact.is_due(at(101), 8), "it asks here itself");
        assert!(!contact.is_at_work(at(102)) && contact.is_due(at(102), 8));
    }
}
