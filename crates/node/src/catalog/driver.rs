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
use super::meeting::Meeting;

/// Most nodes that are told of news at once; the rest hears of it by comparing.
const TOLD_MAX: usize = 64;
/// Of those, how many at a time.
const TOLD_AT_ONCE: usize = 8;
/// How long telling one of them may take.
const TELL_TIMEOUT: Duration = Duration::from_secs(1);

/// How the copies of a site are kept together, or those of two sites.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How often to compare with somebody.
    pub every: Duration,
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
    let (mut told, mut turn) = (0, 0_usize);
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
            _ = ticks.tick() => {
                if let Err(error) = look_after(&catalog, &*peers).await {
                    tracing::warn!(error = fleet_core::error::chain(&error), "the catalog's deletions wait");
                }
                let others = peers.others();
                turn = turn.wrapping_add(1);
                let Some(other) = others.get(turn % others.len().max(1)).copied() else { continue };
                match sync(&catalog, pace, |message| peers.ask(other, message)).await {
                    Ok(()) => counter!("fleet_catalog_syncs_total", "result" => "done").increment(1),
                    Err(error) => {
                        counter!("fleet_catalog_syncs_total", "result" => "failed").increment(1);
                        tracing::debug!(%other, error = fleet_core::error::chain(&error), "catalogs not compared");
                    }
                }
            }
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

/// Brings this copy and the one that `ask` reaches together.
pub(super) async fn sync<Ask>(catalog: &Catalog, pace: Pace, ask: Ask) -> Result<(), Error>
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
        let Some(next) = meeting.heard(&answer).await? else { return Ok(()) };
        question = next;
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
    }
}
