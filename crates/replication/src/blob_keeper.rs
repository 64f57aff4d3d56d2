//! Brings this node the blobs that its applied state names and that it does not have: a put reaches only the voters of
//! its day, so a new member, or one that was away, fetches the rest.
//!
//! Level-triggered: each walk goes through all names of the state, page by page, whenever the state has changed since the
//! last walk that found everything. A crash loses only the place in the walk; what was fetched stays.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::{Digest, GroupId};
use fleet_store::state::tables::BLOB_USES;
use fleet_store::{StateRead, Store};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::blobs::{self, Held};
use crate::error::Error;
use crate::member::Member;
use crate::snapshot;
use crate::status::Status;

/// How soon it looks again.
const TICK: Duration = Duration::from_millis(250);
/// The longest pause between two walks.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A walk that read for so long is followed by a pause this many times as long.
const PAUSE_PER_READING: u32 = 50;
/// Names read at a time.
const PAGE: usize = 256;
/// Blobs fetched at a time.
const FETCHES_MAX: usize = 4;

/// The task that keeps this node's blobs complete.
pub(crate) struct BlobKeeper {
    pub(crate) member: Arc<Member>,
    pub(crate) store: Store,
    pub(crate) status: watch::Receiver<Status>,
}

/// Some names of the state, and which of them are missing here.
struct Page {
    /// The last of the names; `None` at the end.
    last: Option<Digest>,
    missing: Vec<Digest>,
}

impl BlobKeeper {
    pub(crate) async fn run(self) {
        let mut pause = TICK;
        loop {
            tokio::time::sleep(pause).await;
            pause = TICK;
            if self.status.borrow().is_stopped() {
                return;
            }
            match self.look().await {
                Ok(reading) => pause = (reading * PAUSE_PER_READING).clamp(TICK, PAUSE_MAX),
                // A stalled disk, say. If it is the group's end, its status will tell.
                Err(error) => tracing::warn!(%error, "missing blobs could not be fetched; trying again"),
            }
        }
    }

    /// Walks once if that can find anything. Returns how long it read.
    async fn look(&self) -> Result<Duration, Error> {
        let operation = "look for missing blobs";
        let held = self.member.blobs().held;
        if held.missing == 0 && held.complete_at.is_some() && held.complete_at == self.status.borrow().last_applied {
            return Ok(Duration::ZERO);
        }
        let reader = self.store.reader(self.member.group).map_err(Error::store(operation))?;
        let applied = snapshot::applied_to(&reader).map_err(|error| Error::consensus(operation, &error))?;
        drop(reader);
        let Some(index) = applied.last.map(|last| last.index) else { return Ok(Duration::ZERO) };
        if held.missing == 0 && held.complete_at == Some(index) {
            return Ok(Duration::ZERO);
        }
        // What is named by the state at `index` is found by the walk, or is not named any more when it passes.
        let (missing, reading) = self.walk().await?;
        metrics::gauge!("fleet_group_blobs_missing").set(missing as f64);
        let mut ledger = self.member.blobs();
        let complete_at = if missing == 0 { Some(index) } else { ledger.held.complete_at };
        ledger.held = Held { complete_at, missing };
        Ok(reading)
    }

    /// Fetches what is missing. Returns how many blobs are still missing that others may have, and how long it read.
    async fn walk(&self) -> Result<(u64, Duration), Error> {
        let (mut missing, mut reading, mut after) = (0, Duration::ZERO, None);
        loop {
            let (store, group, began) = (self.store.clone(), self.member.group, self.member.clock.boot_now());
            let read = tokio::task::spawn_blocking(move || read_page(&store, group, after));
            let page = read.await.map_err(|_| Error::Stopped { operation: "look for missing blobs" })??;
            reading += self.member.clock.boot_now().saturating_since(began);
            missing += self.fetch(page.missing).await?;
            match page.last {
                Some(last) => after = Some(last),
                None => return Ok((missing, reading)),
            }
        }
    }

    /// Fetches the blobs named `digests`, a few at a time. Returns how many others may have but did not bring.
    async fn fetch(&self, digests: Vec<Digest>) -> Result<u64, Error> {
        let mut waiting = digests.into_iter();
        let mut calls = JoinSet::new();
        let mut missing = 0;
        loop {
            while calls.len() < FETCHES_MAX
                && let Some(digest) = waiting.next()
            {
                let (member, store) = (Arc::clone(&self.member), self.store.clone());
                let status = self.status.borrow().clone();
                calls.spawn(async move {
                    let search = blobs::search(&member, &store, &status, digest).await?;
                    if search.is_lost(&status.voter_sets) {
                        tracing::error!(%digest, "a majority of the voters does not have a blob that a job needs");
                        return Ok(true);
                    }
                    Ok::<bool, Error>(search.content.is_some())
                });
            }
            match calls.join_next().await {
                Some(Ok(Ok(true))) => {}
                Some(Ok(Ok(false)) | Err(_)) => missing += 1,
                Some(Ok(Err(error))) => return Err(error),
                None => return Ok(missing),
            }
        }
    }
}

fn read_page(store: &Store, group: GroupId, after: Option<Digest>) -> Result<Page, Error> {
    let operation = "look for missing blobs";
    let reader = store.reader(group).map_err(Error::store(operation))?;
    let rows = reader.scan(&BLOB_USES, &(), after.as_ref(), PAGE).map_err(Error::store(operation))?;
    drop(reader);
    let last = rows.last().map(|(digest, _)| *digest);
    let named = rows.into_iter().filter(|(_, uses)| uses.rows > 0).map(|(digest, _)| digest).collect();
    let missing = store.missing_blobs(named).map_err(Error::store(operation))?;
    Ok(Page { last, missing })
}
