//! Blobs of a group: on the disks of a majority before an entry names them, and fetched from others where missing.
//!
//! A put counts only holders that matter when it ends: the voters of that moment, and those that are about to vote. So a
//! change of voters never leaves a blob on a minority.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleet_core::{BootInstant, Digest, NodeId};
use fleet_store::Store;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::Error;
use crate::member::Member;
use crate::network::exchange;
use crate::status::Status;
use crate::wire::{Request, Response};

/// How long one node may take to store or to send a blob.
const BLOB_TIMEOUT: Duration = Duration::from_secs(10);
/// How long after its put a blob may still be named by an entry: another put, then a proposal's deadline.
pub(crate) const NAMED_WITHIN: Duration = Duration::from_secs(15);
/// Most puts that are remembered; no disk takes more of them within [`NAMED_WITHIN`].
const RECENT_PUTS_MAX: usize = 65_536;

/// What a node has of the blobs that its state names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    /// The latest index of a state of whose blobs none was missing here.
    pub(crate) complete_at: Option<u64>,
    /// How many were missing at the last look that others may have.
    pub(crate) missing: u64,
}

impl Held {
    /// Whether nothing was missing at the last look.
    pub(crate) fn is_complete(&self) -> bool {
        self.missing == 0 && self.complete_at.is_some()
    }
}

/// What this node knows of blobs: its own, and on a leader the puts.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// What is here.
    pub(crate) held: Held,
    /// The voters to be, while a change that adds some is prepared: puts must reach a majority of them too.
    joining: Option<BTreeSet<NodeId>>,
    /// Blobs put lately, with when: an entry may name them any moment.
    recent: VecDeque<(Digest, BootInstant)>,
}

impl Ledger {
    /// Puts must reach a majority of `voters` too from now on. Returns those that came to their end before.
    pub(crate) fn begin_joining(&mut self, voters: BTreeSet<NodeId>) -> Vec<(Digest, BootInstant)> {
        self.joining = Some(voters);
        self.recent.iter().copied().collect()
    }

    /// Nobody is about to vote.
    pub(crate) fn end_joining(&mut self) {
        self.joining = None;
    }

    /// Every set of which a majority must hold a blob.
    fn sets(&self, voter_sets: &[BTreeSet<NodeId>]) -> Vec<BTreeSet<NodeId>> {
        voter_sets.iter().chain(&self.joining).cloned().collect()
    }

    /// Whether the put of `digest` is done at `now`, with `holders`. What is done is remembered.
    fn finish_put(
        &mut self,
        digest: Digest,
        voter_sets: &[BTreeSet<NodeId>],
        holders: &BTreeSet<NodeId>,
        now: BootInstant,
    ) -> bool {
        if !is_majority(&self.sets(voter_sets), holders) {
            return false;
        }
        let is_old = |(_, at): &(Digest, BootInstant)| now.saturating_since(*at) >= NAMED_WITHIN;
        while self.recent.len() >= RECENT_PUTS_MAX || self.recent.front().is_some_and(is_old) {
            self.recent.pop_front();
        }
        self.recent.push_back((digest, now));
        true
    }
}

/// Whether `holders` are a majority of every set of voters.
fn is_majority(voter_sets: &[BTreeSet<NodeId>], holders: &BTreeSet<NodeId>) -> bool {
    voter_sets.iter().all(|set| set.intersection(holders).count() > set.len() / 2)
}

/// Stores `content` here and on as many voters as make a majority durable.
pub(crate) async fn put(
    member: &Arc<Member>,
    store: &Store,
    status: &watch::Receiver<Status>,
    content: Bytes,
) -> Result<Digest, Error> {
    let operation = "store a blob";
    let digest = store.put_blob(content.clone()).await.map_err(Error::store(operation))?;
    let mut holders = BTreeSet::from([member.node]);
    let mut asked = holders.clone();
    let mut calls = JoinSet::new();
    loop {
        // Looked at anew each time: the voters may change while the blob is under way.
        let voter_sets = status.borrow().voter_sets.clone();
        let wanted = {
            let mut ledger = member.blobs();
            if ledger.finish_put(digest, &voter_sets, &holders, member.clock.boot_now()) {
                break;
            }
            ledger.sets(&voter_sets)
        };
        for voter in wanted.into_iter().flatten().filter(|voter| asked.insert(*voter)) {
            let (member, content) = (Arc::clone(member), content.clone());
            calls.spawn(
                async move { (voter, exchange(&member, voter, Request::PutBlob { content }, BLOB_TIMEOUT).await) },
            );
        }
        match calls.join_next().await {
            Some(Ok((voter, Ok(Response::BlobKept)))) => {
                holders.insert(voter);
            }
            Some(_) => {}
            None => return Err(Error::NoQuorum { operation }),
        }
    }
    // The others may go on: the more have it, the fewer must fetch it.
    calls.detach_all();
    Ok(digest)
}

/// What came of looking for a blob.
pub(crate) struct Search {
    /// The blob, kept here now.
    pub(crate) content: Option<Bytes>,
    /// Who said that it has none.
    without: BTreeSet<NodeId>,
    /// Whether somebody did not answer.
    is_open: bool,
}

impl Search {
    /// Whether a majority of the voters has no such blob, so that nobody who matters can bring it.
    pub(crate) fn is_lost(&self, voter_sets: &[BTreeSet<NodeId>]) -> bool {
        self.content.is_none() && is_majority(voter_sets, &self.without)
    }
}

/// Looks for the blob named `digest` on every other member; what is found is kept here.
pub(crate) async fn search(
    member: &Arc<Member>,
    store: &Store,
    status: &Status,
    digest: Digest,
) -> Result<Search, Error> {
    let others = status.leader.into_iter().chain(status.voters()).chain(status.learners.iter().copied());
    let mut search = Search { content: None, without: BTreeSet::from([member.node]), is_open: false };
    let mut asked = BTreeSet::from([member.node]);
    for other in others.filter(|other| asked.insert(*other)) {
        match exchange(member, other, Request::GetBlob { digest }, BLOB_TIMEOUT).await {
            Ok(Response::Blob(Some(content))) if Digest::of(&content) == digest => {
                store.put_blob(content.clone()).await.map_err(Error::store("keep a blob"))?;
                search.content = Some(content);
                return Ok(search);
            }
            Ok(Response::Blob(_)) => {
                search.without.insert(other);
            }
            Ok(_) | Err(_) => search.is_open = true,
        }
    }
    Ok(search)
}

/// The content named `digest`: from here, or from another member, then kept here too.
pub(crate) async fn get(
    member: &Arc<Member>,
    store: &Store,
    status: &Status,
    digest: Digest,
) -> Result<Option<Bytes>, Error> {
    let operation = "fetch a blob";
    if let Some(content) = store.blob(digest).map_err(Error::store(operation))? {
        return Ok(Some(content.into()));
    }
    let search = search(member, store, status, digest).await?;
    if search.content.is_none() && search.is_open { Err(Error::NoQuorum { operation }) } else { Ok(search.content) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(numbers: &[u8]) -> BTreeSet<NodeId> {
        numbers.iter().map(|number| NodeId::from_bytes([*number; 16])).collect()
    }

    fn at(seconds: u64) -> BootInstant {
        BootInstant(Duration::from_secs(seconds))
    }

    #[test]
    fn a_put_must_reach_those_who_are_about_to_vote() {
        let mut ledger = Ledger::default();
        let (first, second) = (Digest::of(b"first"), Digest::of(b"second"));
        let voters = [set(&[1])];
        assert!(ledger.finish_put(first, &voters, &set(&[1]), at(1)));
        assert_eq!(ledger.begin_joining(set(&[1, 2, 3])), [(first, at(1))], "these may be on the old voters only");
        assert!(!ledger.finish_put(second, &voters, &set(&[1]), at(2)));
        assert!(ledger.finish_put(second, &voters, &set(&[1, 3]), at(2)));
        ledger.end_joining();
        assert!(ledger.finish_put(second, &voters, &set(&[1]), at(3)));
    }

    #[test]
    fn puts_are_forgotten_once_nothing_can_name_them_anew() {
        let mut ledger = Ledger::default();
        let old = Digest::of(b"old");
        assert!(ledger.finish_put(old, &[set(&[1])], &set(&[1]), at(1)));
        let new = Digest::of(b"new");
        let later = BootInstant(at(1).0 + NAMED_WITHIN);
        assert!(ledger.finish_put(new, &[set(&[1])], &set(&[1]), later));
        assert_eq!(ledger.begin_joining(set(&[1])), [(new, later)]);
    }

    #[test]
    fn a_blob_is_lost_only_where_a_majority_says_so() {
        let search = |without: &[u8]| Search { content: None, without: set(without), is_open: true };
        let voters = [set(&[1, 2, 3])];
        assert!(!search(&[1]).is_lost(&voters), "the others may come back with it");
        assert!(search(&[1, 2]).is_lost(&voters));
    }
}
