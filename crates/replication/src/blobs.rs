//! Blobs of a group: on the disks of a majority before an entry names them, and fetched from others where missing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleet_core::{Digest, NodeId};
use fleet_store::Store;
use tokio::task::JoinSet;

use crate::error::Error;
use crate::member::Member;
use crate::network::exchange;
use crate::status::Status;
use crate::wire::{Request, Response};

/// How long one node may take to store or to send a blob.
const BLOB_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether `holders` are a majority of every set of voters.
fn is_majority(voter_sets: &[BTreeSet<NodeId>], holders: &BTreeSet<NodeId>) -> bool {
    voter_sets.iter().all(|set| set.intersection(holders).count() > set.len() / 2)
}

/// Stores `content` here and on as many voters as make a majority durable.
pub(crate) async fn put(member: &Arc<Member>, store: &Store, status: &Status, content: Bytes) -> Result<Digest, Error> {
    let operation = "store a blob";
    let digest = store.put_blob(content.clone()).await.map_err(Error::store(operation))?;
    let mut holders = BTreeSet::from([member.node]);
    let mut calls = JoinSet::new();
    for voter in status.voters().into_iter().filter(|voter| *voter != member.node) {
        let (member, content) = (Arc::clone(member), content.clone());
        calls.spawn(async move { (voter, exchange(&member, voter, Request::PutBlob { content }, BLOB_TIMEOUT).await) });
    }
    while !is_majority(&status.voter_sets, &holders) {
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
    let others = status.leader.into_iter().chain(status.voters()).chain(status.learners.iter().copied());
    let mut asked = BTreeSet::from([member.node]);
    let mut unanswered = false;
    for other in others {
        if !asked.insert(other) {
            continue;
        }
        match exchange(member, other, Request::GetBlob { digest }, BLOB_TIMEOUT).await {
            Ok(Response::Blob(Some(content))) if Digest::of(&content) == digest => {
                store.put_blob(content.clone()).await.map_err(Error::store(operation))?;
                return Ok(Some(content));
            }
            Ok(_) => {}
            Err(_) => unanswered = true,
        }
    }
    if unanswered { Err(Error::NoQuorum { operation }) } else { Ok(None) }
}
