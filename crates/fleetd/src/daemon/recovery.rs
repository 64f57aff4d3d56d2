//! `site recover`: a group that lost its majority for good is founded anew from this node's copy.
//!
//! The request only leaves a mark; the node then goes through a stop and a start, and the start does the work before the
//! group is opened. So nothing of the old epoch runs beside the new one. Dispatch is held until every node's robot was
//! heard, or the operator ends it.

use fleet_core::{Clock, Error, ErrorKind, GroupId, NodeId, SystemClock, Timestamp};
use fleet_replication::recover;
use fleet_store::record::{Hold, NodeStanding};
use fleet_store::state::tables::{KEYRING, SITE};
use fleet_store::state::{jobs, members};
use fleet_store::{StateTransaction, Store};

use super::rejoin;
use crate::identity::DataDir;

/// Name of the store's row that asks for a recovery at the next start.
pub(super) const MARK: &str = "recover";
const ASKED: &[u8] = b"asked";
/// What the row says once it was done, or there is nothing to recover any more.
pub(super) const DONE: &[u8] = b"done";

/// How far apart the generations of gossip keys of two epochs are: more than there are rotations in one.
const GENERATIONS_PER_EPOCH: u64 = 1 << 32;

/// Leaves the mark, durably.
///
/// # Errors
/// If the store cannot be written.
pub(crate) async fn ask(store: &Store) -> Result<(), Error> {
    store
        .put_meta(MARK, ASKED.to_vec())
        .await
        .map_err(|source| Error::new(source.kind(), "mark the site for recovery").with_source(source))
}

/// Does what the marks of the last run ask for: comes back to a group that was founded anew elsewhere, or founds `group`
/// anew. The group must not be open.
pub(super) async fn carry_out(store: &Store, group: GroupId, directory: &DataDir) -> Result<(), Error> {
    rejoin::carry_out(store, group, directory.path()).await?;
    found_anew(store, group).await
}

async fn found_anew(store: &Store, group: GroupId) -> Result<(), Error> {
    let failed = |source: fleet_store::Error| Error::new(source.kind(), "recover the site").with_source(source);
    if store.meta(MARK).map_err(failed)?.as_deref() != Some(ASKED) {
        return Ok(());
    }
    let now = SystemClock.now();
    let facts = vec![(MARK.to_owned(), DONE.to_vec())];
    let recovered = recover(store, group, facts, move |state| hold(state, now))
        .await
        .map_err(|source| Error::new(ErrorKind::FailedPrecondition, "recover the site").with_source(source))?;
    tracing::warn!(
        epoch = recovered.epoch,
        kept = recovered.kept_index,
        "the site's group is founded anew, dispatch is held"
    );
    Ok(())
}

/// Holds dispatch until the robots of all nodes that belong to the site were heard.
fn hold(state: &mut StateTransaction<'_>, since: Timestamp) -> Result<(), fleet_store::Error> {
    let nodes = members::nodes(state)?.into_iter().filter(|node| node.standing != NodeStanding::Removed);
    let mut awaited: Vec<NodeId> = nodes.map(|node| node.id).collect();
    awaited.sort_unstable();
    let mut site = jobs::site(state)?;
    site.hold = Some(Hold { awaited, since });
    state.put(&SITE, &(), &site)?;
    outdate_keyrings(state)
}

/// Puts the generation of the gossip keys past all of the lost group's: nodes that come back with keys it made after this
/// copy was written take these for the newer ones.
fn outdate_keyrings(state: &mut StateTransaction<'_>) -> Result<(), fleet_store::Error> {
    let mut keyring = members::keyring(state)?;
    if keyring.keys.is_empty() {
        return Ok(());
    }
    keyring.generation = (keyring.generation / GENERATIONS_PER_EPOCH + 1) * GENERATIONS_PER_EPOCH;
    state.put(&KEYRING, &(), &keyring)
}

#[cfg(test)]
mod tests {
    use fleet_replication::fsm::{self, EntryPosition};
    use fleet_store::record::{GossipKey, Keyring, NodeRecord, Payload};
    use fleet_store::state::tables::NODES;

    use super::super::trust_tests::profile;
    use super::*;

    const GROUP: GroupId = GroupId::from_bytes([3; 16]);

    fn node(byte: u8, standing: NodeStanding) -> NodeRecord {
        let profile = profile(&format!("node-{byte}"));
        NodeRecord { id: NodeId::from_bytes([byte; 16]), profile, standing, joined_at: Timestamp(1), certificate: None }
    }

    #[tokio::test]
    async fn the_hold_awaits_every_node_that_was_not_removed() {
        let store = Store::in_memory().unwrap();
        let held = store.apply(GROUP, |state| {
            for row in [node(1, NodeStanding::Active), node(2, NodeStanding::Removed), node(3, NodeStanding::Active)] {
                state.put(&NODES, &row.id, &row)?;
            }
            hold(state, Timestamp(5))?;
            // A command on the state must find it as applying leaves it.
            fsm::apply(state, EntryPosition { epoch: 2, term: 1, index: 1 }, &[]).map(drop)
        });
        held.wait().unwrap();
        let site = jobs::site(&store.reader(GROUP).unwrap()).unwrap();
        let awaited = [1, 3].map(|byte| NodeId::from_bytes([byte; 16])).to_vec();
        assert_eq!(site.hold, Some(Hold { awaited, since: Timestamp(5) }), "its own robot is awaited too");
    }

    #[tokio::test]
    async fn gossip_keys_of_a_lost_group_are_older_than_those_of_the_next() {
        let store = Store::in_memory().unwrap();
        let keyring = |generation| {
            let key = GossipKey { key_id: 1, key: Payload::from(vec![7; 32]) };
            Keyring { generation, keys: vec![key] }
        };
        for (before, after) in [(3, 1 << 32), (1 << 32, 2 << 32), ((1 << 32) + 5, 2 << 32)] {
            let held = store.apply(GROUP, move |state| {
                state.put(&KEYRING, &(), &keyring(before))?;
                hold(state, Timestamp(5))
            });
            held.wait().unwrap();
            assert_eq!(members::keyring(&store.reader(GROUP).unwrap()).unwrap(), keyring(after));
        }
    }

    #[tokio::test]
    async fn nothing_is_recovered_without_the_mark_and_a_failure_keeps_it() {
        let store = Store::in_memory().unwrap();
        found_anew(&store, GROUP).await.unwrap();
        ask(&store).await.unwrap();
        let refused = found_anew(&store, GROUP).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::FailedPrecondition);
        assert_eq!(store.meta(MARK).unwrap().as_deref(), Some(ASKED));
    }
}
