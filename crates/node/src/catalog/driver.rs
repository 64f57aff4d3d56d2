//! Keeps this node's copy of the catalog the same as others': offers what is new here at once, and compares with one other
//! node after the other. Between nodes of a site every node does; between sites the two leaders, over their link.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::{Error, ErrorKind, NodeId};
use fleet_store::record::Payload;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use metrics::counter;
use tokio::time::Instant;

use super::handle::Catalog;
use super::meeting::{Heard, Meeting};

/// Most nodes that are told of news at once; the rest hears of it by comparing.
const TOLD_MAX: usize = 64;
/// Of those, how many at a time.
const TOLD_AT_ONCE: usize = 8;
/// How long telling one of them may take.
const TELL_TIMEOUT: Duration = Duration::from_secs(1);

/// How the copies of a site are kept together, or those of two sites.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How often to compare with somebody, as long as copies may differ.
    pub every: Duration,
    /// How often, while each of the others was found the same as this copy is now.
    pub rest: Duration,
    /// How long one question may take.
    pub question_timeout: Duration,
    /// Bytes of rows in one message, about.
    pub room_bytes: usize,
    /// How much longer than the last question took to wait before the next one, in percent: what is left to others.
    pub rest_percent: u32,
}

impl Pace {
    /// Between nodes of a site.
    pub const SITE: Self = Self {
        every: Duration::from_secs(1),
        rest: Duration::from_secs(15),
        question_timeout: Duration::from_secs(5),
        room_bytes: 256 * 1024,
        rest_percent: 0,
    };
}

/// Where other copies are.
pub trait CatalogPeers: Send + Sync + 'static {
    /// The other nodes that can be asked now.
    fn others(&self) -> Vec<NodeId>;

    /// The nodes that belong to the site, removed ones left out: a deletion waits until they know it. `None`: not known now.
    fn members(&self) -> Option<BTreeSet<NodeId>>;

    /// Asks `node`.
    fn ask(&self, node: NodeId, message: Payload) -> BoxFuture<'static, Result<Payload, Error>>;
}

/// Keeps the copy together with those of the other nodes of the site, until it is dropped.
pub async fn run(catalog: Catalog, peers: Arc<dyn CatalogPeers>, pace: Pace) {
    let mut changes = catalog.changes();
    let mut ticks = tokio::time::interval(pace.every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut told, mut rounds, mut compared_at) = (0, Rounds::default(), None::<Instant>);
    loop {
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                if let Err(error) = tell(&catalog, &*peers, &mut told).await {
                    tracing::warn!(error = fleet_core::error::chain(&error), "news of the catalog cannot be told");
                }
            }
            now = ticks.tick() => {
                let (others, revision) = (peers.others(), *catalog.changes().borrow());
                let rested = compared_at.is_none_or(|at| now.saturating_duration_since(at) >= pace.rest);
                if !rested && rounds.is_over(&others, revision) {
                    continue;
                }
                compared_at = Some(now);
                if let Err(error) = look_after(&catalog, &*peers).await {
                    tracing::warn!(error = fleet_core::error::chain(&error), "the catalog's deletions wait");
                }
                let Some(other) = rounds.next(&others) else { continue };
                match sync(&catalog, pace, |message| peers.ask(other, message)).await {
                    Ok(is_same) => {
                        counter!("fleet_catalog_syncs_total", "result" => "done").increment(1);
                        // What was written meanwhile may not be there.
                        let is_same = is_same && *catalog.changes().borrow() == revision;
                        rounds.compared(other, revision, is_same);
                    }
                    Err(error) => {
                        counter!("fleet_catalog_syncs_total", "result" => "failed").increment(1);
                        tracing::debug!(%other, error = fleet_core::error::chain(&error), "catalogs not compared");
                    }
                }
            }
        }
    }
}

/// Whose turn it is to be compared with, and who was found the same. Pure.
#[derive(Debug, Default)]
struct Rounds {
    turn: usize,
    /// What this copy's revision was when those in `same` were found the same.
    revision: u64,
    same: BTreeSet<NodeId>,
}

impl Rounds {
    /// Whether each of `others` was found the same as this copy is at `revision`. Who hears of news that were not told
    /// hears them from whoever has them, whose round is not over before everybody does.
    fn is_over(&self, others: &[NodeId], revision: u64) -> bool {
        (revision == self.revision || others.is_empty()) && others.iter().all(|other| self.same.contains(other))
    }

    /// The next of `others`.
    fn next(&mut self, others: &[NodeId]) -> Option<NodeId> {
        self.turn = self.turn.wrapping_add(1);
        self.same.retain(|node| others.contains(node));
        others.get(self.turn % others.len().max(1)).copied()
    }

    /// Notes whether `other` was the same as this copy at `revision`.
    fn compared(&mut self, other: NodeId, revision: u64, is_same: bool) {
        if revision != self.revision {
            self.same.clear();
            self.revision = revision;
        }
        if is_same {
            self.same.insert(other);
        } else {
            self.same.remove(&other);
        }
    }
}

async fn look_after(catalog: &Catalog, peers: &dyn CatalogPeers) -> Result<(), Error> {
    match peers.members() {
        Some(members) => catalog.look_after(members).await,
        None => Ok(()),
    }
}

/// Offers what this node wrote since the last time to everybody. Who does not hear it finds it by comparing.
async fn tell(catalog: &Catalog, peers: &dyn CatalogPeers, told: &mut u64) -> Result<(), Error> {
    let (news, last) = catalog.news(*told)?;
    *told = last;
    let Some(news) = news else { return Ok(()) };
    let calls = peers.others().into_iter().take(TOLD_MAX).map(|other| {
        let call = peers.ask(other, news.clone());
        async move {
            if let Ok(Err(error)) = tokio::time::timeout(TELL_TIMEOUT, call).await {
                tracing::debug!(%other, %error, "news of the catalog not told");
            }
        }
    });
    stream::iter(calls).buffer_unordered(TOLD_AT_ONCE).collect::<()>().await;
    Ok(())
}

/// Brings this copy and the one that `ask` reaches together; whether they are the same now.
pub(super) async fn sync<Ask>(catalog: &Catalog, pace: Pace, ask: Ask) -> Result<bool, Error>
where
    Ask: Fn(Payload) -> BoxFuture<'static, Result<Payload, Error>>,
{
    let (mut meeting, mut question) = Meeting::begin(catalog.clone(), pace.room_bytes)?;
    loop {
        let asked_at = Instant::now();
        let answer = tokio::time::timeout(pace.question_timeout, ask(question)).await.map_err(|source| {
            Error::new(ErrorKind::DeadlineExceeded, "ask another node about the catalog").with_source(source)
        })??;
        let rest = asked_at.elapsed() * pace.rest_percent / 100;
        question = match meeting.heard(&answer).await? {
            Heard::Next(next) => next,
            Heard::Over { is_same } => return Ok(is_same),
        };
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_over_once_everybody_is_the_same_and_begins_anew_with_news_and_with_who_comes() {
        let nodes: Vec<NodeId> = (1..=3).map(|byte| NodeId::from_bytes([byte; 16])).collect();
        let mut rounds = Rounds::default();
        assert!(rounds.is_over(&[], 7), "a node alone has nobody to compare with");
        assert!(!rounds.is_over(&nodes[..2], 7));
        for _ in 0..2 {
            let other = rounds.next(&nodes[..2]).unwrap();
            rounds.compared(other, 7, true);
        }
        assert!(rounds.is_over(&nodes[..2], 7));
        assert!(!rounds.is_over(&nodes[..2], 8), "this copy has changed");
        assert!(!rounds.is_over(&nodes, 7), "somebody came");
        rounds.compared(nodes[0], 7, false);
        assert!(!rounds.is_over(&nodes[..2], 7), "one of them has changed");
        rounds.compared(nodes[0], 8, true);
        assert!(!rounds.is_over(&nodes[..2], 8), "the other one was the same as this copy was before");
        rounds.next(&nodes[1..]);
        rounds.compared(nodes[1], 8, true);
        assert!(!rounds.is_over(&nodes[..2], 8), "who went away may come back with other things");
    }
}
